"""The accountant against closed forms, brute force, other accountants and the figures of the design study."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism, from_mixture_gaussian_mechanism
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy import optimize, stats

from privacy.accounting import (
    cost_of,
    delta_of,
    epsilon,
    group_epsilon,
    merged,
    rdp_curve,
    rdp_epsilon,
    rough_epsilon,
)
from privacy.events import CountNoise, GaussianSteps, PrivacyEvent
from privacy.filters import ORDERS, UNBOUNDED
from protocol.errors import PrivacyParameterError

GOLDEN = json.loads(Path(__file__).with_name("golden_epsilons.json").read_text(encoding="utf-8"))


def analytic_gaussian(multiplier: float, delta: float) -> float:
    """Epsilon of one Gaussian of `multiplier` = stddev / sensitivity.

    Source: Balle and Wang 2018, arXiv:1805.06530, Theorem 8.
    """
    mu = 1 / multiplier

    def excess(tried: float) -> float:
        log_other = tried + stats.norm.logcdf(-mu / 2 - tried / mu)
        return float(stats.norm.cdf(mu / 2 - tried / mu) - np.exp(log_other) - delta)

    return float(optimize.brentq(excess, 0, mu**2 + 20 * mu))  # pyright: ignore[reportArgumentType]


def brute_force_delta(event: CountNoise, tried: float) -> float:
    """sup over sets of P - e^ε Q, summed over every outcome of k cells: no grid, no transform."""
    reach = max(math.ceil(9 * event.stddev), 2) + 1
    places = np.arange(-reach, reach + 2)
    weights = np.exp(-((places / event.stddev) ** 2) / 2)
    p = weights / weights.sum()
    q = np.exp(-(((places - 1) / event.stddev) ** 2) / 2) / weights.sum()
    total = 0.0
    for chosen in itertools.combinations_with_replacement(range(len(places)), event.contributions):
        ways = math.factorial(event.contributions)
        for place in set(chosen):
            ways //= math.factorial(chosen.count(place))
        own, other = math.prod(p[place] for place in chosen), math.prod(q[place] for place in chosen)
        total += ways * max(0.0, own - math.exp(tried) * other)
    return total


@pytest.mark.parametrize("row", GOLDEN["steps"], ids=lambda row: f"z{row['noise_multiplier']:g}")
def test_study_table(row: dict[str, float]) -> None:
    """The design study's table of Google PLD is reproduced."""
    event = GaussianSteps(
        noise_multiplier=row["noise_multiplier"], sampling_rate=row["sampling_rate"], steps=int(row["steps"])
    )
    found = epsilon([event], delta=row["delta"])
    assert found == pytest.approx(row["epsilon"], rel=GOLDEN["rel_tol"])
    assert found == pytest.approx(row["study"], abs=2e-3)


def test_two_families_cost_less_together() -> None:
    """Two models of the same people: joint composition is at most three quarters of the sum of both."""
    golden = GOLDEN["two_families"]
    family, delta = GaussianSteps(**golden["each"]), golden["delta"]
    naive = 2 * epsilon([family], delta=delta / 2)
    joint = epsilon([family, family], delta=delta)
    assert naive == pytest.approx(golden["naive"], rel=GOLDEN["rel_tol"])
    assert joint == pytest.approx(golden["joint"], rel=GOLDEN["rel_tol"])
    assert joint <= 0.75 * naive


@pytest.mark.parametrize("multiplier", [0.3, 1.0, 3.7, 40.0])
@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_full_batches_match_the_closed_form(multiplier: float, steps: int, delta: float) -> None:
    """T steps over everyone are one Gaussian with √T times the signal."""
    event = GaussianSteps(noise_multiplier=multiplier * math.sqrt(steps), steps=steps)
    truth = analytic_gaussian(multiplier, delta)
    assert truth * (1 - 1e-6) <= epsilon([event], delta=delta) <= truth * 1.001


