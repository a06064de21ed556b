"""Small ledgers for tests: fixed key, fixed terms, costs that are easy to add up."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.filters import ORDERS, Cost
from privacy.ledger import Clock, Ledger, Terms

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TERMS = Terms("north", "subscribers", "2026", epsilon=Fraction(2), delta=Fraction(1, 10**7))
START = 1_767_225_600_000_000_000  # 2026-01-01, in nanoseconds


def gaussian_cost(rho: Fraction | float | str, epsilon: Fraction | float | str = Fraction(1, 2)) -> Cost:
    """RDP of a Gaussian mechanism, order · rho; the epsilon is whatever a test wants."""
    return Cost(Fraction(epsilon), tuple(order * Fraction(rho) for order in ORDERS))


def ticking(start: int = START) -> Clock:
    """A clock that moves on by one second whenever it is looked at."""
    ticks: Iterator[int] = count(start, 1_000_000_000)
    return lambda: next(ticks)


def new_ledger(folder: Path, *, terms: Terms = TERMS, patience: float = 5.0) -> Ledger:
    return Ledger.create(folder, terms, KEY, clock=ticking(), patience=patience)


def reopened(folder: Path) -> Ledger:
    """Opened by another process, so to say, a day later."""
    return Ledger.open(folder, key=KEY, clock=ticking(START + 86_400 * 10**9), patience=5.0)
