"""Plans keep their promise, calibrate without waste and never with too little noise, and can be written down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privacy.calibration import least_noise, rounded_up
from privacy.events import CountNoise, GaussianSteps
from privacy.plan import CountReleasePlan, DPSGDPlan, PrivacyPlan, plan_from_json, plan_to_json
from protocol.errors import PrivacyParameterError

COUNTS = CountReleasePlan(contributions=10, cells_stddev=20.0, margins_stddev=30.0)
TRAINING = DPSGDPlan(clip_norm=1.0, noise_multiplier=2.0, sampling_rate=0.1, expected_batch=25.6, steps=40)

plans = st.one_of(
    st.builds(
        CountReleasePlan,
        unit=st.text(min_size=1, max_size=20),
        contributions=st.integers(1, 1000),
        cells_stddev=st.floats(0.1, 1e5),
        margins_stddev=st.none() | st.floats(0.1, 1e5),
    ),
    st.builds(
        DPSGDPlan,
        clip_norm=st.floats(1e-3, 1e3),
        noise_multiplier=st.floats(1e-3, 1e3),
        sampling_rate=st.floats(1e-6, 1.0),
        expected_batch=st.floats(1.0, 1e6),
        steps=st.integers(1, 10**6),
    ),
)


@given(plan=plans)
def test_json_round_trip(plan: PrivacyPlan) -> None:
    """What is read is what was written, and so is its digest."""
    again = plan_from_json(plan_to_json(plan))
    assert again == plan
    assert again.digest() == plan.digest()


def test_digest_tells_plans_apart() -> None:
    noisier = CountReleasePlan(contributions=10, cells_stddev=20.5, margins_stddev=30.0)
    assert len({COUNTS.digest(), noisier.digest(), TRAINING.digest()}) == 3
    assert len(COUNTS.digest()) == 64


def test_canonical_json() -> None:
    """Sorted, without blanks, defaults written out: the same bytes on every machine."""
    assert plan_to_json(COUNTS) == (
        '{"adjacency":"add/remove","cells_stddev":20.0,"contributions":10,"kind":"count-release",'
        '"margins_stddev":30.0,"unit":"person: one account at this holder"}'
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ("{}", "kind"),
        ('{"kind":"laplace"}', "laplace"),
        ('{"kind":"count-release","cells_stddev":1.0}', "contributions"),
        ('{"kind":"count-release","cells_stddev":1.0,"contributions":1,"physical_batch":8}', "physical_batch"),
        ('{"kind":"count-release","cells_stddev":1.0,"contributions":1,"adjacency":"replace"}', "adjacency"),
    ],
)
def test_malformed_json_is_refused(text: str, named: str) -> None:
    with pytest.raises(PrivacyParameterError, match=named):
        plan_from_json(text)


def test_events_of_a_count_release() -> None:
    cells, margin = CountNoise(stddev=20.0, contributions=10), CountNoise(stddev=30.0, contributions=10)
    assert COUNTS.events() == (cells, margin, margin)
    assert CountReleasePlan(contributions=10, cells_stddev=20.0).events() == (cells,)


def test_events_of_a_training() -> None:
    assert TRAINING.events() == (GaussianSteps(noise_multiplier=2.0, sampling_rate=0.1, steps=40),)


def test_least_noise_multiplier_counts() -> None:
    """A policy's floor is checked against the query with the least noise, in units of its L2 sensitivity."""
    assert COUNTS.noise_multiplier == pytest.approx(20 / math.sqrt(10))
    swapped = CountReleasePlan(contributions=10, cells_stddev=30.0, margins_stddev=20.0)
    assert swapped.noise_multiplier == COUNTS.noise_multiplier


@pytest.mark.parametrize(
    ("target", "study"),
    [(1.0, 4.68), (2.0, 2.45), (4.0, 1.30), (8.0, 0.70)],
)
def test_study_multipliers(target: float, study: float) -> None:
    """Noise over √k for epsilon 1, 2, 4, 8 at delta 1e-7, as the design study has them."""
    plan = CountReleasePlan(contributions=50, cells_stddev=1.0).calibrate(epsilon=target, delta=1e-7)
    assert plan.noise_multiplier == pytest.approx(study, abs=0.006)


@pytest.mark.parametrize("target", [0.2, 2.0, 30.0])
@pytest.mark.parametrize("contributions", [1, 1000])
@pytest.mark.parametrize("margins", [None, 1.0])
def test_calibrated_counts(target: float, contributions: int, margins: float | None) -> None:
    """Epsilon is never above the target and at most a hundredth below; the split is the one asked for."""
    start = CountReleasePlan(contributions=contributions, cells_stddev=1.0, margins_stddev=margins)
    plan = start.calibrate(epsilon=target, delta=1e-6)
    assert 0.99 * target <= plan.epsilon(1e-6) <= target
    assert plan.cells_stddev * 4096 == int(plan.cells_stddev * 4096)
    assert (plan.contributions, plan.unit) == (start.contributions, start.unit)
    if margins is None:
        assert plan.margins_stddev is None
    else:
        # Half of ρ for the cells, a quarter for each margin: √2 times the noise.
        assert plan.margins_stddev == pytest.approx(plan.cells_stddev * math.sqrt(2), abs=2 / 4096)


