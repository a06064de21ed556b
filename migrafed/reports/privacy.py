"""What the report says about privacy: every word and number comes from the card of the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migrafed.reports.svg import Table
from migrafed.reports.wording import MISSING, count_of, number
from privacy.card import ALL, HolderCard, PrivacyCard, Promise, ReleasedObject

READABLE = 3.0
"""Noise standard deviations below which a value cannot be told from an empty cell."""


@dataclass(frozen=True)
class Shown:
    """How the values drawn in a report may be called.

    Args:
        word: One word for an observed value, in captions.
        label: The same in a legend.
        note: A sentence for captions; empty without privacy.
        stddev: Noise of one value in the unit shown; None: none or not known.
    """

    word: str
    label: str
    note: str
    stddev: float | None

    @property
    def floor(self) -> float:
        """Means below it are greyed out."""
        return 0.0 if self.stddev is None else READABLE * self.stddev

    @property
    def reason(self) -> str:
        """Why something is grey."""
        return f"below {READABLE:g} noise standard deviations ({number(self.floor, digits=3)})"

    def noted(self, caption: str) -> str:
        """A caption with the note at its end."""
        return f"{caption} {self.note}".rstrip()


def shown_of(card: PrivacyCard) -> Shown:
    """The words for a run's values."""
    if not card.holders:
        return Shown("true", "true", "", None)
    promise = f"epsilon {rounded_up(max(h.joint_epsilon for h in card.holders))}, "
    promise += f"delta {max(h.joint_delta for h in card.holders):.3g}"
    persons = all(promise.is_person for holder in card.holders for promise in holder.promises)
    unit = "per person and holder" if persons else "per window, which is not a person"
    if card.shown.origin == "raw data":
        return Shown(
            "true", "true (raw)", f"Raw values; noise is in the model's training alone: {promise} {unit}.", None
        )
    note = f"Noised values: {promise} {unit}."
    if card.shown.noise_stddev is None:
        note += " The noise of single values on this scale differs from pair to pair; none is greyed out."
    return Shown("released", "released (noised)", note, card.shown.noise_stddev)


def rounded_up(value: float, *, digits: int = 4) -> str:
    """An epsilon with so many digits that is never smaller than the true one."""
    if not math.isfinite(value) or value <= 0:
        return number(value)
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return number(math.ceil(value / step - 1e-9) * step, digits=digits)


def scored_word(card: PrivacyCard) -> str:
    """One word for the values that errors are measured against."""
    return "released" if card.shown.scored == "post-processing" else "true"


def scored_words(card: PrivacyCard) -> str | None:
    """What errors were measured against, where that is worth a word."""
    if not card.holders:
        return None
    if card.shown.scored == "raw data":
        return "Errors were measured against raw values, outside the promise: only synthetic or public data allow that."
    return (
        "Errors were measured against released (noised) values. Their noise is part of every error, even of a perfect "
        "forecast, so errors compare with each other and not with those of a run without noise."
    )


@dataclass(frozen=True)
class PromiseBlock:
    """One promise as the report prints it, with all holders that make it."""

    holders: str
    facts: tuple[tuple[str, str], ...]
    rules: tuple[str, ...]
    windows: Table | None


def holder_table(card: PrivacyCard) -> Table | None:
    """What each holder promises, and what that leaves of its budget."""
    if not card.holders:
        return None
    columns = ("Holder", "Unit", "epsilon", "delta", "k", "Spent", "Budget", "Left in the period", "Period")
    return Table(columns, tuple(_holder_row(holder) for holder in card.holders))


def _holder_row(holder: HolderCard) -> tuple[str, ...]:
    cells = {promise.contributions for promise in holder.promises if promise.contributions is not None}
    return (
        holder.holder,
        ", ".join("person" if promise.is_person else "window (not a person)" for promise in holder.promises),
        rounded_up(holder.joint_epsilon),
        f"{holder.joint_delta:.3g}",
        ", ".join(str(k) for k in sorted(cells)) or MISSING,
        MISSING if holder.spent_epsilon is None else rounded_up(holder.spent_epsilon),
        MISSING if holder.budget_epsilon is None else number(holder.budget_epsilon),
        holder.left or "known to the holder alone",
        holder.period,
    )


def promise_blocks(card: PrivacyCard) -> list[PromiseBlock]:
    """Each different promise once."""
    makers: dict[str, tuple[Promise, list[str]]] = {}
    for holder in card.holders:
        for promise in holder.promises:
            makers.setdefault(promise.model_dump_json(), (promise, []))[1].append(holder.holder)
    return [
        PromiseBlock(", ".join(names), tuple(_facts(promise)), promise.contribution_rules, _window_table(promise))
        for promise, names in makers.values()
    ]


