"""Private plans: what is sampled, clipped and noised, for which unit, in one frozen value that can be written down.

A plan ties the mechanism to what the accountant is told about it, so that the two cannot drift apart. `calibrate`
returns a new plan with the least noise that keeps a promise and never with less. What only makes a release faster
(chunk sizes, gradient modes) does not live here: changing it cannot change privacy::

    plan = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0).calibrate(epsilon=2.0, delta=1e-7)
    plan.epsilon(1e-7)                                  # at most 2, at least 1.98
    plan_from_json(plan_to_json(plan)) == plan          # and the digest is the same
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from privacy.calibration import least_noise, rounded_up
from privacy.events import CountNoise, GaussianSteps, PrivacyEvent, check_delta, check_epsilon
from protocol.errors import PrivacyParameterError
from protocol.plan import FrozenConfig

LARGEST_STDDEV = 100_000  # the sampler's table ends here

_Stddev = Annotated[
    float, Field(gt=0, le=LARGEST_STDDEV, description="parameter s of the discrete Gaussian, in counts")
]


class _PrivacyPlan(FrozenConfig, ABC):
    """What every private plan has: events, epsilon, a canonical JSON and its digest."""

    unit: str = Field(min_length=1, max_length=200, description="whose presence the promise hides")
    adjacency: Literal["add/remove"] = "add/remove"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise PrivacyParameterError(_in_words(error, type(self).__name__)) from None

    @abstractmethod
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What the accountant is told."""

    def epsilon(self, delta: float) -> float:
        """Epsilon of the whole plan at `delta`, for one unit added or removed."""
        return _accountant().epsilon(self.events(), delta=delta)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(plan_to_json(self).encode()).hexdigest()


class CountReleasePlan(_PrivacyPlan):
    """One release of event counts, every cell of the public grid under discrete Gaussian noise.

    Three queries of the same people: ``cells`` (time, origin, destination), ``inflow`` (time, destination) and
    ``outflow`` (time, origin); the last two only with `margins_stddev`. Unit: a person. Adjacency: add or remove one.
    Sensitivity of each query under the rules of `privacy.bounding`: L1 = k, L2 = √k, Linf = 1, with k = `contributions`
    over the whole charged period.
    """

    kind: Literal["count-release"] = "count-release"
    unit: str = Field(default="person: one account at this holder", min_length=1, max_length=200)
    contributions: int = Field(ge=1, le=100_000, description="distinct cells per person over the charged period")
    cells_stddev: _Stddev
    margins_stddev: _Stddev | None = None

    def events(self) -> tuple[PrivacyEvent, ...]:
        """One event per query: cells, then inflow and outflow where they are asked for."""
        stddevs = [self.cells_stddev] + [self.margins_stddev] * 2 * (self.margins_stddev is not None)
        return tuple(CountNoise(stddev=s, contributions=self.contributions) for s in stddevs if s is not None)

    @property
    def noise_multiplier(self) -> float:
        """Noise over L2 sensitivity of the query with the least noise, cells_stddev / √k where that is the cells."""
        return min(self.cells_stddev, self.margins_stddev or math.inf) / math.sqrt(self.contributions)

    def calibrate(self, *, epsilon: float, delta: float, margin_share: float = 0.5) -> Self:
        """A new plan with the least noise that is (epsilon, delta)-DP; margins stay out where this plan has none.

        The budget is split in zCDP, ρ = k / (2 s²) per query: `margin_share` of it goes to the margins, half of that
        each.

        Raises:
            PrivacyParameterError: epsilon, delta or the share out of range, or more noise needed than can be drawn.
        """
        check_epsilon(epsilon)
        check_delta(delta)
        if self.margins_stddev is not None and not 0 < margin_share < 1:
            raise PrivacyParameterError(
                f"margin_share must be above 0 and below 1, got {margin_share!r}; for no margins "
                "set margins_stddev = None"
            )
        # In units of one overall noise s/√k, the noise of the cells and of each margin.
        cells = math.sqrt(self.contributions / (1 - margin_share * (self.margins_stddev is not None)))
        margins = None if self.margins_stddev is None else math.sqrt(2 * self.contributions / margin_share)

        def events_with(noise: float) -> tuple[PrivacyEvent, ...]:
            stddevs = [noise * cells] + ([] if margins is None else [noise * margins] * 2)
            return tuple(CountNoise(stddev=rounded_up(stddev), contributions=self.contributions) for stddev in stddevs)

        noise = _least_noise(events_with, epsilon=epsilon, delta=delta)
        values = self.model_dump() | {
            "cells_stddev": rounded_up(noise * cells),
            "margins_stddev": None if margins is None else rounded_up(noise * margins),
        }
        return _kept_promise(type(self)(**values), epsilon=epsilon, delta=delta)


