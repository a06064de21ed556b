"""What a table must look like: which column plays which part, and of which kind it may be.

Kinds are wider than types, because one holder's engine says int32 where another says decimal(38, 0), and a CSV file has
nothing but texts.
"""

from __future__ import annotations

from collections.abc import Callable
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


_TESTS: tuple[tuple[Kind, tuple[Callable[[pa.DataType], bool], ...]], ...] = (
    ("text", (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
    ("integer", (pa.types.is_integer, lambda type_: pa.types.is_decimal(type_) and type_.scale == 0)),
    ("number", (pa.types.is_floating, pa.types.is_decimal)),
    ("timestamp", (pa.types.is_timestamp,)),
    ("date", (pa.types.is_date,)),
    ("truth", (pa.types.is_boolean,)),
    ("bytes", (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)),
)


def kind_of_type(type_: pa.DataType) -> Kind | None:
    """The kind of an Arrow type; None for lists, structures and all that no contract asks for."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return next((kind for kind, tests in _TESTS if any(test(type_) for test in tests)), None)
