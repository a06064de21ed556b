"""What a synthetic city of calls is made of: how many people, how they behave on arrival, later, and if born there.

Every number here is invented by this project. They are chosen so that what is known of the study (see
`docs/results/synthetic_city.md`) holds on the calls that come out; none is a measurement of anybody.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from integration.rules import City
from integration.weeks import DAYS_PER_WEEK, CallCalendar
from protocol.plan import FrozenConfig

STUDY_LOCALS, STUDY_SETTLED, STUDY_NEW = 1_700_000, 1_000_000, 22_000
"""Sizes of the groups of the study, at scale 1."""


class Course(FrozenConfig):
    """How a habit stands in each group, and how it moves.

        newcomer(days) = arrival + weekly / 7 · min(days since arrival, 21)
        settled(day)   = settled + settled_weekly / 7 · day of the study

    Whoever was born in the city keeps `local`.
    """

    local: float
    settled: float
    settled_weekly: float = 0.0
    arrival: float
    weekly: float = 0.0


class Habits(FrozenConfig):
    """Behaviour by group and time. Habits of ties hold when a tie begins, the others when a call is made.

    Args:
        ties: Contacts at a time, beside `CallWorldConfig.ties`.
        to_locals, to_townsmen: Of the ties with people of the city; the rest is with other migrants.
        to_businesses, to_fringe: Of all ties: with numbers of businesses, with numbers of which nothing is known.
        circle: Of the ties with people of the city: within one's circle, whose members know each other.
        closing: Of the ties with people of the city: with a contact of a contact.
        zipf: Exponent of the strengths of somebody's ties.
        calls: Calls on a tie, beside `CallWorldConfig.weekly_calls` / `ties`.
        log_seconds: Log of a call's typical seconds; both parties count half.
        outgoing: Log odds of being the one who calls, against the other's.
        one_way: Of the ties: one side alone calls.
        roaming: Parts of days away from home and work.
        centre_km: Mean distance of home from the centre.
        radius: Of work and other places around home, beside 1.
    """

    ties: Course = Course(local=1.25, settled=1.1, arrival=0.85)
    to_locals: Course = Course(local=0.685, settled=0.33, settled_weekly=0.09, arrival=0.36, weekly=0.12)
    to_townsmen: Course = Course(local=0.0, settled=0.15, settled_weekly=-0.01, arrival=0.36, weekly=-0.06)
    to_businesses: Course = Course(local=0.1, settled=0.2, settled_weekly=-0.055, arrival=0.28, weekly=-0.12)
    to_fringe: Course = Course(local=0.18, settled=0.18, arrival=0.18)
    circle: Course = Course(local=0.48, settled=0.42, arrival=0.46, weekly=-0.01)
    closing: Course = Course(local=0.12, settled=0.1, arrival=0.3, weekly=-0.1)
    zipf: Course = Course(local=1.1, settled=0.75, arrival=1.3, weekly=-0.25)
    calls: Course = Course(local=1.0, settled=1.0, arrival=1.8, weekly=-0.5)
    log_seconds: Course = Course(local=3.82, settled=4.19, settled_weekly=-0.03, arrival=4.7, weekly=-0.19)
    outgoing: Course = Course(local=0.03, settled=0.42, settled_weekly=-0.05, arrival=0.85, weekly=-0.16)
    one_way: Course = Course(local=0.17, settled=0.33, settled_weekly=-0.01, arrival=0.75, weekly=-0.09)
    roaming: Course = Course(local=0.20, settled=0.23, arrival=0.13, weekly=0.025)
    centre_km: Course = Course(local=22.5, settled=14.8, arrival=12.0)
    radius: Course = Course(local=0.82, settled=0.96, arrival=0.66)


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
    resident_coverage: float = Field(default=0.75, gt=0, le=1, description="the same share among people of the city")
    no_birthplace: float = Field(default=0.05, ge=0, lt=1, description="of those with attributes: sex and age alone")

    weekly_calls: float = Field(default=36.0, gt=0, description="of a person of habits 1, in either role")
    ties: float = Field(default=28.0, gt=0, description="contacts such a person has at one time")
    activity_shape: float = Field(default=2.2, gt=0, description="of the gamma of activity between people")
    tie_days: float = Field(default=45.0, gt=0, description="mean life of a tie")
    mixing_sd: float = Field(default=0.05, ge=0, le=1, description="of to_locals between people")
    brought: float = Field(default=1.4, ge=0, description="ties a newcomer brings, beside those it will have")
    brought_local: float = Field(
        default=0.0, ge=0, le=1, description="of the ties that are brought, instead of to_locals"
    )
    brought_circle: float = Field(
        default=0.92, ge=0, le=1, description="of the ties that are brought, instead of circle"
    )
    brought_days: float = Field(default=15.0, gt=0, description="mean life of a tie that was brought")
    found_days: float = Field(
        default=15.0, gt=0, description="days in which a newcomer finds as many ties as others have"
    )
    circle_size: int = Field(default=8, ge=3, le=100, description="people who know each other")
    arrivals: tuple[float, ...] = Field(
        default=(0.34, 0.22, 0.14, 0.1, 0.08, 0.07, 0.05), description="of a week's newcomers, by its days"
    )
    background_calls: float = Field(default=15.0, ge=0, description="calls of a number nobody knows, with its like")
    call_sd: float = Field(default=1.0, ge=0, le=2, description="of the log of a call's seconds within a person")
    person_sd: float = Field(default=0.4, ge=0, le=2, description="of the log of seconds between people")

    light_share: float = Field(default=0.03, ge=0, le=1, description="people who hardly call: silent in some weeks")
    light_activity: float = Field(default=0.06, gt=0, le=1, description="their activity, beside 1")
    leaver_share: float = Field(default=0.18, ge=0, le=1, description="of newcomers: gone before the last week")
    university_share: float = Field(default=0.12, ge=0, le=1, description="of newcomers: live at the university town")
    university: tuple[float, float] = Field(default=(31.05, 121.21), description="latitude, longitude")
    dual_sim: float = Field(default=0.07, ge=0, le=0.5, description="people with a second number; no newcomers")
    switch_share: float = Field(default=0.02, ge=0, le=0.2, description="people who change operator and number")

    couriers: float = Field(default=0.0005, ge=0, le=0.1, description="per person of the city")
    hotlines: float = Field(default=0.0002, ge=0, le=0.1, description="per person of the city; 11 digits")
    service_calls: float = Field(default=0.3, ge=0, description="calls a week and person to short numbers")
    holiday: tuple[int, ...] = Field(default=(12, 13, 14), description="days of the study: 15 to 17 September")
    makeup: tuple[int, ...] = Field(default=(15,), description="Sundays that are workdays")
    holiday_dip: float = Field(default=0.1, ge=0, lt=1, description="calls that holidays take away")

    cells: int = Field(default=2500, ge=10, le=1_000_000)
    estates: int = Field(default=18_000, ge=0, description="at scale 1; at least 180 are drawn unless 0")
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
        if len(self.arrivals) != DAYS_PER_WEEK or min(self.arrivals) < 0 or abs(sum(self.arrivals) - 1) > 1e-9:
            raise ValueError("arrivals must be seven shares that add up to 1")
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
