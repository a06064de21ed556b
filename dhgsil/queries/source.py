"""What a holder's table of raw queries looks like: which column is what; ``[source]`` of the holder's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from protocol.plan import FrozenConfig
from tables.contracts import Column, Kind
from tables.times import known_zone

KINDS: dict[str, tuple[Kind, ...]] = {
    "time": ("timestamp", "date", "text"),
    "user": ("text", "integer", "bytes"),
    "origin": ("text", "integer", "bytes"),
    "ip": ("text", "bytes"),
    "text": ("text", "bytes"),
    "destination": ("text", "integer", "bytes"),
}
"""Kinds of values by role. Bytes are texts of engines that do not say so."""


class QuerySource(FrozenConfig):
    """Where the raw queries lie and the names of their columns.

    The origin of a query is either a city code (`origin`) or found from an address (`ip`); its destination is a city
    code (`destination`) or found in its words (`text`). With both, the code counts where there is one and the words
    decide where it is missing; the words then also say whether it is about a job at all. Without `text` every row is
    taken to be about a job.
    """

    queries: str = Field(min_length=1, description="Parquet or CSV file, folder, glob, or table:NAME")
    time: str = Field(default="time", min_length=1)
    user: str = Field(default="user", min_length=1)
    origin: str | None = Field(default=None, min_length=1, description="column of city codes")
    ip: str | None = Field(default=None, min_length=1, description="column of IPv4 or IPv6 addresses")
    text: str | None = Field(default=None, min_length=1, description="column of query texts")
    destination: str | None = Field(default=None, min_length=1, description="column of city codes")
    naive_times: str | None = Field(
        default=None, description="zone of times that name none; without it they are dropped"
    )
    ip_database: Path | None = Field(default=None, description="MaxMind-format database of addresses")
    ip_cities: Path | None = Field(default=None, description="CSV geoname_id,code for a database without our codes")
    country: str | None = Field(
        default=None, pattern=r"^[A-Z]{2}$", description="country of the cities (ISO 3166-1); other records are foreign"
    )

    @field_validator("naive_times")
    @classmethod
    def _zone_is_known(cls, zone: str | None) -> str | None:
        return zone if zone is None else known_zone(zone, offsets=True)

    @model_validator(mode="after")
    def _says_where_from_and_where_to(self) -> Self:
        if (self.origin is None) == (self.ip is None):
            raise ValueError("name exactly one of origin (a column of city codes) and ip (a column of addresses)")
        if self.text is None and self.destination is None:
            raise ValueError("name text (a column of query texts), destination (a column of city codes), or both")
        if self.ip is not None and self.ip_database is None:
            raise ValueError("ip needs ip_database, a MaxMind-format database that maps addresses to cities")
        if self.ip is None and (self.ip_database, self.ip_cities, self.country) != (None, None, None):
            raise ValueError("ip_database, ip_cities and country mean nothing without ip; remove them or name ip")
        columns = self.columns()
        if len(set(columns)) != len(columns):
            raise ValueError(f"one column is named twice ({', '.join(columns)}); each role needs a column of its own")
        return self

    def contract(self) -> tuple[Column, ...]:
        """What the table must have: the columns that are read, and the kinds they may be."""
        return tuple(
            Column(role=role, name=name, kinds=kinds) for role, kinds in KINDS.items() if (name := getattr(self, role))
        )

    def columns(self) -> list[str]:
        """Names of the columns that are read, and no others: time, user, then origin or ip, text, destination."""
        return [column.name for column in self.contract()]
