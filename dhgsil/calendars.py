"""Calendar basis of the season part: what a step is, known in advance.

Every column is a function of the date alone, so it may be used for future steps without leaking anything.

Columns by step length::

    week, month, day   sin/cos of the year's phase, k = 1..3 (only with at least two training years)
                       bumps exp(-(tau - mu)^2 / 2), tau = weeks to the nearest Spring Festival, mu = -3..3
                       (only in countries that keep the festival)
    day                weekday (7 columns, one-hot); holiday, day before and day after a holiday on a working day;
                       first, inner and last day of three or more days off in a row; customary days off

The spec's re-design of the season basis; the paper's own calendar is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

import holidays
import numpy as np

from protocol.errors import DataError

DAYS_PER_YEAR = 365.2425
STEP_DAYS = {"day": 1.0, "week": 7.0, "month": DAYS_PER_YEAR / 12}
DAY_OFF_DETAILS = (
    "day_before_holiday",
    "day_after_holiday",
    "long_rest_first",
    "long_rest_inner",
    "long_rest_last",
    "customary_rest",
)
FESTIVAL_COUNTRIES = frozenset({"CN", "HK", "KR", "MO", "MY", "SG", "TW", "VN"})
CUSTOMARY_DAYS_OFF = {"JP": (((8, 13), (8, 16)), ((12, 29), (12, 31)), ((1, 1), (1, 3)))}
"""Days on which a country rests by custom, not by law, as (first, last) month and day: Obon, the turn of the year."""


@dataclass(frozen=True)
class Calendar:
    """The season basis of a series.

    Attributes:
        basis: One row per step, float32. Shape (T, K).
        names: Name of each column. Length K.
        notes: What was left out, and why; to be shown to the user.
    """

    basis: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Number of columns K."""
        return self.basis.shape[1]

    def detailed(self) -> Calendar:
        """This calendar, all columns."""
        return self

    def sundays(self) -> Calendar:
        """The same columns with every day off, by law or custom, a Sunday and nothing else.

        The strongest assumption and the fewest numbers to learn: a day off is like the fifty Sundays of the year.
        Columns are kept, so that a model's shape does not depend on it.
        """
        compact = self.compact()
        if "holiday" not in self.names:
            return compact
        basis, weekdays = compact.basis.copy(), [self.names.index(f"weekday{k}") for k in range(7)]
        off = np.flatnonzero(basis[:, self.names.index("holiday")] > 0)
        basis[off[:, None], weekdays] = 0.0
        basis[off, weekdays[6]] = 1.0
        basis[:, self.names.index("holiday")] = 0.0
        return Calendar(basis, self.names, self.notes)

    def compact(self) -> Calendar:
        """The same columns with one kind of day off only: `holiday` marks rest by law or custom, its details are 0.

        Each detailed column is learnt from a handful of days a year; where they meet for the first time (the turn of
        the year) their effects add up to something never seen. Columns are kept, so that a model's shape does not
        depend on it.
        """
        if "holiday" not in self.names:
            return self
        basis = self.basis.copy()
        details = [name for name in DAY_OFF_DETAILS if name in self.names]
        if "customary_rest" in details:
            holiday, custom = self.names.index("holiday"), self.names.index("customary_rest")
            basis[:, holiday] = np.maximum(basis[:, holiday], basis[:, custom])
        basis[:, [self.names.index(name) for name in details]] = 0.0
        return Calendar(basis, self.names, self.notes)


def calendar_features(
    times: np.ndarray,
    step: Literal["day", "week", "month"],
    country: str | None,
    *,
    training_steps: int,
) -> Calendar:
    """Season basis B(t) of every step.

    Args:
        times: Start of each step, datetime64[D]. Shape (T,).
        step: Length of a step.
        country: ISO code whose holidays are used; None for a calendar without holidays.
        training_steps: Steps of the training span; a yearly cycle needs two years of them.

    Raises:
        DataError: the country has no known holidays.

    Source: spec section 5.2 (yearly Fourier terms in the spirit of N-BEATS' interpretable basis).
    """
    days: list[date] = np.asarray(times, dtype="datetime64[D]").astype(object).tolist()
    columns: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if training_steps * STEP_DAYS[step] >= 2 * DAYS_PER_YEAR - 1:
        columns |= _yearly(days)
    else:
        notes.append("yearly season off: the training span is shorter than two years")
    if country in FESTIVAL_COUNTRIES:
        columns |= _festival_bumps(days)
    if step == "day":
        columns |= _weekdays(days)
        if country is None:
            notes.append("holidays off: the series names no country")
        else:
            columns |= _days_off(days, country)
    if not columns:
        columns["constant"] = np.ones(len(days))
    basis = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Calendar(basis, tuple(columns), tuple(notes))


