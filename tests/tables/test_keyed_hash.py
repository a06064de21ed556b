"""Pseudonyms and priorities are functions of the secret, the name and the cell, and of nothing else."""

import hashlib
import pickle

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import DataError, PrivacyParameterError
from tables.keyed_hash import KeyedHash

SECRET = bytes(range(32))
KEYS = KeyedHash(SECRET)


def pseudonyms(names) -> list[tuple[int, int]]:
    person, spread = KEYS.persons(names)
    assert person.dtype == np.int64
    assert spread.dtype == np.uint32
    return list(zip(person.tolist(), spread.tolist(), strict=True))


def test_a_pseudonym_is_keyed_blake2b_of_the_name() -> None:
    """Against the standard library, written down once more."""
    key = hashlib.blake2b(key=SECRET, digest_size=32, person=b"person").digest()
    digest = hashlib.blake2b("用户7".encode(), key=key, digest_size=16).digest()
    assert pseudonyms(["用户7"]) == [
        (int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:12], "little"))
    ]


def test_a_priority_is_63_bits_of_aes_of_person_and_cell() -> None:
    key = hashlib.blake2b(key=SECRET, digest_size=32, person=b"cell").digest()
    cell = (5 << 40) | (357 << 20) | 12
    block = (-3).to_bytes(8, "little", signed=True) + cell.to_bytes(8, "little")
    encrypted = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305  one block
    assert KEYS.priorities([-3], 5, 357, 12).tolist() == [int.from_bytes(encrypted[:8], "little") >> 1]


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=30),
    cut=st.integers(0, 30),
)
def test_neither_batches_nor_order_change_a_pseudonym(names: list[str], cut: int) -> None:
    together = pseudonyms(names)
    assert pseudonyms(names[:cut]) + pseudonyms(names[cut:]) == together
    assert pseudonyms(names[::-1]) == together[::-1]
    assert len(set(together)) == len(set(names))


def test_the_kind_of_array_does_not_change_a_pseudonym() -> None:
    """A source's key column may be text today and integers tomorrow; decimal digits are the same person."""
    expected = pseudonyms(["7", "-12", "7", "100"])
    numbers = [7, -12, 7, 100]
    for names in (
        numbers,
        [b"7", b"-12", b"7", b"100"],
        np.array(numbers),
        np.array(numbers, np.int16),
        np.array(["7", "-12", "7", "100"]),
        pa.array(numbers),
        pa.array(["x", "7", "-12", "7", "100", "y"])[1:5],
        pa.array(["7", "-12", "7", "100"], pa.large_string()),
        pa.array(["7", "-12", "7", "100"], pa.string_view()),
        pa.array(["7", "-12", "7", "100"]).dictionary_encode(),
        pa.chunked_array([["7", "-12"], ["7", "100"]]),
        pa.chunked_array([pa.array(["7", "-12"]).dictionary_encode(), pa.array(["7", "100"]).dictionary_encode()]),
        pa.array(numbers, pa.decimal128(38, 0)),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3]), pa.array(["7", "-12", "7", "100"])),
    ):
        assert pseudonyms(names) == expected
    assert pseudonyms(["07"]) != expected[:1]
    assert pseudonyms([2**80]) == pseudonyms([str(2**80)])


def test_no_names_and_no_cells_are_fine() -> None:
    assert pseudonyms([]) == []
    assert pseudonyms(pa.array([], pa.string())) == []
    assert pseudonyms(pa.chunked_array([], pa.string())) == []
    none = np.array([], np.int64)
    assert KEYS.priorities(none, none, none, none).shape == (0,)


@pytest.mark.parametrize(
    "names",
    [
        ["a", None],
        pa.array([None, 1]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])),
        [1.5],
        ["secret-name", 1],
        pa.array([True]),
        pa.array([1.5]),
        pa.array([None]),
    ],
)
def test_missing_and_mixed_names_are_refused_without_showing_one(names) -> None:
    with pytest.raises(DataError) as caught:
        KEYS.persons(names)
    assert "secret-name" not in str(caught.value)


def test_another_secret_gives_other_numbers() -> None:
    other = KeyedHash(SECRET[::-1])
    names = [f"u{i}" for i in range(100)]
    assert not set(other.persons(names)[0].tolist()) & set(KEYS.persons(names)[0].tolist())
    persons = np.arange(100)
    assert not set(other.priorities(persons, 1, 2, 3).tolist()) & set(KEYS.priorities(persons, 1, 2, 3).tolist())


def test_a_short_secret_is_refused_and_a_long_one_counts_in_full() -> None:
    with pytest.raises(PrivacyParameterError, match="at least 16 bytes, got 15 bytes"):
        KeyedHash(b"x" * 15)
    with pytest.raises(PrivacyParameterError, match="got str"):
        KeyedHash("a text of many letters")  # type: ignore[arg-type]
    long = b"x" * 100
    assert KeyedHash(long + b"1").persons(["a"])[0] != KeyedHash(long + b"2").persons(["a"])[0]


def test_the_secret_does_not_show() -> None:
    keys = KeyedHash(b"a very secret text")
    assert "secret text" not in repr(keys) + str(keys)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keys)


@given(
    cells=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 2**24 - 1),
            st.integers(0, 2**20 - 1),
            st.integers(0, 2**20 - 1),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_a_priority_depends_on_its_own_person_and_cell_only(cells) -> None:
    columns = [np.array(part) for part in zip(*cells, strict=True)]
    together = KEYS.priorities(*columns)
    assert (together >= 0).all()
    assert [int(KEYS.priorities(*cell)[0]) for cell in cells] == together.tolist()
    assert len(set(together.tolist())) == len(set(cells))


def test_priorities_look_uniform_and_every_part_of_the_cell_counts() -> None:
    n = 20_000
    priorities = KEYS.priorities(np.arange(n), 0, 0, 0)
    # Six standard errors of the mean of a uniform; a bit that is stuck moves the mean of that bit to 0 or 1.
    assert abs(priorities.mean() / 2**63 - 0.5) < 6 / np.sqrt(12 * n)
    bits = (priorities[:, None] >> np.arange(63)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(n)
    assert (
        len({int(KEYS.priorities(*cell)[0]) for cell in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]}) == 4
    )


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ((1 << 24, 0, 0), "step"),
        ((0, 1 << 20, 0), "origin"),
        ((0, 0, 1 << 20), "destination"),
        ((-1, 0, 0), "step"),
        ((0, 0, 0.5), "destination"),
    ],
)
def test_a_cell_that_does_not_fit_is_refused(cell, named: str) -> None:
    """Packed regardless, it would fall onto another cell."""
    with pytest.raises(DataError, match=named):
        KEYS.priorities([1], *cell)
