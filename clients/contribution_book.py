"""What a holder remembers of its persons between two releases: in how many cells each one was counted, and when.

A rolling bound needs a memory. For every released step the book keeps (bucket, pseudonym, cells) of the persons who
were counted in it, under the holder's secret, until no window of a later step reaches back to it::

    book = ContributionBook.open(folder, secret, mark_in, ledger="2026", buckets=32)
    files = book.files(first=day, window_days=365, ledger="2026")
    used_in(files)                                                      # what the persons have used up
    mark = book.record(Entry(day, day, "2026"), kept, window_days=365)  # on the disk when it returns
    ledger.serve(..., request=f"... {mark}", ...)                       # only now

The order is the point. A mark is a keyed digest of the whole book, and the book that counts is the one whose mark the
last line of the ledger is bound to. So a crash between book and ledger leaves a book that no line names, which is
passed over and later removed; there is never a release that the book does not know of; and a book that was changed,
exchanged, lost or put back is refused. The mark is keyed because ledgers are shown to auditors, and a plain digest
would let them test guesses such as "nobody was counted that day".

    manifest-MARK.json         the steps in the book and the digests of their files; at most two after a crash
    STEP-DIGEST.parquet        one file per step, never changed

Modes are 0700 and 0600. The book is a function of raw data and never leaves the holder.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from clients.private_files import make_private_folder, write_private
from protocol.errors import LedgerError

VERSION = 1
MANIFESTS = "manifest-*.json"
KEPT = pa.schema([("bucket", pa.int32()), ("person", pa.int64()), ("kept", pa.int32())])
USED = pa.schema([("bucket", pa.int32()), ("person", pa.int64()), ("used", pa.int32())])
WAY_OUT = (
    "restore the store from a copy that was made together with its ledgers; or move the book away and give [privacy] "
    "period a new name: a new ledger, whose steps are charged apart from these"
)


@dataclass(frozen=True)
class Entry:
    """One step: first and last day, the ledger that pays for it, and the file with its persons."""

    first: dt.date
    last: dt.date
    ledger: str
    file: str = ""
    sha256: str = ""

    def shares_a_window(self, first: dt.date, *, window_days: int) -> bool:
        """Whether some `window_days` days in a row touch this step and the one that begins on `first`, a later one."""
        return self.last > first - dt.timedelta(days=window_days)


@dataclass(frozen=True)
class Manifest:
    """State of a book: its steps in order."""

    key_check: str
    buckets: int
    entries: tuple[Entry, ...] = ()

    def to_bytes(self) -> bytes:
        """One fixed encoding."""
        values = asdict(self) | {"version": VERSION}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), default=str).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: something else.
        """
        values: dict[str, Any] = json.loads(content)
        if values.pop("version") != VERSION:
            raise ValueError("another version")
        days = ("first", "last")
        entries = (Entry(**(one | {day: dt.date.fromisoformat(one[day]) for day in days})) for one in values["entries"])
        values["entries"] = tuple(entries)
        return cls(**values)