def spring_festival(year: int) -> date:
    """First day of the lunar year, from Singapore's public holidays (which always start on that day)."""
    named = holidays.country_holidays("SG", years=year).get_named("Chinese New Year")
    return min(day for day in named if day.year == year)


def weeks_to_festival(day: date) -> float:
    """Signed weeks from the nearest Spring Festival (negative before it), clipped to +-8."""
    gaps = [(day - _cached_festival(year)).days / 7 for year in (day.year - 1, day.year, day.year + 1)]
    return float(np.clip(min(gaps, key=abs), -8, 8))


@lru_cache(maxsize=512)
def _cached_festival(year: int) -> date:
    return spring_festival(year)


def _yearly(days: Sequence[date]) -> dict[str, np.ndarray]:
    phase = np.array([(day.timetuple().tm_yday - 1) / DAYS_PER_YEAR for day in days])
    waves = {}
    for k in (1, 2, 3):
        waves[f"year_cos{k}"] = np.cos(2 * np.pi * k * phase)
        waves[f"year_sin{k}"] = np.sin(2 * np.pi * k * phase)
    return waves


def _festival_bumps(days: Sequence[date]) -> dict[str, np.ndarray]:
    tau = np.array([weeks_to_festival(day) for day in days])
    return {f"festival{mu:+d}": np.exp(-((tau - mu) ** 2) / 2) for mu in range(-3, 4)}


def _weekdays(days: Sequence[date]) -> dict[str, np.ndarray]:
    weekday = np.array([day.weekday() for day in days])
    return {f"weekday{k}": (weekday == k).astype(float) for k in range(7)}


def _days_off(days: Sequence[date], country: str) -> dict[str, np.ndarray]:
    """Holiday columns; looked up on a margin of days around the series so that its ends are right too."""
    margin = 10
    first = days[0] - timedelta(days=margin)
    span = [first + timedelta(days=k) for k in range((days[-1] - first).days + margin + 1)]
    official = _holidays_of(country, tuple(range(span[0].year, span[-1].year + 1)))
    customary = np.array([_is_customary(day, country) for day in span])
    holiday = np.array([day in official for day in span]) | customary
    weekend = np.array([day.weekday() >= 5 for day in span])
    on_working_day = holiday & ~weekend
    off = holiday | weekend
    long_run = _run_lengths(off) >= 3
    starts, ends = long_run & ~np.roll(off, 1), long_run & ~np.roll(off, -1)
    columns = {
        "holiday": on_working_day,
        "day_before_holiday": np.roll(on_working_day, -1) & ~off,
        "day_after_holiday": np.roll(on_working_day, 1) & ~off,
        "long_rest_first": starts,
        "long_rest_inner": long_run & ~starts & ~ends,
        "long_rest_last": ends,
    }
    if country in CUSTOMARY_DAYS_OFF:
        columns["customary_rest"] = customary
    at = np.array([(day - first).days for day in days])
    return {name: column[at].astype(float) for name, column in columns.items()}


def _holidays_of(country: str, years: tuple[int, ...]) -> frozenset[date]:
    try:
        known = holidays.country_holidays(country, years=years)
    except NotImplementedError as error:
        raise DataError(
            f"no public holidays are known for country {country!r}",
            way_out="give an ISO 3166 code such as 'CN' or 'JP', or leave the country out",
        ) from error
    return frozenset(known)


def _is_customary(day: date, country: str) -> bool:
    periods = CUSTOMARY_DAYS_OFF.get(country, ())
    return any(first <= (day.month, day.day) <= last for first, last in periods)


def _run_lengths(flags: np.ndarray) -> np.ndarray:
    """Length of the run of True that each position lies in, 0 where False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    lengths = np.zeros(len(flags), dtype=int)
    for start, stop in edges.reshape(-1, 2):
        lengths[start:stop] = stop - start
    return lengths
