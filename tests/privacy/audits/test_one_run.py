"""The bounds are right (published value, linear program, simulation), never too high too often, and have power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from privacy.audits.one_run import (
    Tally,
    best_bound,
    check_provable,
    clopper_pearson_bound,
    f_dp_bound,
    guess_counts,
    largest_provable,
    refuted,
    steinke_bound,
    steinke_p_value,
    tally_of,
)
from privacy.audits.tradeoff import (
    ApproximateNull,
    CountNoiseNull,
    GaussianNull,
    SubsampledGaussianNull,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
)
from protocol.errors import InputError, PrivacyParameterError

DELTA = 1e-5


def by_steinke(tally: Tally, confidence: float) -> float:
    return steinke_bound(tally, delta=DELTA, confidence=confidence)


def by_gaussian(tally: Tally, confidence: float) -> float:
    return f_dp_bound(tally, GaussianNull(), delta=DELTA, confidence=confidence)


def gaussian_canaries(mu: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    coins = rng.random(count) < 0.5
    return coins * mu + rng.normal(size=count), coins


def bound_of(scores: np.ndarray, coins: np.ndarray, method=by_gaussian, confidence: float = 0.95) -> float:
    tallies = [tally_of(scores, coins, guesses=guesses) for guesses in guess_counts(len(scores))]
    return best_bound(tallies, method, confidence=confidence)


def test_the_published_check_value_is_reproduced() -> None:
    """Steinke, Nasr, Jagielski 2023: 75 of 100 right at epsilon = ln 3, delta = 0 has p = .553."""
    assert steinke_p_value(Tally(100, 100, 75), epsilon=math.log(3), delta=0.0) == pytest.approx(0.553, abs=5e-4)


def test_delta_is_paid_as_in_the_theorem() -> None:
    """Term by term, with the maximum over i taken one by one."""
    tally, epsilon, delta = Tally(200, 60, 50), 1.0, 1e-3
    coin = stats.binom(60, math.exp(epsilon) / (1 + math.exp(epsilon)))
    worst = max((coin.cdf(49) - coin.cdf(50 - i - 1)) / i for i in range(1, 201))
    expected = coin.sf(49) + 2 * 200 * delta * worst
    assert steinke_p_value(tally, epsilon=epsilon, delta=delta) == pytest.approx(expected, rel=1e-9)


def largest_tail(tally: Tally, mu: float) -> float:
    """Largest P[V >= v] under the constraints A_{i+1} <= Phi(Phi^-1(B_i) + mu), as a linear program over p_0..p_r."""
    m, r, v = tally.canaries, tally.guesses, tally.correct
    at = special.ndtr(np.linspace(-6, 5, 400))
    value = special.ndtr(special.ndtri(at) + mu)
    slope = np.exp(stats.norm.logpdf(special.ndtri(at) + mu) - stats.norm.logpdf(special.ndtri(at)))
    count = np.arange(r + 1)
    rows, limits = [], []
    for i in range(r):
        right = np.where(count >= i + 1, count / m, 0.0)
        wrong = np.where(count >= i, (r - count) / m, 0.0)
        for s, y, x in zip(slope, value, at, strict=True):
            rows.append(right - s * wrong)
            limits.append(y - s * x)
    found = optimize.linprog(
        -(count >= v).astype(float), A_ub=np.array(rows), b_ub=np.array(limits), A_eq=np.ones((1, r + 1)), b_eq=[1.0]
    )
    return -float(found.fun)


@pytest.mark.parametrize(
    ("tally", "mu"),
    [(Tally(8, 8, 7), 0.7), (Tally(12, 12, 10), 1.2), (Tally(30, 10, 9), 0.5), (Tally(40, 8, 8), 1.0)],
)
def test_the_recursion_solves_its_own_linear_program(tally: Tally, mu: float) -> None:
    """With fewer guesses than canaries too, which settles the factor i/(r-i) in which public copies differ."""
    tail = largest_tail(tally, mu)
    assert 1e-6 < tail < 1
    assert refuted(tally, GaussianNull(), np.array([mu]), level=tail * 1.01)[0]
    assert not refuted(tally, GaussianNull(), np.array([mu]), level=tail * 0.97)[0]


@pytest.mark.statistical
@pytest.mark.parametrize("mu", [0.3, 1.0])
def test_a_correct_mechanism_is_accused_in_at_most_one_run_of_twenty(mu: float) -> None:
    """100 runs: more than 13 accusations have probability below .001 at a rate of 5 %. Four times mu is noticed."""
    rng = np.random.default_rng(19)
    true = gaussian_epsilon(mu, DELTA)
    bounds = [bound_of(*gaussian_canaries(mu, 300, rng)) for _ in range(100)]
    assert sum(bound > true for bound in bounds) <= 13
    wrong = [bound_of(*gaussian_canaries(mu * 4, 300, rng)) for _ in range(20)]
    assert sum(bound > true for bound in wrong) >= 18


@pytest.mark.statistical
def test_the_worst_mechanism_is_accused_at_the_stated_rate_and_no_more() -> None:
    """Randomised response on all coins makes Steinke's bound tight at delta = 0: accused close to 5 %, never above."""
    rng = np.random.default_rng(5)
    epsilon, runs = 1.0, 4000
    right = rng.binomial(300, math.exp(epsilon) / (1 + math.exp(epsilon)), size=runs)
    values = {v: steinke_p_value(Tally(300, 300, int(v)), epsilon=epsilon, delta=0.0) for v in set(right.tolist())}
    accused = np.mean([values[v] < 0.05 for v in right.tolist()])
    assert 0.03 < accused < 0.05 + 3 * math.sqrt(0.05 / runs)


