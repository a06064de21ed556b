"""What the lines of a ledger add up to, and the rules every line must keep. No file, no key, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.filters import ORDERS, Cost, RenyiFilter, check_target, total_rdp
from privacy.ledger_lines import LedgerLine, from_text, is_digest, public_hex, to_text
from protocol.errors import BudgetExceededError, LedgerError, MigrafedError, PrivacyParameterError, RefusedError

VERSION = 1
_ROUNDS = 10**6


@dataclass(frozen=True)
class Terms:
    """What a ledger stands for: whose people, which population of them, which period, and the budget.

    Args:
        holder: Name of the data holder.
        population: The people whose records are released from, as the holder calls them.
        period: The time span that one budget covers; the next period is the next ledger, and spends add up.
        epsilon: The cap, for one person over everything this ledger admits; add or remove one person.
        delta: The failure probability that goes with it.

    Raises:
        PrivacyParameterError: a name is blank or not printable, or a number is not exact or out of range.
    """

    holder: str
    population: str
    period: str
    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        for name in ("holder", "population", "period"):
            _check_name(name, getattr(self, name), PrivacyParameterError)
        check_target(self.epsilon, self.delta)


@dataclass(frozen=True)
class Campaign:
    """One reservation: what was asked, what it cost, how many rounds it may serve, and which it has served."""

    request: str
    cost: Cost
    rounds: int
    served: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Round number to (request, SHA-256 of what was released)."""

    def covers(self, cost: Cost) -> bool:
        """Whether `cost` is at most what was reserved, in every number."""
        paid, asked = (self.cost.epsilon, *self.cost.rdp), (cost.epsilon, *cost.rdp)
        return all(more <= most for more, most in zip(asked, paid, strict=True))


