"""What was released, as the accountant sees it: frozen events that can be written down and read back.

An event is the mathematical contract between a mechanism and the accountant. A plan yields its events,
`privacy.accounting` turns them into epsilon, and a ledger keeps them as JSON. This module imports no accountant, so a
policy or a ledger can read events without loading one::

    event = CountNoise(stddev=14.8, contributions=10)
    event_from_json(event.to_json()) == event
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from protocol.errors import PrivacyParameterError


@dataclass(frozen=True, kw_only=True)
class GaussianSteps:
    """`steps` releases of a sum of clipped vectors of one Poisson sample each, under Gaussian noise.

    One step: each example is drawn alone with probability q (`sampling_rate`), its vector has norm at most C, and the
    sum gets N(0, (noise_multiplier · C)²) per coordinate. The dominating pair of a step is

        N(0, z²)   against   (1 - q) N(0, z²) + q N(1, z²),      z = noise_multiplier = stddev / C.

    Unit: one example. Adjacency: add or remove one. Sensitivity: C in L2, which is 1 in units of C. The rate is a
    public constant, empty samples are released with noise like others, and batches cut from a shuffled list are *not*
    this event.

    With K = `contacts` above 0 an example is not made of its owner's records alone: each owner's records enter at most
    K other examples. Unit: one owner's records. Adjacency: add or remove them, which adds or removes one example and
    changes up to K others. See `privacy.two_legs`.

    Raises:
        PrivacyParameterError: a value out of its range.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1
    contacts: int = 0

    kind: ClassVar[str] = "gaussian_steps"

    def __post_init__(self) -> None:
        _check_positive("noise_multiplier", self.noise_multiplier)
        _check_positive("sampling_rate", self.sampling_rate)
        _check_count("steps", self.steps)
        if isinstance(self.contacts, bool) or not isinstance(self.contacts, int) or self.contacts < 0:
            raise PrivacyParameterError(
                f"contacts must be a whole number of 0 or more, got {self.contacts!r}; give the cap on the rows of "
                "others that one person's records enter"
            )
        if self.sampling_rate > 1:
            raise PrivacyParameterError(
                f"sampling_rate must be in (0, 1], got {self.sampling_rate}; give the chance that an example is drawn"
            )

    def to_json(self) -> dict[str, Any]:
        """The event as plain values, its kind among them; contacts where there are some."""
        values = asdict(self)
        return {"kind": self.kind, **{name: value for name, value in values.items() if name != "contacts" or value}}


@dataclass(frozen=True, kw_only=True)
class CountNoise:
    """One release of a table of integer counts, every cell under discrete Gaussian noise.

    A person is in at most k (`contributions`) cells and changes each by exactly 1, so the dominating pair is the k-fold
    product of P[x] ∝ exp(-x² / (2 s²)) against itself moved by 1, s = `stddev`. Fewer cells are dominated by k.

    Unit: one person. Adjacency: add or remove one. Sensitivity: L1 = k, L2 = √k, Linf = 1 in counts. `stddev` is the
    parameter s; the standard deviation of the noise is never above it.

    Raises:
        PrivacyParameterError: a value out of its range.
    """

    stddev: float
    contributions: int

    kind: ClassVar[str] = "count_noise"

    def __post_init__(self) -> None:
        _check_positive("stddev", self.stddev)
        _check_count("contributions", self.contributions)

    @property
    def noise_multiplier(self) -> float:
        """stddev / √k: noise over L2 sensitivity, to compare with a continuous Gaussian."""
        return self.stddev / math.sqrt(self.contributions)

    def to_json(self) -> dict[str, Any]:
        """The event as plain values, its kind among them."""
        return {"kind": self.kind, **asdict(self)}


PrivacyEvent = GaussianSteps | CountNoise

_KINDS: dict[str, type[PrivacyEvent]] = {kind.kind: kind for kind in (GaussianSteps, CountNoise)}


def event_from_json(values: Mapping[str, Any]) -> PrivacyEvent:
    """The event that `to_json` wrote.

    Raises:
        PrivacyParameterError: an unknown kind, a missing or an unknown key, or a value out of its range.
    """
    kind = _KINDS.get(str(values.get("kind")))
    if kind is None:
        raise PrivacyParameterError(
            f"unknown kind of privacy event {values.get('kind')!r}; known are {', '.join(sorted(_KINDS))}"
        )
    given = {key: value for key, value in values.items() if key != "kind"}
    if kind is GaussianSteps:
        given.setdefault("contacts", 0)  # events were written before there were contacts
    if wrong := given.keys() ^ {field.name for field in fields(kind)}:
        raise PrivacyParameterError(
            f"a privacy event of kind '{kind.kind}' has exactly the keys of its class; check {', '.join(sorted(wrong))}"
        )
    return kind(**given)


def check_delta(delta: float) -> None:
    """Refuse a `delta` outside (0, 1), NaN included."""
    if not _is_number(delta) or not 0 < delta < 1:
        raise PrivacyParameterError(
            f"delta must be above 0 and below 1, got {delta!r}; choose it well below 1 / number of people"
        )


def check_epsilon(epsilon: float) -> None:
    """Refuse a target `epsilon` that is not a finite number above 0."""
    _check_positive("epsilon", epsilon)


def _check_positive(name: str, value: float) -> None:
    if not _is_number(value) or not (value > 0 and math.isfinite(value)):
        raise PrivacyParameterError(f"{name} must be a finite number above 0, got {value!r}; give such a number")


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PrivacyParameterError(f"{name} must be a whole number of 1 or more, got {value!r}; give such a number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