@pytest.mark.parametrize(("stddev", "contributions"), [(6.0, 1), (20.0, 10), (50.0, 1000), (300.0, 1000), (5e3, 3)])
@pytest.mark.parametrize("delta", [1e-5, 1e-10])
def test_wide_count_noise_is_a_gaussian(stddev: float, contributions: int, delta: float) -> None:
    """From a few counts of noise on, the lattice can hardly be seen, however many cells a person is in."""
    event = CountNoise(stddev=stddev, contributions=contributions)
    truth = analytic_gaussian(event.noise_multiplier, delta)
    assert epsilon([event], delta=delta) == pytest.approx(truth, rel=2e-3 if stddev < 10 else 1e-3)


@pytest.mark.parametrize(("stddev", "contributions"), [(0.3, 1), (0.5, 3), (1.0, 2), (2.3, 1), (1.7, 3), (0.05, 2)])
@pytest.mark.parametrize("delta", [1e-2, 1e-6])
def test_count_noise_against_brute_force(stddev: float, contributions: int, delta: float) -> None:
    """With little noise the lattice matters: never below the truth, and not far above it."""
    event = CountNoise(stddev=stddev, contributions=contributions)
    found = epsilon([event], delta=delta)
    assert brute_force_delta(event, found) <= delta * (1 + 1e-9)
    assert brute_force_delta(event, found * (1 - 1e-3)) > delta


@pytest.mark.parametrize("tried", [0.0, 0.5, 2.0, 6.0])
def test_delta_of_counts_against_brute_force(tried: float) -> None:
    event = CountNoise(stddev=1.3, contributions=3)
    truth = brute_force_delta(event, tried)
    assert truth * (1 - 1e-9) <= delta_of([event], epsilon=tried) <= truth * 1.002 + 1e-12


def test_little_noise_is_not_taken_for_privacy() -> None:
    """Nine cells under noise of 0.05: the loss is 1800 almost surely, where e^-1800 is no float."""
    assert epsilon([CountNoise(stddev=0.05, contributions=9)], delta=1e-6) == pytest.approx(1800, rel=1e-3)
    assert delta_of([CountNoise(stddev=0.05, contributions=9)], epsilon=1700) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
@given(contributions=st.integers(2, 200), stddev=st.floats(0.4, 60.0))
@settings(max_examples=6, deadline=None)
def test_fewer_contributions_cost_less(contributions: int, stddev: float) -> None:
    """A person in fewer cells than k is covered by the promise for k."""
    fewer, all_of_them = (CountNoise(stddev=stddev, contributions=k) for k in (contributions - 1, contributions))
    for tried in (0.1, 1.0, 4.0):
        # To rounding: both are sums of many terms that cancel.
        assert delta_of([fewer], epsilon=tried) <= delta_of([all_of_them], epsilon=tried) * (1 + 1e-6) + 1e-13


def random_steps(number: int) -> list[tuple[GaussianSteps, float]]:
    """Settings as they are used, drawn once and for all, where epsilon is between 0.1 and 15."""
    rng = np.random.default_rng(20261122)
    found: list[tuple[GaussianSteps, float]] = []
    while len(found) < number:
        event = GaussianSteps(
            noise_multiplier=round(float(np.exp(rng.uniform(np.log(0.6), np.log(12)))), 3),
            sampling_rate=round(float(np.exp(rng.uniform(np.log(0.01), 0))), 4),
            steps=int(np.exp(rng.uniform(0, np.log(500)))),
        )
        delta = float(rng.choice([1e-5, 1e-6, 1e-7]))
        if 0.1 <= rough_epsilon([event], delta=delta) <= 15:
            found.append((event, delta))
    return found


def prv_epsilon(event: GaussianSteps, delta: float) -> float:
    """Opacus' estimate; `get_epsilon` would add its error bound."""
    accountant = PRVAccountant()
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps)]
    losses = accountant._get_dprv(eps_error=0.02, delta_error=delta / 1000)
    return float(losses.compute_epsilon(delta, delta / 1000, 0.02)[1])


