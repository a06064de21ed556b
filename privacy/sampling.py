"""Poisson sampling: who takes part in a step is decided for each example on its own, by a secret coin."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError


def poisson_batch(num_examples: int, sampling_rate: float | Fraction, stream: SecureStream) -> np.ndarray:
    """Positions of the examples of one step: each is in with probability `sampling_rate`, independent of all others.

    The sampler that the accounting of subsampled steps assumes (add/remove one example; unit: one example). The rate is
    a public constant, never computed from the number of examples; coins are integer comparisons of words of the secure
    stream, off by at most 2^-64. Shuffling and cutting into batches is *not* this sampler and must not be accounted as
    if it were (Chua et al. 2024, arXiv:2403.17673). The number drawn is secret; it may be 0, and such a step must be
    taken and get noise like any other.

    Shapes: -> (number drawn,) int64, increasing, in [0, num_examples)

    Raises:
        PrivacyParameterError: a rate outside (0, 1], or a negative number of examples.

    Source: Abadi et al. 2016, arXiv:1607.00133; Mironov, Talwar, Zhang 2019, arXiv:1908.10530.
    """
    if not 0 < sampling_rate <= 1:  # written so that NaN fails too
        raise PrivacyParameterError(
            f"sampling_rate must be in (0, 1], got {sampling_rate}; give the public rate of the plan"
        )
    if num_examples < 0:
        raise PrivacyParameterError(f"num_examples must be >= 0, got {num_examples}; give the number of examples held")
    return np.flatnonzero(stream.bernoulli(sampling_rate, num_examples)).astype(np.int64)
