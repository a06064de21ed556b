"""Lower bounds on epsilon from one run of a mechanism: the statistics, without any mechanism.

An audit plants `canaries` that are in by fair coins, runs the mechanism once, and makes `guesses` about the coins, of
which `correct` are right. A private mechanism cannot be guessed too well; how well is what the bounds here say::

    tally = Tally(canaries=1000, guesses=100, correct=97)
    steinke_bound(tally, delta=1e-5, confidence=0.95)                     # any (epsilon, delta) mechanism
    f_dp_bound(tally, GaussianNull(), delta=1e-5, confidence=0.95)        # a mechanism of the Gaussian family

Two words of caution that every report repeats. A lower bound below the claim proves nothing: the audit is a smoke
alarm. And `f_dp_bound` converts the *best noise it refutes* into an epsilon: it is exact for the family named as null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from privacy.audits.tradeoff import TradeOffNull
from protocol.errors import InputError, PrivacyParameterError

GUESS_SHARES = (0.5, 0.2, 0.1, 0.05)
_LARGEST_EPSILON = 64.0


@dataclass(frozen=True)
class Tally:
    """`correct` of `guesses` about the coins of `canaries` were right; the rest of the canaries was not guessed."""

    canaries: int
    guesses: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.guesses <= self.canaries or self.guesses < 1:
            raise InputError(
                f"need 0 <= correct ({self.correct}) <= guesses ({self.guesses}) <= canaries ({self.canaries}) and at "
                "least one guess; count them again"
            )


def tally_of(scores: np.ndarray, included: np.ndarray, *, guesses: int) -> Tally:
    """Guess 'in' for the highest half of `guesses` scores and 'out' for the lowest half, and count what is right.

    Shapes: scores (num_canaries,), included (num_canaries,) of bool.
    """
    if scores.shape != included.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise InputError(
            f"scores {scores.shape} and coins {included.shape} must be two finite vectors of one length; "
            "give one score per canary"
        )
    order = np.argsort(scores, kind="stable")
    low = guesses // 2
    correct = int((~included[order[:low]]).sum() + included[order[len(order) - (guesses - low) :]].sum())
    return Tally(canaries=len(scores), guesses=guesses, correct=correct)


def steinke_p_value(tally: Tally, *, epsilon: float, delta: float) -> float:
    """Largest probability with which an (epsilon, delta)-DP mechanism is guessed at least this well.

    P[V >= v] <= P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i, with W ~ Binomial(r, e^epsilon / (1 + e^epsilon)),
    m canaries, r guesses, v right.

    Source: Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, Theorem 5.2.
    """
    right, guesses = tally.correct, tally.guesses
    # sf(k) = P[W > k]; for i > v the numerator no longer grows, so i = 1..v is enough.
    at_least = stats.binom.sf(np.arange(right + 1) - 1, guesses, 1 / (1 + math.exp(-epsilon)))
    tail = float(at_least[right])
    if right == 0 or delta == 0:
        return min(1.0, tail)
    gains = (at_least[right - 1 :: -1] - tail) / np.arange(1, right + 1)
    return min(1.0, tail + 2 * tally.canaries * delta * float(gains.max()))


def steinke_bound(tally: Tally, *, delta: float, confidence: float) -> float:
    """Epsilon that any (epsilon, delta)-DP mechanism exceeds with probability `confidence`; 0 if nothing is refuted.

    Source: `steinke_p_value`, turned round: every smaller epsilon has p < 1 - confidence.
    """
    level = _level(delta, confidence)
    return _first_kept(lambda epsilon: steinke_p_value(tally, epsilon=epsilon, delta=delta) < level)


def refuted(tally: Tally, null: TradeOffNull, parameters: np.ndarray, *, level: float) -> np.ndarray:
    """Which members of `null` would be guessed this well with probability below `level`, whatever the guesser does.

    Let p_n be the chance of n right guesses, A_i = sum_{n>=i} p_n n/m and B_i = sum_{n>=i} p_n (r-n)/m: a random canary
    is guessed right (wrong) and at least i are right. Flipping that canary's coin turns (n right) into (n-1 right), so
    a mechanism with trade-off function f has A_{i+1} <= 1 - f(B_i), which is B_i >= floor(A_{i+1}). Suppose the tail
    is `level`: A_c = level c/m, B_c = level (r-c)/m. Going down,

        B_i = max(B_{i+1}, floor(A_{i+1})),    A_i = A_{i+1} + i/(r-i) (B_i - B_{i+1}),

    and if A_0 + B_0 > r/m, more than all probability is needed: refuted. The factor is i/(r-i), r the number of
    *guesses*, because p_i adds i/m to A and (r-i)/m to B; public copies with i/(m-i) agree only if r = m. The tests
    solve the same extremal problem as a linear program and find the same value.

    Shapes: parameters (num_parameters,) -> (num_parameters,) of bool.

    Source: Mahloujifar, Melis, Chaudhuri 2024, arXiv:2410.22235, Algorithm 3; derivation above.
    """
    canaries, guesses, right = tally.canaries, tally.guesses, tally.correct
    correct = np.full(len(parameters), level * right / canaries)
    wrong = np.full(len(parameters), level * (guesses - right) / canaries)
    for count in range(right - 1, -1, -1):
        raised = np.maximum(wrong, null.wrong_floor(correct, parameters))
        correct = np.minimum(1.0, correct + count / (guesses - count) * (raised - wrong))
        wrong = raised
    return correct + wrong > guesses / canaries


def f_dp_bound(tally: Tally, null: TradeOffNull, *, delta: float, confidence: float) -> float:
    """Epsilon (at `delta`) of the loosest member of `null` that is refuted; 0 if none is.

    Raises:
        PrivacyParameterError: delta outside [0, 1) or confidence outside (0, 1).

    Source: `refuted`.
    """
    level = _level(delta, confidence)
    parameters = null.grid()
    # All below `low` are refuted, all from `high` on are not: refutation is monotone, as the linear program is.
    low, high = 0, len(parameters)
    while low < high:
        middle = (low + high) // 2
        if refuted(tally, null, parameters[middle : middle + 1], level=level)[0]:
            low = middle + 1
        else:
            high = middle
    return null.epsilon(float(parameters[low - 1]), delta) if low else 0.0


def clopper_pearson_bound(
    *, hits: int, included: int, alarms: int, excluded: int, delta: float, confidence: float
) -> float:
    """Epsilon from independent runs: ln((TPR_low - delta) / FPR_high), and the same for the complements.

    `hits` of `included` runs with the canary were called 'in', `alarms` of `excluded` runs without it. The four limits
    are one-sided Clopper-Pearson, each at (1 - confidence) / 4, so that both ratios hold at once.

    Source: Nasr et al. 2021, arXiv:2101.04535; Clopper and Pearson 1934.
    """
    each = 1 - _level(delta, confidence) / 2
    if not (0 <= hits <= included and 0 <= alarms <= excluded and included > 0 and excluded > 0):
        raise InputError(
            f"{hits} hits of {included} runs and {alarms} alarms of {excluded} runs are no counts; both kinds of run "
            "must have been made"
        )
    true_low, _ = binomial_limits(hits, included, confidence=each)
    _, false_high = binomial_limits(alarms, excluded, confidence=each)
    direct = _log_ratio(true_low - delta, false_high)
    mirrored = _log_ratio(1 - false_high - delta, 1 - true_low)
    return max(0.0, direct, mirrored)


def binomial_limits(count: int, total: int, *, confidence: float) -> tuple[float, float]:
    """Exact two-sided limits of a rate, each missed with probability at most (1 - confidence) / 2.

    Source: Clopper and Pearson 1934.
    """
    level = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(level, count, total - count + 1))
    high = 1.0 if count == total else float(stats.beta.isf(level, count + 1, total - count))
    return low, high


def guess_counts(canaries: int) -> tuple[int, ...]:
    """The numbers of guesses an audit tries, fixed before it looks: a half, a fifth, a tenth and a twentieth."""
    return tuple(sorted({max(1, round(canaries * share)) for share in GUESS_SHARES}, reverse=True))


Method = Callable[[Tally, float], float]


def best_bound(tallies: Sequence[Tally], method: Method, *, confidence: float) -> float:
    """Best bound over `tallies`, each at confidence 1 - (1 - confidence) / len(tallies) (Bonferroni).

    `method` takes a tally and a confidence, for instance ``lambda t, c: steinke_bound(t, delta=delta, confidence=c)``.
    """
    each = 1 - (1 - confidence) / len(tallies)
    return max(method(tally, each) for tally in tallies)


def largest_provable(canaries: int, method: Method, *, confidence: float) -> float:
    """The bound if every guess were right: no audit with this many canaries can say more."""
    perfect = [Tally(canaries, guesses, guesses) for guesses in guess_counts(canaries)]
    return best_bound(perfect, method, confidence=confidence)


def check_provable(claimed_epsilon: float, canaries: int, method: Method, *, confidence: float) -> float:
    """`largest_provable`, refused where it is not above the claim.

    Raises:
        PrivacyParameterError: the audit could not falsify the claim even without any noise; says how many canaries can.
    """
    largest = largest_provable(canaries, method, confidence=confidence)
    if largest > claimed_epsilon:
        return largest
    needed = canaries
    while needed < 10_000_000 // 2:
        needed *= 2
        if largest_provable(needed, method, confidence=confidence) > claimed_epsilon:
            way_out = f"plant at least {needed} canaries"
            break
    else:
        way_out = "lower the confidence or audit a smaller delta: more canaries do not help"
    raise PrivacyParameterError(
        f"an audit with {canaries} canaries at confidence {confidence:g} proves at most epsilon {largest:.2f}, so it "
        f"cannot falsify a claim of {claimed_epsilon:.3g}; {way_out}"
    )


def _first_kept(is_refuted: Callable[[float], bool]) -> float:
    """Smallest epsilon that is not refuted; every smaller one on the way up was."""
    low, high = 0.0, 0.0
    if not is_refuted(0.0):
        return 0.0
    while is_refuted(high):
        low, high = high, high + 0.25
        if high > _LARGEST_EPSILON:
            return low
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low


def _level(delta: float, confidence: float) -> float:
    """1 - confidence, after both were checked."""
    if not 0 <= delta < 1:
        raise PrivacyParameterError(f"delta must lie in [0, 1), got {delta}; it is a failure probability")
    if not 0 < confidence < 1:
        raise PrivacyParameterError(f"confidence must lie in (0, 1), got {confidence}; take 0.95 or 0.99")
    return 1 - confidence


def _log_ratio(numerator: float, denominator: float) -> float:
    return math.log(numerator / denominator) if numerator > 0 else 0.0