@pytest.mark.statistical
def test_the_gaussian_bound_is_the_sharper_one_and_near_the_figures_of_the_design() -> None:
    """5,000 canaries, one release: medians near .5 / 2.2 / 4.5 for epsilon 1 / 4 / 8, always below the truth here."""
    rng = np.random.default_rng(8)
    for epsilon, floor in ((1.0, 0.35), (4.0, 2.0), (8.0, 4.2)):
        runs = [gaussian_canaries(gaussian_mu(epsilon, DELTA), 5000, rng) for _ in range(2)]
        gaussian = np.median([bound_of(*run) for run in runs])
        assert floor < gaussian < epsilon
        assert np.median([bound_of(*run, method=by_steinke) for run in runs]) < gaussian


@settings(deadline=None, max_examples=30)
@given(guesses=st.integers(2, 60), wrong=st.integers(0, 5), extra=st.integers(0, 200))
def test_one_more_right_guess_never_lowers_a_bound(guesses: int, wrong: int, extra: int) -> None:
    right = max(0, guesses - 1 - wrong)
    lesser, greater = Tally(guesses + extra, guesses, right), Tally(guesses + extra, guesses, right + 1)
    for method in (by_steinke, by_gaussian):
        assert method(lesser, 0.95) <= method(greater, 0.95) + 2e-3


def test_guessing_at_chance_proves_nothing() -> None:
    for method in (by_steinke, by_gaussian):
        assert method(Tally(1000, 500, 250), 0.95) == 0.0
        assert method(Tally(10, 5, 0), 0.95) == 0.0


def test_highest_scores_are_guessed_in_and_lowest_out() -> None:
    scores = np.array([5.0, -3.0, 4.0, 0.1, -2.0, 0.0])
    coins = np.array([True, False, False, True, True, False])
    assert tally_of(scores, coins, guesses=2) == Tally(6, 2, 2)
    assert tally_of(scores, coins, guesses=4) == Tally(6, 4, 2)
    assert tally_of(scores, coins, guesses=1) == Tally(6, 1, 1)


@pytest.mark.parametrize(
    ("scores", "coins"), [(np.zeros(3), np.zeros(4, bool)), (np.array([np.nan, 0.0]), np.zeros(2, bool))]
)
def test_scores_that_do_not_fit_are_refused(scores: np.ndarray, coins: np.ndarray) -> None:
    with pytest.raises(InputError, match="one score per canary"):
        tally_of(scores, coins, guesses=1)


@pytest.mark.parametrize("counts", [(10, 11, 5), (10, 5, 6), (10, 0, 0), (10, 5, -1)])
def test_impossible_tallies_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="count them again"):
        Tally(*counts)


@pytest.mark.parametrize(("delta", "confidence"), [(1.0, 0.95), (-0.1, 0.95), (math.nan, 0.95), (1e-5, 1.0), (1e-5, 0)])
def test_delta_and_confidence_are_checked(delta: float, confidence: float) -> None:
    with pytest.raises(PrivacyParameterError, match=r"delta must|confidence must"):
        steinke_bound(Tally(10, 5, 5), delta=delta, confidence=confidence)


def test_an_audit_asked_to_prove_more_than_it_can_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        PrivacyParameterError, match=r"at most epsilon .* claim of 8; plant at least 1600 canaries"
    ) as why:
        check_provable(8.0, 100, by_gaussian, confidence=0.95)
    assert "100 canaries at confidence 0.95" in str(why.value)
    assert check_provable(8.0, 1600, by_gaussian, confidence=0.95) > 8
    with pytest.raises(PrivacyParameterError, match="more canaries do not help"):
        check_provable(20.0, 100, lambda tally, confidence: 1.0, confidence=0.95)