class Book:
    """The state of a ledger after some of its lines.

    The acceptance rule, `check_budget`. The *first* campaign is admitted if its epsilon, by the exact accountant at the
    ledger's delta, is at most the cap; every further one only if `RenyiFilter` admits it on top of the RDP of all, the
    first included. Why both together keep (epsilon, delta), with nothing added: the first campaign's parameters are
    fixed before anything was released. If its RDP alone fits no order of the filter, then the sums, which only grow,
    never fit either, nothing else is ever admitted, and the exact accountant speaks for all that was released. If it
    does fit, everything admitted, the first included, is what the filter was proven for. Which of the two it is does
    not depend on any output.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.filter = RenyiFilter(terms.epsilon, terms.delta)
        self.campaigns: dict[str, Campaign] = {}
        self.spent_rdp = total_rdp(())

    @property
    def left(self) -> Fraction:
        """Epsilon that is left: the whole cap at first, afterwards what the filter still has."""
        return self.filter.left(self.spent_rdp) if self.campaigns else self.terms.epsilon

    @property
    def spent(self) -> Fraction:
        """Epsilon spent: the exact accountant's for one campaign, the filter's for several. To be shown, not added."""
        if len(self.campaigns) == 1:
            return next(iter(self.campaigns.values())).cost.epsilon
        return self.terms.epsilon - self.left

    @property
    def left_in_words(self) -> str:
        """What may still be asked for."""
        cap = f"epsilon {float(self.terms.epsilon):.4g}"
        if not self.campaigns:
            return f"all of {cap}: nothing has been reserved yet"
        if not self.left:
            return f"nothing of {cap}: no further campaign can be admitted"
        return f"epsilon {float(self.left):.4g} of {cap}, by the filter for campaigns chosen one after the other"

    def check_budget(self, campaign: str, cost: Cost) -> None:
        """The acceptance rule, before anything is written.

        Raises:
            BudgetExceededError: the campaign does not fit.
        """
        first = not self.campaigns
        if cost.epsilon <= self.terms.epsilon if first else self.filter.admits(self.spent_rdp, cost):
            return
        rule = "by the exact accountant" if first else "on top of what is reserved, by the filter"
        raise BudgetExceededError(
            f"campaign '{campaign}' of {self.terms.holder} asks for epsilon {float(cost.epsilon):.4g}, {rule}, but "
            f"{float(self.spent):.4g} of {float(self.terms.epsilon):.4g} is spent (delta {float(self.terms.delta):g}); "
            f"left: {self.left_in_words}; ask for less, or wait for the next period",
            requested=float(cost.epsilon),
            left=float(self.left),
        )

    def check_reservation(self, campaign: str, cost: Cost, *, request: str, rounds: int) -> bool:
        """Whether this very reservation is there already, at this cost or a higher one.

        Raises:
            LedgerError: another one is there under the same name, or the words are malformed.
        """
        _check_name("campaign", campaign, LedgerError)
        _check_name("request", request, LedgerError)
        if type(rounds) is not int or not 1 <= rounds <= _ROUNDS:
            raise LedgerError(f"campaign '{campaign}' reserves {rounds!r} rounds; give a whole number from 1")
        known = self.campaigns.get(campaign)
        if known is None:
            return False
        if (known.request, known.rounds) != (request, rounds):
            raise LedgerError(
                f"campaign '{campaign}' is reserved for {known.rounds} rounds of request {known.request[:16]}, not for "
                f"{rounds} of {request[:16]}; a reservation is never changed, so use a new name"
            )
        if not known.covers(cost):  # then the request does not fix the noise
            raise LedgerError(
                f"campaign '{campaign}' now costs more than was reserved for the same request (epsilon "
                f"{float(cost.epsilon):.4g} against {float(known.cost.epsilon):.4g}); use a new name and reserve that"
            )
        return True

    def check_round(self, campaign: str, round_number: int, request: str) -> str | None:
        """SHA-256 of what this round released already, or None if it may be served now.

        Raises:
            LedgerError: not reserved, beyond the reserved rounds, or served for another request.
        """
        known = self.campaigns.get(campaign)
        if known is None:
            raise LedgerError(f"campaign '{campaign}' has no reservation; reserve its whole cost before it starts")
        if type(round_number) is not int or not 1 <= round_number <= known.rounds:
            raise LedgerError(
                f"campaign '{campaign}' has rounds 1 to {known.rounds} reserved, not round {round_number}"
            )
        _check_name("request", request, LedgerError)
        served = known.served.get(round_number)
        if served is None:
            return None
        if served[0] != request:
            raise LedgerError(
                f"round {round_number} of campaign '{campaign}' was served for request {served[0][:16]}, not for "
                f"{request[:16]}; a round is served once, so ask for it as it was asked first"
            )
        return served[1]

    def apply(self, line: LedgerLine) -> None:
        """Add one line that follows the others.

        Raises:
            LedgerError: the line breaks a rule, so it was not written by this program; the book is unchanged.
        """
        try:
            {"reserved": self._apply_reserved, "served": self._apply_served}[line.kind](**line.body)
        except (KeyError, TypeError, PrivacyParameterError, RefusedError) as error:
            raise LedgerError(f"ledger line {line.seq} ('{line.kind[:20]}') breaks a rule: {error}") from None

    def _apply_reserved(self, *, campaign: str, request: str, rounds: int, epsilon: str, rdp: list[str]) -> None:
        cost = Cost(from_text(epsilon), tuple(from_text(value) for value in rdp))
        if self.check_reservation(campaign, cost, request=request, rounds=rounds):
            raise LedgerError(f"campaign '{campaign}' is reserved twice")
        self.check_budget(campaign, cost)
        self.campaigns[campaign] = Campaign(request, cost, rounds)
        self.spent_rdp = tuple(spent + more for spent, more in zip(self.spent_rdp, cost.rdp, strict=True))

    def _apply_served(self, *, campaign: str, round_number: int, request: str, blob: str) -> None:
        if self.check_round(campaign, round_number, request) is not None or not is_digest(blob):
            raise LedgerError(f"round {round_number} of '{campaign}' is served twice, or its digest is malformed")
        self.campaigns[campaign].served[round_number] = (request, blob)


def opening_body(terms: Terms, public_key: Ed25519PublicKey) -> dict[str, Any]:
    """Body of the first line."""
    return {
        "version": VERSION,
        "holder": terms.holder,
        "population": terms.population,
        "period": terms.period,
        "epsilon": to_text(terms.epsilon),
        "delta": to_text(terms.delta),
        "orders": list(ORDERS),
        "public_key": public_hex(public_key),
    }


def opened_book(line: LedgerLine) -> Book:
    """The empty book that the first line opens.

    Raises:
        LedgerError: it is not an opening line, or of another version of the format.
    """
    body = line.body
    if line.kind != "open" or body.get("version") != VERSION or body.get("orders") != list(ORDERS):
        raise LedgerError(
            f"ledger line 1 is not an opening line of version {VERSION} with {len(ORDERS)} Renyi orders; "
            "read this ledger with the program that wrote it"
        )
    try:
        terms = Terms(
            *(body[name] for name in ("holder", "population", "period")),
            epsilon=from_text(body["epsilon"]),
            delta=from_text(body["delta"]),
        )
    except (KeyError, PrivacyParameterError) as error:
        raise LedgerError(f"ledger line 1 breaks a rule: {error}") from None
    return Book(terms)


def reserved_body(campaign: str, cost: Cost, *, request: str, rounds: int) -> dict[str, Any]:
    """Body of the line that reserves a campaign."""
    rdp = [to_text(value) for value in cost.rdp]
    return {
        "campaign": campaign, "request": request, "rounds": rounds, "epsilon": to_text(cost.epsilon), "rdp": rdp
    }  # fmt: skip


def served_body(campaign: str, round_number: int, *, request: str, blob: str) -> dict[str, Any]:
    """Body of the line that records a release; `blob` is its SHA-256."""
    return {"campaign": campaign, "round_number": round_number, "request": request, "blob": blob}


def _check_name(what: str, text: object, error: type[MigrafedError]) -> None:
    if not isinstance(text, str) or not text.isprintable() or text != text.strip() or not 1 <= len(text) <= 200:
        raise error(f"{what} must be 1 to 200 printable characters, not blank at its ends, got {str(text)[:40]!r}")
