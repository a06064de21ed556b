"""What the words of a masked sum stand for: arrays of one holder as residues modulo 2^32, and their sums back.

==========  ============================================================  ===========================================
form        one holder's number                                           words
==========  ============================================================  ===========================================
update      float; all of them clipped to `clip_norm` in L2 together,     1: round(x · scale), see `privacy.quantise`
            then rounded to the nearest multiple of 1 / scale
whole       integer, of magnitude up to a public limit                    ceil(bits of the limit / b)
scaled      the same, and the sum is handed out times a public step       as many
real        float below 2^63 in magnitude, rounded to 2^-41               ceil(104 / b)
==========  ============================================================  ===========================================

Whole and real numbers are written as sign and digits of b bits, each digit a signed word, with b the most for which
`holders` digits cannot wrap::

    x · 2^41 = sign · sum over j of 2^(b j) · digit_j,    0 <= digit_j < 2^b,    b = 31 - ceil(log2(holders))

Nothing is drawn: the same arrays give the same words, and decoded sums are the sums of what each holder's numbers were
rounded to, exactly, in any order and under any masks. A layout is public, and it alone says what fits: no sum of
`holders` encoded vectors can wrap, and a sum that no honest survivors can have is refused.

What the coordinator learns is the sum of each *word*. For numbers of one word that is their sum. For longer ones it is
a little more: how often digits carried over, summed over the holders, which tells at most log2(holders) bits per digit
about bits below the digit's. Whole numbers below 2^b do not carry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np

from privacy.quantise import HALF, Quantiser, check_no_wrap, from_modular, to_modular
from privacy.secure_aggregation.arrays import (
    FRACTION_BITS,
    INTEGERS,
    MOST_WORDS,
    REAL_BITS,
    Array,
    exact_array,
    pack_double,
    unpack_double,
)
from privacy.secure_aggregation.wire import pack, pack_number, unpack, unpack_all, unpack_number
from protocol.errors import DataError, InputError, PrivacyParameterError, ProtocolError

MOST_HOLDERS = 1024
_MOST_SCALE_BITS = 100


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Words of one sum over at most `holders` holders; see the module docstring. Build one with a ``for_`` method.

    Args:
        holders: Most holders in the sum; what each may send is limited so that so many cannot wrap.
        arrays: In the order of their names, each once.
        clip_norm: L2 norm to which all updates of a holder together are clipped; 0 without updates.

    Raises:
        PrivacyParameterError: numbers out of range, or sums of updates could wrap at every scale.
        DataError: arrays of a type or size that cannot be summed.
    """

    holders: int
    arrays: tuple[Array, ...]
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.holders, bool) or not isinstance(self.holders, int) or not 1 <= self.holders <= MOST_HOLDERS:
            raise PrivacyParameterError(f"{self.holders} holders were given; a sum is over 1 to {MOST_HOLDERS}")
        names = [array.name for array in self.arrays]
        if any(before >= after for before, after in pairwise(names)):
            raise DataError("arrays of a layout are not in order, or one is there twice", way_out="name each once")
        for array in self.arrays:
            array.check(holders=self.holders)
        if not 0 < sum(array.size for array in self.arrays) <= self.words <= MOST_WORDS:
            raise DataError(
                f"arrays of {self.words} words were given; a sum has 1 to {MOST_WORDS}",
                way_out="sum fewer numbers at a time",
            )
        if not math.isfinite(self.clip_norm) or math.copysign(1.0, self.clip_norm) < 0:  # -0.0 too: one form for each
            raise PrivacyParameterError(f"clip_norm must be a finite number above 0, got {self.clip_norm}")
        if bool(self._updates) == (self.clip_norm == 0):
            raise PrivacyParameterError("a clip norm goes with updates, and only with them; give both or neither")
        if self._updates:
            check_no_wrap(holders=self.holders, largest=self.quantiser.nearest_largest, noise_stddev=0.0)

    @classmethod
    def for_statistics(cls, arrays: Mapping[str, np.ndarray], *, holders: int) -> Layout:
        """Exact sums of arrays like these; names, types and shapes are taken from them, no value.

        Integers may be as large as the largest of their type (or 2^62 - 1) over `holders`, so that sums fit in it too.
        """
        found = [exact_array(name, value, holders=holders) for name, value in arrays.items()]
        return cls(holders=holders, arrays=_in_order(found))

    @classmethod
    def for_update(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        clip_norm: float,
        holders: int,
        exact: Mapping[str, np.ndarray] | None = None,
    ) -> Layout:
        """Sums of updates, one word a number, and beside them exact sums of arrays like those in `exact`."""
        found = [
            Array(name=name, form="update", dtype="float64", shape=tuple(map(int, shape)))
            for name, shape in shapes.items()
        ]
        found += [exact_array(name, value, holders=holders) for name, value in (exact or {}).items()]
        return cls(holders=holders, arrays=_in_order(found), clip_norm=clip_norm)

    @classmethod
    def for_integers(
        cls, shapes: Mapping[str, tuple[int, ...]], *, largest: int, holders: int, step: float | None = None
    ) -> Layout:
        """Exact sums of int64 arrays whose numbers are at most `largest` in magnitude, in no more words than they need.

        Two words each up to 2^(2 b) - 1: 2^50 - 1 for up to 64 holders. With `step` the sums come back as float64,
        times that public number.
        """
        form, dtype, unit = ("whole", "int64", 0.0) if step is None else ("scaled", "float64", step)
        found = [
            Array(name=name, form=form, dtype=dtype, shape=tuple(map(int, shape)), largest=largest, step=unit)
            for name, shape in shapes.items()
        ]
        return cls(holders=holders, arrays=_in_order(found))

    @property
    def digit_bits(self) -> int:
        """b: bits of a digit, so that holders · (2^b - 1) < 2^31."""
        return 31 - (self.holders - 1).bit_length()

    @cached_property
    def words(self) -> int:
        """Length of an encoded vector."""
        return sum(array.size * len(self._digit_limits(array)) for array in self.arrays)

    @cached_property
    def quantiser(self) -> Quantiser:
        """How updates are clipped and rounded: at the largest power of two for which no sum can wrap.

        Raises:
            PrivacyParameterError: sums could wrap even in steps of 1.
        """
        clip, root = Fraction(self.clip_norm), math.isqrt(self._updates) + 1
        for bits in range(_MOST_SCALE_BITS, -1, -1):
            reach = clip * 2**bits
            if self.holders * (reach + Fraction(3, 2)) < HALF and reach + root < HALF:
                return Quantiser(self.clip_norm, 2**bits, self._updates)
        raise PrivacyParameterError(
            f"updates of norm {self.clip_norm:.4g} from {self.holders} holders could wrap even in steps of 1; lower "
            "the clip norm"
        )

    def encode(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """One holder's arrays as words. Updates beyond the clip norm are shortened.

        Shapes: -> (words,) of uint32

        Raises:
            DataError: other names, shapes or types, a number that is not finite, or one beyond its public limit. Never
                shows a number.
        """
        if arrays.keys() != {array.name for array in self.arrays}:
            raise DataError(
                "arrays of other names were given than the sum takes",
                way_out="all holders must run the same version, plan and model",
            )
        given = {array.name: array.checked(np.asarray(arrays[array.name])) for array in self.arrays}
        parts = []
        if self._updates:
            flat = [given[array.name].ravel() for array in self.arrays if array.form == "update"]
            parts.append(to_modular(self.quantiser.encode_nearest(np.concatenate(flat, dtype=np.float64))))
        parts += [
            to_modular(self._digits(array, given[array.name].ravel())).ravel()
            for array in self.arrays
            if array.form != "update"
        ]
        return np.concatenate(parts)

    def decode(self, total: np.ndarray, *, survivors: int) -> dict[str, np.ndarray]:
        """The sums over `survivors` holders, in the arrays' own units, types and shapes; updates as float64.

        Shapes: total (words,) of uint32

        Raises:
            ProtocolError: words of another length, or a sum that so many holders within their limits cannot have.
        """
        if total.shape != (self.words,):
            raise ProtocolError(f"a sum of shape {total.shape} was given where the layout has {self.words} words")
        if not 1 <= survivors <= self.holders:
            raise ProtocolError(f"{survivors} survivors were given; a sum of this layout is over 1 to {self.holders}")
        sums: dict[str, np.ndarray] = {}
        place = self._updates
        if place:
            flat = self._update_sums(total[:place], survivors=survivors)
            start = 0
            for array in self.arrays:
                if array.form == "update":
                    sums[array.name] = flat[start : start + array.size].reshape(array.shape)
                    start += array.size
        for array in self.arrays:
            if array.form != "update":
                limits = self._digit_limits(array)
                words = total[place : place + array.size * len(limits)].reshape(len(limits), array.size)
                sums[array.name] = self._exact_sums(array, words, survivors=survivors)
                place += words.size
        return {array.name: sums[array.name] for array in self.arrays}

    def to_bytes(self) -> bytes:
        """The canonical form: equal layouts have equal bytes."""
        return pack(
            "layout",
            pack_number(self.holders),
            pack_double(self.clip_norm),
            pack("arrays", *(array.to_bytes() for array in self.arrays)),
        )

    @classmethod
    def from_bytes(cls, blob: bytes) -> Layout:
        """Inverse of `to_bytes`, for bytes from strangers: nothing is made that is larger than they are.

        Raises:
            ProtocolError: not the one form of a layout that sums can have.
        """
        holders, clip_norm, arrays = unpack(blob, "layout", 3)
        try:
            return cls(
                holders=unpack_number(holders),
                arrays=tuple(Array.from_bytes(field) for field in unpack_all(arrays, "arrays")),
                clip_norm=unpack_double(clip_norm, "a clip norm"),
            )
        except InputError as error:
            raise ProtocolError(f"a layout cannot be used: {error}") from None

    @cached_property
    def _updates(self) -> int:
        return sum(array.size for array in self.arrays if array.form == "update")

    def _digit_limits(self, array: Array) -> tuple[int, ...]:
        """Largest digit of each word, the lowest first; one for an update."""
        if array.form == "update":
            return (HALF,)
        bits = self.digit_bits
        largest = array.largest if array.form in INTEGERS else 2**REAL_BITS - 1
        count = -(-largest.bit_length() // bits)
        return (2**bits - 1,) * (count - 1) + (largest >> bits * (count - 1),)

    def _digits(self, array: Array, values: np.ndarray) -> np.ndarray:
        """Sign times digit, (words per number, size) of int64."""
        bits, count = self.digit_bits, len(self._digit_limits(array))
        if array.form in INTEGERS:
            signed = values.astype(np.int64)
            magnitude = np.abs(signed)
            digits = [magnitude >> bits * place & 2**bits - 1 for place in range(count)]
        else:
            signed = np.rint(values.astype(np.float64) * 2.0**FRACTION_BITS)
            rest, digits = np.abs(signed), []
            for place in range(count - 1, -1, -1):  # divisions by powers of two, and integers: no step rounds
                digit = np.floor(rest / 2.0 ** (bits * place))
                rest -= digit * 2.0 ** (bits * place)
                digits.insert(0, digit.astype(np.int64))
        return np.where(signed < 0, -1, 1) * np.array(digits)

    def _update_sums(self, words: np.ndarray, *, survivors: int) -> np.ndarray:
        """Checked by number and, more sharply, by the L2 norm that so many clipped updates can have together."""
        sums = from_modular(words, bound=survivors * self.quantiser.nearest_largest)
        limit = survivors * self.quantiser.nearest_norm_bound
        if float(np.linalg.norm(sums.astype(np.float64))) > limit * (1 + 1e-9):
            raise ProtocolError(
                f"a sum of {survivors} updates has a norm beyond {limit} steps: a holder broke its limit; discard the "
                "round and ask every holder to open what it signed"
            )
        return self.quantiser.decode(sums)

    def _exact_sums(self, array: Array, words: np.ndarray, *, survivors: int) -> np.ndarray:
        bits = self.digit_bits
        rows = [
            from_modular(row, bound=survivors * limit)
            for row, limit in zip(words, self._digit_limits(array), strict=True)
        ]
        if array.form == "real":
            scaled = np.array([row * 2.0 ** (bits * place - FRACTION_BITS) for place, row in enumerate(rows)])
            sums = np.array([math.fsum(column) for column in scaled.T.tolist()], dtype=np.float64)
        else:
            sums = sum((row << bits * place for place, row in enumerate(rows)), np.zeros(array.size, dtype=np.int64))
            least = 0 if array.dtype.startswith("u") else -survivors * array.largest
            if sums.size and not least <= int(sums.min()) <= int(sums.max()) <= survivors * array.largest:
                raise ProtocolError(
                    f"a sum of '{array.name}' lies beyond what {survivors} holders can have together: a holder broke "
                    "its limit; discard the round and ask every holder to open what it signed"
                )
        return (sums * array.step if array.form == "scaled" else sums).astype(array.dtype).reshape(array.shape)


def _in_order(arrays: list[Array]) -> tuple[Array, ...]:
    return tuple(sorted(arrays, key=lambda array: array.name))
