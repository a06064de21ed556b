"""Public rules of a study: the city, which calls count, and which numbers are nobody's friends.

All thresholds are fixed in advance: a quantile of the data would carry the test weeks into training.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from integration.provinces import NUMBER_OF, PROVINCES
from protocol.plan import FrozenConfig

EARTH_KM = 6371.0088
"""Mean radius of the earth."""


class City(FrozenConfig):
    """The city that people move to. Born there means local. The defaults are Shanghai and its People's Square."""

    name: str = Field(default="Shanghai", min_length=1, max_length=64)
    province: str = Field(default="SH", description="birthplace of locals, one of `integration.provinces.PROVINCES`")
    centre: tuple[float, float] = Field(default=(31.2304, 121.4737), description="latitude, longitude")
    south: float = Field(default=30.6, ge=-90, le=90)
    north: float = Field(default=31.95, ge=-90, le=90)
    west: float = Field(default=120.8, ge=-180, le=180)
    east: float = Field(default=122.3, ge=-180, le=180)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.province not in NUMBER_OF:
            raise ValueError(f"'{self.province}' is no province; use one of {', '.join(PROVINCES)}")
        latitude, longitude = self.centre
        if not (self.south < latitude < self.north and self.west < longitude < self.east):
            raise ValueError("the centre must lie inside south..north and west..east; latitude comes first")
        return self

    @property
    def birthplace(self) -> int:
        """The number of the province of locals."""
        return NUMBER_OF[self.province]


class CallRules(FrozenConfig):
    """Which calls and which user-weeks count, and how features are made comparable.

    A user-week is dropped, as a focal person and as a contact, with more contacts than `most_contacts`, more calls than
    `most_calls`, or the pattern of a courier: more than `courier_contacts` contacts, at least `courier_once` of them
    called exactly once, and calls of a median below `courier_seconds`.
    """

    longest_hours: float = Field(default=4.0, gt=0, le=24, description="a call that lasts longer is an error")
    service_digits: int = Field(default=6, ge=0, le=8, description="numbers of so few digits are services")
    hub_filter: bool = Field(default=True, description="whether user-weeks of hubs and couriers are dropped")
    most_contacts: int = Field(default=500, ge=1)
    most_calls: int = Field(default=1000, ge=1)
    courier_contacts: int = Field(default=100, ge=1)
    courier_once: float = Field(default=0.8, gt=0, le=1)
    courier_seconds: float = Field(default=30.0, gt=0)
    rarefied_calls: int = Field(default=10, ge=2, description="calls of a user-week that rarefied features are made of")
    age_years: int = Field(default=5, ge=0, description="largest difference of ages that counts as the same age")
    price_estates: int = Field(default=10, ge=1, description="nearest estates whose prices count at a place")
    price_km: float = Field(default=3.0, gt=0, description="and how far they may lie")
    least_estates: int = Field(default=3, ge=1, description="fewer estates say nothing")
