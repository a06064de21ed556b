"""Sums of encoded arrays are the sums of the arrays, no sum can wrap, and what cannot be a sum is refused."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.quantise import HALF, to_modular
from privacy.secure_aggregation.arrays import Array
from privacy.secure_aggregation.layout import MOST_HOLDERS, Layout
from privacy.secure_aggregation.masks import add_mask
from privacy.secure_aggregation.wire import pack, pack_number
from protocol.errors import DataError, PrivacyParameterError, ProtocolError

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def total_of(layout: Layout, parts: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    total: np.ndarray = np.zeros(layout.words, dtype=np.uint32)
    for arrays in parts:
        total += layout.encode(arrays)
    return total


def example() -> tuple[Layout, list[dict[str, np.ndarray]]]:
    """Five holders' arrays of every form."""
    generator = np.random.default_rng(1)
    parts = [
        {
            "weight": generator.normal(size=(3, 4)).astype(np.float32) * np.float32(0.01),
            "bias": generator.normal(size=4) * 0.01,
            "count": generator.integers(-(2**55), 2**55, size=5),
            "loss": generator.normal(size=2) * 1e6,
            "seen": generator.integers(0, 10, size=()).astype(np.uint16),
            "none": np.zeros((0, 3)),
        }
        for _ in range(5)
    ]
    exact = {name: parts[0][name] for name in ("count", "loss", "seen", "none")}
    return Layout.for_update({"weight": (3, 4), "bias": (4,)}, clip_norm=1.0, holders=5, exact=exact), parts


def test_sum_of_updates_and_statistics_comes_back() -> None:
    """Updates to half a step a holder, integers exactly, floats to 2^-41, each in its own shape and type."""
    layout, parts = example()
    sums = layout.decode(total_of(layout, parts), survivors=5)
    assert list(sums) == ["bias", "count", "loss", "none", "seen", "weight"]
    for name in ("weight", "bias"):
        plain = np.sum([arrays[name] for arrays in parts], axis=0, dtype=np.float64)
        assert (sums[name].dtype, sums[name].shape) == (np.float64, plain.shape)
        assert np.abs(sums[name] - plain).max() <= 5 / 2 / layout.quantiser.scale + 1e-12
    for name in ("count", "seen"):
        assert (sums[name].dtype, sums[name].shape) == (parts[0][name].dtype, parts[0][name].shape)
        assert (sums[name] == sum(arrays[name].astype(object) for arrays in parts)).all()
    assert np.abs(sums["loss"] - np.sum([arrays["loss"] for arrays in parts], axis=0)).max() < 1e-8
    assert sums["none"].shape == (0, 3)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 12)), elements=st.floats(-5, 5)),
    st.floats(1e-6, 1e5),
)
def test_sum_of_updates_is_the_plain_sum_of_clipped_updates(vectors: np.ndarray, clip_norm: float) -> None:
    """Within half a step for each holder, for vectors within the clip norm and beyond it."""
    holders, size = vectors.shape
    layout = Layout.for_update({"w": (size,)}, clip_norm=clip_norm, holders=holders)
    sums = layout.decode(total_of(layout, [{"w": vector} for vector in vectors]), survivors=holders)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    plain = (vectors * np.minimum(1, clip_norm / np.maximum(norms, clip_norm))).sum(axis=0)
    np.testing.assert_allclose(sums["w"], plain, rtol=1e-9, atol=holders * 0.51 / layout.quantiser.scale)


def test_updates_are_clipped_all_together() -> None:
    """The norm is of all updates of a holder, not of each array, and exact arrays beside them do not count."""
    layout = Layout.for_update({"a": (1,), "b": (1,)}, clip_norm=1.0, holders=2, exact={"n": np.zeros(1)})
    sums = layout.decode(layout.encode({"a": np.array([3.0]), "b": np.array([4.0]), "n": np.array([1e9])}), survivors=1)
    assert (sums["a"][0], sums["b"][0], sums["n"][0]) == pytest.approx((0.6, 0.8, 1e9))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("holders", [1, 2, 3, 50])
