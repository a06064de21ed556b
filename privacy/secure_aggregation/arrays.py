"""One named array of a masked sum: how its numbers become words, and which numbers it may hold; see `layout`."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from privacy.secure_aggregation.wire import exactly, pack, pack_number, unpack, unpack_number, unpack_text
from protocol.errors import DataError, ProtocolError

Form = Literal["update", "whole", "scaled", "real"]
INTEGERS: tuple[Form, ...] = ("whole", "scaled")
MOST_WORDS = 2**28
"""A gigabyte: far above every model here, and below what would exhaust a machine that a stranger's layout reaches."""
REAL_BITS, FRACTION_BITS = 104, 41
"""A real number is below 2^63 and counted in steps of 2^-41."""
_WHOLE_LIMIT = 2**62 - 1
_MOST_AXES = 16
_WHOLES = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_TYPES: dict[Form, tuple[str, ...]] = {
    "update": ("float64",),
    "whole": _WHOLES,
    "scaled": ("float64",),
    "real": ("float32", "float64"),
}
_DOUBLE = struct.Struct(">d")


@dataclass(frozen=True, kw_only=True)
class Array:
    """One named array of a layout.

    Args:
        name: Its name, once in a layout.
        form: How its numbers become words.
        dtype: Of its sums; an update's are float64.
        shape: Of the array and of its sums.
        largest: Magnitude of one holder's numbers, for whole and scaled ones; 0 otherwise.
        step: What 1 stands for in scaled numbers; 0 otherwise.
    """

    name: str
    form: Form
    dtype: str
    shape: tuple[int, ...]
    largest: int = 0
    step: float = 0.0

    @property
    def size(self) -> int:
        """Numbers in the array."""
        return math.prod(self.shape)

    def check(self, *, holders: int) -> None:
        """Refuse an array that no sum over so many holders can be of.

        Raises:
            DataError: a type, shape, limit or step out of range.
        """
        if self.dtype not in _TYPES[self.form]:
            raise DataError(
                f"'{self.name}' has type {self.dtype}", way_out=f"sum one of {', '.join(_TYPES[self.form])}"
            )
        if len(self.shape) > _MOST_AXES or not all(0 <= length <= MOST_WORDS for length in self.shape):
            raise DataError(f"'{self.name}' has too many axes, or one too long", way_out="sum smaller arrays")
        most = _most_of("int64" if self.form == "scaled" else self.dtype) // holders if self.form in INTEGERS else 0
        if not min(most, 1) <= self.largest <= most or (self.form in INTEGERS and not most):
            raise DataError(
                f"'{self.name}' has a limit of {self.largest} where 1 to {most} fit, so that a sum over {holders} "
                f"holders is of type {self.dtype} too",
                way_out="use a wider integer type, or a lower limit",
            )
        scaled = self.form == "scaled"
        if not (0 < self.step < math.inf if scaled else self.step == 0 and math.copysign(1.0, self.step) > 0):
            raise DataError(
                f"'{self.name}' has steps of {self.step} where {'a finite number above 0' if scaled else '0'} belongs",
                way_out="count in steps that are a finite number above 0",
            )

    def checked(self, value: np.ndarray) -> np.ndarray:
        """One holder's array, if it is what the layout says and within its limits.

        Raises:
            DataError: another type or shape, numbers not finite or beyond the limit; shows none of them.
        """
        wanted = {"update": "floats", "scaled": "int64"}.get(self.form, self.dtype)
        fits = np.issubdtype(value.dtype, np.floating) if wanted == "floats" else value.dtype.name == wanted
        if not fits or value.shape != self.shape:
            raise DataError(
                f"'{self.name}' has type {value.dtype} and shape {value.shape} where the sum takes {wanted} and "
                f"{self.shape}",
                way_out="all holders must run the same version, plan and model",
            )
        if self.form in INTEGERS:
            beyond = bool(value.size) and (int(value.max()) > self.largest or int(value.min()) < -self.largest)
        else:
            if not np.isfinite(value).all():
                raise DataError(
                    f"'{self.name}' holds numbers that are not finite, which no sum can take",
                    way_out="lower the learning rate, or check the input for missing values",
                )
            beyond = self.form == "real" and bool((np.abs(value) >= 2.0**63).any())
        if beyond:
            limit = self.largest if self.form in INTEGERS else "2^63"
            raise DataError(
                f"'{self.name}' holds a number beyond the public limit of {limit}, so that sums could wrap",
                way_out="count in larger units, or use a wider type",
            )
        return value

    def to_bytes(self) -> bytes:
        """The canonical form."""
        return pack(
            "array",
            self.name.encode(),
            self.form.encode(),
            self.dtype.encode(),
            pack_number(self.largest),
            pack_double(self.step),
            b"".join(pack_number(length) for length in self.shape),
        )

    @classmethod
    def from_bytes(cls, blob: bytes) -> Array:
        """Inverse of `to_bytes`; `check` looks at what it says."""
        name, form, dtype, largest, step, shape = unpack(blob, "array", 6)
        known: dict[bytes, Form] = {each.encode(): each for each in get_args(Form)}
        if form not in known or len(shape) % 8 or len(shape) > 8 * _MOST_AXES:
            raise ProtocolError("an array of a layout has an unknown form or shape; both sides must run one version")
        return cls(
            name=unpack_text(name),
            form=known[form],
            dtype=unpack_text(dtype),
            shape=tuple(unpack_number(shape[place : place + 8]) for place in range(0, len(shape), 8)),
            largest=unpack_number(largest),
            step=unpack_double(step, "a step"),
        )


def exact_array(name: str, value: np.ndarray, *, holders: int) -> Array:
    """An array like this one, whose sums over so many holders are exact."""
    dtype = np.asarray(value).dtype.name
    if dtype in _TYPES["real"]:
        return Array(name=name, form="real", dtype=dtype, shape=np.shape(value))
    largest = _most_of(dtype) // max(holders, 1) if dtype in _WHOLES else 0
    return Array(name=name, form="whole", dtype=dtype, shape=np.shape(value), largest=largest)


def pack_double(number: float) -> bytes:
    """A float64 as 8 bytes."""
    return _DOUBLE.pack(number)


def unpack_double(field: bytes, what: str) -> float:
    """Inverse of `pack_double`; any float64, also what is no number."""
    (number,) = _DOUBLE.unpack(exactly(field, _DOUBLE.size, what))
    return number


def _most_of(dtype: str) -> int:
    return min(int(np.iinfo(dtype).max), _WHOLE_LIMIT)