def check_against_prv(cases: Sequence[tuple[GaussianSteps, float]]) -> None:
    for event, delta in cases:
        ours, theirs = epsilon([event], delta=delta), prv_epsilon(event, delta)
        assert theirs - 1e-3 <= ours <= theirs * 1.01 + 1e-4, (event, delta)


prv_warnings = pytest.mark.filterwarnings(
    "ignore:divide by zero:RuntimeWarning",  # inside Opacus, where a loss is infinite
    "ignore:invalid value:RuntimeWarning",
    "ignore:Optimal order:UserWarning",
)


@prv_warnings
@pytest.mark.slow
def test_agrees_with_opacus() -> None:
    """Within a hundredth of Opacus' PRV accountant, never below by a thousandth; RDP is an upper bound."""
    check_against_prv(random_steps(20))
    for event, delta in random_steps(20):
        assert epsilon([event], delta=delta) <= rdp_epsilon([event], delta=delta)


@prv_warnings
@pytest.mark.slow
def test_agrees_with_opacus_on_many_settings() -> None:
    check_against_prv(random_steps(200)[20:])


def test_agrees_with_dp_accounting_step_by_step() -> None:
    """Our distribution of one sampled step is the library's, at every epsilon."""
    event = GaussianSteps(noise_multiplier=0.8, sampling_rate=0.03, steps=40)
    theirs = from_gaussian_mechanism(
        0.8, sampling_prob=0.03, use_connect_dots=True, value_discretization_interval=5e-4
    ).self_compose(40)
    for tried in (0.01, 0.3, 1.0, 3.0):
        assert delta_of([event], epsilon=tried) == pytest.approx(float(theirs.get_delta_for_epsilon(tried)), rel=1e-3)


@pytest.mark.parametrize("group", [1, 2, 5, 10, 20])
def test_study_table_of_groups(group: int) -> None:
    """What 4 for one window is worth to a person in g of them: 8.9, 27.9, 73.1, 212; each in under two seconds."""
    golden = GOLDEN["group"]
    started = time.process_time()
    found = group_epsilon(GaussianSteps(**golden["event"]), examples_per_person=group, delta=golden["delta"])
    assert time.process_time() - started < 2
    assert found == pytest.approx(golden["epsilon"][str(group)], rel=GOLDEN["rel_tol"])


def test_group_of_one_is_an_example() -> None:
    event = GaussianSteps(noise_multiplier=1.1, sampling_rate=0.05, steps=30)
    assert group_epsilon(event, examples_per_person=1, delta=1e-6) == epsilon([event], delta=1e-6)


def test_group_in_full_batches_is_one_of_larger_norm() -> None:
    event = GaussianSteps(noise_multiplier=12.0, steps=9)
    found = group_epsilon(event, examples_per_person=4, delta=1e-6)
    assert found == pytest.approx(analytic_gaussian(1.0, 1e-6), rel=1e-3)


def test_group_agrees_with_dp_accounting() -> None:
    event, group = GaussianSteps(noise_multiplier=3.0, sampling_rate=0.2, steps=10), 3
    theirs = from_mixture_gaussian_mechanism(
        3.0,
        range(group + 1),
        stats.binom.pmf(range(group + 1), group, 0.2).tolist(),
        value_discretization_interval=5e-3,
    ).self_compose(10)
    found = group_epsilon(event, examples_per_person=group, delta=1e-5)
    assert found == pytest.approx(theirs.get_epsilon_for_delta(1e-5), rel=1e-3)


def test_groups_grow_and_stay_finite() -> None:
    """More examples cost more, up to figures that are no promise at all, and still are figures."""
    event = GaussianSteps(noise_multiplier=1.0, sampling_rate=0.1, steps=200)
    found = [group_epsilon(event, examples_per_person=group, delta=1e-6) for group in (1, 2, 3, 8, 30, 80, 1000)]
    assert found == sorted(found)
    assert math.isfinite(found[-1])


