"""Quantised updates keep their norm bound for every input, lose nothing on average, and survive sums modulo 2^32."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privacy.discrete_gaussian import DiscreteGaussian
from privacy.quantise import HALF, Quantiser, check_no_wrap, clip_to_norm, from_modular, to_modular
from privacy.randomness import SecureStream
from protocol.errors import DataError, PrivacyParameterError, ProtocolError

KEY = bytes(range(32))
finite = st.floats(allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float64, st.integers(0, 20), elements=finite | st.floats(-3, 3))
positive = st.floats(5e-324, 1.7e308)


@given(vectors, positive | st.floats(0.1, 10))
def test_clipping_bounds_the_norm(vector: np.ndarray, clip_norm: float) -> None:
    """Every finite vector, up to the largest and down to the smallest floats, ends at or below the clip norm."""
    clipped = clip_to_norm(vector, clip_norm)
    assert math.hypot(*clipped.tolist()) <= clip_norm * (1 + 1e-15)
    assert clipped.shape == vector.shape
    assert np.isfinite(clipped).all()


@given(hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)), st.floats(1e-3, 1e9))
def test_clipping_keeps_the_direction_and_short_vectors(vector: np.ndarray, clip_norm: float) -> None:
    """Short vectors are untouched, long ones end within a rounding of the clip norm, and numpy agrees it is below."""
    clipped, norm = clip_to_norm(vector, clip_norm), float(np.linalg.norm(vector))
    assert float(np.linalg.norm(clipped)) <= clip_norm
    if norm <= clip_norm:
        assert (clipped == vector).all()
        assert clipped is not vector
    else:
        np.testing.assert_allclose(clipped, vector * (clip_norm / norm), rtol=1e-12, atol=1e-300)


def test_clipping_knows_zero_and_extremes() -> None:
    """An all-zero update, one whose squares overflow, one whose squares vanish, and a matrix."""
    assert clip_to_norm(np.zeros(3), 1.0).tolist() == [0, 0, 0]
    assert clip_to_norm(np.array([3e300, 4e300]), 5.0) == pytest.approx([3, 4])
    assert clip_to_norm(np.array([3e-200, 4e-200]), 1.0).tolist() == [3e-200, 4e-200]
    assert clip_to_norm(np.array([3e-200, 4e-200]), 5e-201) == pytest.approx([3e-201, 4e-201], rel=1e-12)
    assert clip_to_norm(np.full(3, 5e-324), 5e-324).tolist() in ([5e-324] * 3, [0.0] * 3)
    assert np.linalg.norm(clip_to_norm(np.ones((3, 4), dtype=np.float32), 1.0)) == pytest.approx(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    """Without showing the vector."""
    with pytest.raises(DataError, match=r"not finite.*learning rate"):
        clip_to_norm(np.array([1.0, bad]), 1.0)
    with pytest.raises(DataError, match="not finite"):
        Quantiser(1.0, 100, 2).encode(np.array([1.0, bad]), SecureStream())


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
def test_impossible_clip_norm_is_refused(clip_norm: float) -> None:
    with pytest.raises(PrivacyParameterError, match="above 0"):
        clip_to_norm(np.ones(2), clip_norm)
    with pytest.raises(PrivacyParameterError, match="above 0"):
        Quantiser(clip_norm, 10, 2)


@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=finite | st.floats(-3, 3)),
    st.floats(1e-6, 100),
    st.integers(1, 2**20),
    st.binary(min_size=32, max_size=32),
)
def test_encoded_vectors_never_leave_the_norm_bound(
    vector: np.ndarray, clip_norm: float, scale: int, key: bytes
) -> None:
    """The sensitivity that the noise is made for holds for every vector and every draw, in exact integers."""
    quantiser = Quantiser(clip_norm, scale, len(vector))
    encoded = quantiser.encode(vector, SecureStream(key))
    assert encoded.dtype == np.int64
    assert sum(int(value) ** 2 for value in encoded) <= quantiser.norm_bound**2
    assert np.abs(encoded - clip_to_norm(vector, clip_norm) * scale).max() < 1 + 1e-6


@given(st.floats(1e-3, 100), st.integers(1, 2**20), st.integers(1, 10**7))
def test_norm_bound_is_the_published_one(clip_norm: float, scale: int, dimension: int) -> None:
    """Oracle: the formula in floats. Rounded up by less than two units, and never more than rounding all up."""
    clip, bound = clip_norm * scale, Quantiser(clip_norm, scale, dimension).norm_bound
    room = math.sqrt(2 * math.log(1 / math.exp(-18)))
    formula = math.sqrt(
        min(
            (clip + math.sqrt(dimension)) ** 2,
            clip**2 + dimension / 4 + room * (clip + math.sqrt(dimension) / 2),
        )
    )
    assert formula * (1 - 1e-12) <= bound <= formula + 2.1


def test_bound_is_tight_for_large_scales() -> None:
    """At 20 bits and 100,000 numbers, rounding adds less than 0.001 % to the sensitivity; rounding all up, 0.03 %."""
    assert 1 < Quantiser(1.0, 2**20, 100_000).norm_bound / 2**20 < 1 + 1e-5


class Ups(SecureStream):
    """A stream whose words are all 0, so that everything rounds up, until it has been asked a number of times."""

    def __init__(self, times: int) -> None:
        super().__init__(KEY)
        self.times = times

    def uint64(self, count: int) -> np.ndarray:
        self.times -= 1
        return np.zeros(count, dtype=np.uint64) if self.times >= 0 else super().uint64(count)


def test_rounding_that_leaves_the_bound_is_drawn_again() -> None:
    """All of 10,000 halves rounded up have norm 100, twice that of the mean; the bound is between."""
    quantiser, vector = Quantiser(50.0, 1, 10_000), np.full(10_000, 0.5)
    assert 50 < quantiser.norm_bound < 100
    stream = Ups(3)
    encoded = quantiser.encode(vector, stream)
    assert stream.times == -1
    assert 4_700 < encoded.sum() < 5_300


@pytest.mark.statistical
def test_rounding_is_unbiased() -> None:
    """Mean over 20,000 roundings within 4.5 standard errors of the vector; a bias of a tenth of a unit is 25 away."""
    vector = np.array([0.1, -0.1, 0.5, -2.25, 3.0, 1e-3, -1e-3, 7.9])
    repeats = 20_000
    quantiser = Quantiser(10_000.0, 1, 8 * repeats)
    draws = quantiser.encode(np.tile(vector, repeats), SecureStream(KEY)).reshape(repeats, 8)
    fractions = vector - np.floor(vector)
    errors = np.sqrt(fractions * (1 - fractions) / repeats)
    assert (np.abs(draws.mean(axis=0) - vector) <= 4.5 * errors).all()
    assert (25 * errors < 0.1).all()
    ups = int((draws[:, 0] == 1).sum())
    assert stats.binomtest(ups, repeats, 0.1).pvalue > 1e-3
    assert stats.binomtest(ups, repeats, 0.12).pvalue < 1e-6


def test_zero_integers_and_tiny_negative_numbers() -> None:
    """What is an integer stays it; a number just below 0, whose distance to -1 rounds to 1, rounds to 0 or -1."""
    quantiser = Quantiser(10.0, 4, 3)
    assert quantiser.encode(np.zeros(3), SecureStream()).tolist() == [0, 0, 0]
    assert quantiser.encode(np.array([1.0, -2.25, 0.5]), SecureStream()).tolist() == [4, -9, 2]
    assert quantiser.encode(np.full(3, -1e-30), SecureStream(KEY)).tolist() == [0, 0, 0]


@given(hnp.arrays(np.float64, 30, elements=st.floats(-1, 1)))
def test_decoding_undoes_encoding_up_to_a_step(vector: np.ndarray) -> None:
    quantiser = Quantiser(6.0, 2**16, 30)
    assert np.abs(quantiser.decode(quantiser.encode(vector, SecureStream(KEY))) - vector).max() <= 2.0**-16


@pytest.mark.parametrize("shape", [(), (3,), (5,), (4, 1)])
def test_vector_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"takes \(4,\)"):
        Quantiser(1.0, 10, 4).encode(np.zeros(shape), SecureStream())


@pytest.mark.parametrize(
    ("scale", "dimension", "rule"),
    [
        (0, 4, "scale must be an integer of at least 1, got 0"),
        (1.5, 4, "scale must be an integer"),
        (True, 4, "scale must be an integer"),
        (10, 0, "dimension must be an integer of at least 1"),
        (2**31, 4, "below 2\\^31; lower the scale"),
    ],
)
def test_impossible_quantiser_is_refused(scale: int, dimension: int, rule: str) -> None:
    with pytest.raises(PrivacyParameterError, match=rule):
        Quantiser(1.0, scale, dimension)


@given(hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(-HALF, HALF - 1)))
def test_residues_are_read_back(values: np.ndarray) -> None:
    residues = to_modular(values)
    assert residues.dtype == np.uint32
    assert (residues.astype(np.int64) == values % 2**32).all()
    inside = values[values != -HALF]  # -2^31 is beyond every bound
    assert (from_modular(to_modular(inside), bound=HALF - 1) == inside).all()


@given(st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_sums_of_many_holders_are_exact(holders: int, offset: int) -> None:
    """Encoded, noised and masked updates add up modulo 2^32 to the sum of the updates and the noises."""
    quantiser, noise, stream = Quantiser(1.0, 2**16, 20), DiscreteGaussian(500.0), SecureStream(offset.to_bytes(32))
    check_no_wrap(holders=holders, largest=quantiser.norm_bound, noise_stddev=noise.stddev)
    generator = np.random.default_rng(offset)
    sent = [quantiser.encode(generator.normal(size=20), stream) + noise.sample((20,), stream) for _ in range(holders)]
    masks = generator.integers(0, 2**32, size=(holders, 20), dtype=np.uint32)
    masked = np.array([to_modular(values) for values in sent]) + masks
    total = masked.sum(axis=0, dtype=np.uint32) - masks.sum(axis=0, dtype=np.uint32)
    bound = holders * (quantiser.norm_bound + 14 * 500)
    assert (from_modular(total, bound=bound) == np.sum(sent, axis=0)).all()


def test_sum_beyond_its_bound_is_refused() -> None:
    """A holder that sends more than it may, or a sum that wrapped, shows; the message has the bound and a way out."""
    for wrong in (1_001, -1_001, HALF - 1, -HALF):
        with pytest.raises(ProtocolError, match=r"1 of 2 sums lie beyond the bound of 1000.*discard the round"):
            from_modular(to_modular(np.array([5, wrong])), bound=1_000)
    assert from_modular(to_modular(np.array([1_000, -1_000])), bound=1_000).tolist() == [1_000, -1_000]


@pytest.mark.parametrize("bound", [-1, HALF])
def test_bound_that_checks_nothing_is_refused(bound: int) -> None:
    with pytest.raises(PrivacyParameterError, match="wrap unseen"):
        from_modular(np.zeros(2, dtype=np.uint32), bound=bound)


def test_values_that_do_not_fit_are_refused() -> None:
    for wrong in (HALF, -HALF - 1):
        with pytest.raises(PrivacyParameterError, match="would wrap"):
            to_modular(np.array([0, wrong]))
    with pytest.raises(PrivacyParameterError, match="float64"):
        to_modular(np.array([0.5]))
    with pytest.raises(ProtocolError, match="int64"):
        from_modular(np.array([1]), bound=5)


def test_wrap_is_refused_before_it_can_happen() -> None:
    """holders · (largest + 12 stddev) < 2^31, to the last integer; the message has the numbers."""
    check_no_wrap(holders=1, largest=HALF - 1, noise_stddev=0.0)
    check_no_wrap(holders=2, largest=2**30 - 13, noise_stddev=1.0)
    with pytest.raises(PrivacyParameterError, match="2 holders with values up to 1073741812 and noise of stddev 1 "):
        check_no_wrap(holders=2, largest=2**30 - 12, noise_stddev=1.0)
    with pytest.raises(PrivacyParameterError, match="50 holders"):
        check_no_wrap(holders=50, largest=2**25, noise_stddev=2.0**23)


@pytest.mark.parametrize(
    ("holders", "largest", "noise_stddev"),
    [(0, 5, 1.0), (2, -1, 1.0), (2, 5, -1.0), (2, 5, math.nan), (2, 5, math.inf)],
)
def test_impossible_sums_are_refused(holders: int, largest: int, noise_stddev: float) -> None:
    with pytest.raises(PrivacyParameterError):
        check_no_wrap(holders=holders, largest=largest, noise_stddev=noise_stddev)


@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=finite | st.floats(-3, 3)),
    st.floats(1e-6, 100),
    st.integers(1, 2**20),
)
def test_nearest_rounding_never_leaves_its_own_bound(vector: np.ndarray, clip_norm: float, scale: int) -> None:
    """For every vector, in exact integers: the norm, each coordinate, and half a step from the clipped vector."""
    quantiser = Quantiser(clip_norm, scale, len(vector))
    encoded = quantiser.encode_nearest(vector)
    assert encoded.dtype == np.int64
    assert sum(int(value) ** 2 for value in encoded) <= quantiser.nearest_norm_bound**2
    assert int(np.abs(encoded).max()) <= quantiser.nearest_largest
    assert np.abs(encoded - clip_to_norm(vector, clip_norm) * scale).max() <= 0.5
    assert (encoded == quantiser.encode_nearest(vector)).all()


@pytest.mark.parametrize("dimension", [1, 2, 4, 99, 100, 10_000])
def test_nearest_bound_is_nearly_reached(dimension: int) -> None:
    """A vector of halves, rounded up by rounding to even, comes within what the bound was rounded up by."""
    level = 3.5 if dimension < 100 else 1.5  # 3.5 goes to 4, 1.5 to 2
    clip_norm = level * math.sqrt(dimension) * (1 + 1e-12)
    quantiser = Quantiser(clip_norm, 1, dimension)
    reached = float(np.linalg.norm(quantiser.encode_nearest(np.full(dimension, level))))
    assert reached == pytest.approx((level + 0.5) * math.sqrt(dimension))
    assert reached <= quantiser.nearest_norm_bound <= reached + 2.6


@pytest.mark.parametrize("clip_norm", [0.5, 1.0, 1.49, 1.5, 2.0, 1e6])
def test_nearest_largest_is_the_rounded_clip_norm_and_one(clip_norm: float) -> None:
    quantiser = Quantiser(clip_norm, 1, 3)
    assert quantiser.nearest_largest == math.floor(clip_norm + 0.5) + 1


def test_nearest_rounding_refuses_other_shapes_and_broken_numbers() -> None:
    with pytest.raises(DataError, match=r"takes \(4,\)"):
        Quantiser(1.0, 10, 4).encode_nearest(np.zeros(3))
    with pytest.raises(DataError, match="not finite"):
        Quantiser(1.0, 10, 2).encode_nearest(np.array([1.0, math.nan]))
