"""What a table must look like: which column plays which part, and of which kind it may be.

Kinds are wider than types, because one holder's engine says int32 where another says decimal(38, 0), and a CSV file has
nothing but texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from protocol.errors import PlanError

Kind = Literal["text", "integer", "number", "timestamp", "date", "truth", "bytes"]
KINDS: tuple[Kind, ...] = ("text", "integer", "number", "timestamp", "date", "truth", "bytes")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a contract.

    Args:
        role: What the column is for, as the configuration calls it ("time", "user", …).
        name: What the table calls it.
        kinds: Kinds it may have.
        required: Whether the table must have it.

    Raises:
        PlanError: no kind, or one that is not known.
    """

    role: str
    name: str
    kinds: tuple[Kind, ...]
    required: bool = True

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise PlanError(
                f"column '{self.name}' may be {', '.join(self.kinds) or 'of no kind'}; kinds are {', '.join(KINDS)}"
            )


def kind_of_type(type_: pa.DataType) -> Kind | None:
    """The kind of an Arrow type; None for lists, structures and all that no contract asks for."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0):
        return "integer"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    if pa.types.is_timestamp(type_):
        return "timestamp"
    if pa.types.is_date(type_):
        return "date"
    if pa.types.is_boolean(type_):
        return "truth"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return "bytes"
    return None
