"""The DP-SGD mechanism keeps the sensitivity, the noise and the divisor that its accounting assumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch import Tensor, nn

from privacy.dpsgd import DPSGD, UNITS, Mode, sensitivity_units
from privacy.per_example import Batch, Gradients, one_by_one
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError, PrivacyUnitError
from tests.private_problems import (
    PROBLEMS,
    TASK_PROBLEMS,
    FoldedGraph,
    Problem,
    graph_layers,
    make_plan,
    perceptron,
    squared_error,
)

LEVEL = 1e-4


class Noiseless(DPSGD):
    """The mechanism before its noise."""

    def _noise(self, parameters: int) -> np.ndarray:
        return np.zeros(parameters, dtype=np.int64)


def key(number: int = 0) -> SecureStream:
    return SecureStream(number.to_bytes(32, "big"))


def mechanism(*, noise: bool = True, number: int = 0, mode: Mode = "vmap", **changes: Any) -> DPSGD:
    return (DPSGD if noise else Noiseless)(make_plan(**changes), key(number), mode=mode)


def mean_of(
    problem: Problem, made: DPSGD, positions: list[int] | np.ndarray, physical_batch: int = 64
) -> dict[str, Tensor]:
    chosen = np.asarray(positions, dtype=np.int64)
    return made.noisy_mean(problem.loss, problem.model, problem.batch_of, chosen, physical_batch=physical_batch)


def flat(gradients: Gradients) -> np.ndarray:
    return torch.cat([value.flatten() for value in gradients.values()]).double().numpy()


def integer_sum(problem: Problem, made: DPSGD, positions: np.ndarray, physical_batch: int = 64) -> np.ndarray:
    return made._clipped_sum(problem.loss, problem.model, problem.batch_of, positions, physical_batch=physical_batch)


def expected_mean(problem: Problem, positions: list[int], *, clip_norm: float, divisor: float) -> np.ndarray:
    """By the textbook: clip each gradient in float64, add, divide."""
    rows = one_by_one(problem.loss, problem.model, problem.batch_of(np.asarray(positions)))
    table = torch.cat([value.flatten(1) for value in rows.values()], dim=1).double().numpy()
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return (table / np.maximum(1, norms / clip_norm)).sum(axis=0) / divisor


@pytest.mark.parametrize("clip_norm", [1e-3, 0.3, 100.0])
@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_without_noise_it_is_the_mean_of_clipped_gradients(name: str, clip_norm: float) -> None:
    """Clipped and not: equal to the textbook within the rounding to 2^-20 of the clip norm and of float32."""
    problem = PROBLEMS[name]()
    found = flat(mean_of(problem, mechanism(noise=False, clip_norm=clip_norm), [0, 2, 3, 6]))
    expected = expected_mean(problem, [0, 2, 3, 6], clip_norm=clip_norm, divisor=4)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=clip_norm / UNITS + 1e-6 * scale)


def largest_change(problem: Problem, made: DPSGD) -> tuple[float, float]:
    """Largest L2 change of the integer sum when one example is taken away, and the bound."""
    everyone = np.arange(problem.examples)
    whole = integer_sum(problem, made, everyone)
    changes = [
        float(np.linalg.norm((whole - integer_sum(problem, made, everyone[everyone != i])).astype(np.float64)))
        for i in everyone
    ]
    return max(changes), sensitivity_units(len(whole))


@pytest.mark.parametrize(
    ("name", "clip_norm"),
    [(name, 1e-4) for name in sorted(PROBLEMS | TASK_PROBLEMS)] + [(name, 0.5) for name in sorted(PROBLEMS)],
)
def test_one_example_moves_the_sum_by_at_most_the_sensitivity(name: str, clip_norm: float) -> None:
    """Add or remove one example, on the real loss; with the small clip norm the bound is nearly reached."""
    problem = (PROBLEMS | TASK_PROBLEMS)[name]()
    change, bound = largest_change(problem, mechanism(noise=False, clip_norm=clip_norm))
    assert change <= bound
    if clip_norm < 1e-3:
        assert change > 0.999 * UNITS


def contrast(model: nn.Module, batch: Batch) -> Tensor:
    """InfoNCE within the batch."""
    ours = nn.functional.normalize(model(batch["x"]), dim=1)
    theirs = nn.functional.normalize(model(batch["x"] + 0.1 * batch["y"].mean(dim=1, keepdim=True)), dim=1)
    return nn.functional.cross_entropy(ours @ theirs.mT / 0.5, torch.arange(len(ours)), reduction="none")


def test_in_batch_contrast_breaks_the_sensitivity() -> None:
    """Power of the test above: a loss that mixes examples, under Opacus' hooks, goes beyond the bound."""
    problem = perceptron(8)
    change, bound = largest_change(
        Problem(contrast, problem.model, problem.batch), mechanism(noise=False, clip_norm=1e-4, mode="hooks")
    )
    assert change > 1.1 * bound


