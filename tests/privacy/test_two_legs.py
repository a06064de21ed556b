"""Contacts: against an oracle of its own, closed forms, attacks that can be computed, and the design study's table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.accounting import cost_of, delta_of, epsilon, group_epsilon, merged, rdp_curve, rdp_epsilon
from privacy.contact_renyi import divergence
from privacy.events import CountNoise, GaussianSteps, event_from_json
from privacy.filters import ORDERS
from privacy.plan import DPSGDPlan, plan_from_json, plan_to_json
from privacy.randomness import SecureStream
from privacy.sampling import poisson_batch
from protocol.errors import PrivacyParameterError

DELTA = 1e-6
STUDY = {(1, 1.0): 5.98, (5, 1.0): 21.6, (1, 2.0): 3.29, (5, 2.0): 11.5}
"""Noise multipliers of the design study by (K, epsilon): q = .02, T = 500, delta = 1e-6."""
STUDY_ALONE = {1.0: 2.11, 2.0: 1.30}


def steps(z: float, rate: float, count: int, contacts: int = 0) -> GaussianSteps:
    return GaussianSteps(noise_multiplier=z, sampling_rate=rate, steps=count, contacts=contacts)


def oracle(event: GaussianSteps, delta: float, *, even: bool = False) -> float:
    """Both ways over the data without any of the rows, by the library's own mixture of Gaussians and a plain scan.

    With `even` each leg gets delta / (1 + e^epsilon), which is simpler and needs more noise.
    """
    z, q, K = event.noise_multiplier, event.sampling_rate, event.contacts
    legs = {
        rows: from_mixture_gaussian_mechanism(
            z, range(rows + 1), stats.binom.pmf(range(rows + 1), rows, q).tolist(), value_discretization_interval=5e-4
        ).self_compose(event.steps)
        for rows in (K + 1, K)
    }
    if even:
        total = 1.0
        for _ in range(30):
            share = delta / (1 + math.exp(total))
            total = sum(leg.get_epsilon_for_delta(share) for leg in legs.values())
        return total
    found = []
    for first, second in ((K + 1, K), (K, K + 1)):
        leaving, joining = legs[first]._pmf_remove, legs[second]._pmf_add
        best: float = math.inf
        for part in np.linspace(0.01, 0.99, 99) * 3 * 6 / z * q * 25 * (K + 1):
            spare = (delta - float(leaving.get_delta_for_epsilon(float(part)))) * math.exp(-part)
            if spare > 0:
                best = min(best, part + joining.get_epsilon_for_delta(spare))
        found.append(best)
    return max(found)


@pytest.mark.slow
@pytest.mark.parametrize("contacts", [1, 5])
def test_against_an_oracle_of_its_own(contacts: int) -> None:
    """Other code for the losses, another search for the split: the same epsilon within half a hundredth."""
    z = STUDY[contacts, 1.0]
    event = steps(z, 0.02, 500, contacts)
    assert epsilon([event], delta=DELTA) == pytest.approx(oracle(event, DELTA), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("contacts", "target"), list(STUDY))
def test_the_study_table_is_reproduced_and_bettered(contacts: int, target: float) -> None:
    """With delta shared evenly by the legs, the study's noise gives its epsilon; the best split saves 2 to 7 %."""
    z = STUDY[contacts, target]
    event = steps(z, 0.02, 500, contacts)
    assert oracle(event, DELTA, even=True) == pytest.approx(target, rel=0.02)
    assert 0.93 * target <= epsilon([event], delta=DELTA) <= target


@pytest.mark.parametrize("target", list(STUDY_ALONE))
def test_the_study_table_without_contacts(target: float) -> None:
    plan = DPSGDPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.02, expected_batch=100.0, steps=500)
    assert plan.calibrate(epsilon=target, delta=DELTA).noise_multiplier == pytest.approx(STUDY_ALONE[target], rel=0.01)


