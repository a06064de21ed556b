"""The weeks of a study: blocks of seven local days, numbered from 1.

    week(t) = 1 + floor((local date of t - start) / 7)

The defaults are the four weeks of the Shanghai study, 3 to 30 September 2016; its first day is a Saturday, so a week
goes from Saturday to Friday. The first week decides who is new; the others are what newcomers are followed through.
"""

from __future__ import annotations

import datetime as dt

from pydantic import Field, field_validator

from protocol.plan import FrozenConfig
from tables.times import known_zone

DAYS_PER_WEEK = 7


class CallCalendar(FrozenConfig):
    """Public calendar of a study: where days begin, the first of them, and how many weeks there are."""

    start: dt.date = Field(default=dt.date(2016, 9, 3), description="first day of week 1")
    weeks: int = Field(default=4, ge=2, le=52)
    zone: str = Field(default="Asia/Shanghai", description="where a day begins and ends")

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        return known_zone(zone)

    @property
    def days(self) -> int:
        """Days of the study."""
        return DAYS_PER_WEEK * self.weeks

    @property
    def end(self) -> dt.date:
        """Last day of the study."""
        return self.start + dt.timedelta(days=self.days - 1)
