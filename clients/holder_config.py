"""A holder's own settings in one file, ``holder.toml``: policy, raw queries, public grid and mechanism, rules::

    [privacy]                        # what the holder allows: `clients.policy.HolderPolicy`
    [job_queries]                    # where the raw queries lie: `dhgsil.queries.source.QuerySource`
    [release]                        # what is released of them: `ReleaseSection`
    [rules]                          # what counts as a job query: `dhgsil.queries.rules.QueryRules`

Paths are relative to the file. City list, held cities, calendar and keywords are public: they may not be chosen by
looking at the holder's rows, or the choice itself would tell of somebody.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from clients.policy import HolderPolicy
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.steps import Step
from privacy.plan import CountReleasePlan
from protocol.errors import PlanError
from protocol.plan import FrozenConfig, digest_of, parse_config, read_toml

_YEAR = re.compile(r"[0-9]{4}")


class ReleaseSection(FrozenConfig):
    """``[release]``: the public grid, and the mechanism that every period of it goes through.

    Unit: a person, one account at this holder. Adjacency: add or remove one. A person counts in at most `contributions`
    cells over any `window_days` days and over any period of the ledger, so that all periods of one ledger together
    are one release with L2 sensitivity sqrt(contributions).
    """

    cities: Path = Field(description="public list of cities, CSV or Parquet")
    held: tuple[str, ...] = Field(min_length=1, description="codes of the cities whose queries this holder has")
    keywords: Path | None = Field(default=None, description="job and stop terms, TOML; default: the built-in ones")
    start: dt.date = Field(description="first day of the grid")
    end: dt.date = Field(description="last day of the grid, included")
    step: Step = "day"
    zone: str = Field(default="Asia/Shanghai", description="where a day begins and ends")
    epsilon: float = Field(gt=0, lt=1000, description="for one person over all that one ledger period releases")
    delta: float = Field(gt=0, lt=1)
    contributions: int = Field(ge=1, le=10_000, description="k, cells of one person over any window")
    window_days: int = Field(default=365, ge=1, le=3660, description="length of the rolling window")
    contributions_per_period: int | None = Field(default=None, ge=1, description="cells of one person in one step")
    margins: bool = Field(default=True, description="in- and outflows as queries of their own")
    margin_share: float = Field(default=0.5, gt=0, lt=1, description="part of the budget that the margins get")
    hide_small_cells: bool = Field(default=False, description="published table only, after the noise; see [rules]")
    store: Path = Field(description="the holder's private folder: secret, book, ledgers, releases")

    @field_validator("held")
    @classmethod
    def _each_city_once(cls, held: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(held)) != len(held):
            raise ValueError("a city is there twice; name each once")
        return held

    @model_validator(mode="after")
    def _one_step_is_within_the_whole(self) -> Self:
        if (self.contributions_per_period or 0) > self.contributions:
            raise ValueError(
                f"contributions_per_period = {self.contributions_per_period} is above contributions = "
                f"{self.contributions}, which bounds all periods together; lower it or leave it out"
            )
        self.calendar()
        return self

    def calendar(self) -> QueryCalendar:
        """The whole public grid of days.

        Raises:
            ValueError: see `QueryCalendar`.
        """
        try:
            return QueryCalendar(self.start, self.end, self.step, self.zone)
        except PlanError as error:
            raise ValueError(str(error)) from None

    @property
    def contributions_per_step(self) -> int:
        """Cells of one person in one step, at most."""
        return self.contributions_per_period or self.contributions

    def mechanism(self) -> CountReleasePlan:
        """What one ledger period is charged for: the least noise that keeps (epsilon, delta) with these bounds."""
        share = self.margin_share if self.margins else None
        return _calibrated(self.contributions, epsilon=self.epsilon, delta=self.delta, margin_share=share)


class HolderConfig(FrozenConfig):
    """The whole file. Nothing in it has a say over the ledger but ``[privacy]``."""

    privacy: HolderPolicy
    job_queries: QuerySource
    release: ReleaseSection
    rules: QueryRules = QueryRules()

    @model_validator(mode="after")
    def _a_query_counts_whole(self) -> Self:
        if self.rules.several_cities == "weights":
            raise ValueError(
                'rules.several_cities = "weights" makes parts of counts, which the noise for whole counts does not '
                'hide; set several_cities = "choose"'
            )
        return self

    @field_validator("privacy")
    @classmethod
    def _period_names_a_folder(cls, policy: HolderPolicy) -> HolderPolicy:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", policy.period):
            raise ValueError(
                "privacy.period also names the folder of its ledger: up to 64 letters, digits, '.', '_' and '-', such "
                'as "2026"; rename it'
            )
        return policy


@dataclass(frozen=True)
class HolderSettings:
    """A `HolderConfig` and the folder that its paths are relative to."""

    config: HolderConfig
    base: Path

    @property
    def store(self) -> Path:
        """The holder's private folder."""
        return self.base / self.config.release.store

    @property
    def calendar(self) -> QueryCalendar:
        """The whole public grid."""
        return self.config.release.calendar()

    @property
    def ledger_steps(self) -> range:
        """Positions in the grid of the steps that the ledger period pays for: round number = position in here + 1.

        A period named by four digits is that calendar year: steps whose first day lies in it. Any other name stands
        for the whole grid.

        Raises:
            PlanError: no step of the grid lies in that year.
        """
        times, period = self.calendar.times, self.config.privacy.period
        if not _YEAR.fullmatch(period):
            return range(len(times))
        own = np.flatnonzero(times.astype("datetime64[Y]") == np.datetime64(period, "Y"))
        if not len(own):
            raise PlanError(
                f"[privacy] period is the year {period}, and the grid of [release] goes from {times[0]} to "
                f"{self.config.release.end}; change one of them"
            )
        return range(int(own[0]), int(own[-1]) + 1)

    def first_day_after(self, step: int) -> np.datetime64:
        """The day after the last day of a step of the grid."""
        times = self.calendar.times
        return times[step + 1] if step + 1 < len(times) else np.datetime64(self.config.release.end, "D") + 1

    def request(self, mechanism: CountReleasePlan, *, public: dict[str, str], buckets: int) -> str:
        """Digest of what a ledger period is reserved for: all that decides which person may change which number.

        Args:
            mechanism: The noise.
            public: Digests of the public inputs, by name.
            buckets: Into how many buckets persons are hashed; the book of contributions keeps them.
        """
        release = self.config.release
        times, own = self.calendar.times, self.ledger_steps
        return digest_of({
            "mechanism": mechanism.digest(),
            "first": str(times[own[0]]), "rounds": len(own), "step": release.step, "zone": release.zone,
            "held": list(release.held), "window_days": release.window_days,
            "contributions_per_period": release.contributions_per_period,
            "rules": self.config.rules.model_dump(mode="json", exclude={"small_cell_threshold"}),
            "public": {name: public[name] for name in sorted(public)}, "buckets": buckets,
        })  # fmt: skip


@cache
def _calibrated(contributions: int, *, epsilon: float, delta: float, margin_share: float | None) -> CountReleasePlan:
    """The plan for these numbers; kept, since calibrating takes a second. None: no margins."""
    if margin_share is None:
        plan = CountReleasePlan(contributions=contributions, cells_stddev=1.0)
        return plan.calibrate(epsilon=epsilon, delta=delta)
    plan = CountReleasePlan(contributions=contributions, cells_stddev=1.0, margins_stddev=1.0)
    return plan.calibrate(epsilon=epsilon, delta=delta, margin_share=margin_share)


def load_holder(path: Path) -> HolderSettings:
    """Read and check a ``holder.toml``.

    Raises:
        PlanError: no such file, not TOML, a missing section, an unknown key (the nearest valid one is named), or a
            value that breaks a rule.
    """
    values = read_toml(path, what="holder's settings")
    if "calls" in values:
        raise PlanError(f"{path.name} has call records ([calls]), and counts are released of [job_queries] only")
    config = parse_config(HolderConfig, values, where=path.name)
    return HolderSettings(config, path.parent)