class DPSGDPlan(_PrivacyPlan):
    """DP-SGD with Poisson sampling: clip each example's gradient, add up, add noise, divide by the *expected* batch.

    Unit: the example named by `unit`, which is not a person unless each person owns one. Adjacency: add or remove one
    example. Sensitivity: `clip_norm` in L2; the noise has standard deviation noise_multiplier · clip_norm.
    `sampling_rate`, `expected_batch` and `steps` are public constants, chosen before the data are looked at.

    With K = `contacts` above 0 a person's records may enter the rows of up to K others beside the person's own, which
    whoever makes the rows must see to (`integration.features.capped`). Unit: one person's own records. Adjacency: add
    or remove them: K + 1 rows leave and K of them come back changed. Each of these two legs has an exact privacy loss
    distribution with Binomial(K + 1, q) and Binomial(K, q) rows drawn in a step; with (e1, d1) for one and (e2, d2) for
    the other, P(S) <= e^e1 R(S) + d1 <= e^(e1 + e2) Q(S) + d1 + e^e1 d2, both ways. The proof is in
    `privacy.two_legs`; the bound is true and not tight, and at K = 0 it is today's promise to the number.

    With `honest` t above 0 no holder adds that noise alone: each adds a share of it to a masked sum, so that the shares
    of any t holders have all of it (`privacy.distributed`). One step is then one sum over all holders: `sampling_rate`
    is that of each holder's examples, `expected_batch` counts the examples of all, and the noise in the sum is that of
    one place that holds all data. The unit and the adjacency stay what they are, an example of one holder; the
    sensitivity is that of the sum. Epsilon holds against the coordinator, and whoever reads what it makes, where the
    sum stays masked and at least t holders in it added their share. Where c of only t are dishonest, and tell the
    coordinator or leave out what they drew, it is `epsilon_against(delta, dishonest=c)`. A holder that looks at the
    others knows its own share, so against it c is 1 at least.

    Source: Choquette-Choo et al. 2023, arXiv:2310.15526, Corollary 4.7 (the pair that dominates a leg).
    """

    kind: Literal["dp-sgd"] = "dp-sgd"
    unit: str = Field(default="one training example", min_length=1, max_length=200)
    clip_norm: float = Field(gt=0, description="largest L2 norm of one example's gradient")
    noise_multiplier: float = Field(gt=0, description="stddev of the noise over clip_norm")
    sampling_rate: float = Field(gt=0, le=1, description="chance that an example is in a batch (Poisson)")
    expected_batch: float = Field(gt=0, description="what the noisy sum is divided by; a public constant")
    steps: int = Field(ge=1, le=10_000_000)
    contacts: int = Field(default=0, ge=0, le=1000, description="K: rows of others that one person's records enter")
    honest: int = Field(
        default=0, ge=0, le=1024, description="t: holders whose shares of noise make the whole; 0: each adds all of it"
    )

    def events(self) -> tuple[PrivacyEvent, ...]:
        """All steps as one event."""
        return (self._steps_event(),)

    def person_epsilon(self, examples_per_person: int, delta: float) -> float:
        """Epsilon of a person who owns so many examples, each with its K contacts."""
        return _accountant().group_epsilon(self._steps_event(), examples_per_person=examples_per_person, delta=delta)

    def epsilon_against(self, delta: float, *, dishonest: int) -> float:
        """Epsilon of one example where so many of the t holders whose noise counts are dishonest.

        The noise of the other t - c is left: z sqrt((t - c) / t). Infinite where nobody's is. It holds while their sum
        is all that is seen, which masks bear for so many colluders only (`privacy.secure_aggregation`). Where each
        holder adds all of the noise itself, nobody else's honesty matters.

        Raises:
            PrivacyParameterError: delta out of range, or a number of holders below 0.
        """
        if dishonest < 0:
            raise PrivacyParameterError(f"{dishonest} dishonest holders were given; the number must be 0 or more")
        if not self.honest:
            return self.epsilon(delta)
        check_delta(delta)
        if dishonest >= self.honest:
            return math.inf
        left = self.noise_multiplier * math.sqrt((self.honest - dishonest) / self.honest)
        return _accountant().epsilon((self._steps_event(left * (1 - 2.0**-50)),), delta=delta)

    def calibrate(self, *, epsilon: float, delta: float) -> Self:
        """A new plan with the least noise that is (epsilon, delta)-DP for one example, its contacts included.

        Raises:
            PrivacyParameterError: epsilon or delta out of range, or no noise in reach keeps the promise.
        """
        check_epsilon(epsilon)
        check_delta(delta)

        def events_with(noise: float) -> tuple[PrivacyEvent, ...]:
            return (self._steps_event(rounded_up(noise)),)

        noise = rounded_up(_least_noise(events_with, epsilon=epsilon, delta=delta))
        values = {**self.model_dump(), "noise_multiplier": noise}
        return _kept_promise(type(self)(**values), epsilon=epsilon, delta=delta)

    def _steps_event(self, noise_multiplier: float | None = None) -> GaussianSteps:
        return GaussianSteps(
            noise_multiplier=self.noise_multiplier if noise_multiplier is None else noise_multiplier,
            sampling_rate=self.sampling_rate,
            steps=self.steps,
            contacts=self.contacts,
        )


