"""What a holder's tables of calls look like: which column is what; the sections of the holder's settings.

[calls]         who called whom, when, until when, and where the parties were: `CallSource`
[cells]         where the cells are: `CellSource`
[subscribers]   the holder's own numbers and what is known of them: `SubscriberSource`
[estates]       public prices of housing, optional: `EstateSource`
[routing]       public: which operator a number belongs to, optional: `RoutingSource`
"""

from __future__ import annotations

from typing import Self, get_args, get_type_hints

from pydantic import Field, ValidationInfo, field_validator, model_validator

from protocol.plan import FrozenConfig
from tables.contracts import Column, Kind
from tables.times import known_zone

NAMES: tuple[Kind, ...] = ("text", "integer", "bytes")
NUMBERS: tuple[Kind, ...] = ("number", "integer", "text")
KINDS: dict[str, tuple[Kind, ...]] = {
    "caller": NAMES, "callee": NAMES, "start": ("timestamp", "text"), "end": ("timestamp", "text"), "seconds": NUMBERS,
    "caller_cell": NAMES, "callee_cell": NAMES, "cell": NAMES, "owner": NAMES, "lat": NUMBERS, "lon": NUMBERS,
    "number": NAMES, "sex": NAMES, "birth_year": NUMBERS, "age": NUMBERS, "birthplace": NAMES, "identity": NAMES,
    "price": NUMBERS, "operator": NAMES,
}  # fmt: skip
"""Kinds of values by role. Bytes are texts of engines that do not say so."""


class TableSource(FrozenConfig):
    """A table whose columns are named by role; what all sections share."""

    @property
    def location(self) -> str:
        """File, folder, pattern or table:NAME; the first field of each section."""
        return getattr(self, next(iter(type(self).model_fields)))

    def contract(self) -> tuple[Column, ...]:
        """What the table must have: the columns that are read, and the kinds they may be."""
        return tuple(
            Column(role=role.replace("_", " "), name=name, kinds=KINDS[role])
            for role in list(type(self).model_fields)[1:]
            if role in KINDS and isinstance(name := getattr(self, role), str)
        )

    def columns(self) -> list[str]:
        """Names of the columns that are read, and no others."""
        return [column.name for column in self.contract()]

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_is_no_column(cls, value: object, info: ValidationInfo) -> object:
        """TOML has no null: an empty name says that there is no such column."""
        optional = info.field_name is not None and type(None) in get_args(get_type_hints(cls)[info.field_name])
        return None if optional and value == "" else value

    @model_validator(mode="after")
    def _each_role_has_its_own_column(self) -> Self:
        columns = self.columns()
        if len(set(columns)) != len(columns):
            raise ValueError(f"one column is named twice ({', '.join(columns)}); each role needs a column of its own")
        return self


def _location(what: str) -> str:
    return Field(min_length=1, description=f"{what}: Parquet or CSV file, folder, glob, or table:NAME")


def _column(default: str | None = None) -> str | None:
    return Field(default=default, min_length=1)


class CallSource(TableSource):
    """``[calls]``: one row for each call.

    Cells are either of both parties (`caller_cell`, `callee_cell`), each given to its own party only, or one `cell`
    that belongs to the record's `owner`, the caller's or the callee's number; then a record counts for its owner alone.
    """

    calls: str = _location("calls")
    caller: str = Field(default="caller", min_length=1)
    callee: str = Field(default="callee", min_length=1)
    start: str = Field(default="start", min_length=1)
    end: str | None = Field(default="end", min_length=1, description="column of times; or seconds")
    seconds: str | None = Field(default=None, min_length=1, description="column of durations in seconds; or end")
    caller_cell: str | None = _column("caller_cell")
    callee_cell: str | None = _column("callee_cell")
    cell: str | None = _column()
    owner: str | None = Field(default=None, min_length=1, description="column of the number whose record it is")
    naive_times: str | None = Field(
        default=None, description="zone of times that name none; without it they are dropped"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way_makes_the_other_superfluous(cls, values: object) -> object:
        """Defaults step back where the other way of saying the same is named."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("seconds"):
            values.setdefault("end", None)
        if values.get("owner"):
            values.setdefault("caller_cell", None)
            values.setdefault("callee_cell", None)
        return values

    @field_validator("naive_times")
    @classmethod
    def _zone_is_known(cls, zone: str | None) -> str | None:
        return zone if zone is None else known_zone(zone, offsets=True)

    @model_validator(mode="after")
    def _says_how_long_and_where(self) -> Self:
        if (self.end is None) == (self.seconds is None):
            raise ValueError("name exactly one of end (a column of times) and seconds (a column of durations)")
        if self.cell is not None and self.owner is None:
            raise ValueError("cell needs owner: one place belongs to the record's owner, never to both parties")
        if self.owner is not None and (self.caller_cell, self.callee_cell) != (None, None):
            raise ValueError("a record with an owner has one cell; name cell, not caller_cell and callee_cell")
        return self


class CellSource(TableSource):
    """``[cells]``: one row for each cell, in WGS-84."""

    cells: str = _location("cells")
    cell: str = Field(default="cell", min_length=1)
    lat: str = Field(default="lat", min_length=1)
    lon: str = Field(default="lon", min_length=1)


class SubscriberSource(TableSource):
    """``[subscribers]``: one row for each own number. What is not known is null.

    Age, where there is no year of birth, is the age on the first day of the study.
    """

    subscribers: str = _location("own numbers")
    number: str = Field(default="number", min_length=1)
    birthplace: str = Field(default="birthplace", min_length=1)
    sex: str | None = _column("sex")
    birth_year: str | None = _column("birth_year")
    age: str | None = _column()
    identity: str | None = Field(default=None, min_length=1, description="column of a token that names a person")
    home_only: bool = Field(default=False, description="listed numbers alone are this holder's; the others are not")

    @model_validator(mode="before")
    @classmethod
    def _age_stands_for_the_year(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("age"):
            values = {"birth_year": None, **values}
        return values

    @model_validator(mode="after")
    def _says_how_old_once(self) -> Self:
        if self.birth_year is not None and self.age is not None:
            raise ValueError("name birth_year or age, not both")
        return self


class EstateSource(TableSource):
    """``[estates]``: public prices of housing, in WGS-84 and yuan per square metre."""

    estates: str = _location("prices of housing")
    lat: str = Field(default="lat", min_length=1)
    lon: str = Field(default="lon", min_length=1)
    price: str = Field(default="price", min_length=1)


class RoutingSource(TableSource):
    """``[routing]``: which operator a number belongs to, public."""

    routing: str = _location("routing of numbers")
    number: str = Field(default="number", min_length=1)
    operator: str = Field(default="operator", min_length=1)


class HolderTables(FrozenConfig):
    """All tables of a holder."""

    calls: CallSource
    cells: CellSource
    subscribers: SubscriberSource
    estates: EstateSource | None = None
    routing: RoutingSource | None = None