def test_margin_share_moves_budget() -> None:
    """ρ = k / (2 s²) of both margins together is the share of the whole."""
    plan = COUNTS.calibrate(epsilon=1.0, delta=1e-6, margin_share=0.2)
    assert plan.margins_stddev is not None
    margins, cells = 2 / plan.margins_stddev**2, 1 / plan.cells_stddev**2
    assert margins / (margins + cells) == pytest.approx(0.2, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 50), (0.1, 200), (0.01, 2000)])
def test_calibrated_training(target: float, rate: float, steps: int) -> None:
    start = DPSGDPlan(clip_norm=2.0, noise_multiplier=1.0, sampling_rate=rate, expected_batch=32.0, steps=steps)
    plan = start.calibrate(epsilon=target, delta=1e-6)
    assert 0.99 * target <= plan.epsilon(1e-6) <= target
    assert plan.model_copy(update={"noise_multiplier": 1.0}) == start


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_calibration_refuses_a_senseless_epsilon(target: float) -> None:
    for plan in (COUNTS, TRAINING):
        with pytest.raises(PrivacyParameterError, match="epsilon must be a finite number above 0"):
            plan.calibrate(epsilon=target, delta=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, 2.0, -1e-9, math.nan])
def test_calibration_refuses_a_senseless_delta(delta: float) -> None:
    for plan in (COUNTS, TRAINING):
        with pytest.raises(PrivacyParameterError, match="delta must be above 0 and below 1"):
            plan.calibrate(epsilon=1.0, delta=delta)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_calibration_refuses_a_senseless_share(share: float) -> None:
    with pytest.raises(PrivacyParameterError, match="margin_share must be above 0 and below 1"):
        COUNTS.calibrate(epsilon=1.0, delta=1e-6, margin_share=share)


def test_calibration_refuses_more_noise_than_can_be_drawn() -> None:
    with pytest.raises(PrivacyParameterError, match=r"cells_stddev.*100000"):
        CountReleasePlan(contributions=1000, cells_stddev=1.0).calibrate(epsilon=1e-3, delta=1e-6)


def test_calibration_gives_up_where_no_noise_helps() -> None:
    with pytest.raises(PrivacyParameterError, match="no noise that can be drawn"):
        least_noise(lambda noise: 2.0, rough_epsilon_of=lambda noise: 2.0, target=1.0)


def test_calibration_survives_a_rough_figure_that_misleads() -> None:
    """The bracket finds the noise even where the rough figure says nothing."""
    noise = least_noise(lambda noise: 1 / noise, rough_epsilon_of=lambda noise: 1e-9, target=0.25)
    assert 4.0 <= noise <= 4.01


@given(noise=st.floats(1e-6, 1e6))
def test_noise_is_rounded_up(noise: float) -> None:
    assert noise <= rounded_up(noise) <= noise + 1 / 4096


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"contributions": 0}, "contributions"),
        ({"contributions": -1}, "contributions"),
        ({"cells_stddev": 0.0}, "cells_stddev"),
        ({"cells_stddev": math.nan}, "cells_stddev"),
        ({"margins_stddev": 100_001.0}, "margins_stddev"),
        ({"unit": ""}, "unit"),
        ({"adjacency": "replace"}, "adjacency"),
        ({"epsilon": 1.0}, "epsilon"),
    ],
)
def test_count_plan_refuses(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(PrivacyParameterError, match=named):
        CountReleasePlan(**{**COUNTS.model_dump(), **wrong})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"sampling_rate": 1.1}, "sampling_rate"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"clip_norm": math.inf}, "clip_norm"),
        ({"expected_batch": 0.0}, "expected_batch"),
        ({"steps": 0}, "steps"),
        ({"physical_batch": 8}, "physical_batch"),
    ],
)
def test_training_plan_refuses(wrong: dict[str, object], named: str) -> None:
    """Speed options (the last) do not live in a plan."""
    with pytest.raises(PrivacyParameterError, match=named):
        DPSGDPlan(**{**TRAINING.model_dump(), **wrong})


def test_plans_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TRAINING.noise_multiplier = 0.1  # pyright: ignore[reportAttributeAccessIssue]


def test_person_pays_more_than_a_window() -> None:
    window = TRAINING.epsilon(1e-6)
    assert TRAINING.person_epsilon(1, 1e-6) == window
    assert TRAINING.person_epsilon(3, 1e-6) > 2 * window


@settings(max_examples=5, deadline=None)
@given(stddev=st.floats(2.0, 50.0))
def test_margins_are_paid_for(stddev: float) -> None:
    """Three queries cost more than one."""
    alone = CountReleasePlan(contributions=4, cells_stddev=stddev)
    assert alone.epsilon(1e-6) < alone.model_copy(update={"margins_stddev": stddev}).epsilon(1e-6)
