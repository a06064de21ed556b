"""The lines of a ledger file as one verified chain, and what may stand between the file and its head."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.ledger_book import Book, opened_book
from privacy.ledger_lines import NO_LINE, Head, LedgerLine, decode_line, is_digest, public_hex, unverified_first_line
from protocol.errors import LedgerError


@dataclass(frozen=True)
class Witness:
    """Length and head of a ledger at one moment, to be remembered by others: server, peers, an auditor.

    A ledger that was put back to an earlier state, its head with it, looks whole to its own program. It cannot show
    the line that a witness has seen.
    """

    length: int
    head: str

    def __str__(self) -> str:
        return f"{self.length}:{self.head}"

    @classmethod
    def parse(cls, text: str) -> Witness:
        """Read LENGTH:HASH.

        Raises:
            LedgerError: it is not of that form.
        """
        length, _, head = text.partition(":")
        if not (length.isascii() and length.isdecimal() and int(length) >= 1 and is_digest(head)):
            raise LedgerError(f"a witness is LENGTH:HASH with 64 hexadecimal digits, not {text[:80]!r}")
        return cls(int(length), head)


def check_key(data: bytes, public_key: Ed25519PublicKey) -> None:
    """Say "another key", rather than "a bad signature", where that is what it is.

    Args:
        data: The file, or its first line.
        public_key: Whose it should be.

    Raises:
        LedgerError: the first line names another key.
    """
    if (named := named_key(data)) != public_hex(public_key):
        raise LedgerError(
            f"the ledger is kept with key {str(named)[:16]}, not with {public_hex(public_key)[:16]}; "
            "it belongs to somebody else, or the wrong key was given"
        )


def named_key(data: bytes) -> object:
    """The public key that the first line of a file names; nothing is verified."""
    return unverified_first_line(data.partition(b"\n")[0]).get("public_key")


class Chain:
    """Verified lines and the book they make; grows line by line.

    Args:
        public_key: Whose signature each line must carry.
    """

    def __init__(self, public_key: Ed25519PublicKey) -> None:
        self._public_key = public_key
        self._book: Book | None = None
        self._last = b""
        self.lines: list[LedgerLine] = []
        self.size = 0
        """Bytes of all lines, newlines included."""

    @property
    def book(self) -> Book:
        """What the lines add up to.

        Raises:
            LedgerError: there is no line yet.
        """
        if self._book is None:
            raise LedgerError("the ledger has no complete line; restore it from a copy")
        return self._book

    @property
    def last_offset(self) -> int:
        """Where the last line begins."""
        return self.size - len(self._last)

    @property
    def witness(self) -> Witness:
        """Length and hash of all lines."""
        return Witness(len(self.lines), self.lines[-1].digest if self.lines else NO_LINE)

    def extend(self, data: bytes) -> int:
        """Verify and add the complete lines of `data`; how many bytes of an incomplete one are left over.

        Raises:
            LedgerError: a line is not what was written there; the lines before it are added.
        """
        *complete, torn = data.split(b"\n")
        for text in complete:
            self._add(text)
        return len(torn)

    def follow(self, data: bytes) -> int:
        """As `extend`, for data that begin with the last line already known.

        Raises:
            LedgerError: they do not begin so: the file was changed or put back since it was read.
        """
        if not data.startswith(self._last):
            raise LedgerError(
                f"line {len(self.lines)} of the ledger is not the one read before: the file was changed or put back "
                "while it was in use; find out what happened to it"
            )
        return self.extend(data[len(self._last) :])

    def _add(self, text: bytes) -> None:
        line = decode_line(
            text, seq=len(self.lines) + 1, previous=self.witness.head, public_key=self._public_key
        )  # fmt: skip
        if self._book is None:
            self._book = self._opened(line)
        else:
            if line.time < self.lines[-1].time:
                raise LedgerError(f"ledger line {line.seq} is older than the line before it")
            self._book.apply(line)
        self.lines.append(line)
        self._last = text + b"\n"
        self.size += len(self._last)

    def _opened(self, line: LedgerLine) -> Book:
        if line.body.get("public_key") != public_hex(self._public_key):
            raise LedgerError("ledger line 1 names another public key than the one that signed it")
        return opened_book(line)

    def check_head(self, head: Head, *, torn: int) -> None:
        """The file holds all that was acknowledged, and at most what a crash can have added.

        Raises:
            LedgerError: acknowledged lines are missing or changed, or there is more than a crash leaves behind.
        """
        held = len(self.lines)
        if head.length > held:
            raise LedgerError(
                f"{head.length} lines of the ledger were acknowledged and {held} are there: some were removed; "
                "restore the file from a copy that has them"
            )
        if self.lines[head.length - 1].digest != head.head:
            raise LedgerError(f"line {head.length} of the ledger is not the one that was acknowledged (a fork)")
        if held > head.length + 1 or (torn and held > head.length):
            raise LedgerError(
                f"{head.length} lines of the ledger were acknowledged, but {held} are there"
                f"{' and part of another' if torn else ''}: a crash leaves no more than one; the head was put back"
            )

    def check_witness(self, seen: Witness) -> None:
        """Compare with what somebody else remembers.

        Raises:
            LedgerError: the ledger is shorter than it was (rollback) or has another line there (fork).
        """
        held = len(self.lines)
        if seen.length > held:
            raise LedgerError(
                f"a witness saw {seen.length} lines of this ledger, and {held} are there: it was put back"
            )
        if seen.length < 1 or self.lines[seen.length - 1].digest != seen.head:
            raise LedgerError(f"a witness saw another line {seen.length} of this ledger (a fork)")