def test_integers_are_exact_at_their_extremes(dtype: str, holders: int) -> None:
    """All holders at the limit, all at its negative, and one step beyond is refused without showing the number."""
    most = min(int(np.iinfo(dtype).max), 2**62 - 1) // holders
    values = [most, 0, 1] if dtype.startswith("u") else [most, -most, -1]
    given_ = np.array(values, dtype=dtype)
    layout = Layout.for_statistics({"n": given_}, holders=holders)
    sums = layout.decode(total_of(layout, [{"n": given_}] * holders), survivors=holders)["n"]
    assert sums.dtype == np.dtype(dtype)
    assert [int(value) for value in sums] == [holders * value for value in values]
    for beyond in [most + 1] if dtype.startswith("u") else [most + 1, -most - 1]:
        if np.iinfo(dtype).min <= beyond <= np.iinfo(dtype).max:
            with pytest.raises(DataError, match=rf"'n' holds a number beyond the public limit of {most},"):
                layout.encode({"n": np.array([beyond, 0, 0], dtype=dtype)})


def test_least_int64_is_refused_and_not_wrapped() -> None:
    """Its magnitude does not fit int64, so a careless absolute value would be negative."""
    layout = Layout.for_statistics({"n": np.zeros(1, dtype=np.int64)}, holders=2)
    with pytest.raises(DataError, match="public limit"):
        layout.encode({"n": np.array([np.iinfo(np.int64).min])})


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.lists(
            st.floats(-9.2e18, 9.2e18) | st.floats(-1, 1) | st.floats(-(2.0**-40), 2.0**-40), min_size=n, max_size=n
        )
    )
)
def test_sum_of_reals_is_exact_to_the_last_rounding(values: list[float]) -> None:
    """The nearest float64 to the exact sum of the values rounded to 2^-41, negative, tiny and huge ones alike."""
    layout = Layout.for_statistics({"x": np.zeros(())}, holders=len(values))
    total = total_of(layout, [{"x": np.array(value)} for value in values])
    exact = sum((Fraction(round(Fraction(value) * 2**41), 2**41) for value in values), Fraction(0))
    assert layout.decode(total, survivors=len(values))["x"] == float(exact)


@given(
    st.lists(st.integers(-(2**57), 2**57), min_size=2, max_size=16), st.randoms(use_true_random=False), st.booleans()
)
def test_order_of_holders_and_their_masks_do_not_matter(values: list[int], random: object, flip: bool) -> None:
    """The sum is the same words in any order, and under masks that cancel; a changed sign changes its sign."""
    layout = Layout.for_statistics({"n": np.zeros(1, np.int64)}, holders=16)
    words = [layout.encode({"n": np.array([-value if flip else value])}) for value in values]
    shuffled = list(words)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    total, other = np.array(words).sum(axis=0, dtype=np.uint32), shuffled[0].copy()
    add_mask(other, bytes(range(32)))
    for part in shuffled[1:]:
        other += part
    add_mask(other, bytes(range(32)), sign=-1)
    assert (total == other).all()
    assert layout.decode(total, survivors=len(values))["n"][0] == (-1 if flip else 1) * sum(values)


@given(st.integers(1, MOST_HOLDERS), st.floats(1e-30, 1e6), st.integers(1, 10_000))
def test_no_sum_of_updates_can_wrap_and_half_the_step_could(holders: int, clip_norm: float, size: int) -> None:
    """The scale is the largest power of two at which all holders at the clip norm in one coordinate stay below 2^31."""
    quantiser = Layout.for_update({"w": (size,)}, clip_norm=clip_norm, holders=holders).quantiser
    assert holders * quantiser.nearest_largest < HALF
    bits = quantiser.scale.bit_length() - 1
    assert quantiser.scale == 2**bits
    reach = Fraction(clip_norm) * quantiser.scale * 2
    full = holders * (reach + Fraction(3, 2)) >= HALF or reach + math.isqrt(size) + 1 >= HALF
    assert full or bits == 100