class ContributionBook:
    """The open book of one store. For one process at a time; the lock is the store's.

    Unit: a person. Where at most ``k - used_in(files)`` cells are kept of each person, nobody is in more than k cells
    over any window of `window_days` days, nor over all steps of one ledger.
    """

    def __init__(self, folder: Path, secret: bytes, manifest: Manifest) -> None:
        self._folder, self._secret, self._manifest = folder, secret, manifest

    def __repr__(self) -> str:
        return f"ContributionBook({self._folder})"  # neither secret nor persons

    @classmethod
    def open(
        cls, folder: Path, secret: bytes, mark_in: Callable[[str], str], *, ledger: str, buckets: int
    ) -> ContributionBook:
        """The book that the ledgers know, with every file of it checked; an empty one before the first release.

        Writes nothing.

        Args:
            folder: Where it lies.
            secret: Under which its persons were hashed.
            mark_in: The mark that the last release of a ledger is bound to; "" where nothing was released.
            ledger: Name of the ledger that is to be written now.
            buckets: Into how many buckets persons are hashed.

        Raises:
            LedgerError: lost, damaged, put back, of another secret, or with another number of buckets.
        """
        known = [_read(path) for path in sorted(folder.glob(MANIFESTS))]
        found = [manifest for manifest in known if manifest is not None]
        check = keyed(secret, b"check")
        if any(manifest.key_check != check for manifest in found):
            raise LedgerError(f"the book of contributions in {folder} was kept under another secret; {WAY_OUT}")
        # Only a book that the last line of its ledger names counts; of several ledgers' the latest.
        bound = [one for one in found if _mark(secret, one) == mark_in(one.entries[-1].ledger)]
        book = max(bound, key=lambda manifest: manifest.entries[-1].first, default=Manifest(check, buckets))
        opened = cls(folder, secret, book)
        # A book that counts for nothing must have just one step that was not released, and its ledger no other.
        passed_over = {one.entries[-1].ledger for one in found} - {one.entries[-1].ledger for one in bound}
        if (
            len(known) > len(found)
            or (mark_in(ledger) and (not book.entries or book.entries[-1].ledger != ledger))
            or any(mark_in(name) for name in passed_over)
            or (not bound and any(len(one.entries) > 1 for one in found))
        ):
            raise LedgerError(
                f"the book of contributions in {folder} that the last release is bound to is missing: older, changed, "
                f"exchanged or lost; {WAY_OUT}"
            )
        if book.buckets != buckets:
            raise LedgerError(
                f"the book of contributions in {folder} has {book.buckets} buckets, not {buckets}; {WAY_OUT}"
            )
        for entry in book.entries:
            opened._content(entry)
        return opened

    @property
    def latest(self) -> Entry | None:
        """The step that was added last."""
        return self._manifest.entries[-1] if self._manifest.entries else None

    def files(self, *, first: dt.date, window_days: int, ledger: str) -> list[Path]:
        """The files that count for the step that begins on `first`, checked when the book was opened.

        They are those of all steps that share a window of `window_days` days with that step or have its ledger.
        """
        reach = {"window_days": window_days, "ledger": ledger}
        return [self._folder / entry.file for entry in self._manifest.entries if _counts(entry, first, **reach)]

    def record(self, entry: Entry, kept: pa.Table, *, window_days: int) -> str:
        """Add a step and bring it to the disk, beside the book without it, which counts until the step is released.

        Every step that is added must be released before the next one is added. Steps that no later window can reach
        are let go of.

        Args:
            entry: The step; its file is named here.
            kept: Columns of `KEPT`: the persons counted in it, and in how many cells.
            window_days: Length of the window.

        Returns:
            The mark of the book, to be bound into the ledger's line.

        Raises:
            LedgerError: it cannot be written; then nothing may be released.
        """
        content = _parquet(kept)
        digest = hashlib.sha256(content).hexdigest()
        entry = replace(entry, file=f"{entry.first}-{digest[:16]}.parquet", sha256=digest)
        reach = {"window_days": window_days, "ledger": entry.ledger}
        rest = [one for one in self._manifest.entries if _counts(one, entry.first, **reach)]
        manifest = replace(self._manifest, entries=(*rest, entry))
        try:
            make_private_folder(self._folder)
            self._let_go()
            write_private(self._folder / entry.file, content)
            write_private(self._folder / _name(_mark(self._secret, manifest)), manifest.to_bytes())
        except OSError as error:
            raise LedgerError(
                f"cannot write the book of contributions in {self._folder} ({error.strerror or error}); nothing was "
                "released: see to that and ask again"
            ) from error
        self._manifest = manifest
        return _mark(self._secret, manifest)

    def _let_go(self) -> None:
        """Remove what this book does not name: the book before it, and what a crash left."""
        keep = {_name(_mark(self._secret, self._manifest)), *(one.file for one in self._manifest.entries)}
        for path in self._folder.iterdir():
            if path.name not in keep:
                path.unlink()

    def _content(self, entry: Entry) -> bytes:
        try:
            content = (self._folder / entry.file).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise LedgerError(
                f"the book of contributions in {self._folder} lacks its file of {entry.first}, or it was changed; "
                f"{WAY_OUT}"
            )
        return content


def used_in(files: Sequence[Path]) -> pa.Table:
    """Cells that each person has used up, in memory: columns of `USED`, one row per person.

    An engine that reads Parquet does the same without holding it all.
    """
    kept = pa.concat_tables([KEPT.empty_table(), *(pq.read_table(file, schema=KEPT) for file in files)])
    summed = kept.group_by(["bucket", "person"]).aggregate([("kept", "sum")])
    return summed.rename_columns({"kept_sum": "used"}).select(USED.names).cast(USED)


def keyed(secret: bytes, purpose: bytes, content: bytes = b"") -> str:
    """32 bytes of BLAKE2b under the secret, apart for each purpose, as hexadecimal digits."""
    return hashlib.blake2b(content, key=secret, digest_size=32, person=b"book " + purpose).hexdigest()


def _mark(secret: bytes, manifest: Manifest) -> str:
    return keyed(secret, b"mark", manifest.to_bytes())


def _name(mark: str) -> str:
    return MANIFESTS.replace("*", mark[:16])


def _read(path: Path) -> Manifest | None:
    """A manifest with at least one step, or None if the file holds something else."""
    try:
        manifest = Manifest.from_bytes(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if manifest.entries else None


def _counts(entry: Entry, first: dt.date, *, window_days: int, ledger: str) -> bool:
    return entry.ledger == ledger or entry.shares_a_window(first, window_days=window_days)


def _parquet(kept: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(kept.select(KEPT.names).cast(KEPT), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
