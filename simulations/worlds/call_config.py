"""What a synthetic city of calls is made of: how many people, how they behave on arrival, later, and if born there.

Every number here is invented by this project. They are chosen so that what is known of the study (see
`docs/results/synthetic_city.md`) holds on the calls that come out; none is a measurement of anybody.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from integration.rules import City
from integration.weeks import CallCalendar
from protocol.plan import FrozenConfig

STUDY_LOCALS, STUDY_SETTLED, STUDY_NEW = 1_700_000, 1_000_000, 22_000
"""Sizes of the groups of the study, at scale 1."""


class Course(FrozenConfig):
    """How a habit stands in each group, and how it moves.

        newcomer(days) = arrival + weekly / 7 · days since arrival
        settled(day)   = settled + settled_weekly / 7 · day of the study

    Whoever was born in the city keeps `local`.
    """

    local: float
    settled: float
    settled_weekly: float = 0.0
    arrival: float
    weekly: float = 0.0


class Habits(FrozenConfig):
    """Behaviour by group and time. Shares are of the ties somebody begins, unless they say otherwise."""

    ties: Course = Course(local=1.0, settled=1.12, arrival=1.0)
    to_locals: Course = Course(local=0.80, settled=0.27, settled_weekly=0.04, arrival=0.03, weekly=0.16)
    to_townsmen: Course = Course(local=0.0, settled=0.30, settled_weekly=-0.01, arrival=0.45, weekly=-0.05)
    to_businesses: Course = Course(local=0.10, settled=0.13, settled_weekly=-0.003, arrival=0.2, weekly=-0.03)
    to_fringe: Course = Course(local=0.22, settled=0.22, arrival=0.22)
    closing: Course = Course(local=0.35, settled=0.22, arrival=0.5, weekly=-0.05)
    zipf: Course = Course(local=1.0, settled=0.75, arrival=1.2, weekly=-0.05)
    calls: Course = Course(local=1.0, settled=1.0, arrival=1.0)
    log_seconds: Course = Course(local=4.0, settled=4.4, settled_weekly=-0.02, arrival=5.0, weekly=-0.13)
    outgoing: Course = Course(local=0.0, settled=0.2, settled_weekly=-0.01, arrival=0.6, weekly=-0.12)
    one_way: Course = Course(local=0.15, settled=0.30, settled_weekly=-0.01, arrival=0.6, weekly=-0.09)
    roaming: Course = Course(local=0.20, settled=0.24, arrival=0.15, weekly=0.025)
    centre_km: Course = Course(local=21.0, settled=14.0, arrival=12.5)
    radius: Course = Course(local=1.0, settled=1.2, arrival=0.85)


class CallWorldConfig(FrozenConfig):
    """The synthetic city. At scale 1 it has about the size of the study: 54 million numbers, 698 million calls."""

    scale: float = Field(default=0.01, gt=0, le=1, description="1 is the size of the study; 0.01 is 1:100")
    newcomers: float = Field(default=1.0, gt=0, le=100, description="times as many arrivals in week 2")
    calendar: CallCalendar = CallCalendar()
    city: City = City()
    operators: dict[str, float] = Field(
        default={"east": 0.5, "north": 0.3, "west": 0.2}, description="name → share of numbers; together 1"
    )
    operator_tilt: float = Field(default=0.2, ge=0, le=1, description="share of people with their province's operator")
    block_people: int = Field(default=8000, ge=200, description="people with attributes who are drawn together")
    habits: Habits = Habits()

    attribute_coverage: float = Field(default=0.056, gt=0, le=0.6, description="share of all numbers with attributes")
    resident_coverage: float = Field(default=0.6, gt=0, le=1, description="the same share among people of the city")
    no_birthplace: float = Field(default=0.05, ge=0, lt=1, description="of those with attributes: sex and age alone")

    weekly_calls: float = Field(default=36.0, gt=0, description="of a person of habits 1, in either role")
    ties: float = Field(default=22.0, gt=0, description="contacts such a person has at one time")
    activity_shape: float = Field(default=2.2, gt=0, description="of the gamma of activity between people")
    tie_days: float = Field(default=90.0, gt=0, description="mean life of a tie")
    background_calls: float = Field(default=9.0, ge=0, description="calls of a number nobody knows, with its like")
    call_sd: float = Field(default=1.0, ge=0, le=2, description="of the log of a call's seconds within a person")
    person_sd: float = Field(default=0.45, ge=0, le=2, description="of the log of seconds between people")

    light_share: float = Field(default=0.03, ge=0, le=1, description="people who hardly call: silent in some weeks")
    light_activity: float = Field(default=0.06, gt=0, le=1, description="their activity, beside 1")
    leaver_share: float = Field(default=0.18, ge=0, le=1, description="of newcomers: gone before the last week")
    university_share: float = Field(default=0.12, ge=0, le=1, description="of newcomers: live at the university town")
    university: tuple[float, float] = Field(default=(31.05, 121.21), description="latitude, longitude")
    dual_sim: float = Field(default=0.07, ge=0, le=0.5, description="people with a second number")
    switch_share: float = Field(default=0.02, ge=0, le=0.2, description="people who change operator and number")

    couriers: float = Field(default=0.0005, ge=0, le=0.1, description="per person of the city")
    hotlines: float = Field(default=0.0002, ge=0, le=0.1, description="per person of the city; 11 digits")
    service_calls: float = Field(default=0.3, ge=0, description="calls a week and person to short numbers")
    holiday: tuple[int, ...] = Field(default=(12, 13, 14), description="days of the study: 15 to 17 September")
    makeup: tuple[int, ...] = Field(default=(15,), description="Sundays that are workdays")
    holiday_dip: float = Field(default=0.15, ge=0, lt=1, description="calls that holidays take away")

    cells: int = Field(default=2500, ge=10, le=1_000_000)
    estates: int = Field(default=18_000, ge=0, description="at scale 1; at least 60 are drawn unless 0")
    central_price: float = Field(default=75_000.0, gt=0, description="yuan per square metre in the centre")
    price_km: float = Field(default=18.0, gt=0, description="distance over which prices fall by a factor e")

    landline_share: float = Field(default=0.04, ge=0, lt=1, description="of numbers nobody knows: begin with 021")
    unanswered_share: float = Field(default=0.01, ge=0, lt=1, description="of calls: end when they start")
    duplicate_share: float = Field(default=0.001, ge=0, lt=1, description="of calls: recorded twice alike")
    no_cell_share: float = Field(default=0.002, ge=0, lt=1, description="of calls: cells not recorded")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.operators or abs(sum(self.operators.values()) - 1) > 1e-9 or min(self.operators.values()) <= 0:
            raise ValueError("the shares of operators must be above 0 and add up to 1")
        for name in self.operators:
            if not name.replace("-", "").replace("_", "").isalnum() or name == "truth":
                raise ValueError(f"operator '{name}' cannot be the name of a folder; use letters, digits, - and _")
        if self.attribute_coverage > self.resident_coverage:
            raise ValueError(
                "attribute_coverage must not be above resident_coverage: residents are part of all numbers"
            )
        if bad := [day for day in (*self.holiday, *self.makeup) if not 0 <= day < self.calendar.days]:
            raise ValueError(
                f"day {bad[0]} of holiday or makeup is not in the study; days are 0..{self.calendar.days - 1}"
            )
        return self

    @property
    def blocks(self) -> int:
        """Parts of the city that are drawn one after the other, and whose people call each other."""
        focal = self.scale * (STUDY_LOCALS + STUDY_SETTLED)
        return max(1, round(focal / self.block_people))


TINY = CallWorldConfig(
    scale=0.0007,
    newcomers=4.0,
    attribute_coverage=0.25,
    resident_coverage=0.7,
    cells=400,
    block_people=2000,
    background_calls=2.0,
)  # fmt: skip
"""About 2,000 people with a group, three operators; for tests."""
