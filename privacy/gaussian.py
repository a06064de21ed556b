"""Continuous Gaussian noise on integer data, rounded to integers."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from privacy.discrete_gaussian import check_stddev
from privacy.randomness import SecureStream

LEAST_STDDEV, LARGEST_STDDEV = 2.0**10, 2.0**40


def rounded_gaussian(stddev: float, count: int, stream: SecureStream) -> np.ndarray:
    """round(Z) with Z normal of mean 0 and the given stddev, in integer units. Shapes: (count,) of int64."""
    check_stddev(stddev, least=LEAST_STDDEV, most=LARGEST_STDDEV)
    return np.rint(ndtri(stream.uniform(count)) * stddev).astype(np.int64)
