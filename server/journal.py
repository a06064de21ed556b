"""The coordinator's journal of a run: one SQLite file from which a killed run continues with the same result.

A round is committed whole or not at all (write-ahead log, synchronous=FULL). Of the weights only those of the last and
of the best round are kept. Every value is stored behind its SHA-256, so that a damaged one is refused, not trained on.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from protocol.errors import RunFolderError, StorageError

_DIGEST = hashlib.sha256().digest_size
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY)
"""Errors of a disk or of who may write on it; the others are of the file itself."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS totals (stage TEXT PRIMARY KEY, arrays BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rounds (
    stage TEXT, round INTEGER, metrics TEXT NOT NULL, weights BLOB, strategy BLOB, PRIMARY KEY (stage, round)) STRICT;
CREATE TABLE IF NOT EXISTS holder_states (
    stage TEXT, holder TEXT, state BLOB NOT NULL, PRIMARY KEY (stage, holder)) STRICT;
CREATE TABLE IF NOT EXISTS witnesses (holder TEXT PRIMARY KEY, length INTEGER NOT NULL, head TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS mail (stage TEXT, phase TEXT, parcels BLOB NOT NULL, PRIMARY KEY (stage, phase)) STRICT;
CREATE TABLE IF NOT EXISTS results (stage TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS starts (stage TEXT PRIMARY KEY, weights BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    place INTEGER PRIMARY KEY, stage TEXT NOT NULL, session BLOB NOT NULL, record BLOB NOT NULL,
    UNIQUE (stage, session)) STRICT;
CREATE TABLE IF NOT EXISTS sums (
    stage TEXT, session BLOB, sequence INTEGER, record BLOB NOT NULL, PRIMARY KEY (stage, session, sequence)) STRICT;
CREATE TABLE IF NOT EXISTS closings (stage TEXT, label TEXT, holders TEXT NOT NULL, PRIMARY KEY (stage, label)) STRICT;
CREATE TABLE IF NOT EXISTS openings (
    stage TEXT, session BLOB, sequence INTEGER, holder TEXT, opening BLOB NOT NULL,
    PRIMARY KEY (stage, session, sequence, holder)) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What one round came to.

    `loss` is None where training is private, `error` (the validation error) where nothing was held out.
    """

    round: int
    loss: float | None
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a stage stands: its last round, its best round, and the weights of both."""

    records: tuple[RoundRecord, ...]
    weights: dict[str, np.ndarray]
    strategy: dict[str, np.ndarray]
    best_round: int
    best_weights: dict[str, np.ndarray]


class Journal:
    """Append-mostly store of one run. Use as a context manager.

    Args:
        path: The SQLite file; created if absent.
        run: Identity of the run.
        plan_hash: Hash of the plan; a journal of another plan or run is refused.
        read_only: Read a journal that is there and change nothing.

    Raises:
        RunFolderError: the file is no journal, is damaged, or belongs to another run or plan.
        StorageError: it cannot be written; also raised on leaving, for whatever could not be written meanwhile.
    """

    def __init__(self, path: Path, *, run: str, plan_hash: str, read_only: bool = False) -> None:
        self._path = path
        if read_only and not path.is_file():
            raise RunFolderError(f"{path} is not there; give the folder of a run")
        # Flower's Ray engine runs the coordinator in a thread of its own; still only one thread at a time uses it.
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?{_mode(path, read_only=read_only)}", uri=True, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            self._open(run, plan_hash, read_only=read_only)
        except sqlite3.DatabaseError as error:
            self.__exit__(type(error), error, None)
        except RunFolderError:
            self._db.close()
            raise

    def _open(self, run: str, plan_hash: str, *, read_only: bool) -> None:
        if not read_only:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
        if (found := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise self._unreadable(found)
        if not read_only:
            self._db.executescript(_SCHEMA)
            with self._transaction():
                for key, value in {"run": run, "plan_hash": plan_hash}.items():
                    self._db.execute("INSERT OR IGNORE INTO run VALUES (?, ?)", (key, value))
        known = dict(self._db.execute("SELECT key, value FROM run"))
        if known != {"run": run, "plan_hash": plan_hash}:
            raise RunFolderError(
                f"{self._path} belongs to run {known.get('run')} of plan {known.get('plan_hash', '')[:12]}, "
                f"not to plan {plan_hash[:12]}; resume with the run's own plan or choose another folder"
            )

    def _unreadable(self, problem: str) -> RunFolderError:
        return RunFolderError(f"{self._path} is not a readable journal ({problem}); start a new run")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _NO_ROOM:
            raise StorageError(f"{self._path} cannot be written ({error}); make room, then resume the run") from None
        if isinstance(error, sqlite3.DatabaseError):
            raise self._unreadable(str(error)) from None

    def save_totals(self, stage: str, totals: Mapping[str, np.ndarray]) -> None:
        """Store the sums of a stage's federated statistics."""
        self._db.execute("INSERT OR REPLACE INTO totals VALUES (?, ?)", (stage, _pack(totals)))

    def totals(self, stage: str) -> dict[str, np.ndarray] | None:
        """The sums of a stage's federated statistics, None if they were not completed."""
        row = self._db.execute("SELECT arrays FROM totals WHERE stage = ?", (stage,)).fetchone()
        return None if row is None else self._arrays(row[0])

    def save_start(self, stage: str, weights: Mapping[str, np.ndarray]) -> None:
        """Store the weights that a stage begins with, from which its masked sums lead to those it ends with."""
        self._db.execute("INSERT OR REPLACE INTO starts VALUES (?, ?)", (stage, _pack(weights)))

    def start(self, stage: str) -> dict[str, np.ndarray] | None:
        """The weights that a stage began with, None if they were not stored."""
        row = self._db.execute("SELECT weights FROM starts WHERE stage = ?", (stage,)).fetchone()
        return None if row is None else self._arrays(row[0])

    def save_mail(self, stage: str, phase: str, mail: Mapping[str, Mapping[str, bytes]]) -> None:
        """Store what every holder (sender) sent to every other (recipient) in a phase; all of it or nothing."""
        parcels = {json.dumps([sender, to]): p for sender, sent in mail.items() for to, p in sent.items()}
        arrays = {name: np.frombuffer(parcel, np.uint8) for name, parcel in parcels.items()}
        self._db.execute("INSERT OR REPLACE INTO mail VALUES (?, ?, ?)", (stage, phase, _pack(arrays)))

    def mail(self, stage: str, phase: str) -> dict[str, dict[str, bytes]] | None:
        """What was sent in a phase, by sender and recipient; None if the phase was not completed."""
        row = self._db.execute("SELECT parcels FROM mail WHERE stage = ? AND phase = ?", (stage, phase)).fetchone()
        if row is None:
            return None
        mail: dict[str, dict[str, bytes]] = {}
        for name, parcel in sorted(self._arrays(row[0]).items()):
            sender, recipient = json.loads(name)
            mail.setdefault(sender, {})[recipient] = parcel.tobytes()
        return mail

    def commit_round(
        self,
        stage: str,
        record: RoundRecord,
        *,
        best_round: int,
        weights: Mapping[str, np.ndarray],
        strategy: Mapping[str, np.ndarray],
        holder_states: Mapping[str, bytes],
    ) -> None:
        """Store a finished round; all of it or nothing."""
        metrics = json.dumps({"loss": record.loss, "error": record.error})
        with self._transaction():
            self._db.execute(
                "INSERT INTO rounds VALUES (?, ?, ?, ?, ?)",
                (stage, record.round, metrics, _pack(weights), _pack(strategy)),
            )
            self._db.execute(
                "UPDATE rounds SET weights = NULL, strategy = NULL WHERE stage = ? AND round NOT IN (?, ?)",
                (stage, record.round, best_round),
            )
            for holder, state in holder_states.items():
                row = (stage, holder, _closed(state))
                self._db.execute("INSERT OR REPLACE INTO holder_states VALUES (?, ?, ?)", row)

    def checkpoint(self, stage: str) -> Checkpoint | None:
        """The state after the last committed round of a stage, None if there is none."""
        rows = self._db.execute("SELECT round, metrics FROM rounds WHERE stage = ? ORDER BY round", (stage,)).fetchall()
        if not rows:
            return None
        records = tuple(self._round(number, metrics) for number, metrics in rows)
        best = best_of(records)
        last_weights, strategy = self._weights(stage, records[-1].round)
        return Checkpoint(
            records=records,
            weights=last_weights,
            strategy=strategy,
            best_round=best,
            best_weights=self._weights(stage, best)[0] if best else last_weights,
        )

    def holder_states(self, stage: str) -> dict[str, bytes]:
        """Training states of simulated holders after the last committed round, by holder."""
        rows = self._db.execute("SELECT holder, state FROM holder_states WHERE stage = ?", (stage,))
        return {holder: self._opened(state) for holder, state in rows}

    def save_result(self, stage: str, value: bytes) -> None:
        """Store what a finished stage came to."""
        self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (stage, _closed(value)))

    def result(self, stage: str) -> bytes | None:
        """What a finished stage came to, None if it has not finished."""
        row = self._db.execute("SELECT value FROM results WHERE stage = ?", (stage,)).fetchone()
        return None if row is None else self._opened(row[0])

    def results(self) -> dict[str, bytes]:
        """What every finished stage came to, by name."""
        rows = self._db.execute("SELECT stage, value FROM results ORDER BY stage").fetchall()
        return {stage: self._opened(value) for stage, value in rows}

    def save_session(self, stage: str, session: bytes, record: bytes) -> None:
        """Store how a session of masked sums began. A run that was resumed has several.

        Raises:
            RunFolderError: the session is there already; what was recorded is never replaced.
        """
        self._record("INSERT INTO sessions (stage, session, record) VALUES (?, ?, ?)", stage, session, _closed(record))

    def save_sum(self, stage: str, session: bytes, sequence: int, record: bytes) -> None:
        """Store what a masked sum was made of.

        Raises:
            RunFolderError: a sum of this number is there already; what was recorded is never replaced.
        """
        self._record("INSERT INTO sums VALUES (?, ?, ?, ?)", stage, session, sequence, _closed(record))

    def save_closing(self, stage: str, label: str, holders: Sequence[str]) -> None:
        """Remember over whom a sum is about to be opened, before anybody helps to: it is never opened over others."""
        row = (stage, label, json.dumps(list(holders)))
        self._db.execute("INSERT OR REPLACE INTO closings VALUES (?, ?, ?)", row)

    def closing(self, stage: str, label: str) -> tuple[str, ...] | None:
        """Over whom a sum was about to be opened, None if it never came to that."""
        query = "SELECT holders FROM closings WHERE stage = ? AND label = ?"
        row = self._db.execute(query, (stage, label)).fetchone()
        return None if row is None else tuple(json.loads(row[0]))

    def closings(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Over whom each sum was opened: stage, what was summed, holders. Statistics are of no stage, but of all."""
        rows = self._db.execute("SELECT stage, label, holders FROM closings ORDER BY rowid").fetchall()
        return [(stage, label, tuple(json.loads(holders))) for stage, label, holders in rows]

    def masked_stages(self) -> tuple[str, ...]:
        """Stages that have sessions of masked sums, by their first sessions; then those with sums alone."""
        sessions = self._db.execute("SELECT stage FROM sessions GROUP BY stage ORDER BY min(place)")
        sums = self._db.execute("SELECT DISTINCT stage FROM sums ORDER BY stage")
        return tuple(dict.fromkeys(stage for rows in (sessions, sums) for (stage,) in rows))

    def sessions(self, stage: str) -> list[tuple[bytes, bytes]]:
        """A stage's sessions and how each began, in the order in which they were made."""
        rows = self._db.execute("SELECT session, record FROM sessions WHERE stage = ? ORDER BY place", (stage,))
        return [(session, self._opened(record)) for session, record in rows]

    def sums(self, stage: str, session: bytes) -> Iterator[tuple[int, bytes]]:
        """The masked sums of a session with their numbers, in order, one at a time: a record can be large."""
        for sequence in [number for there, number in self.masked_sums(stage) if there == session]:
            yield sequence, self.masked_sum(stage, session, sequence)

    def masked_sums(self, stage: str) -> list[tuple[bytes, int]]:
        """Session and number of every masked sum of a stage, in the order in which they were opened."""
        rows = self._db.execute("SELECT session, sequence FROM sums WHERE stage = ? ORDER BY rowid", (stage,))
        return [(session, sequence) for session, sequence in rows]

    def masked_sum(self, stage: str, session: bytes, sequence: int) -> bytes:
        """What one masked sum was made of.

        Raises:
            RunFolderError: there is none of this number.
        """
        query = "SELECT record FROM sums WHERE stage = ? AND session = ? AND sequence = ?"
        row = self._db.execute(query, (stage, session, sequence)).fetchone()
        if row is None:
            raise self._unreadable(f"sum {sequence} of '{stage}' is not there")
        return self._opened(row[0])

    def save_opening(self, stage: str, session: bytes, sequence: int, holder: str, opening: bytes) -> None:
        """Store what a holder showed of a sum under dispute: evidence, which is never replaced.

        Raises:
            RunFolderError: the holder has shown its part of this sum before.
        """
        statement = "INSERT INTO openings VALUES (?, ?, ?, ?, ?)"
        self._record(statement, stage, session, sequence, holder, _closed(opening))

    def openings(self, stage: str, session: bytes, sequence: int) -> dict[str, bytes]:
        """What holders showed of a sum under dispute, by name."""
        query = "SELECT holder, opening FROM openings WHERE stage = ? AND session = ? AND sequence = ? ORDER BY holder"
        rows = self._db.execute(query, (stage, session, sequence)).fetchall()
        return {holder: self._opened(opening) for holder, opening in rows}

    def _record(self, statement: str, stage: str, *values: bytes | int | str) -> None:
        try:
            self._db.execute(statement, (stage, *values))
        except sqlite3.IntegrityError:
            raise RunFolderError(
                f"{self._path} has this part of '{stage}' already; start a new session, as resuming a run does"
            ) from None

    def save_witness(self, holder: str, length: int, head: str) -> None:
        """Remember where a holder's ledger stood when it last answered."""
        self._db.execute("INSERT OR REPLACE INTO witnesses VALUES (?, ?, ?)", (holder, length, head))

    def witnesses(self) -> dict[str, tuple[int, str]]:
        """Length and head of every ledger that was ever seen, by holder."""
        rows = self._db.execute("SELECT holder, length, head FROM witnesses ORDER BY holder").fetchall()
        return {holder: (length, head) for holder, length, head in rows}

    def _round(self, number: int, metrics: str) -> RoundRecord:
        try:
            return RoundRecord(round=number, **json.loads(metrics))
        except (ValueError, TypeError):
            raise self._unreadable(f"the figures of round {number} are none") from None

    def _weights(self, stage: str, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        row = self._db.execute(
            "SELECT weights, strategy FROM rounds WHERE stage = ? AND round = ?", (stage, number)
        ).fetchone()
        if row is None or None in row:
            raise self._unreadable(f"the weights of round {number} are not there")
        return self._arrays(row[0]), self._arrays(row[1])

    def _opened(self, blob: bytes) -> bytes:
        """What `_closed` stored, after comparing it with its digest."""
        digest, value = blob[:_DIGEST], blob[_DIGEST:]
        if hashlib.sha256(value).digest() != digest:
            raise self._unreadable("a stored value differs from its SHA-256")
        return value

    def _arrays(self, blob: bytes) -> dict[str, np.ndarray]:
        """What `_pack` stored."""
        value = self._opened(blob)
        try:
            return load(value)
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise self._unreadable("stored arrays are none") from None

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # commits or rolls back on leaving the with block


def _mode(path: Path, *, read_only: bool) -> str:
    """How SQLite opens the file; one that is only read leaves no files beside it, unless a killed writer left some."""
    if not read_only:
        return "mode=rwc"
    return "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"


def done_key(stage: str) -> str:
    """Under which name a deployed run stores what a stage came to, once it is done."""
    return f"done, {stage}"


def best_of(records: tuple[RoundRecord, ...]) -> int:
    """Number of the round with the lowest validation error, the first one on a tie; 0 where none was measured."""
    measured = [(record.error, record.round) for record in records if record.error is not None]
    return min(measured)[1] if measured else 0


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    return _closed(save({name: np.asarray(value, order="C") for name, value in arrays.items()}))


def _closed(value: bytes) -> bytes:
    """A value behind its SHA-256."""
    return hashlib.sha256(value).digest() + value
