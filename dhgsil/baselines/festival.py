"""Where last year stood as far from the Spring Festival as a given step does this year."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from dhgsil.baselines.problem import Problem, Steps, UnavailableBaselineError
from dhgsil.calendars import FESTIVAL_COUNTRIES, spring_festival

WEEKS_AROUND = 8


def year_ago_by_festival(problem: Problem, steps: Steps, *, name: str) -> Steps:
    """Step of last year at the same distance from the Spring Festival, within eight weeks of it; else the same week.

    Shapes:
        steps (...) -> (...); below 0 where the series begins later

    Raises:
        UnavailableBaselineError: the country does not keep the festival.
    """
    if problem.country not in FESTIVAL_COUNTRIES:
        raise UnavailableBaselineError(name, f"the Spring Festival is not kept in country {problem.country}")
    unique, inverse = np.unique(steps, return_inverse=True)
    return np.array([_source(problem, int(step)) for step in unique], dtype=np.int64)[inverse].reshape(steps.shape)


def _source(problem: Problem, step: int) -> int:
    day = problem.times[step].astype("datetime64[D]").item()
    year = min((day.year - 1, day.year, day.year + 1), key=lambda y: abs((day - spring_festival(y)).days))
    offset = day - spring_festival(year)
    if abs(offset) > timedelta(weeks=WEEKS_AROUND):
        return step - problem.steps_per_year
    wanted = np.datetime64(spring_festival(year - 1) + offset, "D")
    # The step that holds the day; a day before the series has none.
    return int(np.searchsorted(problem.times, wanted, side="right")) - 1
