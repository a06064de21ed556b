"""What counts as a job query, and on which days: the rules a holder may set, and the public calendar of the counts.

Both are public: neither may be chosen by looking at the holder's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import Field, field_validator

from dhgsil.regions import listed
from dhgsil.steps import Step
from protocol.errors import PlanError
from protocol.plan import FrozenConfig

Language = Literal["zh", "en"]


class QueryRules(FrozenConfig):
    """The rules by which raw queries become counts. The defaults are our choice: the paper is known in outline only.

    A query that may mean several cities (it names them, or a province with ``province_only = "spread"``) counts once,
    whole, its city chosen by keyed hash. With ``several_cities = "weights"`` it counts in part in each: for counts
    without noise only.
    """

    longest_text: int = Field(default=64, ge=1, description="characters after cleaning; longer texts are no queries")
    bot_queries_per_day: int = Field(default=200, ge=1, description="job queries of a person in a day; more is a bot")
    several_cities: Literal["choose", "weights"] = "choose"
    no_destination: Literal["home", "drop"] = Field(default="home", description="a query that names no place")
    province_only: Literal["drop", "spread"] = Field(default="drop", description="a query that names a province alone")
    small_cell_threshold: int = Field(default=5, ge=1, description="smaller counts become 0; 1 keeps them all")
    languages: tuple[Language, ...] = Field(default=("zh", "en"), min_length=1, description="of the built-in keywords")

    @field_validator("languages")
    @classmethod
    def _each_language_once(cls, languages: tuple[Language, ...]) -> tuple[Language, ...]:
        if len(set(languages)) != len(languages):
            raise ValueError("a language is there twice; name each once")
        return languages


@dataclass(frozen=True)
class QueryCalendar:
    """The public days of the counts, cut into whole steps.

    Weeks begin on the weekday of `start`; months on the 1st.

    Args:
        start: First day, in `zone`.
        end: Last day, included.
        step: Length of a step.
        zone: Where a day begins and ends.

    Raises:
        PlanError: an unknown step or zone, an end before the start, or a last step that is cut short.
    """

    start: date
    end: date
    step: Step
    zone: str = "Asia/Shanghai"

    def __post_init__(self) -> None:
        if self.step not in get_args(Step):
            raise PlanError(f"step '{self.step}' is unknown; use one of {listed(get_args(Step))}")
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError) as error:
            raise PlanError(f"time zone '{self.zone}' is unknown; use a name such as 'Asia/Shanghai'") from error
        if self.end < self.start:
            raise PlanError(f"the period ends on {self.end}, before its start {self.start}; swap them")
        if self.step == "month" and self.start.day != 1:
            raise PlanError(f"monthly steps begin on the 1st, {self.start} does not; start on {self.start:%Y-%m}-01")
        if self._edges[-1] != np.datetime64(self.end, "D") + 1:
            raise PlanError(
                f"the last {self.step} begins on {self._edges[-2]} and is cut short by the end of the period, "
                f"{self.end}; end on {self._edges[-1] - 1}{self._earlier_end()}"
            )

    def _earlier_end(self) -> str:
        """The other way out, where more than one step has begun."""
        return f" or {self._edges[-2] - 1}" if len(self._edges) > 2 else ""

    @cached_property
    def _edges(self) -> np.ndarray:
        """First day of every step and of the one after the last; (T + 1,) datetime64[D]."""
        start, end = np.datetime64(self.start, "D"), np.datetime64(self.end, "D")
        if self.step == "month":
            months = np.arange(start.astype("datetime64[M]"), end.astype("datetime64[M]") + 2)
            return months.astype("datetime64[D]")
        days = 7 if self.step == "week" else 1
        steps = int((end - start).astype(np.int64)) // days + 1
        return start + days * np.arange(steps + 1)

    @property
    def times(self) -> np.ndarray:
        """First day of every step; (T,) datetime64[D]."""
        return self._edges[:-1]

    def step_of(self, days: np.ndarray) -> np.ndarray:
        """The step of each day, given in days since 1970-01-01; -1 outside the period.

        Shapes: days (n,) integers -> (n,) int32
        """
        edges = self._edges.astype(np.int64)
        step = np.searchsorted(edges, days, side="right") - 1
        return np.where(step < len(edges) - 1, step, -1).astype(np.int32)
