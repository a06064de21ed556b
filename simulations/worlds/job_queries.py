"""A synthetic world of raw job queries: who asks what, from where and when, with everything that made it kept.

The expected searches of a step from o to d are the planted rates of `od_counts`: hubs, Spring Festival, shocks, 60 % at
home. Persons with lasting intentions and heavy-tailed activity make them (`people`), in texts of their habit
(`query_texts`), from invented addresses (`address_blocks`); automata, employers, queries about other things and faults
are planted in known shares (`query_world`). Nothing in it is a real person, city or address.

Use::

    world = make_query_world(JobQueryWorld(num_cities=24, step="week", num_steps=100, queries=3_000_000), seed=0)
    write_queries(world, Path("queries"), holders={"north": world.cities.codes[:12], "south": world.cities.codes[12:]})

or ``python -m simulations.worlds.job_queries --help``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from protocol.errors import InputError
from simulations.worlds.query_files import write_queries
from simulations.worlds.query_world import JobQueryWorld, QueryWorld, make_query_world

__all__ = ["JobQueryWorld", "QueryWorld", "make_query_world", "split_cities", "write_queries"]


def split_cities(codes: tuple[str, ...], holders: int, *, overlap: int = 0) -> dict[str, tuple[str, ...]]:
    """Neighbouring cities to `holders` holders in equal parts; the last `overlap` cities of the first part to two."""
    bounds = [round(len(codes) * part / holders) for part in range(holders + 1)]
    parts = {f"holder-{n + 1}": codes[bounds[n] : bounds[n + 1]] for n in range(holders)}
    if overlap and holders > 1:
        first, second = list(parts)[:2]
        parts[second] = parts[first][len(parts[first]) - overlap :] + parts[second]
    return parts


def main(arguments: list[str] | None = None) -> int:
    """Command line: write a world."""
    given = _parser().parse_args(arguments)
    try:
        config = JobQueryWorld(
            num_cities=given.cities, num_steps=given.days, queries=int(given.queries), start=given.start
        )
        world = make_query_world(config, given.seed)
        holders = split_cities(world.cities.codes, given.holders, overlap=given.overlap)
        started = time.process_time()
        rows = write_queries(world, given.out, holders=holders, progress=_shown(config.queries))
        seconds = time.process_time() - started
    except (InputError, ValidationError) as error:
        sys.stderr.write(f"\nerror: {error}\n")
        return 2
    sys.stderr.write(f"\r{rows:,} rows in {given.out}, {rows / max(seconds, 1e-9):,.0f} rows per CPU second\n")
    return 0


def _shown(expected: int):
    def show(rows: int) -> None:
        sys.stderr.write(f"\r{rows:>13,} rows of about {expected:,}")
        sys.stderr.flush()

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.worlds.job_queries",
        description="Write a synthetic log of job queries for some holders, with the truth beside it.",
        epilog=(
            "examples:\n"
            "  python -m simulations.worlds.job_queries --out queries\n"
            "  python -m simulations.worlds.job_queries --out small --queries 50000 --cities 12 --days 28 --holders 2\n"
            "  python -m simulations.worlds.job_queries --out year --queries 129e6 --holders 4 --overlap 10\n"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--queries", type=float, default=1e6, help="expected rows (default 1e6)")
    parser.add_argument("--cities", type=int, default=358)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--start", type=dt.date.fromisoformat, default=dt.date(2019, 1, 1))
    parser.add_argument("--holders", type=int, default=4, help="holders that split the cities (default 4)")
    parser.add_argument("--overlap", type=int, default=0, help="cities that the first two holders both hold")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
