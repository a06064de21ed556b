"""Public places: cells and estates, checked to lie inside the city."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from integration.records.source import CellSource, EstateSource, TableSource
from integration.records.values import combined, floats, refuse_unreadable, trimmed, whole_table
from integration.rules import City
from protocol.errors import DataError
from tables.checks import check_schema, refuse_failed
from tables.contracts import kind_of_type
from tables.engine import Engine
from tables.sources import open_source


@dataclass(frozen=True, eq=False)
class Cells:
    """N cells; a position in here is what staged calls name a cell by.

    Args:
        codes: Codes, each once.
        lat, lon: Degrees (WGS-84).
        kind: Whether the table has codes as "text" or "integer".

    Shapes: lat, lon (N,) float64
    """

    codes: tuple[str, ...]
    lat: np.ndarray
    lon: np.ndarray
    kind: str = "text"

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, eq=False)
class Estates:
    """M estates with unit prices, in yuan per square metre.

    Shapes: lat, lon, price (M,) float64
    """

    lat: np.ndarray
    lon: np.ndarray
    price: np.ndarray

    def __len__(self) -> int:
        return len(self.lat)


def read_cells(source: CellSource, base: Path, engine: Engine | None, city: City) -> Cells:
    """The cells of a table, in the order of its rows.

    Raises:
        DataError: no rows, a column that is missing or of a wrong type, a cell without a code or there twice, a
            coordinate that is missing, unreadable, swapped or outside the city.
        EngineError: the engine failed.
    """
    table, name = _read(source, base, engine)
    column = combined(table[source.cell])
    codes = trimmed(column)
    if codes.null_count:
        raise DataError(
            f"{codes.null_count} cells have no code", way_out="give each a code", source=name, column=source.cell
        )
    twice = len(codes) - len(codes.unique())
    if twice:
        raise DataError(
            f"{twice} cells are there again", way_out="list each cell once", source=name, column=source.cell
        )
    lat, lon = _places(source, table, name, city)
    return Cells(tuple(codes.to_pylist()), lat, lon, _kind(column.type))


def read_estates(source: EstateSource, base: Path, engine: Engine | None, city: City) -> Estates:
    """The estates of a table.

    Raises:
        DataError: as `read_cells`, or a price that is no number above 0.
        EngineError: the engine failed.
    """
    table, name = _read(source, base, engine)
    lat, lon = _places(source, table, name, city)
    price, _ = floats(combined(table[source.price]))
    refuse_unreadable(~(price > 0), source=name, column=source.price, what="price above 0")
    return Estates(lat, lon, price)


def _read(source: TableSource, base: Path, engine: Engine | None) -> tuple[pa.Table, str]:
    rows = open_source(source.location, base=base, engine=engine)
    refuse_failed(check_schema(rows.schema, source.contract()), source=rows.name)
    return whole_table(rows, source.columns()), rows.name


def _places(source: CellSource | EstateSource, table: pa.Table, name: str, city: City) -> tuple[np.ndarray, np.ndarray]:
    lat, lon = (_degrees(table, column, name) for column in (source.lat, source.lon))
    outside = ~_inside(lat, lon, city)
    if outside.any():
        swapped = int((outside & _inside(lon, lat, city)).sum())
        where = f"outside {city.name} ({city.south} to {city.north} N, {city.west} to {city.east} E)"
        hint = f"; {swapped} of them would lie inside with latitude and longitude swapped" if swapped else ""
        raise DataError(
            f"{int(outside.sum())} of {len(lat)} places lie {where}{hint}",
            way_out="swap the two columns' names" if swapped else "leave them out, or correct them or the city's box",
            source=name,
            row=int(np.flatnonzero(outside)[0]) + 1,
        )
    return lat, lon


def _degrees(table: pa.Table, column: str, name: str) -> np.ndarray:
    values, _ = floats(combined(table[column]))
    refuse_unreadable(np.isnan(values), source=name, column=column, what="number of degrees")
    return values


def _inside(lat: np.ndarray, lon: np.ndarray, city: City) -> np.ndarray:
    return (lat >= city.south) & (lat <= city.north) & (lon >= city.west) & (lon <= city.east)


def _kind(type_: pa.DataType) -> str:
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    return "integer" if kind_of_type(value_type) == "integer" else "text"