@pytest.mark.slow
def test_a_plan_is_calibrated_for_its_contacts() -> None:
    start = DPSGDPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=10.0, steps=20, contacts=2)
    plan = start.calibrate(epsilon=2.0, delta=DELTA)
    assert 1.98 <= plan.epsilon(DELTA) <= 2.0
    assert plan.contacts == 2
    without = plan.model_copy(update={"contacts": 0})
    assert without.epsilon(DELTA) < 0.5  # what leaving the contacts out would have called it


def test_no_contacts_are_todays_plan() -> None:
    """JSON and digest of a plan from before there were contacts, to the letter; with a cap both say so."""
    plan = DPSGDPlan(clip_norm=1.0, noise_multiplier=2.0, sampling_rate=0.1, expected_batch=25.6, steps=40)
    assert plan_to_json(plan) == (
        '{"adjacency":"add/remove","clip_norm":1.0,"expected_batch":25.6,"kind":"dp-sgd","noise_multiplier":2.0,'
        '"sampling_rate":0.1,"steps":40,"unit":"one training example"}'
    )
    assert plan.digest() == "20cb151913f786c753e19ec8705d7b1cba5c7a827278b55e0998dacd3575e91e"
    capped = plan.model_copy(update={"contacts": 3})
    assert plan_from_json(plan_to_json(capped)) == capped
    assert capped.digest() != plan.digest()
    assert plan.events() == (steps(2.0, 0.1, 40),)
    assert "contacts" not in plan.events()[0].to_json()
    assert event_from_json(capped.events()[0].to_json()) == capped.events()[0]
    assert event_from_json(plan.events()[0].to_json()) == plan.events()[0]


@pytest.mark.parametrize(("z", "contacts", "count"), [(6.0, 1, 1), (40.0, 3, 20), (200.0, 10, 50)])
def test_without_sampling_it_is_the_gaussian_mechanism(z: float, contacts: int, count: int) -> None:
    """Full batches move by up to 2 K + 1 clip norms: that epsilon is known, and the legs are above and near it."""
    exact = epsilon([steps(z / (2 * contacts + 1), 1.0, count)], delta=DELTA)
    bound = epsilon([steps(z, 1.0, count, contacts)], delta=DELTA)
    assert exact <= bound <= 1.15 * exact


def attack_delta(event: GaussianSteps, tried: float, *, back: bool) -> float:
    """One step, the person's row at +C, K rows turned from +C to -C; the exact delta, by quadrature."""
    z, q, K = event.noise_multiplier, event.sampling_rate, event.contacts
    x = np.linspace(-K - 14 * z, K + 1 + 14 * z, 400_001)  # fewer err by more than the bound leaves

    def density(rows: int, sign: int) -> np.ndarray:
        drawn = np.arange(rows + 1)
        weights = stats.binom.pmf(drawn, rows, q)
        return (weights * stats.norm.pdf(x[:, None], sign * drawn, z)).sum(axis=1)

    p, r = density(K + 1, 1), density(K, -1)
    one, other = (r, p) if back else (p, r)
    return float(np.maximum(one - np.exp(tried) * other, 0.0).sum() * (x[1] - x[0]))


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("z", "rate", "contacts"), [(2.0, 0.1, 1), (3.0, 0.3, 2), (8.0, 0.05, 5)])
def test_it_is_above_every_attack_that_can_be_computed(z: float, rate: float, contacts: int, back: bool) -> None:
    event = steps(z, rate, 1, contacts)
    bound = epsilon([event], delta=DELTA)
    assert attack_delta(event, bound, back=back) <= DELTA
    assert attack_delta(event, bound / 4, back=back) > DELTA  # power: a quarter of it would be too little


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(z=st.floats(1.5, 12.0), rate=st.sampled_from([0.02, 0.2]), count=st.integers(1, 60), contacts=st.integers(1, 4))
def test_contacts_cost_and_rows_that_are_only_removed_cost_less(
    z: float, rate: float, count: int, contacts: int
) -> None:
    """More contacts cost more; removing K + 1 rows alone costs less; Rényi is an upper bound; delta_of agrees."""
    fewer, event = (steps(z, rate, count, k) for k in (contacts - 1, contacts))
    found = epsilon([event], delta=DELTA)
    assert epsilon([fewer], delta=DELTA) < found
    assert group_epsilon(steps(z, rate, count), examples_per_person=contacts + 1, delta=DELTA) < found
    assert found <= rdp_epsilon([event], delta=DELTA)
    assert delta_of([event], epsilon=found) <= DELTA * (1 + 1e-9)


