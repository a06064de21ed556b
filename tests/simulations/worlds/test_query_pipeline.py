"""The holder's own pipeline, from raw rows to counts, finds the planted truth to the last person and row."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from clients.query_counts import QueryCounts, count_job_queries
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.source import QuerySource
from simulations.worlds.job_queries import JobQueryWorld, QueryWorld, make_query_world, write_queries
from simulations.worlds.query_truth import read_truth
from tables.engine import Engine

WORLD = JobQueryWorld(num_cities=16, step="week", num_steps=5, queries=40_000)


def counted(world: QueryWorld, folder: Path, holder: str, held: tuple[str, ...]) -> QueryCounts:
    source = QuerySource(**tomllib.loads((folder / holder / "queries.toml").read_text(encoding="utf-8")))
    (folder / "work").mkdir()
    with Engine.duckdb() as engine:
        return count_job_queries(
            source,
            base=folder / holder,
            calendar=world.calendar,
            cities=world.cities,
            held=held,
            keywords=builtin_keywords(("zh", "en")),
            rules=QueryRules(),
            secret=b"a secret of sixteen bytes or more",
            bounds=None,
            plain=True,
            workdir=folder / "work",
            engine=engine,
            buckets=2,
        )


@pytest.mark.slow
@pytest.mark.parametrize("several_share", [0.0, 0.2])
def test_the_pipeline_finds_the_planted_truth(several_share: float, tmp_path: Path) -> None:
    """Rows dropped by reason agree; so does every cell, but for queries that name two cities, which only add."""
    world = make_query_world(WORLD.model_copy(update={"several_share": several_share}), 1)
    held = world.cities.codes[:10]
    write_queries(world, tmp_path / "log", holders={"west": held})
    counts, truth = counted(world, tmp_path / "log", "west", held), read_truth(tmp_path / "log")
    dropped = {name.split(": ")[1]: rows for name, rows in counts.balance.dropped().items()}
    assert dropped == truth.planted["west"]["dropped"]
    found = truth.dense("west", "found")[:, world.regions.positions(held)]
    if several_share:
        assert (counts.plain_counts >= found).all()
        assert counts.plain_counts.sum() > found.sum()
    else:
        np.testing.assert_array_equal(counts.plain_counts, found)