@given(st.integers(1, MOST_HOLDERS), st.integers(0, 2**62 - 1))
def test_no_sum_of_digits_can_wrap(holders: int, largest: int) -> None:
    """For every limit and number of holders, all holders at the limit of every digit stay below 2^31."""
    assume(0 < largest <= (2**62 - 1) // holders)
    layout = Layout.for_integers({"n": ()}, largest=largest, holders=holders)
    words = to_modular(np.array([HALF - 1] * layout.words))
    with pytest.raises(ProtocolError, match="lie beyond the bound"):
        layout.decode(words, survivors=holders)
    assert holders * (2**layout.digit_bits - 1) < HALF <= holders * 2 ** (layout.digit_bits + 1)
    at_most = {"n": np.array(largest)}
    assert layout.decode(layout.encode(at_most) * np.uint32(holders), survivors=holders)["n"] == holders * largest


def test_bounded_integers_take_no_more_words_than_they_need() -> None:
    """One word up to 2^b - 1 and two up to 2^(2 b) - 1, with b = 25 for up to 64 holders."""
    for largest, words in ((1, 1), (2**25 - 1, 1), (2**25, 2), (2**50 - 1, 2), (2**50, 3)):
        for holders in (33, 64):
            assert Layout.for_integers({"g": (7,)}, largest=largest, holders=holders).words == 7 * words


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8), st.floats(1e-6, 1e6))
def test_sums_of_scaled_integers_are_exact_before_the_step(values: list[int], step: float) -> None:
    """int64 goes in, and the exact sum times the public step comes out as float64."""
    layout = Layout.for_integers({"g": (1,)}, largest=2**40, holders=8, step=step)
    assert Layout.from_bytes(layout.to_bytes()) == layout
    found = layout.decode(total_of(layout, [{"g": np.array([value])} for value in values]), survivors=len(values))["g"]
    assert (found.dtype, found[0]) == (np.float64, sum(values) * step)
    with pytest.raises(DataError, match=r"'g' has type float64 and shape .* takes int64"):
        layout.encode({"g": np.array([1.0])})
    with pytest.raises(DataError, match=f"public limit of {2**40}"):
        layout.encode({"g": np.array([2**40 + 1])})


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e9, 1e9)), st.floats(1e-3, 1e3))
def test_encoded_update_has_the_stated_norm(vector: np.ndarray, clip_norm: float) -> None:
    """One holder moves the words by at most c + sqrt(d) / 2, and 2 more for rounding up, in exact integers."""
    layout = Layout.for_update({"w": vector.shape}, clip_norm=clip_norm, holders=3)
    encoded = [int(word) for word in layout.encode({"w": vector}).view(np.int32)]
    bound = layout.quantiser.nearest_norm_bound
    assert sum(word**2 for word in encoded) <= bound**2
    assert bound <= clip_norm * layout.quantiser.scale + math.isqrt(len(vector) - 1) / 2 + 2.5


def test_sum_that_honest_holders_cannot_have_is_refused() -> None:
    """One of three holders a little beyond its limit in one number, or in the norm while every number is within."""
    layout = Layout.for_update({"w": (10_000,)}, clip_norm=1.0, holders=3)
    bound, limit = layout.quantiser.nearest_largest, layout.quantiser.nearest_norm_bound
    words = np.zeros(10_000, dtype=np.int64)
    words[5] = 3 * bound
    assert layout.decode(to_modular(words), survivors=3)["w"][5] == pytest.approx(3)
    words[5] = 3 * bound + 1
    with pytest.raises(ProtocolError, match="1 of 10000 sums lie beyond the bound"):
        layout.decode(to_modular(words), survivors=3)
    with pytest.raises(ProtocolError, match="beyond the bound"):
        layout.decode(to_modular(words - 1), survivors=2)
    level = 3 * limit // 100
    assert layout.decode(to_modular(np.full(10_000, level)), survivors=3)["w"][0] == pytest.approx(0.03, rel=1e-3)
    with pytest.raises(ProtocolError, match=rf"3 updates has a norm beyond {3 * limit} steps: a holder broke"):
        layout.decode(to_modular(np.full(10_000, level + 1000)), survivors=3)