AnyPlan = TypeVar("AnyPlan", bound="_PrivacyPlan")
PrivacyPlan = CountReleasePlan | DPSGDPlan

_ANY_PLAN: TypeAdapter[PrivacyPlan] = TypeAdapter(Annotated[PrivacyPlan, Field(discriminator="kind")])


def plan_to_json(plan: _PrivacyPlan) -> str:
    """The canonical JSON of a plan: sorted keys, no blanks, every field there, defaults too, but for none of these."""
    values = plan.model_dump(mode="json")
    for name in ("contacts", "honest"):  # so that plans from before there were any keep their digest
        if values.get(name) == 0:
            del values[name]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def plan_from_json(text: str) -> PrivacyPlan:
    """The plan that `plan_to_json` wrote.

    Raises:
        PrivacyParameterError: not JSON, an unknown kind or key, or a value out of its range.
    """
    try:
        return _ANY_PLAN.validate_json(text)
    except ValidationError as error:
        raise PrivacyParameterError(_in_words(error, "privacy plan")) from None


def _accountant() -> ModuleType:
    """Loaded where it is asked: it takes a second, and who only reads a plan or a policy has no question for it."""
    from privacy import accounting  # noqa: PLC0415

    return accounting


def _least_noise(events_with: Callable[[float], tuple[PrivacyEvent, ...]], *, epsilon: float, delta: float) -> float:
    return least_noise(
        lambda noise: _accountant().epsilon(events_with(noise), delta=delta),
        rough_epsilon_of=lambda noise: _accountant().rough_epsilon(events_with(noise), delta=delta),
        target=epsilon,
    )


def _kept_promise(plan: AnyPlan, *, epsilon: float, delta: float) -> AnyPlan:
    reached = plan.epsilon(delta)
    if not reached <= epsilon:
        raise PrivacyParameterError(f"calibration reached epsilon {reached}, above {epsilon}; ask for more noise")
    return plan


def _in_words(error: ValidationError, where: str) -> str:
    """Every complaint as: where, key, rule, value."""
    return "; ".join(
        f"{where}: '{'.'.join(str(part) for part in item['loc'])}': {item['msg']}"
        + (f", got {item['input']!r}" if isinstance(item["input"], int | float | str | None) else "")
        + "; change the value"
        for item in error.errors()
    )
