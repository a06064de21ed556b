"""DP-SGD over all holders at once: each adds a part of the noise to a masked sum, and the sum has that of one place.

One step over holders i with Poisson samples S_i, each drawn at its holder, gradients g_j clipped to C, d parameters::

    part_i = cut( sum over j in S_i of round(g_j · U / max(C, |g_j|)) ) + Z_i          integers, masked modulo 2^32
    mean   = C / (U b) · sum over i of part_i                                          by the coordinator, b public

    Z_i discrete Gaussian, stddev s,    s² = (z D)² / t + 4²,    D = U + sqrt(d) (1 + tiny)

*Unit*: one example of one holder (`DPSGDPlan.unit`). *Adjacency*: add or remove it. *Sensitivity* of the sum in units:
D in L2, as in `privacy.dpsgd`; `cut` limits each coordinate of what a holder drew to a public bound before there is
noise, which brings no two sums further apart, tells nobody that it happened, and keeps every part within what a sum can
hold.

*Promise*: against the coordinator and everybody who reads what it makes of the sum, if the sum is all they see of a
part (`privacy.secure_aggregation`) and at least t holders in it (`DPSGDPlan.honest`) added their share. t is the
fewest holders over which a holder lets a sum be opened. Each step is then the event `GaussianSteps` with noise
multiplier z and the sampling rate of one holder's examples, as if all data lay in one place. With c of just t holders
dishonest the multiplier is z sqrt((t - c) / t), see `DPSGDPlan.epsilon_against`. A holder knows its own share. That
holds for c <= 2t - n - 1 of n holders: more, with a coordinator that lies, can open two sums of a round, and then their
difference shows a part with one share. What belongs to one person at j holders is protected as a group of j examples of
one sum, not as in j releases.

Why a discrete Gaussian is at least as good as that event (both steps are pointwise bounds on densities, so they pass
through sampling and composition):

1. A normal X of stddev a, rounded at random to an integer y with chances proportional to exp(-(y - X)² / (2 · 4²)), is
   discrete Gaussian with stddev sqrt(a² + 4²) up to a factor of exp(± 3 tau), tau = 2 sum_k exp(-2 pi² 4² k²): the sum
   over integers y of exp(-(y - x)² / (2 · 4²)) depends on x by no more (Poisson summation). Rounding moves along with
   shifts by integers. So adding the discrete Gaussian is a function of adding the normal.
2. The sum of h shares is discrete Gaussian with stddev s sqrt(h) up to a factor of exp(± sum_gap(s, h)), see
   `privacy.discrete_gaussian.sum_gap`. Of h >= t shares the normal in step 1 has a² = h s² - 4² >= (z D)² h / t.

Over d coordinates and T steps that is `StepShares.slack` of epsilon, below 1e-100 for every model that fits a memory;
it is refused above 1e-9. The draws add (1 + e^epsilon) · draws · total_variation to delta, see `DiscreteGaussian`.

What is left open are (2) and (3) of `privacy.dpsgd`.

Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387 (sums of shares); Peikert 2010, Theorem 3.1 (rounding at random).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from privacy.discrete_gaussian import LEAST_SHARE, DiscreteGaussian, holder_stddev, sum_gap
from privacy.dpsgd import DPSGD, UNITS, BatchOf, Mode, sensitivity_units
from privacy.per_example import Gradients, LossFunction, trainable
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.roster import least_survivors
from protocol.errors import PrivacyParameterError
from protocol.plan import Plan

LARGEST_SHARE = 2.0**15
"""Stddev of a share: a table of draws for it takes half a second and seven megabytes."""
LARGEST_SLACK = 1e-9
_MORE_THAN_EXPECTED, _AT_LEAST = 2, 256
_UP = 1 + 2.0**-50


@dataclass(frozen=True)
class StepShares:
    """The public numbers of one step: units, each holder's noise, and how large a part may be. The same for all.

    Args:
        plan: With `honest` above 0; its `expected_batch` counts the examples of all holders.
        parameters: Trained parameters d.
        holders: Holders that may take part.

    Raises:
        PrivacyParameterError: no share of noise is asked for, more honest holders than there are, or noise that cannot
            be drawn.
    """

    plan: DPSGDPlan
    parameters: int
    holders: int

    def __post_init__(self) -> None:
        if not 1 <= self.plan.honest <= self.holders:
            raise PrivacyParameterError(
                f"noise shared by {self.plan.honest} honest holders of {self.holders} was asked for; set "
                'privacy.noise = "distributed" for a plan of at least that many'
            )
        if self.parameters < 1:
            raise PrivacyParameterError(f"{self.parameters} parameters were given; there is nothing to train")
        if not self.slack <= LARGEST_SLACK:
            raise PrivacyParameterError(
                f"sums of shares are off by {self.slack:.3g} of epsilon over {self.plan.steps} steps; take fewer steps"
            )

    @cached_property
    def units(self) -> int:
        """U: integer units of the clip norm, the largest power of two up to 2^20 whose noise can be drawn."""
        for bits in range(UNITS.bit_length() - 1, -1, -1):
            if self._share(2**bits) <= LARGEST_SHARE:
                return 2**bits
        raise PrivacyParameterError(
            f"a noise multiplier of {self.plan.noise_multiplier:.4g} over {self.parameters} parameters is more than "
            "shares can be drawn for; ask for a larger epsilon or train a smaller model"
        )

    @property
    def sensitivity(self) -> float:
        """D: how far one example moves a sum in L2, in units."""
        return sensitivity_units(self.parameters, self.units)

    @property
    def share_stddev(self) -> float:
        """s: stddev of the noise of each holder, in units."""
        return self._share(self.units)

    @property
    def slack(self) -> float:
        """What sums of discrete Gaussians may take from epsilon over all steps; see the module docstring."""
        rounding = 2 * sum(math.exp(-2 * (math.pi * LEAST_SHARE * k) ** 2) for k in (1, 2))
        apart = sum_gap(self.share_stddev, self.holders) + 3 * rounding
        return 2 * self.plan.steps * self.parameters * apart * _UP

    @property
    def cut(self) -> int:
        """Largest magnitude of a coordinate of what a holder drew, in units: far above what honest data reach.

        So many gradients of full length that all point along one coordinate: twice the expected batch of all holders
        together, and 256 more.
        """
        return self.units * (_MORE_THAN_EXPECTED * math.ceil(self.plan.expected_batch) + _AT_LEAST)

    @property
    def largest(self) -> int:
        """Largest magnitude of a coordinate of a part, noise included."""
        return self.cut + self.noise.largest

    @property
    def noise(self) -> DiscreteGaussian:
        """The distribution of one holder's share."""
        return DiscreteGaussian(self.share_stddev)

    def layout(self, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
        """How parts become words; sums come back as parts of the mean gradient, C / (U b) times the integers."""
        step = self.plan.clip_norm / self.units / self.plan.expected_batch
        return Layout.for_integers(shapes, largest=self.largest, holders=self.holders, step=step)

    def _share(self, units: int) -> float:
        spread = self.plan.noise_multiplier * sensitivity_units(self.parameters, units)
        total = math.sqrt(spread**2 + self.plan.honest * LEAST_SHARE**2) * _UP
        return holder_stddev(total, honest=self.plan.honest)


class DistributedDPSGD(DPSGD):
    """One holder's part of a step; see the module docstring for the promise and what it rests on.

    Args:
        shares: Public numbers of the step.
        stream: Where coins and noise come from.
        mode: How per-example gradients are computed; speed only.
    """

    def __init__(self, shares: StepShares, stream: SecureStream, *, mode: Mode = "vmap") -> None:
        super().__init__(shares.plan, stream, mode=mode)
        self.shares, self.units = shares, shares.units

    def part(
        self, loss: LossFunction, model: nn.Module, batch_of: BatchOf, positions: np.ndarray, *, physical_batch: int
    ) -> dict[str, np.ndarray]:
        """What this holder puts into the masked sum. Never to be shown alone: its noise is a share only.

        Args: as `DPSGD.noisy_mean`. Shapes: -> parameter.shape of int64 for each trained parameter

        Raises:
            PrivacyUnitError: not one row per example; nothing was released.
            PrivacyParameterError: another number of trained parameters than the noise was made for.
        """
        if physical_batch < 1:
            raise PrivacyParameterError(f"physical_batch must be >= 1, got {physical_batch}; give a batch that fits")
        leaves = {name: tuple(leaf.shape) for name, leaf in trainable(model).items()}
        sizes = [math.prod(shape) for shape in leaves.values()]
        if sum(sizes) != self.shares.parameters:
            raise PrivacyParameterError(
                f"a model of {sum(sizes)} trained parameters was given and noise is made for {self.shares.parameters}; "
                "count those that are trained"
            )
        total = self._clipped_sum(loss, model, batch_of, positions, physical_batch=physical_batch)
        noisy = np.clip(total, -self.shares.cut, self.shares.cut) + self._noise(len(total))
        parts = np.split(noisy, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(leaves.items(), parts, strict=True)}

    def noisy_mean(
        self, loss: LossFunction, model: nn.Module, batch_of: BatchOf, positions: np.ndarray, *, physical_batch: int
    ) -> Gradients:
        """There is none: a holder's own mean would have a share of the noise only.

        Raises:
            PrivacyParameterError: always.
        """
        raise PrivacyParameterError(
            "one holder's share of the noise protects nobody alone; put its part into a masked sum, or set "
            'privacy.noise = "local"'
        )

    def _noise(self, parameters: int) -> np.ndarray:
        return self.shares.noise.sample((parameters,), self._stream)


def step_schedule(plan: Plan, *, num_examples: int) -> dict[str, Any]:
    """Fields of a `DPSGDPlan` that say how often examples are used, by the plan's kind of noise.

    ===========  ================================  ==============================================
    field        noise = "local"                   noise = "distributed"
    ===========  ================================  ==============================================
    q            batch_size / num_examples         the same, at each holder
    batch        batch_size                        batch_size · number of holders
    steps        rounds · local_epochs · ceil(1/q) rounds: each is one sum over all holders
    honest       0                                 floor(2n/3) + 1, the fewest that a sum is opened over
    ===========  ================================  ==============================================

    Args:
        plan: With ``[privacy]``.
        num_examples: A public number of training examples of each holder.
    """
    batch, training = plan.training.batch_size, plan.training
    rate = {"sampling_rate": batch / num_examples}
    if not plan.shares_noise:
        return rate | {
            "expected_batch": batch,
            "steps": training.rounds * training.local_epochs * math.ceil(num_examples / batch),
        }
    holders = len(plan.federation.holders)
    return rate | {
        "expected_batch": batch * holders,
        "steps": training.rounds,
        "honest": least_survivors(holders),
    }


def mean_gradients(sums: Mapping[str, np.ndarray], *, survivors: int, holders: int) -> dict[str, np.ndarray]:
    """The noisy mean gradient from a sum that was opened over `survivors` of `holders`.

    The layout's sums are divided by the batch expected of all holders; where some are missing, by theirs less. Who is
    missing is public, so this is post-processing.
    """
    return {name: value * (holders / survivors) for name, value in sums.items()}


def clipped_together(gradients: Mapping[str, np.ndarray], *, norm: float) -> dict[str, np.ndarray]:
    """Gradients scaled down to an L2 norm of `norm` all together, if they are longer; 0 leaves them.

    Of gradients that have their noise: post-processing.
    """
    length = math.sqrt(sum(float((value**2).sum()) for value in gradients.values()))
    if not norm or length <= norm:
        return dict(gradients)
    return {name: value * (norm / length) for name, value in gradients.items()}
