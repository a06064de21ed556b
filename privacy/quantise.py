"""Updates as bounded integers, so that they can be summed modulo 2^32 under masks and protected by integer noise.

    x  --clip-->  |x| <= clip_norm  --scale, round at random-->  z integer, |z| <= norm_bound  --mod 2^32-->  masked sum

Where no promise rests on the rounding, `Quantiser.encode_nearest` rounds to the nearest integer instead, with a bound
of its own. Nothing here adds noise. `Quantiser.norm_bound` is the sensitivity that the noise has to match, in integer
units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from privacy.discrete_gaussian import check_holders
from privacy.randomness import SecureStream
from protocol.errors import DataError, PrivacyParameterError, ProtocolError

HALF = 2**31
"""Sums are read back from 2^32 residues as integers in [-2^31, 2^31)."""
NOISE_REACH = 12
"""Stddevs of noise that are given room: a discrete Gaussian goes beyond with probability below 4e-33 per draw."""
_DEVIATIONS = 6
"""Room for rounding, sqrt(2 ln(1/beta)) with beta = exp(-18) = 1.6e-8: the chance that a rounding is drawn again."""


def clip_to_norm(vector: np.ndarray, clip_norm: float) -> np.ndarray:
    """The vector itself if its L2 norm is at most `clip_norm`, else scaled down to that norm.

    The norm of the result as float64 is at most `clip_norm`, whatever the size of the entries. Shapes: any, kept.

    Raises:
        PrivacyParameterError: The clip norm is not a positive finite number.
        DataError: An entry is not finite.
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise PrivacyParameterError(f"a clip norm of {clip_norm} was given; it must be a finite number above 0")
    values = np.asarray(vector, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            "an update holds numbers that are not finite, so it has no norm to bound",
            way_out="lower the learning rate, or check the input for missing values",
        )
    if _norm(values) <= clip_norm:
        return values.copy()
    peak = float(np.abs(values).max())
    unit = values / peak  # no square of it overflows
    shrink, slack = clip_norm / _norm(unit), 2.0**-53
    clipped = unit * shrink
    while _norm(clipped) > clip_norm:  # by a rounding or two, unless the clip norm is close to the smallest float
        slack *= 2
        clipped = unit * (shrink * (1 - slack))
    return clipped


def _norm(values: np.ndarray) -> float:
    """L2 norm; entries whose squares would leave float64 are scaled first."""
    peak = float(np.abs(values).max(initial=0.0))
    if peak and not 1e-140 < peak < 1e140:
        return peak * float(np.linalg.norm((values / peak).ravel()))
    return float(np.linalg.norm(values.ravel()))


