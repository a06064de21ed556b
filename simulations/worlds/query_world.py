"""What a synthetic world of job queries is made of: its configuration, its cities, its calendar and its planted truth.

Nothing here draws a query: a world is ready in about a second. See `job_queries` for the queries.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from dhgsil.queries.cities import CityList
from dhgsil.queries.rules import QueryCalendar
from dhgsil.regions import Regions
from dhgsil.steps import Step
from protocol.errors import PlanError
from protocol.plan import FrozenConfig
from simulations.worlds.od_counts import Truth, WorldConfig, make_truth
from simulations.worlds.people import PeopleRules
from simulations.worlds.place_names import Places, name_places

WEEKDAYS = np.array([1.10, 1.10, 1.07, 1.05, 1.00, 0.86, 0.82])  # Monday first; mean 1


class JobQueryWorld(FrozenConfig):
    """What to build. Shares are of all rows, unless they say otherwise; 0 plants none.

    A *search* is one wish of a person at one time. It becomes one row and, on average, `repeats` more.
    """

    num_cities: int = Field(default=358, ge=2, le=1000)
    step: Step = "day"
    start: dt.date = dt.date(2019, 1, 1)
    num_steps: int = Field(default=365, ge=1)
    queries: int = Field(default=1_000_000, ge=1, description="expected rows of all cities together, noise included")

    queries_per_person: float = Field(default=12.0, gt=0, description="mean over the whole period")
    activity_sd: float = Field(default=1.2, ge=0, le=3, description="of log activity: 1.2 gives the top 1 % a fifth")
    searching_share: float = Field(default=0.5, gt=0, le=1, description="people in a spell of searching at a time")
    mover_share: float = Field(default=0.5, gt=0, le=1, description="people who look beyond their city")
    persistence: float = Field(default=0.8, ge=0, le=1, description="chance that an intention outlives a quarter")
    repeats: float = Field(default=0.4, ge=0, le=10, description="further rows of a search, on average (geometric)")

    home_share: float = Field(default=0.6, gt=0, lt=1, description="share of searches that stay in their city")
    dispersion: float = Field(default=5.0, gt=0, description="r of the negative binomial of a pair and step")
    hub_share: float = Field(default=0.03, ge=0, le=1)
    hub_attraction: float = 2.0
    tier_gradient: float = Field(default=1.0, ge=0, description="pull of the second tier on lower ones; 1 as published")
    festival_strength: float = Field(default=1.0, ge=0, description="0 removes the season")
    festival_shift_days: int = 0
    shocks: int = Field(default=2, ge=0)
    shock_steps: int = Field(default=6, ge=1)
    shock_size: float = Field(default=0.7, ge=0)

    english_share: float = Field(default=0.1, ge=0, le=1, description="of people")
    home_named_share: float = Field(default=0.4, ge=0, le=1, description="of searches at home: they name their city")
    suffix_share: float = Field(default=0.25, ge=0, lt=1, description="of rows: something after the wording")

    other_share: float = Field(default=0.2, ge=0, lt=1, description="rows about no job")
    employer_share: float = Field(default=0.03, ge=0, lt=1, description="rows with a stop term")
    bot_share: float = Field(default=0.02, ge=0, lt=1, description="rows of automata, 230 or more a day each")

    several_share: float = Field(default=0.03, ge=0, le=1, description="of rows that name a city: name two")
    province_share: float = Field(default=0.02, ge=0, le=1, description="of rows that name a city: a province instead")
    ambiguous_share: float = Field(default=0.01, ge=0, le=1, description="of rows that name a city: a shared name")
    misspelt_share: float = Field(default=0.01, ge=0, le=1, description="of rows that name a city")
    unreadable_share: float = Field(default=0.003, ge=0, le=1, description="of job rows")
    too_long_share: float = Field(default=0.002, ge=0, le=1, description="of job rows")
    empty_share: float = Field(default=0.002, ge=0, le=1, description="of job rows")

    ipv6_share: float = Field(default=0.1, ge=0, le=1)
    foreign_share: float = Field(default=0.01, ge=0, le=1)
    private_share: float = Field(default=0.01, ge=0, le=1)
    unknown_share: float = Field(default=0.005, ge=0, le=1, description="addresses in no block")
    malformed_share: float = Field(default=0.001, ge=0, le=1)
    no_address_share: float = Field(default=0.003, ge=0, le=1)
    traveller_share: float = Field(default=0.03, ge=0, le=1, description="of people and steps: address of another city")
    no_user_share: float = Field(default=0.01, ge=0, le=1)
    outside_share: float = Field(default=0.0005, ge=0, le=1, description="rows dated before the period")

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        sums = {
            "other_share + employer_share + bot_share": self.other_share + self.employer_share + self.bot_share,
            "the shares of texts": self.text_losses + self.several_share,
            "the shares of addresses": self.ipv6_share + self.address_losses,
        }
        if crowded := [name for name, total in sums.items() if total >= 1]:
            raise ValueError(f"{crowded[0]} must be below 1 together; lower one of them")
        if self.step == "month" and self.start.day != 1:
            raise ValueError(f"monthly steps begin on the 1st, start = {self.start} does not")
        return self

    @property
    def text_losses(self) -> float:
        """Shares of texts whose city is lost."""
        placed = self.province_share + self.ambiguous_share + self.misspelt_share
        return placed + self.unreadable_share + self.too_long_share + self.empty_share

    @property
    def address_losses(self) -> float:
        """Shares of addresses without a city."""
        known = self.foreign_share + self.private_share + self.unknown_share
        return known + self.malformed_share + self.no_address_share

    @property
    def job_share(self) -> float:
        """Share of the rows that come from a search of a person."""
        return 1.0 - self.other_share - self.employer_share - self.bot_share

    @property
    def persons(self) -> int:
        """People of all cities, at least one in each."""
        return max(self.num_cities, round(self.queries / self.queries_per_person))

    @property
    def searches(self) -> float:
        """Expected searches of the whole period."""
        return self.queries * self.job_share / (1.0 + self.repeats)

    @property
    def people_rules(self) -> PeopleRules:
        """The part that `people` needs."""
        return PeopleRules(
            activity_sd=self.activity_sd,
            mover_share=self.mover_share,
            searching_share=self.searching_share,
            persistence=self.persistence,
        )

    def counts_config(self) -> WorldConfig:
        """The world of counts whose rates are the expected searches."""
        return WorldConfig(
            num_regions=self.num_cities,
            num_steps=self.num_steps,
            step=self.step,
            start=self.start,
            cross_city_queries=self.searches * (1 - self.home_share) / self.num_steps,
            home_share=self.home_share,
            dispersion=self.dispersion,
            hub_share=self.hub_share,
            hub_attraction=self.hub_attraction,
            tier_gradient=self.tier_gradient,
            festival_strength=self.festival_strength,
            festival_shift_days=self.festival_shift_days,
            shocks=self.shocks,
            shock_steps=self.shock_steps,
            shock_size=self.shock_size,
        )


@dataclass(frozen=True, eq=False)
class QueryWorld:
    """A world without its queries: ``truth.rate(t)`` are the expected searches of step t, (N, N)."""

    config: JobQueryWorld
    seed: int
    cities: CityList
    calendar: QueryCalendar
    truth: Truth
    places: Places

    @property
    def regions(self) -> Regions:
        """Codes, names and coordinates of the cities."""
        return self.cities.regions

    def mean_rates(self) -> np.ndarray:
        """Expected searches of a mean step. Shapes: -> (N, N)"""
        steps = self.config.num_steps
        return sum((self.truth.rate(step) for step in range(steps)), np.zeros((len(self.cities),) * 2)) / steps


def make_query_world(config: JobQueryWorld, seed: int) -> QueryWorld:
    """Cities, calendar and truth of a world; the same seed gives the same cities for any number of steps and rows.

    Raises:
        PlanError: a seed below 0.
    """
    if seed < 0:
        raise PlanError(f"seed must be 0 or more, got {seed}")
    places_rng = np.random.default_rng([seed, 77])
    regions, times, truth = make_truth(config.counts_config(), seed)
    truth = _with_weekdays(config, truth, times)
    places = name_places(truth.provinces, places_rng)
    end = _after_last(config, times) - np.timedelta64(1, "D")
    calendar = QueryCalendar(start=config.start, end=end.astype(dt.date), step=config.step)
    return QueryWorld(config, seed, _city_list(regions, places, truth, places_rng), calendar, truth, places)


def _after_last(config: JobQueryWorld, times: np.ndarray) -> np.datetime64:
    if config.step == "month":
        return (times[-1].astype("datetime64[M]") + 1).astype("datetime64[D]")
    return times[-1] + np.timedelta64(7 if config.step == "week" else 1, "D")


def _with_weekdays(config: JobQueryWorld, truth: Truth, times: np.ndarray) -> Truth:
    """Daily rates follow the day of the week too; longer steps do so within."""
    if config.step != "day":
        return truth
    effect = np.log(WEEKDAYS[(times.astype(np.int64) + 3) % 7])  # 1970-01-01 was a Thursday
    return replace(truth, psi=truth.psi + effect, psi_home=truth.psi_home + effect)


def _city_list(regions: Regions, places: Places, truth: Truth, rng: np.random.Generator) -> CityList:
    """The public list; a population roughly follows the city's planted level. Reports show names, so they are Latin."""
    level = truth.outflow + 0.5 * (truth.attraction - truth.outflow) + 0.2 * rng.standard_normal(len(regions))
    return CityList(
        regions=Regions(regions.codes, places.latin, regions.lat, regions.lon),
        aliases=tuple((stem + "市", stem) for stem in places.stems),
        districts=places.districts,
        provinces=places.provinces,
        population=np.round(3e6 * np.exp(level - level.mean())),
    )


def check_holders(world: QueryWorld, holders: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse holders without a city, of an unknown code, or whose name cannot be a folder.

    Raises:
        PlanError: see above; names the holder and the code.
    """
    if not holders:
        raise PlanError("no holder is named; give at least one with the codes of its cities")
    for name, codes in holders.items():
        if not name or Path(name).name != name or name in {"truth", "."}:
            raise PlanError(f"holder '{name}' cannot be the name of a folder; use letters, digits, - and _")
        if not codes:
            raise PlanError(f"holder '{name}' has no city; give it the codes of its cities")
        if unknown := [code for code in codes if code not in world.cities.index]:
            raise PlanError(f"holder '{name}' has city '{unknown[0]}', which the world of {len(world.cities)} lacks")
