"""The planted season: how far a period lies from Spring Festival, and what that does to job queries."""

from __future__ import annotations

import holidays
import numpy as np

from protocol.errors import PlanError

_FESTIVAL = "Chinese New Year (Spring Festival)"
_PEAK_WEEKS, _PEAK_WIDTH = 4.0, 2.5
_DIP_WEEKS, _DIP_WIDTH = -0.5, 1.0
_DIP = 0.5
_RISE_CROSS_CITY = 0.6548  # March 2019 = 13.1 % of the cross-city queries of 2019
_RISE_HOME = 0.2393  # with 60 % of queries at home: March 2019 = 11.3 % of all queries of 2019


def spring_festivals(first_year: int, last_year: int) -> np.ndarray:
    """First days of Spring Festival from the year before `first_year` to the year after `last_year`, datetime64[D]."""
    calendar = holidays.country_holidays("CN", years=range(first_year - 1, last_year + 2), language="en_US")
    first: dict[int, np.datetime64] = {}
    for day in sorted(day for day, name in calendar.items() if name == _FESTIVAL):
        first.setdefault(day.year, np.datetime64(day, "D"))
    if len(first) != last_year - first_year + 3:
        raise PlanError(
            f"no Spring Festival is known for some year in {first_year - 1}..{last_year + 1}; choose a later start"
        )
    return np.array(sorted(first.values()))


def weeks_from_festival(days: np.ndarray, *, shift_days: int = 0) -> np.ndarray:
    """Signed weeks from the nearest Spring Festival, negative before it.

    Shapes: days (D,) datetime64[D] -> (D,)
    """
    years = days.astype("datetime64[Y]").astype(int) + 1970
    festivals = spring_festivals(int(years.min()), int(years.max())) + np.timedelta64(shift_days, "D")
    weeks = (days[:, None] - festivals[None, :]).astype(np.int64) / 7.0
    return weeks[np.arange(len(days)), np.abs(weeks).argmin(axis=1)]


def festival_kernel(weeks: np.ndarray, *, home: bool = False) -> np.ndarray:
    """Change in log queries `weeks` after Spring Festival: a dip in the holiday, a rise four weeks after it.

    ``rise * exp(-((w - 4) / 2.5)^2 / 2) - 0.5 * exp(-(w + 0.5)^2 / 2)``, the rise fitted to the Zhaopin shares of 2019.

    Args:
        weeks: Signed weeks from the nearest Spring Festival.
        home: The milder kernel of queries about the own city.
    """
    rise = _RISE_HOME if home else _RISE_CROSS_CITY
    peak = np.exp(-(((weeks - _PEAK_WEEKS) / _PEAK_WIDTH) ** 2) / 2)
    dip = np.exp(-(((weeks - _DIP_WEEKS) / _DIP_WIDTH) ** 2) / 2)
    return rise * peak - _DIP * dip


def festival_season(times: np.ndarray, *, home: bool = False, shift_days: int = 0) -> np.ndarray:
    """Kernel of each period of a regular time index: log of its mean over the days of the period.

    Shapes: times (T,) datetime64[D], first days of the periods -> (T,)
    """
    gap = times[-1] - times[-2] if len(times) > 1 else np.timedelta64(1, "D")
    edges = np.append(times, times[-1] + gap)
    days = np.arange(edges[0], edges[-1], dtype="datetime64[D]")
    daily = np.exp(festival_kernel(weeks_from_festival(days, shift_days=shift_days), home=home))
    starts = (times - times[0]).astype(np.int64)
    return np.log(np.add.reduceat(daily, starts) / np.diff(edges).astype(np.int64))