@pytest.mark.parametrize("group", [0, -1, 1.5, True])
def test_a_group_has_members(group: int) -> None:
    with pytest.raises(PrivacyParameterError, match="examples_per_person"):
        group_epsilon(GaussianSteps(noise_multiplier=1.0), examples_per_person=group, delta=1e-6)


some_events = st.lists(
    st.one_of(
        st.builds(
            GaussianSteps,
            noise_multiplier=st.floats(0.7, 8.0),
            sampling_rate=st.sampled_from([0.02, 0.3, 1.0]),
            steps=st.integers(1, 60),
        ),
        st.builds(CountNoise, stddev=st.floats(0.7, 30.0), contributions=st.integers(1, 30)),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@given(events=some_events, delta=st.sampled_from([1e-4, 1e-7]))
@settings(max_examples=8, deadline=None)
def test_joint_composition(events: list[PrivacyEvent], delta: float) -> None:
    """Together costs more than each alone and less than Rényi says; delta at the epsilon found is kept."""
    together = epsilon(events, delta=delta)
    assert delta_of(events, epsilon=together) <= delta
    assert together >= max(epsilon([event], delta=delta) for event in events) * (1 - 1e-4)
    # The Rényi bound of the sampled Gaussian is itself rounded.
    assert together <= rdp_epsilon(events, delta=delta) * (1 + 1e-6)


@pytest.mark.slow
@given(
    noise=st.floats(0.6, 6.0),
    more=st.floats(1.01, 2.0),
    rate=st.sampled_from([0.05, 1.0]),
    steps=st.integers(1, 50),
)
@settings(max_examples=5, deadline=None)
def test_noise_lowers_and_steps_raise_epsilon(noise: float, more: float, rate: float, steps: int) -> None:
    event = GaussianSteps(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    quieter = GaussianSteps(noise_multiplier=noise * more, sampling_rate=rate, steps=steps)
    longer = GaussianSteps(noise_multiplier=noise, sampling_rate=rate, steps=2 * steps)
    base = epsilon([event], delta=1e-6)
    assert epsilon([quieter], delta=1e-6) <= base <= epsilon([longer], delta=1e-6)


def test_equal_noise_is_merged_exactly() -> None:
    """Two margins with k cells each are one query with 2 k; the order of events does not matter."""
    margins, cells = CountNoise(stddev=9.0, contributions=10), CountNoise(stddev=7.0, contributions=10)
    assert merged([margins, cells, margins]) == (cells, CountNoise(stddev=9.0, contributions=20))
    steps = GaussianSteps(noise_multiplier=2.0, sampling_rate=0.1, steps=3)
    assert merged([steps, steps]) == (GaussianSteps(noise_multiplier=2.0, sampling_rate=0.1, steps=6),)
    assert epsilon([margins, cells], delta=1e-6) == epsilon([cells, margins], delta=1e-6)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], delta=1e-6) == 0
    assert delta_of([], epsilon=0.0) == 0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan, math.inf, True])
def test_delta_is_a_chance(delta: float) -> None:
    event = GaussianSteps(noise_multiplier=1.0)
    for ask in (epsilon, rdp_epsilon, cost_of):
        with pytest.raises(PrivacyParameterError, match="delta must be above 0 and below 1"):
            ask([event], delta=delta)


@pytest.mark.parametrize("tried", [-1.0, math.nan])
def test_delta_is_asked_of_a_true_epsilon(tried: float) -> None:
    with pytest.raises(PrivacyParameterError, match="epsilon must be 0 or more"):
        delta_of([GaussianSteps(noise_multiplier=1.0)], epsilon=tried)


