"""Origin-destination counts on a regular time grid, with where they come from and what they measure.

``ODSeries`` is the one form in which counts enter the forecaster. A pooled series sees every origin; the part of one
holder lies on the same grid with the rows of other holders at zero and ``observed`` False there, so parts add up to the
whole::

    tokyo = series.held_by(["JP-13"])
    rest = series.held_by([code for code in series.regions.codes if code != "JP-13"])
    assert (tokyo + rest).equals(series)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from dhgsil.regions import Regions, listed, read_only
from dhgsil.steps import Date, Step, as_day, check_regular, next_step
from protocol.errors import DataError

__all__ = ["MAX_COUNT", "Date", "Measure", "ODSeries", "Provenance", "Regions", "Step"]

Measure = Literal["job-query intention", "synthetic job-query intention", "trips", "device visits"]

MAX_COUNT = 10**12  # more than a hundred times the people on Earth: surely an identifier, not a count


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
            raise DataError(f"unknown measure '{self.measure}'", way_out=f"use one of {listed(get_args(Measure))}")
        if self.absent_pair_is_zero is not True:
            raise DataError(
                "an absent pair must mean a count of 0, and the provenance does not say so",
                way_out="state absent_pair_is_zero = true if that holds, else complete the data with explicit counts",
            )


@dataclass(frozen=True, eq=False)
class ODSeries:
    """Counts of every ordered pair of regions at regular times, or estimates of them from noisy counts.

    Counts are whole numbers, int64. Estimates (`dhgsil.noisy_counts`) are finite float64 from 0; their provenance has a
    note that says so.

    Shapes: counts (T, N, N) int64 or float64, read-only (a writeable array is copied), times (T,) datetime64[D],
        observed (N,) bool.
        ``counts[t, o, d]`` is origin o to destination d; rows of origins that are not observed are 0.

    Raises:
        DataError: a shape or dtype is wrong, a count is negative or absurd, time has a gap, or an unobserved row is not
            zero.
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
            object.__setattr__(self, field, read_only(array))

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


def _check_counts(counts: np.ndarray, num_steps: int, num_regions: int) -> None:
    if not isinstance(counts, np.ndarray) or counts.dtype not in (np.int64, np.float64):
        raise DataError(
            f"counts have type {getattr(counts, 'dtype', type(counts).__name__)}, int64 is needed, or float64 for "
            "estimates",
            way_out="give whole numbers as int64, estimates from noisy counts as float64",
        )
    if counts.shape != (num_steps, num_regions, num_regions):
        raise DataError(
            f"counts have shape {counts.shape}, but {num_steps} times and {num_regions} regions need "
            f"{(num_steps, num_regions, num_regions)}",
            way_out="give one N by N matrix per time",
        )
    if num_regions < 2:
        raise DataError(f"an origin-destination series needs 2 regions, this has {num_regions}", way_out="add regions")
    if counts.dtype == np.float64 and not np.isfinite(counts).all():
        raise DataError("an estimate of a count is not finite", way_out="correct what made the estimates")
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
