"""What a spend costs: one release through a ledger of ten thousand lines, beside a bare write and fsync.

    python -m simulations.benchmarks.ledger [LINES] [SPENDS]

A spend is a whole `serve`: take the lock, look at what others wrote, keep the release, write the line, move the head
on, each brought to the disk: five fsyncs. The bare case appends as many bytes to one file and calls fsync once, in the
same run and in turns with the spends. The chain is verified when the ledger is opened, afterwards only new lines are.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.filters import ORDERS, Cost
from privacy.ledger import Ledger, Terms, verify_ledger
from privacy.ledger_book import opening_body, reserved_body, served_body
from privacy.ledger_chain import Witness
from privacy.ledger_lines import NO_LINE, Head, digest, encode_head, encode_line
from simulations.benchmarks.timing import print_table

Result = TypeVar("Result")
RELEASE = 4_096  # bytes; larger ones cost what their bytes cost on this disk


@dataclass(frozen=True)
class LedgerTimes:
    """Seconds of each spend and of each bare write, of opening and of verifying."""

    lines: int
    spends: tuple[float, ...]
    bare: tuple[float, ...]
    opened: float
    verified: float

    @property
    def ratio(self) -> float:
        """A median spend over a median bare write."""
        return statistics.median(self.spends) / statistics.median(self.bare)


def measure(folder: Path, *, lines: int, spends: int) -> LedgerTimes:
    """Build a ledger of `lines` lines and time `spends` releases on it."""
    key = Ed25519PrivateKey.generate()
    place = folder / "ledger"
    build(place, key, lines)
    verified, _ = _seconds(lambda: verify_ledger(place))
    opened, ledger = _seconds(lambda: Ledger.open(place, key=key))
    content = os.urandom(RELEASE)
    bare = os.open(folder / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write_and_fsync() -> None:
        os.write(bare, content)
        os.fsync(bare)

    served = lines - 2  # rounds that the built chain holds already
    spent_seconds, bare_seconds = [], []
    for spend in range(1, spends + 1):
        number = served + spend
        seconds, _ = _seconds(
            lambda number=number: ledger.serve("long", number, request="request", produce=lambda: content)
        )
        spent_seconds.append(seconds)
        bare_seconds.append(_seconds(write_and_fsync)[0])
    os.close(bare)
    return LedgerTimes(len(ledger.lines()) - spends, tuple(spent_seconds), tuple(bare_seconds), opened, verified)


def build(place: Path, key: Ed25519PrivateKey, lines: int) -> Witness:
    """A valid ledger with one long campaign, written at once instead of line by line."""
    terms = Terms("north", "subscribers", "2026", epsilon=Fraction(2), delta=Fraction(1, 10**7))
    cost = Cost(Fraction(1, 2), tuple(Fraction(order, 1000) for order in ORDERS))
    Ledger.create(place, terms, key).close()
    text, previous, now = bytearray(), NO_LINE, time.time_ns() - 60 * 10**9
    for seq in range(1, lines + 1):
        kind, body = "served", served_body("long", seq - 2, request="request", blob="0" * 64)
        if seq == 1:
            kind, body = "open", opening_body(terms, key.public_key())
        elif seq == 2:
            kind, body = "reserved", reserved_body("long", cost, request="plan", rounds=10**6)
        line = encode_line(key, seq=seq, previous=previous, time=now + seq, kind=kind, body=body)
        text += line
        previous = digest(line[:-1])
    (place / "ledger.jsonl").write_bytes(text)
    (place / "ledger.head").write_bytes(encode_head(key, Head(lines, previous)))
    return Witness(lines, previous)


def _seconds(call: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main(arguments: list[str]) -> None:
    """Print the table."""
    lines, spends = (int(given) for given in (*arguments, *("10000", "300")[len(arguments) :]))
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), lines=lines, spends=spends)
    rows = [
        [name, 1e3 * statistics.median(values), 1e3 * statistics.quantiles(values, n=20)[-1], 1e3 * max(values)]
        for name, values in (("one spend", times.spends), ("write + fsync", times.bare))
    ]
    print_table(
        f"Ledger of {times.lines:,} lines, {spends} spends of {RELEASE:,} bytes (milliseconds)",
        ["case", "median", "95 %", "worst"],
        rows,
        note=f"a spend is {times.ratio:.1f} times a bare write; opening takes {times.opened:.2f} s, "
        f"verifying {times.verified:.2f} s",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
