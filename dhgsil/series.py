"""Origin-destination counts on a regular time grid, with where they come from and what they measure.

``ODSeries`` is the one form in which counts enter the forecaster. A pooled series sees every origin; the part of one holder
lies on the same grid with the rows of other holders at zero and ``observed`` False there, so parts add up to the whole::

    tokyo = series.held_by(["JP-13"])
    rest = series.held_by([code for code in series.regions.codes if code != "JP-13"])
    assert (tokyo + rest).equals(series)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal, get_args

import numpy as np

from protocol.errors import DataError

Step = Literal["day", "week", "month"]
Measure = Literal["job-query intention", "synthetic job-query intention", "trips", "device visits"]
Date = str | date | np.datetime64

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
MAX_COUNT = 10**12  # more than a hundred times the people on Earth: surely an identifier, not a count


@dataclass(frozen=True, eq=False)
class Regions:
    """Codes, names and coordinates (degrees) of N regions; codes are unique, every region has coordinates.

    Shapes: lat, lon (N,) float64.

    Raises:
        DataError: lengths differ, a code is empty or twice there, a coordinate is missing or out of range.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    lat: np.ndarray
    lon: np.ndarray

    def __post_init__(self) -> None:
        for field in ("lat", "lon"):
            object.__setattr__(self, field, _read_only(np.asarray(getattr(self, field), dtype=np.float64)))
        lengths = {len(self.codes), len(self.names), len(self.lat), len(self.lon)}
        if len(lengths) != 1 or self.lat.ndim != 1 or self.lon.ndim != 1:
            raise DataError(
                f"regions have {len(self.codes)} codes, {len(self.names)} names, latitudes {self.lat.shape}, longitudes "
                f"{self.lon.shape}; one of each per region is needed",
                way_out="give a code, a name, a latitude and a longitude for every region",
            )
        _check_codes(self.codes)
        _check_coordinate(self.lat, 90.0, "latitude", self.codes)
        _check_coordinate(self.lon, 180.0, "longitude", self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    def equals(self, other: Regions) -> bool:
        """Whether both list the same regions, in the same order, at the same places."""
        return (
            (self.codes, self.names) == (other.codes, other.names)
            and np.array_equal(self.lat, other.lat)
            and np.array_equal(self.lon, other.lon)
        )

    def positions(self, codes: Sequence[str]) -> np.ndarray:
        """Index of each code.

        Raises:
            DataError: a code is not one of the regions.
        """
        index = {code: position for position, code in enumerate(self.codes)}
        if unknown := [code for code in codes if code not in index]:
            raise DataError(
                f"unknown region code(s) {_listed(unknown)}; the {len(self)} regions are {_listed(self.codes)}",
                way_out="correct the code(s) or add the region(s) with coordinates",
            )
        return np.array([index[code] for code in codes], dtype=np.int64)

    def distance_km(self) -> np.ndarray:
        """Great-circle distance between all regions, ``2 R asin sqrt(hav)``, with a zero diagonal.

        Shapes: -> (N, N) float64, symmetric.

        Source: haversine formula on a sphere of the mean radius 6371.0088 km.
        """
        lat, lon = np.radians(self.lat), np.radians(self.lon)
        d_lat, d_lon = lat[:, None] - lat[None, :], lon[:, None] - lon[None, :]  # (N, N)
        hav = np.sin(d_lat / 2) ** 2 + np.cos(lat)[:, None] * np.cos(lat)[None, :] * np.sin(d_lon / 2) ** 2
        return 2.0 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(hav, 0.0, 1.0)))


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where counts come from and what one count is.

    Args:
        source: Data set or system the counts were taken from.
        measure: What is counted; searching is an intention to move, not a move, and the name says so.
        absent_pair_is_zero: A pair without a record counted nothing. False (not recorded means unknown) is refused.
        country: ISO 3166 code for public holidays, None if there is none to use.
        note: Anything a reader of results must know.
        small_cell_threshold: Counts below it were set to 0 before release; None if that was not done.
    """

    source: str
    measure: Measure
    absent_pair_is_zero: bool = True
    country: str | None = None
    note: str = ""
    small_cell_threshold: int | None = None

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise DataError(f"unknown measure '{self.measure}'", way_out=f"use one of {_listed(get_args(Measure))}")
        if self.absent_pair_is_zero is not True:
            raise DataError(
                "an absent pair must mean a count of 0, and the provenance does not say so",
                way_out="state absent_pair_is_zero = true if that holds, else complete the data with explicit counts",
            )


@dataclass(frozen=True, eq=False)
class ODSeries:
    """Counts of every ordered pair of regions at regular times.

    Shapes: counts (T, N, N) int64 read-only (a writeable array is copied), times (T,) datetime64[D], observed (N,) bool.
        ``counts[t, o, d]`` is origin o to destination d; rows of origins that are not observed are 0.

    Raises:
        DataError: a shape or dtype is wrong, a count is negative or absurd, time has a gap, an unobserved row is not zero.
    """

    counts: np.ndarray
    times: np.ndarray
    step: Step
    regions: Regions
    provenance: Provenance
    observed: np.ndarray

    def __post_init__(self) -> None:
        times = np.asarray(self.times).astype("datetime64[D]")
        _check_counts(self.counts, len(times), len(self.regions))
        check_regular(times, self.step)
        observed = np.asarray(self.observed)
        if observed.shape != (len(self.regions),) or observed.dtype != np.bool_:
            raise DataError(
                f"'observed' has shape {observed.shape} and type {observed.dtype}; one bool per region is needed",
                way_out="give True for each origin whose rows are in the counts",
            )
        if self.counts[:, ~observed].any():
            raise DataError(
                "counts are not 0 in a row that is not observed", way_out="mark the origin as observed or drop its rows"
            )
        for field, array in (("counts", self.counts), ("times", times), ("observed", observed)):
            object.__setattr__(self, field, _read_only(array))

    @property
    def num_steps(self) -> int:
        return self.counts.shape[0]

    @property
    def num_regions(self) -> int:
        return self.counts.shape[1]

    def equals(self, other: ODSeries) -> bool:
        """Whether both hold the same counts, grid, regions and provenance."""
        return (
            (self.step, self.provenance) == (other.step, other.provenance)
            and self.regions.equals(other.regions)
            and np.array_equal(self.times, other.times)
            and np.array_equal(self.observed, other.observed)
            and np.array_equal(self.counts, other.counts)
        )

    def between(self, start: Date | None = None, end: Date | None = None) -> ODSeries:
        """The steps that begin on a day from `start` to `end`, both included; None leaves that side open.

        Raises:
            DataError: the dates reach outside the series or hold no step.
        """
        first, last = self.times[0], next_step(self.times[-1], self.step) - 1
        begin, until = as_day(start, first), as_day(end, last)
        chosen = np.flatnonzero((self.times >= begin) & (self.times <= until))
        if begin < first or until > last or not len(chosen):
            raise DataError(
                f"asked for {begin} .. {until}, but the series holds {self.num_steps} {self.step}s, {first} .. {last}",
                way_out="choose dates inside the series",
                source=self.provenance.source,
            )
        steps = slice(int(chosen[0]), int(chosen[-1]) + 1)
        return replace(self, counts=self.counts[steps], times=self.times[steps])

    def held_by(self, codes: Sequence[str]) -> ODSeries:
        """The part of a holder that sees only the rows of origins `codes`: same grid, other rows 0 and not observed.

        Raises:
            DataError: a code is unknown or twice there, or none of the origins is observed (a holder with no rows).
        """
        positions = self.regions.positions(codes)
        if len(set(codes)) != len(codes):
            raise DataError("a region code is named twice for one holder", way_out="name each region once per holder")
        own = np.zeros(self.num_regions, dtype=np.bool_)
        own[positions] = True
        own &= self.observed
        if not own.any():
            raise DataError(
                f"a holder with no rows: none of its {len(codes)} region(s) is an observed origin of the series",
                way_out="give the holder at least one region whose rows are in the data, or leave it out",
            )
        counts = np.where(own[None, :, None], self.counts, 0)  # (T, N, N)
        counts.flags.writeable = False
        return replace(self, counts=counts, observed=own)

    def __add__(self, other: ODSeries) -> ODSeries:
        """Counts of two holders on the same grid, disjoint or overlapping: counts add, observed origins unite.

        Raises:
            DataError: grids, regions or measures differ.
        """
        if not isinstance(other, ODSeries):
            return NotImplemented
        for name, same in (
            ("times", self.step == other.step and np.array_equal(self.times, other.times)),
            ("regions", self.regions.equals(other.regions)),
            ("measures", self.provenance.measure == other.provenance.measure),
        ):
            if not same:
                raise DataError(
                    f"two series can be added only on the same grid, but their {name} differ",
                    way_out=f"bring both to the same {name} first",
                )
        counts = self.counts + other.counts
        counts.flags.writeable = False
        joined = _joined(self.provenance, other.provenance)
        return replace(self, counts=counts, observed=self.observed | other.observed, provenance=joined)


def next_step(time: np.datetime64, step: Step) -> np.datetime64:
    """First day of the step that follows the one beginning at `time`."""
    if step == "month":
        return (time.astype("datetime64[M]") + 1).astype("datetime64[D]")
    return time + np.timedelta64(7 if step == "week" else 1, "D")


def as_day(value: Date | None, default: np.datetime64) -> np.datetime64:
    """A date in any of the accepted forms as datetime64[D]; `default` for None.

    Raises:
        DataError: `value` is not a date.
    """
    if value is None:
        return default
    try:
        day = np.datetime64(value, "D")
    except (ValueError, TypeError) as error:
        raise DataError(f"'{value}' is not a date", way_out="write it as YYYY-MM-DD") from error
    if np.isnat(day):
        raise DataError(f"'{value}' is not a date", way_out="write it as YYYY-MM-DD")
    return day


def check_regular(times: np.ndarray, step: str, source: str | None = None) -> None:
    """Refuse times (T,) that are not increasing by exactly one day, week or month (months begin on the 1st).

    Raises:
        DataError: unknown step, no times, a missing date, times out of order or a gap.
    """
    if step not in get_args(Step):
        raise DataError(f"unknown step '{step}'", way_out=f"use one of {_listed(get_args(Step))}", source=source)
    if not len(times):
        raise DataError("there are no time steps", way_out="give at least one step of counts", source=source)
    if np.isnat(times).any():
        raise DataError("a time is missing", way_out="give every record a date", source=source, column="time")
    if step == "month":
        months = times.astype("datetime64[M]")
        if (times != months.astype("datetime64[D]")).any():
            off = times[np.flatnonzero(times != months.astype("datetime64[D]"))[0]]
            raise DataError(
                f"monthly steps begin on the 1st, {off} does not",
                way_out="write the first day of the month, or state the right step",
                source=source,
                column="time",
            )
        distance, unit = np.diff(months).astype(np.int64), 1
    else:
        distance, unit = np.diff(times).astype(np.int64), 7 if step == "week" else 1
    wrong = np.flatnonzero(distance != unit)
    if len(wrong):
        before, after = times[wrong[0]], times[wrong[0] + 1]
        kind = "a gap in time" if distance[wrong[0]] > unit else "times are not one step apart"
        raise DataError(
            f"{kind}: {before} is followed by {after}, but steps of one {step} are stated ({len(wrong)} such place(s))",
            way_out="add the missing steps (a step that counted nothing needs one record with count 0) or state the right step",
            source=source,
            column="time",
        )


def _check_codes(codes: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for row, code in enumerate(codes, start=1):
        if not isinstance(code, str) or not code:
            raise DataError("a region code must be a non-empty text", way_out="give every region a code", row=row)
        if code in first:
            raise DataError(
                f"duplicate region code '{code}', first in row {first[code]}", way_out="make codes unique", row=row
            )
        first[code] = row


def _check_coordinate(values: np.ndarray, limit: float, name: str, codes: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(~(np.abs(values) <= limit))  # written so that NaN is wrong too
    if len(wrong):
        place = int(wrong[0])
        what = "has no coordinates" if np.isnan(values[place]) else f"has {name} {values[place]:g}"
        raise DataError(
            f"region '{codes[place]}' {what}; a {name} in degrees from {-limit:g} to {limit:g} is needed",
            way_out="complete the coordinates of the region list",
            row=place + 1,
        )


def _check_counts(counts: np.ndarray, num_steps: int, num_regions: int) -> None:
    if not isinstance(counts, np.ndarray) or counts.dtype != np.int64:
        raise DataError(
            f"counts have type {getattr(counts, 'dtype', type(counts).__name__)}, int64 is needed",
            way_out="give whole numbers as int64",
        )
    if counts.shape != (num_steps, num_regions, num_regions):
        raise DataError(
            f"counts have shape {counts.shape}, but {num_steps} times and {num_regions} regions need "
            f"{(num_steps, num_regions, num_regions)}",
            way_out="give one N by N matrix per time",
        )
    if num_regions < 2:
        raise DataError(f"an origin-destination series needs 2 regions, this has {num_regions}", way_out="add regions")
    if counts.size and counts.min() < 0:
        raise DataError("a count is negative; counts are whole numbers from 0", way_out="correct the source of counts")
    if counts.size and counts.max() > MAX_COUNT:
        raise DataError(
            f"a count is above {MAX_COUNT:,}", way_out="check that the column holds counts, not identifiers"
        )


def _joined(one: Provenance, other: Provenance) -> Provenance:
    if one == other:
        return one
    thresholds = [p.small_cell_threshold for p in (one, other) if p.small_cell_threshold is not None]
    return replace(
        one,
        source=one.source if one.source == other.source else f"{one.source} + {other.source}",
        country=one.country if one.country == other.country else None,
        note=one.note if one.note == other.note else " | ".join(filter(None, (one.note, other.note))),
        small_cell_threshold=max(thresholds, default=None),
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    if not array.flags.writeable:
        return array
    array = array.copy()
    array.flags.writeable = False
    return array


def _listed(values: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(f"'{value}'" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
