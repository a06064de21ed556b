"""The count audit runs the production release, accuses broken ones, and leaves the correct one alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from privacy.audits.exact import CanaryPersons, audit_counts, null_of
from privacy.audits.results import AuditResult
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from protocol.errors import InputError, PrivacyParameterError

DELTA = 1e-5


def plan_of(epsilon: float, *, margins: bool = True) -> CountReleasePlan:
    plan = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0 if margins else None)
    return plan.calibrate(epsilon=epsilon, delta=DELTA)


def audited(plan: CountReleasePlan, release=release_counts, *, canaries: int = 1500, seed: int = 3) -> AuditResult:
    return audit_counts(
        plan,
        canaries=canaries,
        delta=DELTA,
        confidence=0.99,
        coins=np.random.default_rng(seed),
        stream=SecureStream(bytes([seed]) * 32),
        release=release,
    )


def without_noise(queries: Mapping[str, np.ndarray], plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
    return NoisyCounts(values=dict(queries), stddev=dict.fromkeys(queries, 1.0))


def a_quarter(queries: Mapping[str, np.ndarray], plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
    margins = None if plan.margins_stddev is None else plan.margins_stddev / 4
    quieter = plan.model_copy(update={"cells_stddev": plan.cells_stddev / 4, "margins_stddev": margins})
    return release_counts(queries, quieter, stream)


@pytest.mark.parametrize("contributions", [1, 2, 7, 10, 23])
def test_canaries_fill_cells_and_margins_of_their_own(contributions: int) -> None:
    """All in: every count that a canary owns is exactly 1, all others are 0, so no canary touches another."""
    persons = CanaryPersons(5, contributions)
    counts = persons.counts(np.ones(5, dtype=bool), bytes(32))
    for query in counts.queries().values():
        assert query.max() == 1
        assert query.sum() == 5 * contributions
    day, origin, destination = persons.cells()
    assert (origin != destination).all()
    assert (counts.cells[day, origin, destination] == 1).all()
    assert not persons.counts(np.zeros(5, dtype=bool), bytes(32)).cells.any()


@pytest.mark.statistical
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_a_correct_release_is_not_accused_and_quarter_noise_is(epsilon: float) -> None:
    """Level .01 for the correct one, fixed key; a quarter of the noise is far beyond the claim."""
    correct = audited(plan_of(epsilon))
    assert correct.consistent
    assert 0 < (correct.lower_bound or 0) <= epsilon
    assert correct.figures["noise_ratio"] == pytest.approx(1.0, abs=0.08)
    broken = audited(plan_of(epsilon), a_quarter)
    assert not broken.consistent
    assert broken.figures["noise_ratio"] == pytest.approx(0.25, abs=0.03)


def test_no_noise_reaches_the_largest_provable_value() -> None:
    result = audited(plan_of(2.0, margins=False), without_noise)
    assert result.lower_bound == result.largest_provable
    assert not result.consistent
    assert result.figures["independent"] > 2


def test_a_claim_beyond_the_canaries_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match=r"cannot falsify a claim of 7.99; plant at least \d+ canaries"):
        audited(plan_of(8.0), canaries=100)


@pytest.mark.parametrize(("count", "contributions"), [(1, 3), (5, 0)])
def test_impossible_plantings_are_refused(count: int, contributions: int) -> None:
    with pytest.raises(InputError, match="cannot be planted"):
        CanaryPersons(count, contributions)


def test_the_null_at_one_is_the_plan() -> None:
    plan = plan_of(2.0)
    assert null_of(plan).epsilon(1.0, DELTA) == pytest.approx(plan.epsilon(DELTA), rel=2e-3)


def test_a_result_is_plain_json() -> None:
    result = audited(plan_of(1.0), canaries=500)
    read = json.loads(json.dumps(result.to_json()))
    assert read["lower_bound"] == result.lower_bound
    assert read["figures"] == dict(result.figures)
    assert read["assumptions"] == list(result.assumptions)
    with pytest.raises(TypeError):
        result.figures["noise_ratio"] = 1.0  # type: ignore[index]
