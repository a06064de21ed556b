"""Arrays as bytes: the same as numpy's, and nothing else is read."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from protocol.npy import read_npy, write_npy

arrays = hnp.arrays(
    hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.boolean_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)
)


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@given(array=arrays)
def test_bytes_are_those_of_numpy(array: np.ndarray) -> None:
    """Any kind of numbers, byte order and shape, empty and 0-d arrays included."""
    array = np.asarray(array, order="C")
    assert write_npy(array) == saved(array)
    read = read_npy(saved(array))
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_array_read_is_its_own() -> None:
    """A reader may write to it without reaching the message or another reader."""
    data = write_npy(np.zeros(3))
    read_npy(data)[:] = 1.0
    assert read_npy(data).tolist() == [0.0, 0.0, 0.0]


def test_columns_first_is_read_as_such() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read_npy(saved(array)), array)


def test_long_header_is_read_too() -> None:
    array = np.zeros(2, dtype=[(f"a_long_name_{i}", "f4") for i in range(40)])
    assert read_npy(saved(array)).dtype == array.dtype


@pytest.mark.parametrize("cut", [0, 3, 9, 40, 128, 130])
def test_truncated_bytes_are_refused(cut: int) -> None:
    with pytest.raises((ValueError, EOFError, OSError)):
        read_npy(write_npy(np.arange(5.0))[:cut])


def test_archive_is_no_array() -> None:
    """`numpy.load` would open it as a file of several arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    with pytest.raises(ValueError, match="magic"):
        read_npy(buffer.getvalue())


def test_objects_are_neither_written_nor_read() -> None:
    """Reading them would run code the sender chose."""
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match="object"):
        write_npy(objects)
    with pytest.raises(ValueError, match="objects"):
        read_npy(saved(objects, allow_pickle=True))
