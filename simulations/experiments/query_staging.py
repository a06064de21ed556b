"""A synthetic log of job queries, read once and kept staged, for experiments that count it in many ways.

The log is written for `HOLDERS` holders that split the cities, and staged for each of them and, from the same rows, for
one holder of all cities. Raw rows are removed when they are staged; truth, public lists and balances stay.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.query_counts import Bounds, QueryCounts, count_queries
from dhgsil.queries.ingest import ingest
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged
from protocol.plan import parse_config, read_toml
from simulations.worlds.job_queries import JobQueryWorld, QueryWorld, make_query_world, split_cities, write_queries
from simulations.worlds.query_truth import WrittenTruth, read_truth
from tables.balance import Balance, StepCount
from tables.engine import Engine, Limits
from tables.keyed_hash import KeyedHash
from tables.sources import open_source

HOLDERS = 4
POOLED = "all"
RULES = QueryRules()
_ROWS_IN_A_BUCKET = 500_000


@dataclass(frozen=True)
class Setting:
    """Which world: expected rows, cities, days, length of a step, seed. Days that fill no whole step are left out."""

    queries: int
    cities: int
    days: int
    step: str
    seed: int

    @property
    def name(self) -> str:
        """A name for a folder."""
        return f"{self.queries}-queries-{self.cities}-cities-{self.days}-days-by-{self.step}-seed-{self.seed}"

    def config(self, **changes: float) -> JobQueryWorld:
        """The world's configuration: its defaults, but for size, length and `changes`."""
        steps = self.days // 7 if self.step == "week" else self.days
        values = {"num_cities": self.cities, "step": self.step, "num_steps": steps, "queries": self.queries}
        return JobQueryWorld.model_validate(values | changes)


@dataclass(frozen=True)
class StagedWorld:
    """A world whose queries are staged under `folder`."""

    setting: Setting
    world: QueryWorld
    folder: Path
    holders: dict[str, tuple[str, ...]]

    @property
    def truth(self) -> WrittenTruth:
        """What was planted."""
        return read_truth(self.folder)

    @property
    def scopes(self) -> dict[str, tuple[str, ...]]:
        """Codes of the cities of each holder, and of one holder of all."""
        return {POOLED: self.world.cities.codes, **self.holders}

    def staged(self, scope: str) -> Staged:
        """The staged queries of a scope."""
        about = json.loads((self.folder / f"{scope}.json").read_text(encoding="utf-8"))
        names = ("name", "rows_in", "dropped", "merged", "split_off")
        steps = [StepCount(**{name: step[name] for name in names}) for step in about["balance"]["steps"]]
        return Staged(
            folder=self.folder / f"{scope}.staged",
            buckets=about["buckets"],
            rows=about["rows"],
            balance=Balance(about["balance"]["rows_in"], steps),
            bytes=about["bytes"],
        )

    def columns(self, scope: str) -> list[int]:
        """The destination that each origin of a scope is."""
        return [int(place) for place in self.world.regions.positions(self.scopes[scope])]

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine for the staged files."""
        with Engine.duckdb(Limits(threads=1), self.folder) as engine:
            yield engine

    def counted(self, scope: str, k: int) -> QueryCounts:
        """Counts of a scope by the production code, bounded and plain."""
        with self.engine() as engine:
            return count_queries(
                self.staged(scope),
                engine,
                calendar=self.world.calendar,
                cities=self.world.cities,
                held=self.scopes[scope],
                rules=RULES,
                bounds=Bounds(k),
                plain=True,
            )


def staged_world(setting: Setting, work: Path, **changes: float) -> StagedWorld:
    """Write, read and stage a world, unless it lies under `work` already; the same setting gives the same counts."""
    world = make_query_world(setting.config(**changes), setting.seed)
    name = "-".join([setting.name, *(f"{key}-{value:g}" for key, value in changes.items())])
    holders = split_cities(world.cities.codes, HOLDERS)
    found = StagedWorld(setting, world, work / name, holders)
    if not found.folder.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as draft:
            log = Path(draft) / "log"
            write_queries(world, log, holders=holders)
            for scope in found.scopes:
                _stage(found, log, scope)
            for holder in holders:
                shutil.rmtree(log / holder / "queries")
            log.rename(found.folder)
    return found


def _stage(staged: StagedWorld, log: Path, scope: str) -> None:
    """Stage the rows of one scope beside the log."""
    rows = open_source(f"{'*' if scope == POOLED else scope}/queries/*.parquet", base=log, engine=None)
    described = next(iter(staged.holders))
    values = read_toml(log / described / "queries.toml", what="description")
    source = parse_config(QuerySource, values | {"ip_database": "addresses.mmdb"}, where=described)
    secret = hashlib.blake2b(f"{staged.setting.seed}, {scope}".encode(), person=b"made-up people").digest()
    result = ingest(
        rows,
        source,
        calendar=staged.world.calendar,
        cities=staged.world.cities,
        held=staged.scopes[scope],
        keywords=builtin_keywords(RULES.languages),
        rules=RULES,
        keys=KeyedHash(secret),
        out=log / f"{scope}.staged",
        buckets=1 + (rows.rows or 0) // _ROWS_IN_A_BUCKET,
        base=log,
    )
    about = {"buckets": result.buckets, "rows": result.rows, "bytes": result.bytes, "balance": result.balance.as_json()}
    (log / f"{scope}.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
