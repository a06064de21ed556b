"""`[data]` of a plan for migrant integration: whose calls, which city and weeks, what operators tell each other."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from integration.catalogue import FAMILIES, Family
from integration.rules import CallRules, City
from integration.weeks import CallCalendar
from protocol.plan import FrozenConfig

MADE_UP = "synthetic_calls"
PushLevel = Literal["none", "L0", "L1", "L2"]
"""What an operator tells another about the contacts of its subscribers: nothing, everything (made-up data only), counts
of at least so many contacts, or counts with noise."""


class AnalysisSection(FrozenConfig):
    """``[data.analysis]``: how often things are drawn again, and how small a cell may be."""

    seeds: int = Field(default=10, ge=1, le=100, description="random halves of week 2 that classifiers are fitted on")
    draws: int = Field(default=1000, ge=100, le=100_000, description="bootstrap draws of persons")
    cell_km: float = Field(default=3.0, gt=0, description="side of a cell of the maps")
    smallest_cell: int = Field(default=50, ge=1, description="persons that a figure of a group must be made of")
    churn: bool = True


class StudySection(FrozenConfig):
    """``[data]``: calls of one city, cut by operators.

    ``synthetic_calls``: a made-up city, described by ``[data.world]``. ``calls``: a folder with one ``holder.toml`` for
    each operator, in folders named like the holders. ``rows``: features that were computed before.
    """

    source: Literal["synthetic_calls", "calls", "rows"]
    world: dict[str, JsonValue] | None = None
    calendar: CallCalendar = CallCalendar()
    city: City = City()
    rules: CallRules = CallRules()
    families: tuple[Family, ...] = Field(default=FAMILIES, min_length=1, description="features that models may take")
    pushes: PushLevel = "L1"
    push_threshold: int = Field(default=5, ge=2, description="fewest known contacts that are pushed (L1)")
    push_epsilon: float = Field(default=2.0, gt=0, description="for one contact of one person (L2)")
    push_delta: float = Field(default=1e-6, gt=0, lt=1)
    matching: bool = Field(default=False, description="find switchers and second numbers by set intersection")
    training_rows: int | None = Field(
        default=None, ge=1, description="public number of rows that an operator trains on, for private training"
    )
    analysis: AnalysisSection = AnalysisSection()

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        if self.world is not None and self.source != MADE_UP:
            raise ValueError(f'[data.world] describes a made-up city, but source = "{self.source}"; remove one')
        if self.pushes == "L0" and self.source == "calls":
            raise ValueError(
                'pushes = "L0" tells others the birthplace of single persons; it is there to compare with on made-up '
                'data. Set pushes to "none", "L1" or "L2"'
            )
        if self.calendar.weeks < 3:
            raise ValueError("weeks must be at least 3: one to see who is new, one to learn from, one to test on")
        return self

    @property
    def made_up(self) -> bool:
        """Whether the calls are nobody's."""
        return self.source == MADE_UP
