"""How far one example moves a step: each row clipped on its own, a constant divisor, no example in another's loss.

Two steps with the same noise are compared, so that the noise cancels and what the examples add is left, exactly.
"""

from __future__ import annotations

import numpy as np
import torch

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.checks.probe import (
    CLIP_NORM,
    ROUNDING,
    WIDTH,
    Probe,
    clipped_sum,
    flat_step,
    fresh,
    probe_loss,
)
from privacy.audits.mixed import batch_norm_case, contrast_case, dependence
from privacy.audits.subject import Subject
from privacy.randomness import SecureStream
from protocol.errors import MigrafedError, PrivacyUnitError

_PIECES = "dpsgd dpsgd_plan"


@asks("Can one example, however extreme, move a step by more than the clip norm?", of=_PIECES)
def one_huge_example(subject: Subject) -> Measurement:
    """A row of a thousand clip norms, alone and added to thirty rows that weigh little."""
    crowd = np.zeros((31, WIDTH))
    crowd[np.arange(30), np.arange(30)] = CLIP_NORM / 100
    crowd[30, 40] = 1000 * CLIP_NORM
    alone = np.linalg.norm(clipped_sum(subject, crowd[30:]))
    added = np.linalg.norm(clipped_sum(subject, crowd) - clipped_sum(subject, crowd[:30]))
    moved = float(max(alone, added)) / CLIP_NORM
    return Measurement((moved, 1 + ROUNDING), f"moved by {moved:.5f} clip norms")


@asks("Is each example clipped on its own, in the L2 norm of the whole gradient, and left alone below it?", of=_PIECES)
def every_row_is_clipped(subject: Subject) -> Measurement:
    """Sixteen rows of a fifth to fifty clip norms, spread over all coordinates, against the textbook formula."""
    made = np.random.default_rng(7).normal(size=(16, WIDTH))
    rows = made / np.linalg.norm(made, axis=1, keepdims=True) * np.geomspace(0.2, 50, 16)[:, None] * CLIP_NORM
    expected = (rows * np.minimum(1, CLIP_NORM / np.linalg.norm(rows, axis=1))[:, None]).sum(axis=0)
    off = float(np.linalg.norm(clipped_sum(subject, rows) - expected)) / CLIP_NORM
    return Measurement((off, 16 * ROUNDING), f"{off:.2e} clip norms from the sum of clipped rows")


@asks("Does an example whose gradient is not finite move a step by at most the clip norm?", of=_PIECES)
def gradients_that_are_not_finite(subject: Subject) -> Measurement:
    """Rows with one infinite and one undefined coordinate, among others."""
    rows = np.full((3, WIDTH), CLIP_NORM / 100)
    rows[0, 5], rows[1, 6] = np.inf, np.nan
    moved = float(np.linalg.norm(clipped_sum(subject, rows) - clipped_sum(subject, rows[2:]))) / CLIP_NORM
    return Measurement((moved, 2 + ROUNDING), f"two of them moved the step by {moved:.5f} clip norms")


@asks("Is a step divided by the expected batch, whatever was drawn?", of=_PIECES)
def division_by_a_constant(subject: Subject) -> Measurement:
    """What each of ten equal examples adds: the same if they come alone, together or not at all."""
    row = np.zeros((10, WIDTH))
    row[:, 3] = CLIP_NORM
    added = np.array([clipped_sum(subject, row[:size])[3] / size for size in (1, 2, 10)]) / CLIP_NORM
    off = float(np.abs(added - 1).max())
    return Measurement(
        (off, ROUNDING), f"one of 1, 2 and 10 examples adds {', '.join(f'{x:.4f}' for x in added)} of its own"
    )


