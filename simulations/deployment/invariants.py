"""What must hold of the files of a federation whatever happened to its processes. Nothing is changed or repaired here.

Each function gives what it found wrong, in words with the place; an empty list is what one wants::

    broken_ledgers(holder)        chain, signatures, budget and stored releases of every ledger; and who saw it further
    broken_journal(journal)       every stage's rounds are 1, 2, 3 ... each once, and every stored value is whole
    broken_outbox(outbox, rounds) the log of what left is a whole chain, and has every round that a journal has
    torn_files(folder)            every file of a known kind can be read from end to end
    other_files(folders, name)    a file that should be the same in several folders is
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pyarrow.lib
import pyarrow.parquet as pq
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clients.service.outbox import read_outbox
from privacy.ledger import Witness, verify_ledger
from protocol.errors import LedgerError, StorageError

_DRAFT = re.compile(r"\..*\.(new|part)(-journal)?")
_DIGEST = hashlib.sha256().digest_size
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Spent:
    """What a ledger was used for.

    Args:
        epsilon: Spent by its own rule.
        cap: Never to be passed.
        releases: Rounds served, over all campaigns.
        campaigns: How many were reserved.
    """

    epsilon: Fraction
    cap: Fraction
    releases: int
    campaigns: int


def ledgers_in(folder: Path) -> list[Path]:
    """Folders of all ledgers below."""
    return sorted(path.parent for path in folder.rglob("ledger.jsonl"))


def spent_in(folder: Path) -> dict[str, Spent]:
    """What every ledger below was used for, by its place in `folder`.

    Raises:
        LedgerError: one of them cannot be trusted; see `broken_ledgers`.
    """
    found = {}
    for place in ledgers_in(folder):
        book = verify_ledger(place).book
        campaigns = book.campaigns.values()
        releases = sum(len(campaign.served) for campaign in campaigns)
        found[str(place.relative_to(folder))] = Spent(book.spent, book.terms.epsilon, releases, len(campaigns))
    return found


def broken_ledgers(folder: Path, witnesses: Sequence[Witness] = ()) -> list[str]:
    """What is wrong with the ledgers below a holder's folder.

    Args:
        folder: Of one holder.
        witnesses: What others saw; each must be a state that one of these ledgers went through.
    """
    found, unseen = [], set(witnesses)
    for place in ledgers_in(folder):
        try:
            facts = verify_ledger(place)
        except LedgerError as error:
            found.append(f"{place}: {error}")
            continue
        book = facts.book
        if book.spent > book.terms.epsilon:
            found.append(f"{place}: epsilon {float(book.spent):.4g} is spent of {float(book.terms.epsilon):.4g}")
        if facts.blobs_missing:
            found.append(f"{place}: {facts.blobs_missing} releases were recorded, and what was released is not there")
        if facts.torn:
            found.append(f"{place}: ends with {facts.torn} bytes of a line that is not whole")
        unseen -= {Witness(line.seq, line.digest) for line in facts.lines}
    found += [f"{folder}: no ledger went through {seen}, which somebody saw" for seen in sorted(map(str, unseen))]
    return found


def broken_journal(path: Path) -> list[str]:
    """What is wrong with a coordinator's journal: gaps in rounds, and values that differ from their SHA-256."""
    try:
        with closing(_read_only(path)) as database:
            return _numbered(path, database) + _damaged(path, database)
    except sqlite3.DatabaseError as error:
        return [f"{path}: cannot be read ({error})"]


def witnessed(path: Path) -> dict[str, Witness]:
    """Where every holder's ledger stood when the coordinator last saw it, from its journal."""
    with closing(_read_only(path)) as database:
        rows = database.execute("SELECT holder, length, head FROM witnesses").fetchall()
    return {holder: Witness(length, head) for holder, length, head in rows}


def rounds_in(path: Path) -> dict[str, int]:
    """How many rounds of each stage are committed in a journal."""
    with closing(_read_only(path)) as database:
        return dict(database.execute("SELECT stage, count(*) FROM rounds GROUP BY stage ORDER BY stage"))


def broken_outbox(path: Path, rounds: Mapping[str, int]) -> list[str]:
    """What is wrong with a holder's log of what left.

    Args:
        path: Of the log.
        rounds: Committed rounds by run, in which every holder took part.
    """
    try:
        lines = read_outbox(path)
    except StorageError as error:
        return [str(error)]
    found = []
    if [line.number for line in lines] != list(range(1, len(lines) + 1)):
        found.append(f"{path}: numbers of lines are not 1 to {len(lines)}")
    for run, committed in rounds.items():
        left = sum(line.run == run and line.message_type == "train" and not line.code for line in lines)
        if left < committed:
            found.append(f"{path}: {left} answers to rounds of {run} left, and {committed} rounds were made of them")
    return found