def test_a_delta_below_double_precision_has_no_epsilon() -> None:
    event = GaussianSteps(noise_multiplier=1.0, sampling_rate=0.1, steps=10)
    assert epsilon([event], delta=1e-17) == math.inf
    with pytest.raises(PrivacyParameterError, match="no finite epsilon"):
        cost_of([event], delta=1e-17)


def test_next_to_no_noise_falls_back_to_renyi() -> None:
    event = GaussianSteps(noise_multiplier=1e-3)
    assert analytic_gaussian(1e-3, 1e-6) <= epsilon([event], delta=1e-6) < math.inf
    assert delta_of([event], epsilon=1.0) == 1.0
    sampled = GaussianSteps(noise_multiplier=1e-3, sampling_rate=0.5)
    assert group_epsilon(sampled, examples_per_person=2, delta=1e-6) > 1e6


def test_a_lattice_too_fine_for_memory_falls_back_to_renyi() -> None:
    event = CountNoise(stddev=90_000.0, contributions=100_000)
    found = epsilon([event], delta=1e-6)
    assert analytic_gaussian(event.noise_multiplier, 1e-6) < found == rdp_epsilon([event], delta=1e-6)
    assert 1e-6 / 5 < delta_of([event], epsilon=found) <= 1e-6 * (1 + 1e-9)


@pytest.mark.parametrize("rate", [0.001, 0.2, 1.0])
def test_renyi_curve_is_dp_accountings(rate: float) -> None:
    event = GaussianSteps(noise_multiplier=1.3, sampling_rate=rate, steps=70)
    oracle = RdpAccountant(list(ORDERS))
    oracle.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(1.3)), 70)
    assert rdp_curve([event], ORDERS) == pytest.approx(tuple(oracle._rdp), rel=1e-9)


def test_renyi_curve_of_counts() -> None:
    """k α / (2 s²), and really a bound: the divergence of the discrete Gaussian, summed out, is not above it."""
    stddev, contributions = 0.8, 5
    curve = rdp_curve([CountNoise(stddev=stddev, contributions=contributions)], ORDERS[:6])
    places = np.arange(-60, 61)
    log_p = -((places / stddev) ** 2) / 2
    log_p -= np.logaddexp.reduce(log_p)
    log_q = -(((places - 1) / stddev) ** 2) / 2 - np.logaddexp.reduce(-((places / stddev) ** 2) / 2)
    for order, bound in zip(ORDERS[:6], curve, strict=True):
        assert bound == pytest.approx(contributions * order / (2 * stddev**2), rel=1e-12)
        truth = np.logaddexp.reduce(order * log_p - (order - 1) * log_q) / (order - 1)
        assert contributions * truth <= bound * (1 + 1e-9)


@pytest.mark.parametrize("order", [1, 0, 2.5, True])
def test_renyi_orders_are_whole(order: int) -> None:
    with pytest.raises(PrivacyParameterError, match="Rényi order"):
        rdp_curve([GaussianSteps(noise_multiplier=1.0)], [order])


def test_costs_are_rounded_up() -> None:
    """A ledger adds exact rationals, none of which is below the figure it stands for."""
    events = [
        CountNoise(stddev=14.8, contributions=10),
        GaussianSteps(noise_multiplier=2.0, sampling_rate=0.1, steps=50),
    ]
    cost = cost_of(events, delta=1e-7)
    assert epsilon(events, delta=1e-7) < cost.epsilon < epsilon(events, delta=1e-7) + 3e-9
    for given_, charged in zip(rdp_curve(events, ORDERS), cost.rdp, strict=True):
        assert given_ < charged < given_ * (1 + 1e-10) + 2e-9
        assert 10**9 % charged.denominator == 0


def test_a_cost_without_a_bound_says_so() -> None:
    tiny = GaussianSteps(noise_multiplier=3e-4, steps=1)
    assert cost_of([tiny], delta=1e-6).rdp[-1] <= UNBOUNDED