def _facts(promise: Promise) -> Iterator[tuple[str, str]]:
    yield "Protected", f"{promise.unit}; add or remove one"
    yield "Mechanism", promise.mechanism
    yield "epsilon", f"{rounded_up(promise.epsilon)} at delta {promise.delta:.3g}"
    if promise.contributions is not None:
        enforced = (
            "enforced on the records" if promise.contributions_enforced else "assumed of the counts, not enforced"
        )
        yield "k", f"{count_of(promise.contributions, 'cell')} per person in the period, {enforced}"
    for query, stddev in sorted(promise.noise_stddev.items()):
        yield f"Noise on {query}", f"stddev {number(stddev)}"
    yield (
        "Noise multiplier",
        f"{number(promise.noise_multiplier)} (noise over L2 sensitivity, the least of all queries)",
    )
    if promise.steps is not None:
        yield "Steps", f"{promise.steps:,}, clip norm {number(promise.clip_norm or math.nan)}"
    if promise.sampling_rate is not None:
        batch = f", expected batch {number(promise.expected_batch)}" if promise.expected_batch is not None else ""
        yield "Sampling rate", f"{number(promise.sampling_rate)} (Poisson){batch}"
    yield "Accountant", promise.accountant
    yield "Mechanism digest", promise.mechanism_digest
    if promise.event_epsilon is not None:
        told = (
            f"{rounded_up(promise.event_epsilon)} for one single count. Beside a person's epsilon, never in its place"
        )
        yield "Event-level", told


def _window_table(promise: Promise) -> Table | None:
    """What a promise to windows is worth to a person."""
    numbers = sorted(promise.person_epsilon.keys() | promise.changed_epsilon.keys())
    if promise.is_person or not numbers:
        return None
    columns = ("Windows of a person", "epsilon if they stay and change", "epsilon if they come and go")
    rows = tuple(
        (f"{g:,}", _or_none(promise.changed_epsilon.get(g)), _or_none(promise.person_epsilon.get(g))) for g in numbers
    )
    return Table(columns, rows)


def _or_none(epsilon: float | None) -> str:
    return "no finite one" if epsilon is None else rounded_up(epsilon)


@dataclass(frozen=True)
class Release:
    """A line of the tables of released objects: the same thing of several holders is one line."""

    name: str
    origin: str
    holders: str
    numbers: str
    size: str
    times: str
    goes_to: str


def release_tables(card: PrivacyCard) -> list[tuple[str, bool, list[Release]]]:
    """What leaves the holders, and what lies in the folder: heading, whether it leaves a holder, lines."""
    headings = {
        "leaves a holder": "What left the holders",
        "stays with its holder": "What was released and stayed with its holder",
        "run folder": "What a reader of the run folder gets",
    }
    tables = []
    for place, heading in headings.items():
        alike: dict[tuple[object, ...], list[ReleasedObject]] = {}
        for each in card.released:
            if each.place == place:
                key = (each.name, each.origin, each.times, each.goes_to, each.holder in (None, ALL))
                alike.setdefault(key, []).append(each)
        if alike:
            tables.append((heading, place == "leaves a holder", [_release(group) for group in alike.values()]))
    return tables


def _release(group: Sequence[ReleasedObject]) -> Release:
    first = group[0]
    holders = first.holder or "each" if len(group) == 1 else count_of(len(group), "holder")
    times = MISSING if first.times is None else f"{first.times:,}"
    numbers, sizes = (each.numbers for each in group), (each.size_bytes for each in group)
    return Release(first.name, first.origin, holders, _range(numbers), _range(sizes), times, first.goes_to)


def _range(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    if not known:
        return MISSING
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} – {known[-1]:,}"


def sums_facts(card: PrivacyCard) -> list[tuple[str, str]]:
    """What is promised of updates and sums, beside the sentence at its top."""
    sums = card.sums
    if sums is None:
        return []
    facts = [
        ("Coordinator sees", sums.coordinator_sees),
        ("Holds while", sums.holds_while),
        ("Otherwise", sums.otherwise),
    ]
    if sums.update_norm is not None:
        facts.append(("Longest update", f"{number(sums.update_norm)} in L2; longer ones are shortened"))
    return facts


def audit_summary(card: PrivacyCard) -> str:
    """How many checks passed, in one line."""
    passed = sum(audit.passed for audit in card.audits)
    return f"{passed} of {count_of(len(card.audits), 'check')} passed before the run started"


def privacy_context(card: PrivacyCard) -> dict[str, Any]:
    """What `privacy.html` needs beside the card itself."""
    return {
        "holders": holder_table(card),
        "persons": all(promise.is_person for holder in card.holders for promise in holder.promises),
        "promises": promise_blocks(card),
        "released": release_tables(card),
        "sums": sums_facts(card),
        "audits": audit_summary(card),
        "registry": [
            (name.replace("_", " "), "left to whoever publishes" if value is None else value)
            for name, value in card.registry
        ],
    }