@pytest.mark.slow
def test_a_person_with_several_rows_has_the_contacts_of_each() -> None:
    event = steps(12.0, 0.05, 30, 2)
    one = group_epsilon(event, examples_per_person=1, delta=DELTA)
    assert one == pytest.approx(epsilon([event], delta=DELTA), rel=1e-3)
    assert group_epsilon(event, examples_per_person=3, delta=DELTA) > one
    # Three rows with two contacts each are nine rows that leave and six that come back.
    assert group_epsilon(steps(12.0, 0.05, 30), examples_per_person=9, delta=DELTA) < group_epsilon(
        event, examples_per_person=3, delta=DELTA
    )


@pytest.mark.slow
def test_other_events_of_the_same_people_are_charged_together() -> None:
    """Joint legs: more than each alone, less than both added up, whatever the order; equal events merge."""
    capped, plain, counts = steps(8.0, 0.05, 40, 1), steps(3.0, 0.05, 40), CountNoise(stddev=9.0, contributions=4)
    alone = [epsilon([event], delta=DELTA / 3) for event in (capped, plain, counts)]
    together = epsilon([capped, plain, counts], delta=DELTA)
    assert max(epsilon([event], delta=DELTA) for event in (capped, plain, counts)) < together < 0.9 * sum(alone)
    assert together == epsilon([counts, plain, capped], delta=DELTA)
    assert merged([capped, capped, plain]) == (plain, steps(8.0, 0.05, 80, 1))
    assert delta_of([capped, plain, counts], epsilon=together) <= DELTA * (1 + 1e-9)


def test_a_ledger_is_charged_no_less_than_the_truth() -> None:
    """The Rényi curve is above that of the worst attack (full batches: exact), and above the curve without contacts."""
    sampled, full = steps(8.0, 0.05, 40, 2), steps(8.0, 1.0, 40, 2)
    cost = cost_of([sampled], delta=DELTA)
    assert cost.epsilon > epsilon([sampled], delta=DELTA)
    assert all(
        a > b for a, b in zip(rdp_curve([sampled], ORDERS), rdp_curve([steps(8.0, 0.05, 40)], ORDERS), strict=True)
    )
    for order, bound in zip(ORDERS, rdp_curve([full], ORDERS), strict=True):
        truth = 40 * order * 5**2 / (2 * 8.0**2)  # 2 K + 1 = 5 clip norms
        assert truth <= bound <= truth * (1 + 1e-9)


def renyi_of_attack(event: GaussianSteps, order: int) -> float:
    """Of the pair in `attack_delta`, the larger direction, by quadrature."""
    z, q, K = event.noise_multiplier, event.sampling_rate, event.contacts
    reach = order * (2 * K + 1) + 14 * z
    x = np.linspace(-reach, reach, 400_001)

    def log_density(rows: int, sign: int) -> np.ndarray:
        drawn = np.arange(rows + 1)
        logs = stats.binom.logpmf(drawn, rows, q) + stats.norm.logpdf(x[:, None], sign * drawn, z)
        return np.logaddexp.reduce(logs, axis=1)

    p, r = log_density(K + 1, 1), log_density(K, -1)
    width = math.log(x[1] - x[0])
    both = (order * a + (1 - order) * b for a, b in ((p, r), (r, p)))
    return max(float(np.logaddexp.reduce(each + width)) for each in both) / (order - 1)