def torn_files(folder: Path) -> list[str]:
    """Files of known kinds that cannot be read from end to end. Drafts that a crash left are no files yet."""
    found = []
    for path in sorted(folder.rglob("*")):
        read = READERS.get(path.suffix)
        if read is None or not path.is_file() or path.is_symlink() or _DRAFT.fullmatch(path.name):
            continue
        try:
            read(path)
        except (ValueError, OSError, sqlite3.DatabaseError, SafetensorError, pyarrow.lib.ArrowException) as error:
            found.append(f"{path}: {type(error).__name__}: {str(error)[:200]}")
    return found


def drafts_in(folder: Path) -> list[Path]:
    """Drafts that a crash left behind: harmless, and not to grow in number."""
    return sorted(path for path in folder.rglob(".*") if _DRAFT.fullmatch(path.name))


def other_files(folders: Mapping[str, Path], name: str) -> list[str]:
    """Where a file that must be the same everywhere is missing, or has other bytes than in the first folder."""
    found, first = [], ""
    for label, folder in folders.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{label}: has no {name}")
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        first = first or digest
        if digest != first:
            found.append(f"{label}: {name} has SHA-256 {digest[:12]}, not {first[:12]}")
    return found


def _numbered(path: Path, database: sqlite3.Connection) -> list[str]:
    found, numbers = [], dict[str, list[int]]()
    for stage, number in database.execute("SELECT stage, round FROM rounds ORDER BY stage, round"):
        numbers.setdefault(stage, []).append(number)
    for stage, rounds in numbers.items():
        if rounds != list(range(1, len(rounds) + 1)):
            found.append(f"{path}: stage '{stage}' has rounds {rounds}, not 1 to {len(rounds)}")
        kept = database.execute(
            "SELECT count(*) FROM rounds WHERE stage = ? AND round = ? AND weights IS NOT NULL", (stage, rounds[-1])
        ).fetchone()[0]
        if not kept:
            found.append(f"{path}: stage '{stage}' has no weights of its last round {rounds[-1]}")
    return found


def _damaged(path: Path, database: sqlite3.Connection) -> list[str]:
    found = [f"{path}: {row[0]}" for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
    for table, column in _BLOBS:
        for (value,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):  # noqa: S608
            if hashlib.sha256(value[_DIGEST:]).digest() != value[:_DIGEST]:
                found.append(f"{path}: a value of {table}.{column} differs from its SHA-256")
    return found


# Every column of `server.journal` that holds a value behind its digest.
_BLOBS = (
    ("totals", "arrays"), ("rounds", "weights"), ("rounds", "strategy"), ("holder_states", "state"),
    ("mail", "parcels"), ("results", "value"), ("starts", "weights"), ("sessions", "record"), ("sums", "record"),
    ("openings", "opening"),
)  # fmt: skip


def _read_only(path: Path) -> sqlite3.Connection:
    """A copy in memory, so that not even the write-ahead log that a killed writer left is touched."""
    copy = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        for name in (path.name, f"{path.name}-wal"):
            if (part := path.with_name(name)).is_file():
                shutil.copy(part, folder)
        with closing(sqlite3.connect(f"{Path(folder, path.name).as_uri()}?mode=rw", uri=True)) as source:
            source.backup(copy)
    return copy


def _json_lines(path: Path) -> None:
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise ValueError("the last line is not whole")
    for line in content.splitlines():
        json.loads(line)


def _toml(path: Path) -> None:
    tomllib.loads(path.read_text(encoding="utf-8"))


def _sqlite(path: Path) -> None:
    with closing(_read_only(path)) as database:
        if (found := database.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise ValueError(found)


def _pem(path: Path) -> None:
    content = path.read_bytes()
    if b"CERTIFICATE" in content:
        x509.load_pem_x509_certificates(content)
    elif b"OPENSSH" in content:
        load_ssh_private_key(content, password=None)
    elif b"PRIVATE KEY" in content:
        load_pem_private_key(content, password=None)
    elif b"-----END" not in content:
        raise ValueError("neither a key nor a certificate")


READERS: dict[str, Read] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _json_lines,
    ".toml": _toml,
    ".sqlite": _sqlite,
    ".safetensors": load_file,
    ".parquet": pq.read_table,
    ".pem": _pem,
    ".key": _pem,
}
"""How a file of each kind is read from end to end."""
