"""Holders that drop out of masked sums, at every message and in every combination; what must come of it, and what does.

    python -m tests.dropouts 5 2        prints how many combinations of at most 2 of 5 holders ended in what

A combination says of each holder after which message nothing was heard of it. One session serves all combinations that
begin alike, one sum after the other, so holders that dropped out of one sum are back in the next.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product

import numpy as np

from protocol.errors import AggregationRefusedError, TrainingError
from tests.masked_sums import Session, SumRun, names_of, new_session, plain_sum, vectors

PHASES = ("advertise", "confirm", "contribute", "sign", "reveal")
"""What a holder does not do any more."""
IN_A_SUM = PHASES[2:]
REASONS = {
    "adverts": "adverts name",
    "confirmations": "has confirmed the keys of all",
    "contributions": "contributed to",
    "signatures": "holders signed who is left",
    "reveals": "holders helped to open",
}
"""How a sum that cannot be opened ends, and the words that say so."""
Combination = Mapping[str, str]
"""The phase in which a holder was lost, by holder; who is not there takes part to the end."""


def lost(combination: Combination, phase: str) -> tuple[str, ...]:
    """Who was lost in a phase."""
    return tuple(name for name, at in combination.items() if at == phase)


def every(names: tuple[str, ...], phases: tuple[str, ...], *, most: int) -> Iterator[dict[str, str]]:
    """All combinations of at most `most` lost holders."""
    for count in range(most + 1):
        for who in combinations(names, count):
            for when in product(phases, repeat=count):
                yield dict(zip(who, when, strict=True))


def expected(holders: int, combination: Combination) -> str:
    """What must come of it: `sum`, or the message that too few were heard with. From the rules, not from the code."""
    needed = 2 * holders // 3 + 1
    absent, unconfirmed, late, unsigned, silent = (len(lost(combination, phase)) for phase in PHASES)
    heard = holders - absent
    if unconfirmed < heard < needed:
        return "adverts"  # whoever sees them says so
    if unconfirmed and heard > unconfirmed + late:
        return "confirmations"  # whoever is asked for a sum says so
    if heard - unconfirmed - late < needed:
        return "contributions"
    if not late:
        unsigned = 0  # nobody is asked to sign
    if heard - late - unsigned < needed:
        return "signatures"
    return "reveals" if heard - late - unsigned - silent < needed else "sum"


def start(holders: int, combination: Combination) -> Session | str:
    """A session without those who advertise nothing, or how it ended."""
    try:
        return new_session(
            holders, absent=lost(combination, "advertise"), unconfirmed=lost(combination, "confirm")
        )  # fmt: skip
    except AggregationRefusedError as error:
        return ended(error)


def outcome(session: Session, combination: Combination, *, words: int = 5) -> str:
    """Drive one sum to its end, and check that it is exact, or that nothing was opened."""
    session.log.clear()
    run = SumRun(session, session.order(), vectors(session.names, words, seed=session.sequence))
    try:
        run.contribute(late=lost(combination, "contribute") + lost(combination, "confirm"))
        gone = set(lost(combination, "reveal"))
        if run.masked.needs_signatures:
            run.sign(unsigned=lost(combination, "sign"))
            gone |= set(lost(combination, "sign"))
        run.reveal(silent=gone)
        total = run.total()
    except (AggregationRefusedError, TrainingError) as error:
        reason = ended(error)
        if reason != "reveals":
            assert "reveal" not in {kind for kind, _, _ in session.log}
        return reason
    left = set(session.names) - set(lost(combination, "contribute"))
    assert set(run.survivors.left) == left
    np.testing.assert_array_equal(total, plain_sum(run.inputs, left))
    return "sum"


def ended(error: Exception) -> str:
    """Which of the reasons an error gives."""
    (reason,) = (reason for reason, words in REASONS.items() if words in str(error))
    return reason


def check(holders: int, all_of_them: Iterable[Combination]) -> Counter[str]:
    """Run combinations; what they ended in, how often."""
    counts: Counter[str] = Counter()
    sessions: dict[tuple[str, ...], Session | str] = {}
    for combination in all_of_them:
        before = {name: at for name, at in combination.items() if at not in IN_A_SUM}
        key = tuple(f"{name} {at}" for name, at in sorted(before.items()))
        if key not in sessions:
            sessions[key] = start(holders, before)
        session = sessions[key]
        came = session if isinstance(session, str) else outcome(session, combination)
        must = expected(holders, combination)
        assert came == must, f"{combination}: {came}, must be {must}"
        counts[came] += 1
    return counts


def main(holders: int, most: int) -> None:
    counts = check(holders, every(names_of(holders), PHASES, most=most))
    sys.stdout.write(f"{holders} holders, at most {most} lost: {counts.total()} combinations, {dict(counts)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
