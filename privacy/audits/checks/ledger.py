"""The holder's ledger: no overspend, no refund, no second answer to one question. In a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.closed_forms import gaussian_epsilon
from privacy.audits.subject import Subject
from privacy.filters import ORDERS, Cost
from privacy.ledger import Ledger, Terms
from protocol.errors import BudgetExceededError, LedgerError

CAP, DELTA = 3, 1e-6
_REQUEST = "a" * 64


class CrashError(RuntimeError):
    """A release that fails after it was charged."""


@asks("Do admitted campaigns together cost at most the cap?", of="ledger")
def budget_is_never_overspent(subject: Subject) -> Measurement:
    """Twelve campaigns of random size, chosen one after the other: their joint epsilon by formula, over the cap."""
    numbers = np.random.default_rng(9)
    spent, refused = 0.0, 0
    with _ledger(subject) as (ledger, _):
        for number in range(12):
            mu = float(numbers.uniform(0.1, 0.4))
            try:
                ledger.reserve(f"campaign {number}", gaussian_cost(mu), request=_REQUEST, rounds=1)
                spent += mu**2
            except BudgetExceededError:
                refused += 1
    epsilon = gaussian_epsilon(spent**0.5, DELTA) if spent else 0.0
    figure = (epsilon / CAP if spent and refused else float("inf"), 1.0)
    return Measurement(figure, f"{12 - refused} of 12 admitted, epsilon {epsilon:.3f} of {CAP}")


@asks("Is what was reserved spent for good, whatever becomes of the release?", of="ledger")
def nothing_is_refunded(subject: Subject) -> Measurement:
    """A campaign that fails, and one that is asked for again; then another one, before and after a restart."""
    found = []
    with _ledger(subject) as (ledger, reopened):
        ledger.reserve("failed", gaussian_cost(0.55), request=_REQUEST, rounds=2)
        with suppress(CrashError):
            ledger.serve("failed", 1, request=_REQUEST, produce=_crash)
        for name, book in (("at once", lambda: ledger), ("after a restart", reopened)):
            try:
                book().reserve("another", gaussian_cost(0.55), request=_REQUEST, rounds=1)
                found.append(f"{name}, the budget of a failed campaign was spent again")
            except BudgetExceededError:
                continue
            except LedgerError as error:
                found.append(f"{name}, the ledger contradicts itself ({error})")
    return violations(found, asked=2)


@asks("Is a round answered once, with the same bytes ever after, and only as it was asked first?", of="ledger")
def rounds_are_served_once(subject: Subject) -> Measurement:
    """A replay, another question under the same name, a round nobody paid for, a campaign that was changed."""
    answers, found = iter([b"first", b"second", b"third", b"fourth"]), []

    def produce() -> bytes:
        return next(answers)

    with _ledger(subject) as (ledger, reopened):
        cost = gaussian_cost(0.3)
        ledger.reserve("spring", cost, request=_REQUEST, rounds=1)
        for book in (ledger, ledger, reopened()):
            if book.serve("spring", 1, request=_REQUEST, produce=produce) != b"first":
                found.append("a replay released something new")
        forbidden = {
            "another question": lambda: ledger.serve("spring", 1, request="b" * 64, produce=produce),
            "an unpaid round": lambda: ledger.serve("spring", 2, request=_REQUEST, produce=produce),
            "an unpaid campaign": lambda: ledger.serve("summer", 1, request=_REQUEST, produce=produce),
            "a changed campaign": lambda: ledger.reserve("spring", cost, request="b" * 64, rounds=9),
        }
        for name, attempt in forbidden.items():
            with suppress(LedgerError, BudgetExceededError):
                attempt()
                found.append(f"{name} was accepted")
    return violations(found, asked=7)


def gaussian_cost(mu: float) -> Cost:
    """What a Gaussian mechanism of that sensitivity over stddev costs, by formula, rounded up."""
    alone = Fraction(gaussian_epsilon(mu, DELTA)).limit_denominator(10**9) + Fraction(1, 10**9)
    rho = Fraction(mu**2 / 2).limit_denominator(10**9) + Fraction(1, 10**9)
    return Cost(alone, tuple(order * rho for order in ORDERS))


@contextmanager
def _ledger(subject: Subject) -> Iterator[tuple[Ledger, Callable[[], Ledger]]]:
    """A new ledger, and a function that opens it once more as another process would."""
    key = Ed25519PrivateKey.generate()
    terms = Terms("audit", "made-up people", "no period", Fraction(CAP), Fraction(1, 10**6))
    with tempfile.TemporaryDirectory(prefix="migrafed-audit-") as folder:
        place = Path(folder) / "ledger"
        yield subject.ledger.create(place, terms, key), lambda: subject.ledger.open(place, key=key)


def _crash() -> bytes:
    raise CrashError("the release failed")


CHECKS = (budget_is_never_overspent, nothing_is_refunded, rounds_are_served_once)