@asks(
    "On the real loss, does adding or removing one example move a step by at most the clip norm?",
    of=_PIECES + " training",
)
def add_or_remove_one(subject: Subject) -> Measurement:
    """Every example of a batch taken out once; a clip norm so small that every gradient saturates it."""
    case = subject.training
    chosen = np.arange(min(12, case.num_examples))
    plan = subject.dpsgd_plan(clip_norm=1e-3, noise_multiplier=0.05, sampling_rate=0.1, expected_batch=10.0, steps=1)
    moved = []
    whole = flat_step(subject, case.loss, case.model, case.batch(chosen), plan)
    for left_out in chosen:
        rest = flat_step(subject, case.loss, case.model, case.batch(np.delete(chosen, left_out)), plan)
        moved.append(np.linalg.norm(whole - rest) * plan.expected_batch / plan.clip_norm)
    most = float(max(moved))
    return Measurement((most, 1 + _room(len(whole))), f"{case.name}: moved by at most {most:.5f} clip norms")


@asks("On the real loss, does any example change the loss of another?", of="training")
def losses_are_apart(subject: Subject) -> Measurement:
    """The loss of each example in the batch, alone, and beside changed neighbours; in float64."""
    case = subject.training
    off = dependence(case.loss, case.model, case.batch(np.arange(min(8, case.num_examples))))
    return Measurement((off, 1e-6), f"{case.name}: another example changes a loss by {off:.2e} of it")


@asks(
    "Does the guard before a run accept the real loss, and refuse batch norm and in-batch contrast?",
    of="check_examples_apart training",
)
def mixing_is_refused(subject: Subject) -> Measurement:
    """The production guard on three models."""
    found = []
    case = subject.training
    subject.check_examples_apart(case.loss, case.model, case.batch(np.arange(min(4, case.num_examples))))
    for name, (loss, model, batch) in {"batch norm": batch_norm_case(), "contrast": contrast_case()}.items():
        try:
            subject.check_examples_apart(loss, model, batch)
        except PrivacyUnitError:
            continue
        found.append(f"{name} was accepted")
    return violations(found, asked=3)


@asks("Is a step refused whose tensors do not have one row per unit of privacy?", of=_PIECES + " stream")
def unit_of_privacy(subject: Subject) -> Measurement:
    """Batches with five rows per example (places folded into the batch), and tensors of different length."""
    folded = {"x": torch.ones(20, WIDTH, dtype=torch.float64)}
    ragged = {"x": torch.ones(4, WIDTH, dtype=torch.float64), "y": torch.ones(20)}
    found = []
    for name, batch in {"folded": folded, "ragged": ragged}.items():
        try:
            fresh(subject).noisy_mean(probe_loss, Probe(), lambda _, given=batch: given, np.arange(4), physical_batch=4)
        except PrivacyUnitError:
            continue
        except MigrafedError as error:
            found.append(f"{name} batch: {error}")
            continue
        found.append(f"a {name} batch was accepted")
    return violations(found, asked=2)


@asks("Are updates bounded as integers, for every input?", of="quantiser")
def quantised_updates(subject: Subject) -> Measurement:
    """Norms of encoded updates over the stated bound: huge, small, zero and adversarial for rounding."""
    quantiser = subject.quantiser(clip_norm=1.0, scale=256, dimension=500)
    numbers, stream = np.random.default_rng(11), SecureStream()
    half = np.full(500, 0.5 / 256)
    inputs = [1e3 * numbers.normal(size=500), 1e-6 * numbers.normal(size=500), np.zeros(500), half, np.eye(500)[0] * 9]
    # The bound is derived here once more: clip norm in units plus at most one unit per coordinate.
    bound = min(quantiser.norm_bound, 256 + np.sqrt(500))
    norms = [float(np.linalg.norm(quantiser.encode(vector, stream).astype(np.float64))) for vector in inputs * 4]
    return Measurement((max(norms) / bound, 1.0), f"largest norm {max(norms):.1f} of {bound:.1f} units")


def _room(parameters: int) -> float:
    """Rounding to 2^-20 clip norms per coordinate, for which the noise is sized, and float32 of the step itself."""
    return ROUNDING + 2 * np.sqrt(parameters) * 2.0**-20


CHECKS = (
    one_huge_example,
    every_row_is_clipped,
    gradients_that_are_not_finite,
    division_by_a_constant,
    add_or_remove_one,
    losses_are_apart,
    mixing_is_refused,
    unit_of_privacy,
    quantised_updates,
)