def test_whole_number_beyond_what_the_survivors_have_is_refused() -> None:
    """Every digit within its limit and the number itself not; a negative sum of unsigned numbers too."""
    layout = Layout.for_integers({"n": (2,)}, largest=2**29 + 5, holders=4)  # digits of 29 bits: 5, then 1
    words = to_modular(np.array([20, -20, 4, -4]))
    assert layout.decode(words, survivors=4)["n"].tolist() == [2**31 + 20, -(2**31) - 20]
    with pytest.raises(ProtocolError, match=r"a sum of 'n' lies beyond what 4 holders can have together"):
        layout.decode(to_modular(np.array([21, 0, 4, 0])), survivors=4)
    with pytest.raises(ProtocolError, match="lies beyond"):
        layout.decode(to_modular(np.array([0, -21, 0, -4])), survivors=4)
    unsigned = Layout.for_statistics({"n": np.zeros(1, dtype=np.uint8)}, holders=4)
    assert unsigned.decode(np.array([9], dtype=np.uint32), survivors=4)["n"].tolist() == [9]
    with pytest.raises(ProtocolError, match="lies beyond"):
        unsigned.decode(to_modular(np.array([-1])), survivors=4)


def test_sums_of_another_length_or_over_too_many_are_refused() -> None:
    layout = Layout.for_statistics({"n": np.zeros(2, dtype=np.int8)}, holders=3)
    for wrong in (np.zeros(3, dtype=np.uint32), np.zeros((2, 1), dtype=np.uint32)):
        with pytest.raises(ProtocolError, match=re.escape(f"shape {wrong.shape} was given where the layout has 2")):
            layout.decode(wrong, survivors=3)
    for survivors in (0, 4):
        with pytest.raises(ProtocolError, match=f"{survivors} survivors were given; .* 1 to 3"):
            layout.decode(np.zeros(2, dtype=np.uint32), survivors=survivors)
    with pytest.raises(ProtocolError, match="uint32"):
        layout.decode(np.zeros(2, dtype=np.int64), survivors=3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["bias", "loss"])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    layout, parts = example()
    parts[0][name][0] = bad
    with pytest.raises(DataError, match=rf"'{name}' holds numbers that are not finite"):
        layout.encode(parts[0])


def test_reals_of_2_to_the_63_are_refused() -> None:
    layout = Layout.for_statistics({"x": np.zeros(1)}, holders=2)
    below = np.nextafter(2.0**63, 0)
    assert layout.decode(layout.encode({"x": np.array([-below])}), survivors=1)["x"][0] == -below
    with pytest.raises(DataError, match=r"public limit of 2\^63"):
        layout.encode({"x": np.array([-(2.0**63)])})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", np.zeros(5, dtype=np.int32)),
        ("count", np.zeros(5)),
        ("count", np.zeros(6, dtype=np.int64)),
        ("loss", np.zeros(2, dtype=np.float32)),
        ("bias", np.zeros(4, dtype=np.int64)),
        ("weight", np.zeros((4, 3))),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused(name: str, value: np.ndarray) -> None:
    layout, parts = example()
    with pytest.raises(DataError, match=rf"'{name}' has type {value.dtype} and shape"):
        layout.encode(parts[0] | {name: value})


def test_arrays_of_other_names_are_refused() -> None:
    layout, parts = example()
    for wrong in (
        parts[0] | {"more": np.zeros(1)},
        {name: value for name, value in parts[0].items() if name != "loss"},
    ):
        with pytest.raises(DataError, match="other names"):
            layout.encode(wrong)


