"""Arrays as the bytes of numpy's file format, without parsing or writing the same header again and again.

A model's weights are many small arrays with few distinct headers, sent in every message of every round. numpy spends
far longer on such a header, a Python literal, than on the numbers behind it; here each header is read once. The bytes
are those of `numpy.save`. Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
from numpy.lib import format as npy

_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH = slice(len(_MAGIC), len(_MAGIC) + 2)
_LONGEST = 256
"""Longer headers are read without being remembered, so that no sender can fill the memory with them."""


def write_npy(array: np.ndarray) -> bytes:
    """The bytes that `numpy.save` would write.

    Raises:
        ValueError: the array holds Python objects.
    """
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} cannot be sent; send numbers")
    return _header(array.dtype, array.shape) + array.tobytes()


def read_npy(data: bytes) -> np.ndarray:
    """The array in such bytes, as `numpy.load` would read it; it owns its memory.

    Raises:
        ValueError, TypeError, OSError, EOFError: the bytes are no array, too few, or hold Python objects.
    """
    start = _LENGTH.stop + int.from_bytes(data[_LENGTH], "little")
    if not data.startswith(_MAGIC) or start > _LONGEST:
        return npy.read_array(io.BytesIO(data), allow_pickle=False)
    dtype, shape, fortran = _layout(data[:start])
    if len(data) - start < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes are too few for an array of shape {shape}")
    return np.ndarray(shape, dtype, buffer=data, offset=start, order="F" if fortran else "C").copy(order="K")


@functools.lru_cache(maxsize=4096)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    written = io.BytesIO()
    npy.write_array_header_1_0(
        written, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )  # fmt: skip
    return written.getvalue()


@functools.lru_cache(maxsize=4096)
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Kind of numbers, shape, and whether columns come first."""
    read = io.BytesIO(header)
    npy.read_magic(read)
    shape, fortran, dtype = npy.read_array_header_1_0(read)
    if dtype.hasobject:
        raise ValueError("the bytes hold Python objects, which are never loaded")
    return dtype, shape, fortran
