"""The holder's ledger: what was promised to the persons, how much of it is spent, and what was released for it.

One folder per holder, population and period. Only the holder writes, with its own key; server and peers remember its
head (`Witness`). Nothing leaves before it is written down here and has reached the disk::

    ledger = Ledger.create(folder, terms, key)                     # once; afterwards Ledger.open(folder, key=key)
    ledger.reserve("spring", cost, request=plan_digest, rounds=30)  # the whole campaign, before it starts
    answer = ledger.serve("spring", 1, request=round_digest, produce=train_and_add_noise)

* A reservation is never refunded, and a campaign never changed: a crash can waste budget, not overspend it.
* A round is produced and released once. Asked again, it gives the stored bytes; asked differently, it is refused.
* Lines are hash-chained and signed, and the head beside the file counts them, so that edits, removals and repetitions
  show. Putting file *and* head back to an earlier state, or starting anew in an empty folder, shows only to a witness:
  `check_witness`.

What is proven about the budget is in `privacy.filters.RenyiFilter` and `privacy.ledger_book.Book`, the order of writes
in `privacy.ledger_file`, and how a ledger is read without its key in `privacy.ledger_check`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.filters import Cost
from privacy.ledger_book import Terms, opening_body, reserved_body, served_body
from privacy.ledger_chain import Chain, Witness, check_key
from privacy.ledger_check import LedgerFacts, verify_ledger
from privacy.ledger_file import LedgerFolder, create_folder
from privacy.ledger_lines import NO_LINE, Head, LedgerLine, digest, encode_head, encode_line
from protocol.errors import LedgerError

__all__ = ["Cost", "Ledger", "LedgerFacts", "LedgerLine", "Terms", "Witness", "verify_ledger"]

Clock = Callable[[], int]
_TOLERANCE = 1_000_000_000  # nanoseconds by which two clocks of one machine may differ


class Ledger:
    """One holder's ledger, open for spending. Use `create` once and `open` afterwards.

    Several processes, and several threads, may have it open: each takes its turn and first reads what the others wrote.
    `serve` keeps its turn while the release is being produced, so a slow round makes every other writer of this ledger
    wait (`patience` seconds at most), and `produce` must not use the ledger itself.
    """

    def __init__(self, folder: LedgerFolder, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._folder, self._key, self._clock = folder, key, clock
        self._public_key = key.public_key()
        self._chain = Chain(self._public_key)
        self._acknowledged = 0
        self._thread = threading.RLock()
        self._busy = self._closed = False

    @classmethod
    def create(
        cls,
        folder: Path,
        terms: Terms,
        key: Ed25519PrivateKey,
        *,
        clock: Clock = time.time_ns,
        patience: float = 600.0,
    ) -> Self:
        """Open a new ledger in a folder that does not exist yet, or is empty.

        Raises:
            LedgerError: something is there already, or the folder cannot be made.
        """
        body = opening_body(terms, key.public_key())
        line = encode_line(key, seq=1, previous=NO_LINE, time=clock(), kind="open", body=body)
        create_folder(folder, line, encode_head(key, Head(1, digest(line[:-1]))))
        return cls.open(folder, key=key, holder=terms.holder, clock=clock, patience=patience)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        key: Ed25519PrivateKey,
        holder: str | None = None,
        clock: Clock = time.time_ns,
        patience: float = 600.0,
    ) -> Self:
        """Open a ledger: verify the whole chain, and put right what a crash may have left.

        Args:
            folder: Where it lies.
            key: The holder's private key.
            holder: Whose ledger it must be; None leaves that to the key.
            clock: Nanoseconds since 1970.
            patience: Seconds to wait for another writer.

        Raises:
            LedgerError: no ledger, damaged, rolled back, of another key or another holder.
        """
        files = LedgerFolder(folder, patience=patience)
        check_key(files.lines_from(0), key.public_key())
        ledger = cls(files, key, clock)
        with ledger._turn():
            if holder is not None and holder != ledger.terms.holder:
                raise LedgerError(
                    f"{folder} is the ledger of '{ledger.terms.holder}', not of '{holder}'; give that one"
                )
        return ledger

    def check_budget(self, campaign: str, cost: Cost) -> None:
        """Whether a campaign could be reserved now; one that is reserved already costs nothing more. Changes nothing.

        Raises:
            BudgetExceededError: more than what is left.
            LedgerError: it is reserved at a lower cost, or the ledger cannot be read.
        """
        with self._turn():
            book = self._chain.book
            known = book.campaigns.get(campaign)
            if known is None:
                book.check_budget(campaign, cost)
            else:
                book.check_reservation(campaign, cost, request=known.request, rounds=known.rounds)

    def reserve(self, campaign: str, cost: Cost, *, request: str, rounds: int) -> None:
        """Take the cost of a whole campaign from the budget, before anything of it is computed. Never refunded.

        The same reservation again changes nothing. The rule is that of `privacy.ledger_book.Book`.

        Args:
            campaign: A name of this ledger's own, used once.
            cost: What all rounds together cost.
            request: Digest of what was asked (the plan, and the policy it was checked against).
            rounds: Rounds that may be served for it, numbered from 1.

        Raises:
            BudgetExceededError: more than what is left; nothing was written.
            LedgerError: another reservation has this name, or the ledger cannot be read or written.
        """
        with self._turn():
            book = self._chain.book
            if book.check_reservation(campaign, cost, request=request, rounds=rounds):
                return
            book.check_budget(campaign, cost)
            self._append("reserved", reserved_body(campaign, cost, request=request, rounds=rounds))

    def serve(self, campaign: str, round_number: int, *, request: str, produce: Callable[[], bytes]) -> bytes:
        """Release one round of a reserved campaign, once.

        `produce` is called at most once for a round that is returned; the bytes are on the disk, and the line about
        them too, before they are returned. If it raises, nothing is released and the round may be asked for again;
        it must draw new noise then. A round served before gives the stored bytes, without calling `produce`.

        Args:
            campaign: Name of the reservation.
            round_number: 1 to the number of rounds reserved.
            request: Digest of what was asked in this round.
            produce: Makes what is released. It holds up all other writers of this ledger.

        Raises:
            LedgerError: not reserved, beyond the reserved rounds, asked differently before, or not readable or
                writable; nothing was released.
        """
        with self._turn():
            released = self._chain.book.check_round(campaign, round_number, request)
            if released is not None:
                return self._folder.stored(campaign, round_number, released)
            self._now()  # refuse before the work, not after it
            content = produce()
            if not isinstance(content, bytes):
                raise LedgerError(f"a round releases bytes, not {type(content).__name__}; nothing was released")
            self._folder.store(campaign, round_number, content)
            self._append("served", served_body(campaign, round_number, request=request, blob=digest(content)))
            return content

    @property
    def terms(self) -> Terms:
        """What the ledger stands for."""
        return self._chain.book.terms

    @property
    def spent(self) -> Fraction:
        """Epsilon spent when this process last looked; see `privacy.ledger_book.Book.spent`."""
        return self._chain.book.spent

    @property
    def left(self) -> Fraction:
        """Epsilon left when this process last looked: all of the cap at first, then what the filter still has."""
        return self._chain.book.left

    @property
    def left_in_words(self) -> str:
        """What may still be asked for, to be shown."""
        return self._chain.book.left_in_words

    def lines(self) -> tuple[LedgerLine, ...]:
        """All lines when this process last looked."""
        return tuple(self._chain.lines)

    def witness(self) -> Witness:
        """Length and head, for others to remember."""
        return self._chain.witness

    def check_witness(self, seen: Witness) -> None:
        """Compare the ledger with what somebody else saw of it.

        Raises:
            LedgerError: it is shorter than it was (rollback), or has another line there (fork).
        """
        with self._turn():
            self._chain.check_witness(seen)

    def close(self) -> None:
        """No more turns. No file is open between turns, so nothing else ends."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only writer, knowing all that was written."""
        with self._thread:
            if self._closed or self._busy:
                raise LedgerError("the ledger is closed" if self._closed else "a release must not use its own ledger")
            self._busy = True
            try:
                with self._folder.locked():
                    self._read()
                    yield
            finally:
                self._busy = False

    def _read(self) -> None:
        head = self._folder.head(self._public_key)
        torn = self._chain.follow(self._folder.lines_from(self._chain.last_offset))
        self._chain.check_head(head, torn=torn)
        if head.length < self._acknowledged:
            raise LedgerError(f"the head of the ledger was put back from {self._acknowledged} lines to {head.length}")
        self._acknowledged = head.length
        if torn or len(self._chain.lines) > head.length:
            self._folder.cut(self._chain.size)
            self._folder.acknowledge(encode_head(self._key, Head(*self._position())))
            self._acknowledged = len(self._chain.lines)

    def _append(self, kind: str, body: dict[str, Any]) -> None:
        length, previous = self._position()
        line = encode_line(self._key, seq=length + 1, previous=previous, time=self._now(), kind=kind, body=body)
        head = encode_head(self._key, Head(length + 1, digest(line[:-1])))
        self._folder.append(line, head, size=self._chain.size)
        self._chain.extend(line)
        self._acknowledged = length + 1

    def _position(self) -> tuple[int, str]:
        witness = self._chain.witness
        return witness.length, witness.head

    def _now(self) -> int:
        """Time of the next line: never earlier than the last one.

        Raises:
            LedgerError: the clock went backwards by more than the tolerance.
        """
        now, last = self._clock(), self._chain.lines[-1].time
        if now < last - _TOLERANCE:
            raise LedgerError(
                f"the clock says {_readable(now)}, but the ledger was last written at {_readable(last)}; "
                "set the clock right, nothing was released"
            )
        return max(now, last)


def _readable(nanoseconds: int) -> str:
    seconds = time.gmtime(nanoseconds // 1_000_000_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', seconds)} UTC"