@pytest.mark.parametrize("order", [2, 4, 16])
@pytest.mark.parametrize(("z", "rate", "contacts"), [(4.0, 0.1, 1), (6.0, 0.02, 3)])
def test_the_renyi_bound_is_above_an_attack(z: float, rate: float, contacts: int, order: int) -> None:
    event = steps(z, rate, 1, contacts)
    truth, bound = renyi_of_attack(event, order), rdp_curve([event], [order])[0]
    assert truth <= bound
    assert bound / 5 < truth  # power: a fifth of the bound would be too little


@pytest.mark.parametrize("order", [2, 3, 8, 32])
def test_divergences_of_one_row_have_a_closed_form(order: int) -> None:
    """The whole-order formula of `rdp_curve` for one row that leaves; a row that joins costs less."""
    event = steps(2.0, 0.1, 1)
    exact = rdp_curve([event], [order])[0]
    assert divergence(event, 1, float(order), leaving=True) == pytest.approx(exact, rel=1e-7)
    assert divergence(event, 1, float(order), leaving=False) <= exact * (1 + 1e-7)


def test_divergences_of_two_rows_by_hand() -> None:
    """Order 2: E over two draws J, J' of Binomial(2, q) of exp(J J' / z²)."""
    z, q = 3.0, 0.3
    chances = stats.binom.pmf(range(3), 2, q)
    pairs = itertools.product(range(3), range(3))
    exact = math.log(sum(chances[a] * chances[b] * math.exp(a * b / z**2) for a, b in pairs))
    assert divergence(steps(z, q, 1), 2, 2.0, leaving=True) == pytest.approx(exact, rel=1e-7)


@pytest.mark.statistical
def test_rows_of_a_person_and_its_contacts_are_drawn_as_the_legs_say() -> None:
    """How many of K + 1 given rows a step draws is Binomial(K + 1, q): 20,000 steps at a fixed key, level 1e-4.

    Power: drawn together or not at all, as a group, or at 1.2 q, they are told apart.
    """
    stream, K, q, rounds = SecureStream(bytes(range(32))), 5, 0.2, 20_000
    drawn = np.array([int(np.sum(poisson_batch(40, q, stream) <= K)) for _ in range(rounds)])
    observed = np.bincount(drawn, minlength=K + 2)

    def p_value(chances: np.ndarray) -> float:
        few = chances * rounds < 5
        expected, seen = chances[~few] * rounds, observed[~few].astype(np.float64)
        expected[-1] += chances[few].sum() * rounds
        seen[-1] += observed[few].sum()
        return float(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)

    places = np.arange(K + 2)
    assert p_value(stats.binom.pmf(places, K + 1, q)) > 1e-4
    assert p_value(stats.binom.pmf(places, K + 1, 1.2 * q)) < 1e-10
    together = np.full(K + 2, 1e-3)
    together[[0, K + 1]] = 1 - q, q
    assert p_value(together / together.sum()) < 1e-10


def test_little_noise_falls_back_to_renyi_and_stays_finite() -> None:
    found = epsilon([steps(0.05, 0.5, 3, 2)], delta=DELTA)
    assert 1e3 < found < math.inf
    assert delta_of([steps(0.05, 0.5, 3, 2)], epsilon=1.0) == 1.0


@pytest.mark.parametrize("contacts", [-1, 1.5, True])
def test_contacts_are_whole(contacts: int) -> None:
    with pytest.raises(PrivacyParameterError, match="contacts"):
        steps(1.0, 0.1, 1, contacts)
    with pytest.raises(PrivacyParameterError, match="contacts"):
        DPSGDPlan(
            clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=1.0, steps=1,
            contacts=-1 if contacts is True else contacts,
        )  # fmt: skip