def test_no_result_exceeds_the_largest_provable_one() -> None:
    most = largest_provable(1000, by_gaussian, confidence=0.95)
    assert 7 < most < 10
    coins = np.arange(1000) % 2 == 0
    assert bound_of(coins.astype(float), coins) == most
    assert largest_provable(1000, by_steinke, confidence=0.95) < most


def test_clopper_pearson_by_hand() -> None:
    """1,000 of 1,000 hits and no alarm: both limits are powers, .0125^(1/1000)."""
    edge = 0.0125 ** (1 / 1000)
    bound = clopper_pearson_bound(hits=1000, included=1000, alarms=0, excluded=1000, delta=0.0, confidence=0.95)
    assert bound == pytest.approx(math.log(edge / (1 - edge)), rel=1e-9)
    assert clopper_pearson_bound(hits=5, included=10, alarms=5, excluded=10, delta=0.0, confidence=0.95) == 0.0
    assert clopper_pearson_bound(hits=0, included=10, alarms=0, excluded=10, delta=0.1, confidence=0.95) == 0.0


@pytest.mark.parametrize("counts", [(11, 10, 0, 10), (0, 10, -1, 10), (0, 0, 0, 10), (1, 10, 0, 0)])
def test_impossible_run_counts_are_refused(counts: tuple[int, int, int, int]) -> None:
    hits, included, alarms, excluded = counts
    with pytest.raises(InputError, match="no counts"):
        clopper_pearson_bound(
            hits=hits, included=included, alarms=alarms, excluded=excluded, delta=0.0, confidence=0.95
        )


@given(mu=st.floats(0.05, 5.0), delta=st.sampled_from([1e-6, 1e-5, 1e-3]))
def test_epsilon_and_mu_are_inverse(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
        assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)
    assert gaussian_epsilon(0.0, delta) == 0.0


def test_a_mechanism_s_own_floor_meets_the_gaussian_one_where_they_are_the_same_mechanism() -> None:
    """Without sampling, the floor from the privacy loss distribution is the closed form, and never above it."""
    correct = np.array([1e-3, 0.01, 0.2, 0.5, 0.9])
    mu = 2 / 2.5
    for own, parameter in (
        (SubsampledGaussianNull(sampling_rate=1.0, steps=4), 1 / 2.5),
        (CountNoiseNull(((5.0, 4),)), 2.0),
        (CountNoiseNull(((5.0, 2), (5.0, 2))), 2.0),
    ):
        floors = own.wrong_floor(correct, np.full(5, parameter))
        exact = GaussianNull().wrong_floor(correct, np.full(5, mu))
        slack = 5e-3 if isinstance(own, CountNoiseNull) else 1e-9  # a discrete Gaussian is not quite a Gaussian
        assert (floors <= exact + slack).all()
        np.testing.assert_allclose(floors, exact, rtol=0.03, atol=2e-4)
        assert own.epsilon(parameter, DELTA) == pytest.approx(gaussian_epsilon(mu, DELTA), rel=0.01)


def test_sampling_helps_the_mechanism_and_its_own_null_says_so() -> None:
    """A Gaussian null of equal epsilon is not what a subsampled mechanism promises: its floors are lower."""
    own = SubsampledGaussianNull(sampling_rate=0.05, steps=100)
    mu = gaussian_mu(own.epsilon(1.0, DELTA), DELTA)
    correct = np.array([0.05, 0.2, 0.4])
    assert (own.wrong_floor(correct, np.ones(3)) > GaussianNull().wrong_floor(correct, np.full(3, mu))).all()


@pytest.mark.parametrize(
    "null", [ApproximateNull(DELTA), GaussianNull(), SubsampledGaussianNull(0.25, 50), CountNoiseNull(((4.0, 10),))]
)
def test_a_family_is_ordered_and_symmetric(null) -> None:
    """A larger parameter promises less, in floor and in epsilon; f is its own inverse, as add/remove requires."""
    grid = null.grid()
    assert (np.diff(grid) > 0).all()
    inner = grid[[len(grid) // 3, len(grid) // 2, 2 * len(grid) // 3]]
    for correct in (0.1, 0.5, 0.9):
        floors = null.wrong_floor(np.full(3, correct), inner)
        assert (np.diff(floors) <= 1e-9).all()
        assert (floors <= correct + 1e-12).all()
        for parameter, floor in zip(inner[:2], floors[:2], strict=True):
            if floor > 1e-6:
                again = null.wrong_floor(np.array([1 - floor]), np.array([parameter]))
                assert again[0] == pytest.approx(1 - correct, abs=2e-3)
    assert null.epsilon(inner[0], DELTA) < null.epsilon(inner[2], DELTA)
