"""What a campaign is charged for: every execution of its mechanism, at a delta that means something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.accounting import epsilon
from privacy.campaign import campaign_events, check_population_delta
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PrivacyParameterError

TRAINING = DPSGDPlan(clip_norm=1.0, noise_multiplier=8.0, sampling_rate=1.0, expected_batch=10.0, steps=4)
COUNTS = CountReleasePlan(contributions=4, cells_stddev=20.0, margins_stddev=30.0)


@pytest.mark.parametrize("mechanism", [TRAINING, COUNTS], ids=["training", "counts"])
def test_one_execution_is_the_plan_itself(mechanism: DPSGDPlan | CountReleasePlan) -> None:
    assert campaign_events(mechanism) == tuple(mechanism.events())


def test_every_execution_is_charged_jointly() -> None:
    """The best of three costs three, which together are cheaper than three times one and dearer than one."""
    one, three = (epsilon(campaign_events(TRAINING, trainings=n), delta=1e-6) for n in (1, 3))
    assert one < three < 3 * one
    assert three == pytest.approx(epsilon(TRAINING.model_copy(update={"steps": 12}).events(), delta=1e-6), rel=1e-3)


@pytest.mark.parametrize("trainings", [0, -1, 1.5, True, None])
def test_a_number_of_trainings_is_a_whole_number(trainings: object) -> None:
    with pytest.raises(PrivacyParameterError, match="trainings must be a whole number of 1 or more"):
        campaign_events(TRAINING, trainings=trainings)  # type: ignore[arg-type]


@given(population=st.integers(2, 10**10), share=st.floats(1e-6, 0.999))
def test_a_delta_below_one_person_is_accepted(population: int, share: float) -> None:
    check_population_delta(share / population, population=population)


@given(population=st.integers(1, 10**10), times=st.floats(1.001, 100))
def test_a_delta_of_a_person_or_more_is_refused(population: int, times: float) -> None:
    """Publishing the record of one person in n, drawn at random, is (0, 1/n)-DP."""
    with pytest.raises(PrivacyParameterError, match="delta"):
        check_population_delta(times / population, population=population)


@pytest.mark.parametrize("exponent", range(1, 10))
def test_the_bound_is_exact_in_decimal(exponent: int) -> None:
    """1e-7 for ten million people is one whole record, whatever the nearest binary fraction is."""
    with pytest.raises(PrivacyParameterError, match="a release of one whole record"):
        check_population_delta(float(f"1e-{exponent}"), population=10**exponent)


@pytest.mark.parametrize("population", [0, -5, 2.5, True])
def test_a_population_is_a_whole_number(population: object) -> None:
    with pytest.raises(PrivacyParameterError, match="population must be a whole number"):
        check_population_delta(1e-7, population=population)  # type: ignore[arg-type]
