"""Codes of numbers: one for each name, whatever the type of the column and the batch it is in."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.records.mixing import draws, mix, spread
from integration.records.numbers import NO_NUMBER, coded, is_service

digits = st.text("0123456789", min_size=1, max_size=17)


@given(names=st.lists(digits, min_size=1, max_size=30, unique=True))
def test_different_digits_have_different_codes(names: list[str]) -> None:
    """Leading zeros are kept: 0138 and 138 stay apart."""
    codes, count = coded(pa.array(names))
    assert codes.tolist() == [int("1" + name) for name in names]
    assert count.tolist() == [len(name) for name in names]


@given(names=st.lists(st.one_of(digits, st.text(min_size=1, max_size=12)), min_size=1, max_size=20), cut=st.integers(0))
def test_a_code_does_not_depend_on_batch_or_type(names: list[str], cut: int) -> None:
    """The fast way for digits alone and the slow one for everything else agree."""
    whole = coded(pa.array(names))[0]
    assert whole.tolist() == [int(coded(pa.array([name]))[0][0]) for name in names]
    at = cut % len(names)
    parts = [coded(pa.array(names, pa.large_string()).slice(0, at))[0], coded(pa.array(names).slice(at))[0]]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert coded(pa.array(names).dictionary_encode())[0].tolist() == whole.tolist()
    assert coded(pa.array([name.encode() for name in names]))[0].tolist() == whole.tolist()


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.int32(), pa.uint16(), pa.decimal128(38, 0)])
def test_integers_are_their_digits(type_: pa.DataType) -> None:
    numbers = [0, 7, 10, 12345]
    array = pa.array([decimal.Decimal(n) if pa.types.is_decimal(type_) else n for n in numbers], type_)
    assert coded(array)[0].tolist() == coded(pa.array([str(n) for n in numbers]))[0].tolist()


def test_long_integers_are_their_digits_too() -> None:
    numbers = [10**17 - 1, 10**17, 2**63 - 1]
    texts = coded(pa.array([str(n) for n in numbers]))
    assert coded(pa.array(numbers))[0].tolist() == texts[0].tolist()
    assert texts[1].tolist() == [17, 0, 0]
    assert texts[0][0] > 0 > texts[0][1]
    assert coded(pa.array([2**63], pa.uint64()))[0].tolist() == [NO_NUMBER]


@pytest.mark.parametrize(
    "name", ["", "  ", None, "\ufffd12", "13800000000.0", "1.38E+10", "1.", "+1e5", "NaN", "null", "<NA>"]
)
def test_what_is_no_number(name: str | None) -> None:
    """A name that a spreadsheet made of many numbers is the name of none."""
    assert coded(pa.array([name, "13800000000"]))[0].tolist() == [NO_NUMBER, 113800000000]
    assert coded(pa.array([-1, None]))[0].tolist() == [NO_NUMBER, NO_NUMBER]


def test_other_names_are_hashed_below_zero_and_blanks_do_not_count() -> None:
    codes, count = coded(pa.array(["+8613800000000", "a7f3", "A7F3", " a7f3 ", "-5", "0x10", "٣", " 42"]))
    assert (codes[:7] < 0).all()
    assert count.tolist() == [0] * 7 + [2]
    assert codes[1] == codes[3]
    assert len(set(codes.tolist())) == 7


def test_service_numbers_have_few_digits() -> None:
    codes, _ = coded(pa.array(["0", "10086", "000000", "1000000", "token", None]))
    assert is_service(codes, digits=6).tolist() == [True, True, True, False, False, False]
    assert not is_service(codes, digits=0).any()


def test_mixing_is_splitmix() -> None:
    """The first numbers of the reference generator with seed 0 are those of its multiples of the golden ratio."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], np.uint64)
    assert [int(value) for value in mix(states)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_draws_are_spread_and_belong_to_the_call() -> None:
    rng = np.random.default_rng(3)
    a, b, start = (rng.integers(10**10, 10**11, 20_000) for _ in range(3))
    drawn = draws(a, b, start, seed=1)
    assert (drawn >= 0).all()
    assert len(set(drawn.tolist())) == len(drawn)
    assert abs((drawn < 2**62).mean() - 0.5) < 0.02
    assert (draws(a, b, start, seed=1) == drawn).all()
    for other in (draws(b, a, start, seed=1), draws(a, b, start + 1, seed=1), draws(a, b, start, seed=2)):
        assert not (other == drawn).any()
    buckets = np.bincount(spread(a) % 16, minlength=16)
    assert buckets.min() > 1000