def test_layouts_that_no_sum_can_have_are_refused() -> None:
    """Each with the rule it breaks and a way out, before anything is encoded."""
    whole = {"n": np.zeros(2, dtype=np.int64)}
    for holders in (0, -1, MOST_HOLDERS + 1, True, 2.0):
        with pytest.raises(PrivacyParameterError, match=f"{holders} holders were given; a sum is over 1 to 1024"):
            Layout.for_statistics(whole, holders=holders)  # type: ignore[arg-type]
    for clip_norm in (-0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PrivacyParameterError, match="clip_norm must be a finite number above 0"):
            Layout.for_update({"w": (2,)}, clip_norm=clip_norm, holders=2)
    with pytest.raises(PrivacyParameterError, match=r"norm 2.147e\+09 from 2 holders could wrap even in steps of 1"):
        Layout.for_update({"w": (2,)}, clip_norm=2.0**31, holders=2)
    with pytest.raises(PrivacyParameterError, match="give both or neither"):
        Layout.for_update({}, clip_norm=1.0, holders=2, exact=whole)
    with pytest.raises(PrivacyParameterError, match="give both or neither"):
        replace(example()[0], clip_norm=0.0)
    with pytest.raises(DataError, match="twice"):
        Layout.for_update({"n": (2,)}, clip_norm=1.0, holders=2, exact=whole)
    for empty in ({}, {"x": np.zeros((3, 0))}):
        with pytest.raises(DataError, match=f"arrays of 0 words were given; a sum has 1 to {2**28}"):
            Layout.for_statistics(empty, holders=2)
    for value in (
        np.zeros(2, dtype=bool),
        np.zeros(2, dtype=np.float16),
        np.zeros(2, dtype="<U3"),
        np.zeros(2, complex),
    ):
        with pytest.raises(DataError, match=f"'s' has type {value.dtype.name}; sum one of int8, int16"):
            Layout.for_statistics({"s": value}, holders=2)
    with pytest.raises(DataError, match=r"a limit of 0 where 1 to 0 fit.*wider integer type"):
        Layout.for_statistics({"n": np.zeros(2, dtype=np.int8)}, holders=128)
    for largest in (0, 2**61, -1):
        with pytest.raises(DataError, match=f"a limit of {largest} where 1 to {2**61 - 1} fit"):
            Layout.for_integers({"n": (2,)}, largest=largest, holders=2)
    for shape in ((1,) * 17, (2**28 + 1,), (0, 2**60), (-1, 2)):
        with pytest.raises(DataError, match="too many axes, or one too long"):
            Layout.for_integers({"n": shape}, largest=1, holders=2)
    with pytest.raises(DataError, match=f"arrays of {2**29} words"):
        Layout.for_integers({"n": (2**28, 2)}, largest=1, holders=2)
    with pytest.raises(DataError, match="a limit of 5 where"):
        Layout(holders=2, arrays=(Array(name="x", form="real", dtype="float64", shape=(), largest=5),))


def test_limits_themselves_are_taken() -> None:
    """16 axes, 2^28 words, 1,024 holders, one number: nothing is refused early, and no memory is taken."""
    assert Layout.for_integers({"n": (1,) * 16}, largest=1, holders=1).words == 1
    assert Layout.for_integers({"n": (2**28,)}, largest=1, holders=MOST_HOLDERS).words == 2**28
    assert Layout.for_integers({"n": ()}, largest=2**62 - 1, holders=1).digit_bits == 31


def test_bytes_are_canonical() -> None:
    """Equal layouts have equal bytes whatever order arrays were given in, others have others, and each comes back."""
    layout, parts = example()
    backwards = dict(reversed(parts[0].items()))
    exact = {name: backwards[name] for name in backwards if name not in ("weight", "bias")}
    same = Layout.for_update({"bias": (4,), "weight": (3, 4)}, clip_norm=1.0, holders=5, exact=exact)
    assert same.to_bytes() == layout.to_bytes()
    others = [
        layout,
        Layout.for_statistics(exact, holders=5),
        Layout.for_statistics(exact, holders=6),
        Layout.for_update({"bias": (4,)}, clip_norm=1.0, holders=5),
        Layout.for_update({"bias": (4,)}, clip_norm=1.5, holders=5),
        Layout.for_integers({"bias": (4,)}, largest=9, holders=5),
        Layout.for_integers({"bias": (2, 2)}, largest=9, holders=5),
        Layout.for_integers({"bias": (2, 2)}, largest=8, holders=5),
    ]
    blobs = [each.to_bytes() for each in others]
    assert len(set(blobs)) == len(blobs)
    assert [Layout.from_bytes(blob) for blob in blobs] == others


