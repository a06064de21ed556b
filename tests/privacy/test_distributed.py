"""Shares of noise make the whole: exactly in variance, closely in shape, and no part of a step leaves its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from privacy.discrete_gaussian import DiscreteGaussian, sum_gap
from privacy.distributed import (
    DistributedDPSGD,
    StepShares,
    clipped_together,
    mean_gradients,
    step_schedule,
)
from privacy.dpsgd import DPSGD
from privacy.plan import DPSGDPlan, plan_from_json, plan_to_json
from privacy.randomness import SecureStream
from privacy.secure_aggregation.layout import Layout
from protocol.errors import PlanError, PrivacyParameterError
from tests.plans import tiny_plan
from tests.private_problems import PROBLEMS, Problem, make_plan

LEVEL = 1e-4


def plan_with(**changes: Any) -> DPSGDPlan:
    values = {"noise_multiplier": 1.1, "honest": 4, "expected_batch": 40.0, "sampling_rate": 0.1, "steps": 100}
    return make_plan(**(values | changes))


def key(number: int) -> SecureStream:
    return SecureStream(number.to_bytes(32, "big"))


members = st.integers(1, 50).flatmap(lambda holders: st.tuples(st.just(holders), st.integers(1, holders)))


@given(st.floats(0.3, 30.0), st.integers(1, 10**6), members)
def test_shares_of_the_honest_have_the_whole_variance(noise: float, parameters: int, of: tuple[int, int]) -> None:
    """Exactly, for every number of honest holders from one on: h shares less the 16 of rounding are (z D)² h / t."""
    holders, honest = of
    made = StepShares(plan_with(noise_multiplier=noise, honest=honest), parameters, holders)
    share, whole = Fraction(made.share_stddev) ** 2, (Fraction(noise) * Fraction(made.sensitivity)) ** 2
    assert honest * share >= whole + 16 * honest
    assert all(number * share - 16 >= whole * number / honest for number in range(1, holders + 1))
    assert honest * share <= (whole + 16 * honest) * (1 + Fraction(1, 10**9))


@given(st.floats(0.3, 10.0), st.integers(1, 10**7), st.integers(1, 50))
def test_units_are_the_finest_whose_noise_can_be_drawn(noise: float, parameters: int, honest: int) -> None:
    """A power of two; the next finer would need noise beyond 2^15, or is finer than the 2^20 of one holder's steps."""
    made = StepShares(plan_with(noise_multiplier=noise, honest=honest), parameters, 50)
    assert made.units.bit_count() == 1
    assert made.share_stddev <= 2**15
    assert made.units == 2**20 or made._share(2 * made.units) > 2**15


def marginal(normal: float, rounding: float, value: int) -> float:
    """Chance of an integer after a normal was rounded at random, by quadrature."""
    integers = np.arange(-60, 61)

    def density(x: float) -> float:
        weights = np.exp(-((integers - x) ** 2) / (2 * rounding**2))
        return stats.norm.pdf(x, scale=normal) * math.exp(-((value - x) ** 2) / (2 * rounding**2)) / weights.sum()

    return integrate.quad(density, -12 * normal, 12 * normal, limit=400, epsabs=1e-14)[0]


@pytest.mark.parametrize("rounding", [0.4, 0.5, 0.6])
def test_rounding_a_normal_at_random_is_a_discrete_gaussian(rounding: float) -> None:
    """Step 1 of the proof, where its error can be seen: within 3 tau at every integer, and it is not 0."""
    tau = 2 * sum(math.exp(-2 * (math.pi * rounding * k) ** 2) for k in range(1, 9))
    apart = [
        abs(math.log(marginal(1.3, rounding, value) / DiscreteGaussian(math.hypot(1.3, rounding)).pmf(np.array(value))))
        for value in range(-4, 5)
    ]
    assert max(apart) <= 3 * tau
    assert max(apart) > 1e-7


