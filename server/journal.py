"""The coordinator's journal of a run: one SQLite file from which a killed run continues with the same result.

A round is committed whole or not at all (write-ahead log, synchronous=FULL). Of the weights only those of the last and
of the best round are kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from protocol.errors import RunFolderError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS totals (stage TEXT PRIMARY KEY, arrays BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rounds (
    stage TEXT, round INTEGER, metrics TEXT NOT NULL, weights BLOB, strategy BLOB, PRIMARY KEY (stage, round)) STRICT;
CREATE TABLE IF NOT EXISTS holder_states (stage TEXT, holder TEXT, state BLOB NOT NULL, PRIMARY KEY (stage, holder)) STRICT;
CREATE TABLE IF NOT EXISTS results (stage TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What one round came to. `error` is the validation error, None where nothing was held out."""

    round: int
    loss: float
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

    Raises:
        RunFolderError: the file is no journal, is damaged, or belongs to another run or plan.
    """

    def __init__(self, path: Path, *, run: str, plan_hash: str) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            with self._transaction():
                for key, value in {"run": run, "plan_hash": plan_hash}.items():
                    self._db.execute("INSERT OR IGNORE INTO run VALUES (?, ?)", (key, value))
            known = dict(self._db.execute("SELECT key, value FROM run"))
        except sqlite3.DatabaseError as error:
            raise RunFolderError(f"{path} is not a readable journal ({error}); start a new run") from None
        if known != {"run": run, "plan_hash": plan_hash}:
            raise RunFolderError(
                f"{path} belongs to run {known.get('run')} of plan {known.get('plan_hash', '')[:12]}, "
                f"not to plan {plan_hash[:12]}; resume with the run's own plan or choose another folder"
            )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def save_totals(self, stage: str, totals: Mapping[str, np.ndarray]) -> None:
        """Store the sums of a stage's federated statistics."""
        self._db.execute("INSERT OR REPLACE INTO totals VALUES (?, ?)", (stage, _pack(totals)))

    def totals(self, stage: str) -> dict[str, np.ndarray] | None:
        """The sums of a stage's federated statistics, None if they were not completed."""
        row = self._db.execute("SELECT arrays FROM totals WHERE stage = ?", (stage,)).fetchone()
        return None if row is None else load(row[0])

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
                self._db.execute("INSERT OR REPLACE INTO holder_states VALUES (?, ?, ?)", (stage, holder, state))

    def checkpoint(self, stage: str) -> Checkpoint | None:
        """The state after the last committed round of a stage, None if there is none."""
        rows = self._db.execute("SELECT round, metrics FROM rounds WHERE stage = ? ORDER BY round", (stage,)).fetchall()
        if not rows:
            return None
        records = tuple(RoundRecord(round=number, **json.loads(metrics)) for number, metrics in rows)
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
        return dict(self._db.execute("SELECT holder, state FROM holder_states WHERE stage = ?", (stage,)))

    def save_result(self, stage: str, value: bytes) -> None:
        """Store what a finished stage came to."""
        self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (stage, value))

    def result(self, stage: str) -> bytes | None:
        """What a finished stage came to, None if it has not finished."""
        row = self._db.execute("SELECT value FROM results WHERE stage = ?", (stage,)).fetchone()
        return None if row is None else row[0]

    def _weights(self, stage: str, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        row = self._db.execute(
            "SELECT weights, strategy FROM rounds WHERE stage = ? AND round = ?", (stage, number)
        ).fetchone()
        return load(row[0]), load(row[1])

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # commits or rolls back on leaving the with block


def best_of(records: tuple[RoundRecord, ...]) -> int:
    """Number of the round with the lowest validation error, the first one on a tie; 0 where none was measured."""
    measured = [(record.error, record.round) for record in records if record.error is not None]
    return min(measured)[1] if measured else 0


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
