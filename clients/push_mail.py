"""Pushed counts as bytes and back, with numbers replaced by tokens that only two operators can compute.

    token = 64 bits of BLAKE2b(number) under a key that the pair shares (`privacy.sealed.SealingKey.shared`)

A token keeps numbers out of files and logs of anybody else. It protects nothing from the two operators themselves: both
know the number, it is in their own call records. Bytes are a safetensors file of int64 columns, which runs no code when
it is read; everything in it is checked before it is used, since it comes from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save

from integration.features.assembling import Pushed
from integration.features.counts import COLUMNS
from integration.provinces import PROVINCES
from protocol.errors import ProtocolError
from tables.keyed_hash import KeyedHash

HUBS = ("person", "week")
MOST = 10**9
"""No count and no sum of a person and week is larger, but for milliseconds."""
_RANGES = {
    "province": (0, len(PROVINCES) - 1), "sex": (0, 1), "birth_year": (1850, 2100), "contacts": (1, MOST),
    "calls": (0, MOST), "duration_ms": (0, 10**15), "degree_sum": (0, MOST), "degree_contacts": (0, MOST),
    "closed_pairs": (0, MOST),
}  # fmt: skip


class Tokens:
    """Tokens of numbers under the key of one pair of operators.

    Args:
        secret: The pair's.
        numbers: Codes that this operator can turn tokens back into: those of the routing table.
    """

    def __init__(self, secret: bytes, numbers: np.ndarray) -> None:
        self._hash = KeyedHash(secret)
        self._numbers = pd.Series(numbers, index=self.of(numbers)).groupby(level=0).first()

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """int64, one for each number."""
        return self._hash.persons(np.asarray(numbers, np.int64))[0]

    def numbers(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each token, and whether there is one."""
        position = self._numbers.index.get_indexer(pd.Index(tokens))
        return self._numbers.to_numpy()[np.maximum(position, 0)] if len(self._numbers) else tokens, position >= 0


def pack_pushed(pushed: Pushed, tokens: Tokens) -> bytes:
    """The tables with tokens for persons, sorted by token: an order that tells nothing."""
    return _pack({table.name: getattr(pushed, table.name) for table in fields(Pushed)}, tokens)


def unpack_pushed(content: bytes, tokens: Tokens, *, weeks: range) -> Pushed:
    """The tables in such bytes, with numbers; rows of tokens that stand for no number here are left out.

    Raises:
        ProtocolError: other tables or columns, or values out of their range.
    """
    return Pushed(**_unpack(content, tokens, {table.name: COLUMNS[table.name] for table in fields(Pushed)}, weeks))


def pack_hubs(hubs: pd.DataFrame, tokens: Tokens) -> bytes:
    """person, week with tokens for persons."""
    return _pack({"hubs": hubs[list(HUBS)]}, tokens)


def unpack_hubs(content: bytes, tokens: Tokens, *, weeks: range) -> pd.DataFrame:
    """person, week.

    Raises:
        ProtocolError: see `unpack_pushed`.
    """
    return _unpack(content, tokens, {"hubs": HUBS}, weeks)["hubs"]


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name."""
    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def unpack_arrays(content: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Exactly the arrays of these names.

    Raises:
        ProtocolError: other bytes, or other names.
    """
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise ProtocolError("a parcel holds no arrays; both sides must run the same protocol version") from None
    if set(arrays) != set(names):
        raise ProtocolError("a parcel holds other arrays than asked for; both sides must run the same protocol version")
    return arrays


def _pack(tables: Mapping[str, pd.DataFrame], tokens: Tokens) -> bytes:
    arrays = {}
    for name, table in tables.items():
        coded = table.assign(person=tokens.of(table["person"].to_numpy(np.int64)))
        ordered = coded.sort_values(list(coded.columns), kind="stable")
        arrays |= {f"{name}.{column}": ordered[column].to_numpy(np.int64) for column in ordered.columns}
    return pack_arrays(arrays)


def _unpack(
    content: bytes, tokens: Tokens, columns: Mapping[str, tuple[str, ...]], weeks: range
) -> dict[str, pd.DataFrame]:
    arrays = unpack_arrays(content, tuple(f"{name}.{column}" for name in columns for column in columns[name]))
    tables = {}
    for name, wanted in columns.items():
        parts = {column: arrays[f"{name}.{column}"] for column in wanted}
        if any(part.dtype != np.int64 or part.ndim != 1 for part in parts.values()) or len(
            {len(part) for part in parts.values()}
        ) != 1:  # fmt: skip
            raise ProtocolError(f"the table '{name}' of a parcel is no table of whole numbers; ask its sender")
        ranges = _RANGES | {"week": (weeks.start, weeks.stop - 1)}
        for column, (least, most) in ((column, ranges[column]) for column in wanted if column != "person"):
            if len(parts[column]) and not least <= parts[column].min() <= parts[column].max() <= most:
                raise ProtocolError(
                    f"'{name}.{column}' of a parcel has values outside [{least}, {most}]; ask its sender"
                )
        keys = [column for column in wanted if column in ("person", "week", "province", "sex", "birth_year")]
        table = pd.DataFrame(parts)
        if table.duplicated(keys).any():
            raise ProtocolError(f"the table '{name}' of a parcel counts somebody twice; ask its sender")
        numbers, known = tokens.numbers(table["person"].to_numpy())
        table["person"] = numbers
        tables[name] = table[known].astype({"week": np.int16}).reset_index(drop=True)
    return tables