@given(st.data())
def test_changed_bytes_are_refused_or_are_another_layout(data: st.DataObject) -> None:
    """Cut, flipped or replaced anywhere: a ProtocolError, or the canonical bytes of what was read; never a crash."""
    blob = bytearray(example()[0].to_bytes())
    place = data.draw(st.integers(0, len(blob) - 1))
    if data.draw(st.booleans()):
        blob[place] ^= data.draw(st.integers(1, 255))
    else:
        blob[place:] = data.draw(st.binary(max_size=40))
    with contextlib.suppress(ProtocolError):
        assert Layout.from_bytes(bytes(blob)).to_bytes() == bytes(blob)


def packed(*, holders: int = 2, norm: bytes = bytes(8), arrays: Sequence[bytes] = ()) -> bytes:
    return pack("layout", pack_number(holders), norm, pack("arrays", *arrays))


def array(
    form: bytes = b"whole",
    dtype: bytes = b"int8",
    shape: Sequence[int] = (2,),
    name: bytes = b"n",
    step: bytes = bytes(8),
) -> bytes:
    lengths = b"".join(pack_number(length) for length in shape)
    return pack("array", name, form, dtype, pack_number(int(form != b"update")), step, lengths)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (packed(arrays=[array()])[:-1], "cut short"),
        (packed(arrays=[array()], norm=bytes(7)), "a clip norm has 7 bytes"),
        (packed(arrays=[array()], norm=b"\x80" + bytes(7)), "above 0, got -0.0"),
        (packed(arrays=[array()], norm=b"\x3f\xf0" + bytes(6)), "give both or neither"),
        (packed(arrays=[array(b"update", b"float64")], norm=b"\x7f\xf8" + bytes(6)), "must be a finite number above 0"),
        (packed(arrays=[array(b"update", b"float64")], norm=b"\xbf\xf0" + bytes(6)), "must be a finite number above 0"),
        (packed(arrays=[array(b"other")]), "unknown form or shape"),
        (packed(arrays=[array(shape=(1,) * 17)]), "unknown form or shape"),
        (packed(arrays=[array()[:-1]]), "cut short"),
        (
            packed(arrays=[pack("array", b"n", b"whole", b"int8", pack_number(1), bytes(8), bytes(7))]),
            "unknown form or shape",
        ),
        (packed(arrays=[array(dtype=b"object")]), "has type object"),
        (packed(arrays=[array(step=bytes(7))]), "a step has 7 bytes"),
        (packed(arrays=[array(step=b"\x80" + bytes(7))]), "steps of -0.0 where 0 belongs"),
        (packed(arrays=[array(step=b"\x7f\xf8" + bytes(6))]), "steps of nan where 0 belongs"),
        (packed(arrays=[array(b"scaled", b"float64")]), "steps of 0.0 where a finite number above 0"),
        (packed(arrays=[array(b"scaled", b"float64", step=b"\x7f\xf8" + bytes(6))]), "steps of nan where a finite"),
        (packed(arrays=[array(b"scaled", b"float64", step=b"\x7f\xf0" + bytes(6))]), "steps of inf where a finite"),
        (packed(arrays=[array(b"scaled", b"int64", step=b"\x3f\xf0" + bytes(6))]), "sum one of float64"),
        (packed(arrays=[array(shape=(2**40, 2**40))]), "too many axes, or one too long"),
        (packed(arrays=[array(shape=(2**28, 2**28))]), "words were given"),
        (packed(arrays=[array(), array()]), "twice"),
        (packed(arrays=[array(), array(name=b"a")]), "not in order"),
        (packed(arrays=[array()], holders=0), "0 holders"),
        (packed(), "0 words"),
    ],
)
def test_layouts_from_strangers_are_refused(blob: bytes, reason: str) -> None:
    """Whatever is wrong with the bytes is a ProtocolError, which a coordinator answers by leaving the sender out."""
    with pytest.raises(ProtocolError, match=reason):
        Layout.from_bytes(blob)