class Wider(Noiseless):
    """Clips to four times the norm."""

    def _to_units(self, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return rows.mul_(4 * UNITS / norms.clamp_min(4 * self.plan.clip_norm)).round_()


def test_wider_clipping_breaks_the_sensitivity() -> None:
    change, bound = largest_change(perceptron(), Wider(make_plan(clip_norm=1e-4), key()))
    assert change > 3 * bound


@pytest.mark.parametrize("name", [*sorted(PROBLEMS), "dhgsil 0"])
def test_physical_batches_add_up_to_the_logical_one(name: str) -> None:
    """The same integers, but for last bits of float32 gradients; noise is drawn once per logical batch."""
    problem = (PROBLEMS | TASK_PROBLEMS)[name]()
    made, everyone = mechanism(noise=False, clip_norm=0.1), np.arange(problem.examples)
    whole = integer_sum(problem, made, everyone)
    for size in (1, 3):
        assert np.abs(integer_sum(problem, made, everyone, size) - whole).max() <= 4
    alone = mechanism(noise=False, clip_norm=0.1, mode="loop")
    assert np.array_equal(integer_sum(problem, alone, everyone, 1), integer_sum(problem, alone, everyone, 64))
    noisy = [flat(mean_of(problem, mechanism(), everyone, size)) for size in (1, 64)]
    np.testing.assert_allclose(noisy[0], noisy[1], rtol=0, atol=4 / UNITS)


def silent(parameters: int) -> Problem:
    """All gradients are zero, so that what comes out is noise."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return 0 * squared_error(model, batch)

    model = nn.Linear(parameters, 1, bias=False)
    return Problem(loss, model, {"x": torch.ones(4, parameters), "y": torch.zeros(4, 1)})


def noise_pvalue(noise: np.ndarray, stddev: float) -> float:
    """Two-sided chi-square test of the variance."""
    statistic = float(np.square(noise).sum()) / stddev**2
    return float(2 * min(stats.chi2.cdf(statistic, len(noise)), stats.chi2.sf(statistic, len(noise))))


class Quieter(DPSGD):
    """5 % too quiet."""

    def _noise(self, parameters: int) -> np.ndarray:
        return np.rint(0.95 * super()._noise(parameters)).astype(np.int64)


@pytest.mark.statistical
@pytest.mark.parametrize("positions", [[0, 1, 2, 3], []], ids=["zero gradients", "empty batch"])
def test_noise_has_the_stated_variance(positions: list[int]) -> None:
    """Level 1e-4; 5 % too quiet is refused at 1e-6. Noise is normal, and of one scale whatever the batch."""
    problem, plan = silent(20_000), make_plan(clip_norm=0.7, noise_multiplier=1.3, expected_batch=5.0)
    stddev = 1.3 * sensitivity_units(20_000) * 0.7 / UNITS / 5.0
    noise = flat(mean_of(problem, DPSGD(plan, key()), positions))
    assert noise_pvalue(noise, stddev) > LEVEL
    assert stats.kstest(noise, stats.norm(scale=stddev).cdf).pvalue > LEVEL
    assert noise_pvalue(flat(mean_of(problem, Quieter(plan, key()), positions)), stddev) < 1e-6


@pytest.mark.statistical
def test_steps_have_independent_noise() -> None:
    """Level 1e-4: no correlation between steps; reusing one step's noise is refused."""
    problem, made = silent(5_000), mechanism()
    steps = [flat(mean_of(problem, made, [])) for _ in range(3)]
    assert all(correlation_pvalue(steps[i], steps[j]) > LEVEL for i, j in ((0, 1), (0, 2), (1, 2)))
    assert correlation_pvalue(steps[0], steps[0]) < 1e-6


def correlation_pvalue(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided, of the correlation coefficient of two independent normal samples: about N(0, 1/n)."""
    return float(2 * stats.norm.sf(abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a))))


def test_noise_comes_from_the_secure_stream_alone() -> None:
    """Seeds of torch and numpy change nothing, the key changes everything, and two runs differ."""
    problem = silent(50)

    def noise(stream: SecureStream, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the global generator is what must not matter
        return flat(mean_of(problem, DPSGD(make_plan(), stream), [0, 1]))

    assert np.array_equal(noise(key(), 1), noise(key(), 2))
    assert not np.array_equal(noise(key(0), 1), noise(key(1), 1))
    assert not np.array_equal(noise(SecureStream(), 1), noise(SecureStream(), 1))


def test_the_divisor_is_public() -> None:
    """Never the number drawn: four times the same example give four times the mean of one."""
    problem = perceptron()
    made = mechanism(noise=False, clip_norm=1e-3, expected_batch=5.0)
    one, four = (flat(mean_of(problem, made, [2] * count)) for count in (1, 4))
    np.testing.assert_allclose(four, 4 * one, rtol=1e-5)
    assert np.linalg.norm(one) == pytest.approx(1e-3 / 5, rel=1e-4)


def test_an_empty_batch_asks_for_no_example() -> None:
    problem = perceptron()

    def never(positions: np.ndarray) -> Batch:
        raise AssertionError("examples were asked for")

    found = mechanism().noisy_mean(problem.loss, problem.model, never, np.array([], dtype=np.int64), physical_batch=4)
    assert np.all(flat(found) != 0)
    assert {name: value.shape for name, value in found.items()} == {
        name: leaf.shape for name, leaf in problem.model.named_parameters()
    }


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_an_example_that_is_not_finite_counts_as_zero_or_is_clipped(odd: float) -> None:
    """Refusing it would tell that it is there; it must not spoil the sum either."""
    problem = perceptron()
    batch = {name: value.clone() for name, value in problem.batch.items()}
    batch["x"][1] = odd
    spoilt = Problem(problem.loss, problem.model, batch)
    made = mechanism(noise=False)
    everyone = np.arange(problem.examples)
    whole, without = integer_sum(spoilt, made, everyone), integer_sum(problem, made, everyone[everyone != 1])
    assert np.linalg.norm((whole - without).astype(np.float64)) <= sensitivity_units(len(whole))


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_blocks_of_rows_do_not_change_the_sum(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, made = perceptron(), mechanism(noise=False)
    expected = integer_sum(problem, made, np.arange(7))
    monkeypatch.setattr("privacy.dpsgd._BLOCK", block)
    assert np.array_equal(integer_sum(problem, made, np.arange(7)), expected)


def test_wrong_units_are_refused_in_every_step() -> None:
    """Folded nodes under hooks, and a loader that returns more examples than were drawn."""
    folded = graph_layers(kind=FoldedGraph)
    with pytest.raises(PrivacyUnitError, match="leading dimension 12 for 2"):
        mean_of(folded, mechanism(mode="hooks"), [0, 3])
    problem = perceptron()
    with pytest.raises(PrivacyUnitError, match="leading dimension 7 for 2"):
        mechanism().noisy_mean(
            problem.loss, problem.model, lambda positions: problem.batch, np.array([0, 3]), physical_batch=4
        )


def test_draws_follow_the_plan() -> None:
    """The rate of the plan, on the stream of the mechanism."""
    drawn = mechanism(sampling_rate=0.25).draw(4_000)
    assert 850 < len(drawn) < 1150
    assert not np.array_equal(drawn, mechanism(sampling_rate=0.25, number=1).draw(4_000))


def test_physical_batches_hold_something() -> None:
    with pytest.raises(PrivacyParameterError, match="physical_batch must be >= 1, got 0"):
        mean_of(perceptron(), mechanism(), [0], physical_batch=0)


def test_clip_norms_without_squares_are_refused() -> None:
    """A norm below the square root of the smallest float would let rows through unclipped."""
    with pytest.raises(PrivacyParameterError, match="clip_norm must be >= 1e-30, got 1e-200"):
        mechanism(clip_norm=1e-200)


@pytest.mark.parametrize("mode", ["hooks", "ew", "loop"])
def test_modes_give_the_same_sum(mode: Mode) -> None:
    problem, everyone = perceptron(), np.arange(7)
    expected = integer_sum(problem, mechanism(noise=False), everyone)
    assert np.abs(integer_sum(problem, mechanism(noise=False, mode=mode), everyone) - expected).max() <= 4


def test_rounding_costs_next_to_nothing() -> None:
    """Even a million parameters add a thousandth to the noise."""
    assert sensitivity_units(0) == UNITS
    assert sensitivity_units(10**6) < 1.001 * UNITS
    assert sensitivity_units(10**6) >= UNITS + math.sqrt(10**6)


def test_mechanism_does_not_show_its_stream() -> None:
    assert "key" not in repr(mechanism())


@given(
    rows=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 30)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([1e-300, 1e300, 5e-324]),
    ),
    clip_norm=st.floats(1e-6, 1e6),
)
def test_no_row_is_longer_than_the_sensitivity(rows: np.ndarray, clip_norm: float) -> None:
    """Whatever a gradient holds, its integers have norm at most UNITS + sqrt(d) / 2, and are integers."""
    units = mechanism(clip_norm=clip_norm)._to_units(torch.from_numpy(rows.copy())).numpy()
    assert np.array_equal(units, np.rint(units))
    assert np.all(np.linalg.norm(units, axis=1) <= (UNITS + math.sqrt(rows.shape[1]) / 2) * (1 + 1e-12))
    with np.errstate(over="ignore"):
        short = np.linalg.norm(np.where(np.isfinite(rows), rows, np.inf), axis=1) <= clip_norm
    np.testing.assert_allclose(units[short], rows[short] * (UNITS / clip_norm), rtol=1e-12, atol=0.5 + 1e-9)
