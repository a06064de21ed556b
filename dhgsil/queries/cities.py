"""The public list of cities: codes, names and aliases, districts, provinces, coordinates, and perhaps population.

A list is one CSV (UTF-8, a byte order mark is fine) or Parquet file with a row per city. ``code``, ``name``, ``lat``
and ``lon`` are needed; ``aliases``, ``districts`` (several are separated by ``|``), ``province`` and ``population``
may be there. The list is public and fixed before a row of a holder is read: it is never derived from the queries.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhgsil.regions import Regions, check_regions, read_only
from protocol.errors import DataError
from protocol.plan import digest_of

NEEDED = ("code", "name", "lat", "lon")
OPTIONAL = ("aliases", "districts", "province", "population")


@dataclass(frozen=True, eq=False)
class CityList:
    """N cities, in the order that every array of counts follows.

    Args:
        regions: Codes, names and coordinates.
        aliases: Other names of each city.
        districts: Names of the districts, counties and county-level cities of each.
        provinces: Province of each; None where there is none.
        population: Persons in each, (N,) float64, all > 0; or None where unknown.

    Raises:
        DataError: lengths differ, or a population is not a number above 0.
    """

    regions: Regions
    aliases: tuple[tuple[str, ...], ...]
    districts: tuple[tuple[str, ...], ...]
    provinces: tuple[str | None, ...]
    population: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.aliases), len(self.districts), len(self.provinces)}
        if lengths != {len(self)}:
            raise DataError(
                f"a list of {len(self)} cities has {len(self.aliases)} alias lists, {len(self.districts)} district "
                f"lists and {len(self.provinces)} provinces; one of each per city is needed",
                way_out="give every city one of each, empty where there is none",
            )
        if self.population is None:
            return
        population = read_only(np.asarray(self.population, dtype=np.float64))
        if population.shape != (len(self),) or not np.all((population > 0) & np.isfinite(population)):
            raise DataError(
                "a population must be a number above 0, one per city",
                way_out="complete the populations, or leave all of them out",
            )
        object.__setattr__(self, "population", population)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def codes(self) -> tuple[str, ...]:
        return self.regions.codes

    @property
    def names(self) -> tuple[str, ...]:
        return self.regions.names

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each code."""
        return {code: position for position, code in enumerate(self.codes)}

    def digest(self) -> str:
        """SHA-256 of all that the list says, as 64 hexadecimal digits."""
        return digest_of(
            {
                "codes": list(self.codes),
                "names": list(self.names),
                "places": [
                    [float(lat), float(lon)] for lat, lon in zip(self.regions.lat, self.regions.lon, strict=True)
                ],
                "aliases": [list(names) for names in self.aliases],
                "districts": [list(names) for names in self.districts],
                "provinces": list(self.provinces),
                "population": None if self.population is None else self.population.tolist(),
            }
        )


def read_cities(path: Path) -> CityList:
    """The cities of a CSV or Parquet file, in the order of its rows.

    Raises:
        DataError: no such file, not readable, no rows, a needed column is missing or an unknown one there, a code is
            empty or twice there, a name is empty, a coordinate is missing or wrong, a population is not above 0.
    """
    columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    for column in NEEDED:
        if column not in columns:
            raise DataError("the column is missing", way_out="add it to the city list", source=path, column=column)
    codes, names = tuple(columns["code"]), tuple(columns["name"])
    if not codes:
        raise DataError("the city list is empty", way_out="add one row per city", source=path)
    lat, lon = _numbers(columns["lat"], path, "lat"), _numbers(columns["lon"], path, "lon")
    check_regions(codes, lat, lon, source=path)
    for row, name in enumerate(names, start=1):
        if not name:
            raise DataError("a city has no name", way_out="name it", source=path, column="name", row=row)
    none = [""] * len(codes)
    return CityList(
        regions=Regions(codes, names, lat, lon),
        aliases=_lists(columns.get("aliases", none)),
        districts=_lists(columns.get("districts", none)),
        provinces=tuple(province or None for province in columns.get("province", none)),
        population=_population(columns.get("population", none), path),
    )


def _read_csv(path: Path) -> dict[str, list[str]]:
    """The columns we know, as stripped texts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header, rows = list(reader.fieldnames or []), list(reader)
    except FileNotFoundError as error:
        raise DataError("the city list is missing", way_out="put the file there", source=path) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("the city list is not a readable UTF-8 CSV", way_out="write it anew", source=path) from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():  # DictReader's marks for too many and too few fields
            problem = f"the row does not have {len(header)} fields, as the header has"
            raise DataError(problem, way_out="quote names that hold a comma", source=path, row=number)
    return {name: [row[name].strip() for row in rows] for name in header if name in NEEDED + OPTIONAL}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    """As `_read_csv`; numbers become their shortest decimal text."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError("the city list is missing", way_out="put the file there", source=path) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError("the city list is not a readable Parquet file", way_out="write it anew", source=path) from error
    return {
        name: [_text(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
        if name in NEEDED + OPTIONAL
    }


def _text(value: object) -> str:
    """A value of a Parquet cell as a CSV would hold it; a list of names is joined by ``|``."""
    if value is None:
        return ""
    return "|".join(_text(item) for item in value) if isinstance(value, list) else str(value).strip()


def _numbers(values: Sequence[str], path: Path, column: str) -> np.ndarray:
    numbers = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        try:
            numbers[place] = float(value or "nan")
        except ValueError as error:
            problem, way_out = "the value is not a number", "write it with a decimal point"
            raise DataError(problem, way_out=way_out, source=path, column=column, row=place + 1) from error
    return numbers


def _lists(values: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(dict.fromkeys(part.strip() for part in value.split("|") if part.strip())) for value in values)


def _population(values: Sequence[str], path: Path) -> np.ndarray | None:
    """None where no city has one; some but not all is an error of the list."""
    if not any(values):
        return None
    population = _numbers(values, path, "population")
    wrong = np.flatnonzero(~((population > 0) & np.isfinite(population)))
    if len(wrong):
        problem = "the population is missing or not above 0, while other cities have one"
        way_out = "complete the populations, or leave all of them out"
        raise DataError(problem, way_out=way_out, source=path, column="population", row=int(wrong[0]) + 1)
    return population
