"""DP-SGD with one mistake in it: noise, clipping, batches, division, and losses in which examples meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from privacy.audits.defect import Defect, planted
from privacy.audits.mixed import with_contrast
from privacy.audits.subject import Subject, TrainingCase
from privacy.dpsgd import DPSGD, UNITS
from privacy.per_example import Batch, Gradients, LossFunction, by_vmap, trainable
from privacy.plan import DPSGDPlan
from privacy.quantise import Quantiser
from privacy.randomness import SecureStream


def _with_step(twin: Callable[[type[DPSGD]], type[DPSGD]]) -> Callable[[Subject], Subject]:
    """Put a subclass of the mechanism in its place."""
    return lambda subject: replace(subject, dpsgd=twin(subject.dpsgd))


def _with_noise(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Subject], Subject]:
    """Change the noise of each step after it was drawn."""

    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Changed(base):
            def _noise(self, parameters: int) -> np.ndarray:
                return change(super()._noise(parameters))

        return Changed

    return _with_step(twin)


def _with_rows(change: Callable[[Tensor, float], Tensor]) -> Callable[[Subject], Subject]:
    """Put another clipping in the place of the row-wise one; `change` gets rows and clip norm."""

    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Changed(base):
            def _to_units(self, rows: Tensor) -> Tensor:
                finite = torch.where(torch.isfinite(rows).all(dim=1, keepdim=True), rows, 0.0)
                return (change(finite, self.plan.clip_norm) * (UNITS / self.plan.clip_norm)).round()

        return Changed

    return _with_step(twin)


def _scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda noise: np.rint(noise * factor).astype(np.int64)


def _clipped(rows: Tensor, clip_norm: float, order: float = 2.0) -> Tensor:
    norms = torch.linalg.vector_norm(rows, ord=order, dim=1, keepdim=True)
    return rows * (clip_norm / norms.clamp_min(clip_norm))


def _clipped_mean(rows: Tensor, clip_norm: float) -> Tensor:
    return _clipped(rows.mean(dim=0, keepdim=True), clip_norm).expand_as(rows)


def _uniform(noise: np.ndarray) -> np.ndarray:
    """Uniform noise of the same standard deviation, from the normal noise itself."""
    order = np.argsort(np.argsort(noise)) + 0.5
    return np.rint((order / len(noise) - 0.5) * np.sqrt(12) * noise.std()).astype(np.int64)


@planted("reused noise", "noise is drawn in the first step and used again in all others")
def _reused_noise(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Reusing(base):
            def _noise(self, parameters: int) -> np.ndarray:
                if not hasattr(self, "first"):
                    self.first = super()._noise(parameters)
                return self.first

        return Reusing

    return _with_step(twin)(subject)


@planted("seeded noise", "the stream starts from a key written in the code, so every run draws the same noise")
def _seeded_noise(subject: Subject) -> Subject:
    return replace(subject, stream=lambda: SecureStream(bytes(32)))


@planted("non-Poisson batches", "a shuffled list is cut into batches of one size, and accounted as if it were sampling")
def _shuffled_batches(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Shuffling(base):
            def draw(self, num_examples: int) -> np.ndarray:
                left = getattr(self, "left", np.zeros(0, np.int64))
                size = round(self.plan.sampling_rate * num_examples)
                if len(left) < size:
                    left = np.argsort(self._stream.uint64(num_examples))
                self.left = left[size:]
                return np.sort(left[:size])

        return Shuffling

    return _with_step(twin)(subject)


@planted("batches of one size", "each step draws a fixed number of examples at random, not each example by a coin")
def _fixed_size(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class FixedSize(base):
            def draw(self, num_examples: int) -> np.ndarray:
                size = round(self.plan.sampling_rate * num_examples)
                return np.sort(np.argsort(self._stream.uint64(num_examples))[:size])

        return FixedSize

    return _with_step(twin)(subject)


@planted("sampling rate x 1.05", "examples are drawn five per cent more often than the plan is charged for")
def _rate(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Eager(base):
            def draw(self, num_examples: int) -> np.ndarray:
                coins = self._stream.bernoulli(min(1.0, 1.05 * self.plan.sampling_rate), num_examples)
                return np.flatnonzero(coins)

        return Eager

    return _with_step(twin)(subject)


@planted("skipped empty batches", "a step whose batch is empty is released without noise")
def _skipped_empty(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Skipping(base):
            def noisy_mean(self, loss, model, batch_of, positions, *, physical_batch):
                found = super().noisy_mean(loss, model, batch_of, positions, physical_batch=physical_batch)
                return found if len(positions) else {name: torch.zeros_like(value) for name, value in found.items()}

        return Skipping

    return _with_step(twin)(subject)


@planted("loop skips empty batches", "the training loop leaves out steps whose batch is empty")
def _loop_skips(subject: Subject) -> Subject:
    return replace(subject, training=_Changed(subject.training, skip_empty=True))


@planted("divide by actual batch size", "the noisy sum is divided by how many examples were drawn")
def _actual_size(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Dividing(base):
            def _divisor(self, drawn: int) -> float:
                return float(max(1, drawn))

        return Dividing

    return _with_step(twin)(subject)


@planted("clipping per layer", "each parameter of the model is clipped to the whole clip norm")
def _per_layer(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class PerLayer(base):
            def _sum_of_rows(self, gradients: Gradients) -> np.ndarray:
                return np.concatenate([super(PerLayer, self)._sum_of_rows({k: v}) for k, v in gradients.items()])

        return PerLayer

    return _with_step(twin)(subject)


@planted("gradients that are not finite", "a row with an infinite coordinate is scaled like any other")
def _not_finite(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Unguarded(base):
            def _to_units(self, rows: Tensor) -> Tensor:
                return (_clipped(rows, self.plan.clip_norm) * (UNITS / self.plan.clip_norm)).round()

        return Unguarded

    return _with_step(twin)(subject)


@planted("unit not asserted", "a batch with several rows per unit of privacy is clipped row by row, without an error")
def _unit_unchecked(subject: Subject) -> Subject:
    def twin(base: type[DPSGD]) -> type[DPSGD]:
        class Trusting(base):
            def _clipped_sum(self, loss, model, batch_of, positions, *, physical_batch):
                total = np.zeros(sum(leaf.numel() for leaf in trainable(model).values()), dtype=np.int64)
                for start in range(0, len(positions), physical_batch):
                    batch = batch_of(positions[start : start + physical_batch])
                    total += self._sum_of_rows(by_vmap(loss, model, batch))
                return total

        return Trusting

    return _with_step(twin)(subject)


@planted("in-batch contrast", "the loss of each example is contrasted with the other examples of its batch")
def _contrast(subject: Subject) -> Subject:
    return replace(subject, training=_Changed(subject.training, contrast=True))


@planted("masks by place in the batch", "what is random in an example depends on how many come before it")
def _by_place(subject: Subject) -> Subject:
    return replace(subject, training=_Changed(subject.training, by_place=True))


@planted("no guard against mixing", "models that mix examples are accepted for private training")
def _no_guard(subject: Subject) -> Subject:
    return replace(subject, check_examples_apart=lambda loss, model, batch: None)


@planted("noise claimed by the plan", "the plan tells the accountant of five per cent more noise than is added")
def _claimed_noise(subject: Subject) -> Subject:
    class Boasting(subject.dpsgd_plan):
        def events(self):
            return tuple(replace(event, noise_multiplier=1.05 * self.noise_multiplier) for event in super().events())

    return replace(subject, dpsgd_plan=Boasting)


@planted("calibration under-noises", "calibrate returns five per cent less noise than the promise needs")
def _under_noised(subject: Subject) -> Subject:
    class Short(subject.dpsgd_plan):
        def calibrate(self, *, epsilon: float, delta: float) -> DPSGDPlan:
            found = super().calibrate(epsilon=epsilon, delta=delta)
            return found.model_copy(update={"noise_multiplier": 0.95 * found.noise_multiplier})

    return replace(subject, dpsgd_plan=Short)


@planted("updates not clipped", "updates are turned into integers without bounding their norm")
def _quantiser_unclipped(subject: Subject) -> Subject:
    class Unclipped(subject.quantiser):
        def encode(self, vector: np.ndarray, stream: SecureStream) -> np.ndarray:
            wide = Quantiser(max(self.clip_norm, float(np.linalg.norm(vector))), self.scale, self.dimension)
            return wide.encode(vector, stream)

    return replace(subject, quantiser=Unclipped)


class _Changed:
    """A training with contrast in its loss, masks by place, or a loop that leaves out empty batches."""

    def __init__(
        self, case: TrainingCase, *, contrast: bool = False, by_place: bool = False, skip_empty: bool = False
    ) -> None:
        self._case, self._by_place, self._skip = case, by_place, skip_empty
        self.name, self.model, self.num_examples = case.name, case.model, case.num_examples
        self.loss: LossFunction = with_contrast(case.loss) if contrast else case.loss

    def batch(self, positions: np.ndarray) -> Batch:
        batch = self._case.batch(positions)
        if not self._by_place:
            return batch
        odd = torch.arange(len(positions)) % 2 == 1
        return {
            name: torch.where(odd.view(-1, *[1] * (value.dim() - 1)), torch.zeros_like(value), value)
            for name, value in batch.items()
        }

    def train(self, mechanism: DPSGD) -> None:
        if not self._skip:
            return self._case.train(mechanism)
        for _ in range(mechanism.plan.steps):
            positions = mechanism.draw(self.num_examples)
            if len(positions):
                mechanism.noisy_mean(self.loss, self.model, self.batch, positions, physical_batch=32)
        return None


DEFECTS: tuple[Defect, ...] = (
    Defect("no noise", "steps are released without noise", _with_noise(_scaled(0.0))),
    Defect("noise / 2", "half the noise that is charged", _with_noise(_scaled(0.5))),
    Defect("5 % too little noise", "five per cent less noise than is charged", _with_noise(_scaled(0.95))),
    Defect("noise / 4", "a quarter of the noise that is charged", _with_noise(_scaled(0.25))),
    Defect("no clipping", "gradients are added as they are", _with_rows(lambda rows, clip_norm: rows)),
    Defect("clip x 4", "gradients are clipped to four clip norms", _with_rows(lambda rows, c: _clipped(rows, 4 * c))),
    Defect("clip of the batch mean", "the mean of a batch is clipped, not each example", _with_rows(_clipped_mean)),
    Defect(
        "clip in the wrong norm",
        "the largest coordinate is bounded, not the L2 norm",
        _with_rows(lambda rows, clip_norm: _clipped(rows, clip_norm, order=torch.inf)),
    ),
    _per_layer,
    _reused_noise,
    _seeded_noise,
    Defect(
        "one noise for two layers",
        "the second half of the model gets the noise of the first",
        _with_noise(lambda noise: np.resize(noise[: (len(noise) + 1) // 2], len(noise))),
    ),
    Defect("uniform noise", "noise of the right variance and the wrong shape", _with_noise(_uniform)),
    _shuffled_batches,
    _fixed_size,
    _rate,
    _skipped_empty,
    _loop_skips,
    _actual_size,
    _not_finite,
    _unit_unchecked,
    _contrast,
    _by_place,
    _no_guard,
    _claimed_noise,
    _under_noised,
    _quantiser_unclipped,
)