@dataclass(frozen=True)
class Quantiser:
    """Clips vectors and rounds them at random to integers whose L2 norm is bounded for every input and every draw.

        z = floor(y) or floor(y) + 1 with mean y = scale · clip(x), drawn again until |z| <= norm_bound
        norm_bound² = min((c + sqrt(d))², c² + d / 4 + 6 (c + sqrt(d) / 2)),     c = scale · clip_norm, d = dimension

    One unit of privacy, whose whole contribution is one encoded vector, moves a sum by at most `norm_bound` in L2 when
    it is added or removed (and by twice that when it is replaced). Whether the unit is an example, a person or a holder
    is decided by what the caller encodes.

    Args:
        clip_norm: L2 norm to which a vector is clipped, in the vector's own unit.
        scale: Integer steps per 1.0 of the vector.
        dimension: Length of the vectors, public.

    Raises:
        PrivacyParameterError: A parameter is out of range, or the integers would not fit below 2^31.

    Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387, Theorem 1 and section 4.1 (conditional randomised rounding).
    """

    clip_norm: float
    scale: int
    dimension: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise PrivacyParameterError(f"clip_norm must be a finite number above 0, got {self.clip_norm}")
        for name, value in (("scale", self.scale), ("dimension", self.dimension)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise PrivacyParameterError(f"{name} must be an integer of at least 1, got {value}")
        reach = self.scale * self.clip_norm + math.sqrt(self.dimension)
        if reach >= HALF:
            raise PrivacyParameterError(
                f"clip_norm {self.clip_norm} at scale {self.scale} in {self.dimension} dimensions reaches {reach:.4g}, "
                "but integers must stay below 2^31; lower the scale"
            )

    @property
    def norm_bound(self) -> int:
        """Largest L2 norm of an encoded vector, in integer units, rounded up to an integer. Of `encode` alone."""
        clip, root = Fraction(self.clip_norm) * self.scale, Fraction(math.isqrt(self.dimension - 1) + 1)
        always = (clip + root) ** 2
        likely = clip**2 + Fraction(self.dimension, 4) + _DEVIATIONS * (clip + root / 2)
        return math.isqrt(math.ceil(min(always, likely)) - 1) + 1

    def encode(self, vector: np.ndarray, stream: SecureStream) -> np.ndarray:
        """Clip, scale and round at random. Shapes: (dimension,) -> (dimension,) of int64.

        Rounding is unbiased but for the draws that are repeated, at most one in 6e7.

        Raises:
            DataError: The vector has another shape, or an entry that is not finite.
        """
        self._check_shape(vector)
        scaled = clip_to_norm(vector, self.clip_norm) * self.scale
        below = np.floor(scaled)
        # Powers of two are exact: a coordinate goes up with probability floor(2^64 · fraction) / 2^64. The fraction of
        # a tiny negative number rounds to 1, which would not fit.
        chances = (np.minimum(scaled - below, 1 - 2.0**-53) * 2.0**64).astype(np.uint64)
        lower, limit = below.astype(np.int64), self.norm_bound**2
        while True:
            rounded = lower + (stream.uint64(self.dimension) < chances)
            if int((rounded * rounded).sum()) <= limit:
                return rounded

    @property
    def nearest_norm_bound(self) -> int:
        """Largest L2 norm of a vector from `encode_nearest`, in integer units: c + sqrt(d) / 2, rounded up, and 1 more.

        Each coordinate moves by at most 1/2, so the whole by at most sqrt(d) / 2, whatever the vector. The 1 more pays
        for the last bits of the float64 norm that the clipping goes by: d · 2^-54 of it at most.
        """
        clip, root = Fraction(self.clip_norm) * self.scale, math.isqrt(self.dimension - 1) + 1
        return math.ceil(clip + Fraction(root, 2)) + 1

    @property
    def nearest_largest(self) -> int:
        """Largest magnitude of one coordinate from `encode_nearest`: c rounded, and 1 more for last bits of floats."""
        return math.floor(Fraction(self.clip_norm) * self.scale + Fraction(1, 2)) + 1

    def encode_nearest(self, vector: np.ndarray) -> np.ndarray:
        """Clip, scale and round each coordinate to the nearest integer: no draw, so the same vector gives the same.

            z = round(scale · clip(x)),     |z| <= c + sqrt(d) / 2 in L2 (`nearest_norm_bound`)

        For sums that nobody's promise needs random rounding for: each coordinate is off by at most half a step, and in
        one direction if it is always the same. Shapes: (dimension,) -> (dimension,) of int64.

        Raises:
            DataError: The vector has another shape, or an entry that is not finite.
        """
        self._check_shape(vector)
        return np.rint(clip_to_norm(vector, self.clip_norm) * self.scale).astype(np.int64)

    def decode(self, total: np.ndarray) -> np.ndarray:
        """A sum of encoded vectors in the vectors' own unit. Shapes: any, kept, of float64."""
        return np.asarray(total, dtype=np.float64) / self.scale

    def _check_shape(self, vector: np.ndarray) -> None:
        if np.shape(vector) != (self.dimension,):
            raise DataError(
                f"a vector of shape {np.shape(vector)} was given where the quantiser takes ({self.dimension},)",
                way_out="use the quantiser that was made for this model",
            )


def to_modular(values: np.ndarray) -> np.ndarray:
    """Integers as residues modulo 2^32. Shapes: any, kept, int64 -> uint32.

    Raises:
        PrivacyParameterError: The values are not signed integers, or one does not lie in [-2^31, 2^31).
    """
    if not np.issubdtype(values.dtype, np.signedinteger):
        raise PrivacyParameterError(f"values of type {values.dtype} were given; encode them to int64 first")
    if values.size and (int(values.min()) < -HALF or int(values.max()) >= HALF):
        raise PrivacyParameterError(
            "a value does not fit in [-2^31, 2^31) and would wrap; lower the scale or the noise"
        )
    return values.astype(np.uint32)


def from_modular(values: np.ndarray, *, bound: int) -> np.ndarray:
    """Residues modulo 2^32 as the integers nearest to 0. Shapes: any, kept, uint32 -> int64.

    Args:
        values: The unmasked sum.
        bound: Largest magnitude that an honest sum can have.

    Raises:
        PrivacyParameterError: The bound itself does not fit.
        ProtocolError: The values are not uint32, or one lies beyond the bound: a holder broke its limit, or the sum
            wrapped.
    """
    if values.dtype != np.uint32:
        raise ProtocolError(f"sums of type {values.dtype} were given; sums modulo 2^32 are uint32")
    if not 0 <= bound < HALF:
        raise PrivacyParameterError(f"a bound of {bound} was given; it must be in [0, 2^31), or sums could wrap unseen")
    centred = values.view(np.int32).astype(np.int64)
    if beyond := int((np.abs(centred) > bound).sum()):
        raise ProtocolError(
            f"{beyond} of {centred.size} sums lie beyond the bound of {bound}: a holder broke its limit or a sum "
            "wrapped; discard the round and ask every holder for its signed update"
        )
    return centred


def check_no_wrap(*, holders: int, largest: int, noise_stddev: float) -> None:
    """Refuse parameters for which a sum could leave [-2^31, 2^31): holders · (largest + 12 noise_stddev) < 2^31.

    Args:
        holders: Number of holders in the sum.
        largest: Largest magnitude of one holder's coordinate before noise, in integer units.
        noise_stddev: Stddev of the noise of one holder, in integer units; 0 without noise.

    Raises:
        PrivacyParameterError: The sum could wrap.
    """
    check_holders(holders)
    if not (largest >= 0 and math.isfinite(noise_stddev) and noise_stddev >= 0):
        raise PrivacyParameterError(
            f"largest {largest} and noise_stddev {noise_stddev} were given; both must be finite and not negative"
        )
    reach = holders * (Fraction(largest) + NOISE_REACH * Fraction(noise_stddev))
    if reach >= HALF:
        raise PrivacyParameterError(
            f"{holders} holders with values up to {largest} and noise of stddev {noise_stddev:.4g} can reach "
            f"{float(reach):.4g}, but a sum modulo 2^32 must stay below 2^31 = {HALF}; lower the scale"
        )
