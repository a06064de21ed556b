"""What a holder remembers of its persons between two releases: in how many cells each one was counted, and when.

A rolling bound needs a memory. For every released step the book keeps (bucket, pseudonym, cells) of the persons who
were counted in it, under the holder's secret, until no window of a later step reaches back to it::

    book = ContributionBook.open(folder, secret, buckets=32).settled(mark_in)
    used = book.used(first=day, window_days=365, ledger="2026")    # what the persons have used up
    mark = book.record(Entry(day, day, "2026"), kept, window_days=365)  # on the disk when it returns
    ledger.serve(..., request=f"... {mark}", ...)                   # only now

The order is the point. A crash in between leaves a step in the book that was not released, and the next try takes it
back (`settled`); there is never a release that the book does not know of. `mark` is a keyed digest of the whole book;
bound into the ledger's line it shows a book that was changed, exchanged or put back. It is keyed because the ledger is
shown to auditors, and a plain digest would let them test guesses such as "nobody was counted that day".

    manifest.json              the steps in the book, digests of their files, the mark before; replaced as a whole
    STEP-DIGEST.parquet        one file per step, never changed

Modes are 0700 and 0600. The book is a function of raw data and never leaves the holder.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from clients.private_files import make_private_folder, write_private
from protocol.errors import LedgerError

VERSION = 1
MANIFEST = "manifest.json"
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
    """State of a book: its steps in order, and the mark, in which ledger, that was bound before the last one."""

    key_check: str
    buckets: int
    entries: tuple[Entry, ...] = ()
    bound_before: str = ""
    bound_in: str = ""

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

    Unit: a person. Where at most ``k - used`` cells are kept of each person, nobody is in more than k cells over any
    window of `window_days` days, nor over all steps of one ledger.
    """

    def __init__(self, folder: Path, secret: bytes, manifest: Manifest, bound: tuple[str, str] | None = None) -> None:
        self._folder, self._secret, self._manifest, self._bound = folder, secret, manifest, bound

    def __repr__(self) -> str:
        return f"ContributionBook({self._folder})"  # neither secret nor persons

    @classmethod
    def open(cls, folder: Path, secret: bytes, *, buckets: int) -> Self:
        """Read the book and check every file of it; an empty one where there is none yet. Writes nothing.

        Raises:
            LedgerError: damaged, of another secret, or with persons hashed into another number of buckets.
        """
        path, check = folder / MANIFEST, keyed(secret, b"check")
        if not path.exists():
            return cls(folder, secret, Manifest(check, buckets))
        try:
            manifest = Manifest.from_bytes(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise LedgerError(f"the book of contributions in {folder} cannot be read; {WAY_OUT}") from None
        if manifest.key_check != check:
            raise LedgerError(f"the book of contributions in {folder} was kept under another secret; {WAY_OUT}")
        if manifest.buckets != buckets:
            raise LedgerError(
                f"the book of contributions in {folder} has {manifest.buckets} buckets, not {buckets}; {WAY_OUT}"
            )
        book = cls(folder, secret, manifest)
        for entry in manifest.entries:
            book._content(entry)
        return book

    @property
    def latest(self) -> Entry | None:
        """The step that was added last."""
        return self._manifest.entries[-1] if self._manifest.entries else None

    @property
    def mark(self) -> str:
        """Keyed digest of the whole book; "" while it is empty."""
        return keyed(self._secret, b"mark", self._manifest.to_bytes()) if self.latest else ""

    def settled(self, mark_in: Callable[[str], str], *, ledger: str) -> ContributionBook:
        """The book as the ledgers know it: without its latest step, if a crash came before the release of that step.

        Args:
            mark_in: The mark that the last release of a ledger is bound to; "" where nothing was released.
            ledger: Name of the ledger that is to be written now.

        Raises:
            LedgerError: the ledgers know of another book.
        """
        latest, here = self.latest, self._manifest
        if latest is None:
            if mark_in(ledger):
                raise LedgerError(f"{self._folder} holds no book of contributions, but steps were released; {WAY_OUT}")
            return self._with(here, ("", ""))
        if latest.ledger == ledger or not mark_in(ledger):
            released = mark_in(latest.ledger)
            if released == self.mark:
                return self._with(here, (self.mark, latest.ledger))
            # Else the latest step must be one that was not released, on top of what was.
            before = here.bound_before if here.bound_in == latest.ledger else ""
            if released == before and (not here.bound_in or mark_in(here.bound_in) == here.bound_before):
                return self._with(replace(here, entries=here.entries[:-1]), (here.bound_before, here.bound_in))
        raise LedgerError(
            f"the book of contributions in {self._folder} is not the one that the last release of ledger '{ledger}' is "
            f"bound to: older, changed or exchanged; {WAY_OUT}"
        )

    def _with(self, manifest: Manifest, bound: tuple[str, str]) -> ContributionBook:
        return ContributionBook(self._folder, self._secret, manifest, bound)

    def used(self, *, first: dt.date, window_days: int, ledger: str) -> pa.Table:
        """Cells that each person has used up when the step that begins on `first` is to be released.

        Counted are all steps that share a window of `window_days` days with that step, and all of the same ledger.

        Returns:
            Columns of `USED`, one row per person.

        Raises:
            LedgerError: a file of the book is gone or was changed.
        """
        reach = [one for one in self._manifest.entries if _counts(one, first, window_days=window_days, ledger=ledger)]
        kept = pa.concat_tables([KEPT.empty_table(), *(self._persons(entry) for entry in reach)])
        summed = kept.group_by(["bucket", "person"]).aggregate([("kept", "sum")])
        return summed.rename_columns({"kept_sum": "used"}).select(USED.names).cast(USED)

    def record(self, entry: Entry, kept: pa.Table, *, window_days: int) -> str:
        """Add a step to a settled book and bring it to the disk; steps that no later window can reach are let go of.

        Every step that is added must be released, and that be said (`released`), before the next one is added.

        Args:
            entry: The step; its file is named here.
            kept: Columns of `KEPT`: the persons counted in it, and in how many cells.
            window_days: Length of the window.

        Returns:
            The mark of the book, to be bound into the ledger's line.

        Raises:
            LedgerError: it cannot be written, or was not settled; then nothing may be released.
        """
        if self._bound is None:
            raise LedgerError("the book of contributions was not compared with the ledgers; nothing was released")
        content = _parquet(kept)
        digest = hashlib.sha256(content).hexdigest()
        # The name tells of the content, so that the file which the manifest on the disk still names stays as it is.
        entry = replace(entry, file=f"{entry.first}-{digest[:16]}.parquet", sha256=digest)
        reach = {"window_days": window_days, "ledger": entry.ledger}
        rest = [one for one in self._manifest.entries if _counts(one, entry.first, **reach)]
        manifest = replace(self._manifest, entries=(*rest, entry), bound_before=self._bound[0], bound_in=self._bound[1])
        try:
            make_private_folder(self._folder)
            write_private(self._folder / entry.file, content)
            write_private(self._folder / MANIFEST, manifest.to_bytes())
            self._let_go(keep={MANIFEST, *(one.file for one in manifest.entries)})
        except OSError as error:
            raise LedgerError(
                f"cannot write the book of contributions in {self._folder} ({error.strerror or error}); nothing was "
                "released: see to that and ask again"
            ) from error
        self._manifest, self._bound = manifest, None
        return self.mark

    def released(self) -> ContributionBook:
        """The same book once its latest step was released: settled, so that the next one may be added."""
        return self._with(self._manifest, (self.mark, self.latest.ledger if self.latest else ""))

    def _let_go(self, *, keep: set[str]) -> None:
        """Remove the files that the manifest does not name, those that a crash left included."""
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

    def _persons(self, entry: Entry) -> pa.Table:
        return pq.read_table(pa.BufferReader(self._content(entry)), schema=KEPT)


def keyed(secret: bytes, purpose: bytes, content: bytes = b"") -> str:
    """32 bytes of BLAKE2b under the secret, apart for each purpose, as hexadecimal digits."""
    return hashlib.blake2b(content, key=secret, digest_size=32, person=b"book " + purpose).hexdigest()


def _counts(entry: Entry, first: dt.date, *, window_days: int, ledger: str) -> bool:
    return entry.ledger == ledger or entry.shares_a_window(first, window_days=window_days)


def _parquet(kept: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(kept.select(KEPT.names).cast(KEPT), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