@pytest.mark.parametrize(("stddev", "holders"), [(0.5, 2), (0.5, 3), (0.6, 3), (0.7, 5)])
def test_sum_of_shares_is_a_discrete_gaussian_at_every_integer(stddev: float, holders: int) -> None:
    """Step 2 of the proof, where its error can be seen: the log of the ratio stays within `sum_gap`, and is not 0."""
    values = np.arange(-40, 41)
    one = np.array(DiscreteGaussian(stddev).pmf(values))
    total = one
    for _ in range(holders - 1):
        total = np.convolve(total, one)
    middle = total[len(total) // 2 - 6 : len(total) // 2 + 7]
    wanted = DiscreteGaussian(stddev * math.sqrt(holders)).pmf(np.arange(-6, 7))
    apart = np.abs(np.log(middle / wanted)).max()
    assert 1e-3 * sum_gap(stddev, holders) < apart <= sum_gap(stddev, holders)


def test_slack_is_negligible_and_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = StepShares(plan_with(steps=10_000_000), 10**9, 50)
    assert 0 < made.slack < 1e-100
    monkeypatch.setattr("privacy.distributed.sum_gap", lambda stddev, holders: 1e-10)
    with pytest.raises(PrivacyParameterError, match="are off by 2e-06 of epsilon over 100 steps"):
        StepShares(plan_with(), 100, 5)
    assert StepShares(plan_with(steps=1), 4, 5).slack == pytest.approx(8e-10)


def perceptron() -> Problem:
    return PROBLEMS["perceptron"]()


def parameters_of(problem: Problem) -> int:
    return sum(leaf.numel() for leaf in problem.model.parameters() if leaf.requires_grad)


def part_of(problem: Problem, made: DistributedDPSGD, positions: list[int]) -> dict[str, np.ndarray]:
    return made.part(
        problem.loss, problem.model, problem.batch_of, np.asarray(positions, dtype=np.int64), physical_batch=3
    )


class Quiet(DistributedDPSGD):
    """A part before its noise."""

    def _noise(self, parameters: int) -> np.ndarray:
        return np.zeros(parameters, dtype=np.int64)


def test_parts_add_up_to_the_sum_of_one_place() -> None:
    """Without noise, the decoded sum of three holders' parts is the mean that one holder of all examples would have."""
    problem = perceptron()
    plan = plan_with(honest=3, clip_norm=0.01)
    made = StepShares(plan, parameters_of(problem), 3)
    layout = made.layout({name: tuple(leaf.shape) for name, leaf in problem.model.named_parameters()})
    words = np.zeros(layout.words, dtype=np.uint32)
    for number, positions in enumerate(([0, 3], [], [1, 2])):
        words += layout.encode(part_of(problem, Quiet(made, key(number)), positions))
    sums = Layout.from_bytes(layout.to_bytes()).decode(words, survivors=3)

    class Central(DPSGD):
        def _noise(self, parameters: int) -> np.ndarray:
            return np.zeros(parameters, dtype=np.int64)

    central = Central(plan, key(0)).noisy_mean(
        problem.loss, problem.model, problem.batch_of, np.arange(4), physical_batch=4
    )
    assert any(np.abs(value).max() > 0 for value in sums.values())
    for name, value in central.items():
        np.testing.assert_allclose(sums[name], value.numpy(), atol=4 * plan.clip_norm / made.units / 40)


@pytest.mark.statistical
@pytest.mark.parametrize("quieter", [1.0, 0.95])
def test_noise_of_the_sum_has_the_stated_variance(quieter: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 20,000 coordinates of the sum of t parts of empty samples; shares that are 5 % too quiet are found."""
    wide = torch.nn.Linear(20_000, 1, bias=False)

    def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return model(batch["x"])[:, 0]

    honest = 4
    made = StepShares(plan_with(honest=honest), 20_000, 5)
    if quieter < 1:
        quiet = DiscreteGaussian(made.share_stddev * quieter)
        monkeypatch.setattr(StepShares, "noise", property(lambda self: quiet))
    total = np.zeros(20_000)
    for number in range(honest):
        mechanism = DistributedDPSGD(made, key(number))
        found = mechanism.part(
            loss, wide, lambda positions: {"x": torch.zeros(len(positions), 20_000)}, np.zeros(0, dtype=np.int64),
            physical_batch=8,
        )  # fmt: skip
        assert found["weight"].dtype == np.int64
        total += found["weight"].ravel()
    variance = (1.1 * made.sensitivity) ** 2 + 16 * honest
    chi = stats.chi2(20_000)
    chance = 2 * min(chi.cdf((total**2).sum() / variance), chi.sf((total**2).sum() / variance))
    assert chance > LEVEL if quieter == 1 else chance < 1e-9
    shape = stats.kstest(total, stats.norm(scale=math.sqrt(variance) * quieter).cdf).pvalue
    assert shape > LEVEL


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    st.lists(st.integers(-(10**9), 10**9), min_size=20, max_size=20),
    st.integers(1, 10**8),
)
def test_cutting_brings_no_two_sums_further_apart(first: list[int], moves: list[int], cut: int) -> None:
    """Why a bound on what was drawn costs no privacy: in L2 the distance after cutting is at most that before."""
    one = np.array(first)
    other = one + np.array(moves[: len(first)])
    cuts = [np.clip(value, -cut, cut) for value in (one, other)]
    assert ((cuts[0] - cuts[1]) ** 2).sum() <= ((one - other) ** 2).sum()


def test_a_sample_beyond_the_public_bound_is_cut_and_still_fits() -> None:
    """More aligned gradients than the bound pays for: the part encodes, tells nothing, and stays within its limit."""

    class Far(Quiet):
        def _sum_of_rows(self, gradients: Any) -> np.ndarray:
            return np.full(self.shares.parameters, -(2**60), dtype=np.int64)

    problem = perceptron()
    made = StepShares(plan_with(), parameters_of(problem), 5)
    part = part_of(problem, Far(made, key(1)), [0, 1])
    assert all((value == -made.cut).all() for value in part.values())
    layout = made.layout({name: value.shape for name, value in part.items()})
    assert 5 * made.largest < 2**62
    sums = layout.decode(layout.encode(part) * np.uint32(5), survivors=5)
    assert all((value < 0).all() for value in sums.values())
    assert made.cut / made.units == 2 * 40 + 256
    assert made.largest - made.cut == made.noise.largest > 13 * made.share_stddev


def test_one_holders_mean_is_refused() -> None:
    """Its noise would be a share only, whoever asks."""
    problem = perceptron()
    made = DistributedDPSGD(StepShares(plan_with(), parameters_of(problem), 5), key(0))
    with pytest.raises(PrivacyParameterError, match="share of the noise protects nobody alone"):
        made.noisy_mean(problem.loss, problem.model, problem.batch_of, np.arange(2), physical_batch=2)


def test_parts_of_another_model_or_no_batch_are_refused() -> None:
    problem = perceptron()
    made = DistributedDPSGD(StepShares(plan_with(), parameters_of(problem) + 1, 5), key(0))
    with pytest.raises(PrivacyParameterError, match="trained parameters was given and noise is made for"):
        part_of(problem, made, [0])
    with pytest.raises(PrivacyParameterError, match="physical_batch must be >= 1, got 0"):
        made.part(problem.loss, problem.model, problem.batch_of, np.arange(2), physical_batch=0)


@pytest.mark.parametrize(("honest", "holders"), [(0, 5), (6, 5)])
def test_shares_of_nobody_or_of_more_than_there_are_are_refused(honest: int, holders: int) -> None:
    with pytest.raises(PrivacyParameterError, match=f"shared by {honest} honest holders of {holders}"):
        StepShares(plan_with(honest=honest), 10, holders)


def test_noise_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="more than shares can be drawn for"):
        StepShares(plan_with(noise_multiplier=1000.0), 10**6, 5)
    with pytest.raises(PrivacyParameterError, match="nothing to train"):
        StepShares(plan_with(), 0, 5)


@pytest.mark.slow
@settings(max_examples=4)
@given(st.integers(1, 4), st.floats(0.8, 8.0))
def test_epsilon_grows_with_the_dishonest(honest: int, noise: float) -> None:
    """Never smaller with one more dishonest holder, the plan's own with none, infinite where no honest one is left."""
    plan = plan_with(honest=honest, noise_multiplier=noise, sampling_rate=1.0, steps=3)
    found = [plan.epsilon_against(1e-6, dishonest=count) for count in range(honest + 1)]
    assert found[0] == pytest.approx(plan.epsilon(1e-6), rel=1e-9)
    assert all(before < after for before, after in pairwise(found))
    assert found[-1] == math.inf
    left = math.sqrt((honest - 1) / honest)
    if honest > 1:
        weaker = plan.model_copy(update={"noise_multiplier": noise * left})
        assert found[1] == pytest.approx(weaker.epsilon(1e-6), rel=1e-6)


def test_epsilon_against_does_not_depend_on_others_where_noise_is_local() -> None:
    plan = plan_with(honest=0)
    assert plan.epsilon_against(1e-6, dishonest=50) == plan.epsilon(1e-6)
    with pytest.raises(PrivacyParameterError, match="-1 dishonest holders"):
        plan.epsilon_against(1e-6, dishonest=-1)


def test_shared_noise_stands_in_the_plan_and_in_its_digest() -> None:
    """Plans of local noise keep the digest they had before; with t it is another plan, which reads back."""
    local, shared = plan_with(honest=0), plan_with(honest=4)
    assert "honest" not in plan_to_json(local)
    assert '"honest":4' in plan_to_json(shared)
    assert plan_from_json(plan_to_json(shared)) == shared
    assert local.digest() != shared.digest() != plan_with(honest=3).digest()
    assert local.events() == shared.events()  # as one place that holds all data


def test_means_are_of_those_who_were_left_and_clipped_together() -> None:
    sums = {"a": np.array([3.0]), "b": np.array([0.0, 4.0])}
    assert mean_gradients(sums, survivors=4, holders=5)["a"][0] == pytest.approx(3.75)
    assert clipped_together(sums, norm=0.0) == sums
    assert clipped_together(sums, norm=5.0) == sums
    short = clipped_together(sums, norm=1.0)
    assert (short["a"][0], short["b"][1]) == pytest.approx((0.6, 0.8))


SHARED: dict[str, Any] = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-5, "privacy.score_against": "truth",
    "privacy.noise": "distributed", "federation.aggregation": "secure", "federation.shares": ["weights"],
    "compare.pooled": False, "compare.alone": False, "training.select": "last", "training.optimizer": "sgd",
    "training.rounds": 7, "training.batch_size": 5,
}  # fmt: skip


def test_schedule_of_both_kinds_of_noise() -> None:
    """Local: every holder's own steps. Shared: a round is one step, over the samples of all three holders."""
    local = tiny_plan(SHARED | {"privacy.noise": "local"})
    assert step_schedule(local, num_examples=22) == {"sampling_rate": 5 / 22, "expected_batch": 5, "steps": 35}
    found = step_schedule(tiny_plan(SHARED), num_examples=22)
    assert found == {"sampling_rate": 5 / 22, "expected_batch": 15, "steps": 7, "honest": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"training.optimizer": "adam"},
        {"training.local_epochs": 2},
        {"federation.strategy": "fedprox"},
        {"federation.strategy": "fedadam", "training.local_epochs": 2},
    ],
)
def test_shared_noise_with_steps_at_holders_is_refused(changes: dict[str, Any]) -> None:
    """A holder could take no second step without all of the noise; nor has it an optimiser."""
    assert tiny_plan(SHARED | {"federation.strategy": "fedadam", "training.optimizer": "adam"}).shares_noise
    with pytest.raises(PlanError, match=r"a round is one step over all holders.*local_epochs = 1"):
        tiny_plan(SHARED | changes)
    assert not tiny_plan(SHARED | changes | {"privacy.noise": "local"}).shares_noise


def test_shared_noise_outside_a_masked_sum_is_refused() -> None:
    with pytest.raises(PlanError, match="protects only within a masked sum"):
        tiny_plan(SHARED | {"federation.aggregation": "plain"})
