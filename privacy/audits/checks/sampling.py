"""Who takes part in a step: each example alone, with the plan's rate, anew in every step.

Five hundred pairs of draws from two mechanisms, over 1,000 examples.
"""

from __future__ import annotations

import numpy as np

from privacy.audits.check import Measurement, asks
from privacy.audits.checks.probe import fresh
from privacy.audits.statistics import rate_off, spread_off
from privacy.audits.subject import Subject

EXAMPLES, DRAWS, RATE = 1000, 500, 0.1
_PIECES = "stream dpsgd dpsgd_plan"


@asks("Is an example drawn with the rate that the plan is charged for?", of=_PIECES)
def sampling_rate(subject: Subject) -> Measurement:
    """Exact binomial."""
    drawn = _draws(subject)
    return Measurement(rate_off(int(drawn.sum()), drawn.size, RATE), f"rate {drawn.mean():.5f}, stated {RATE}")


@asks("Does the size of a batch vary as independent coins make it vary?", of=_PIECES)
def batch_sizes_vary(subject: Subject) -> Measurement:
    """Variance of the batch size against the binomial's; batches of one size have none."""
    sizes = _draws(subject).sum(axis=1)
    figure = spread_off(sizes, EXAMPLES, RATE)
    return Measurement(figure, f"batch sizes {sizes.min()} to {sizes.max()}, stddev {sizes.std():.2f}")


@asks("Does how often an example is drawn vary as independent coins make it vary?", of=_PIECES)
def turns_of_examples_vary(subject: Subject) -> Measurement:
    """Variance of the draws per example against the binomial's; a shuffled list gives everybody the same number."""
    turns = _draws(subject).sum(axis=0)
    figure = spread_off(turns, DRAWS, RATE)
    return Measurement(figure, f"turns {turns.min()} to {turns.max()}, stddev {turns.std():.2f}")


@asks("Are two examples, and two steps, drawn independently of each other?", of=_PIECES)
def draws_are_independent(subject: Subject) -> Measurement:
    """How often neighbours are drawn together, and an example in a step and the next, or by two new mechanisms."""
    one, other = _draws(subject), _draws(subject)
    pairs = {
        "neighbours": one[:, 0::2] & one[:, 1::2],
        "steps": other[0::2] & other[1::2],
        "mechanisms": one & other,
    }
    figures = {name: rate_off(int(together.sum()), together.size, RATE**2) for name, together in pairs.items()}
    worst = max(figures, key=lambda name: figures[name][0] / figures[name][1])
    return Measurement(figures[worst], f"{worst}: together {pairs[worst].mean():.5f}, stated {RATE**2:.5f}")


def _draws(subject: Subject) -> np.ndarray:
    """Who was drawn in each step of a new mechanism. Shapes: -> (draws, examples) bool"""
    mechanism = fresh(subject, sampling_rate=RATE)
    drawn = np.zeros((DRAWS, EXAMPLES), dtype=np.bool_)
    for row in drawn:
        row[mechanism.draw(EXAMPLES)] = True
    return drawn


CHECKS = (sampling_rate, batch_sizes_vary, turns_of_examples_vary, draws_are_independent)
