"""A synthetic world of raw job queries: who asks what, from where and when, with everything that made it kept.

The expected searches of a step from o to d are the planted rates of `od_counts`: hubs, tiers, Spring Festival, shocks,
60 % at home. Persons with lasting intentions and heavy-tailed activity make them (`people`), in texts of their
habit (`query_texts`), from invented addresses (`address_blocks`); automata, employers, queries about other things and
faults are planted in known shares (`query_world`). What a perfect pipeline must find is counted on the way
(`query_truth`). Nothing in it is a real person, city or address.

Use::

    world = make_query_world(JobQueryWorld(num_cities=24, step="week", num_steps=100, queries=3_000_000), seed=0)
    write_queries(world, Path("queries"), holders={"north": world.cities.codes[:12], "south": world.cities.codes[12:]})

or ``python -m simulations.worlds.job_queries --help``.

Known ways in which this world is not the real one, beside those of `od_counts`:

* Wordings are a few dozen, occupations a few tens: real queries have far more of both, and drift over the years. All
  job terms and names used are known to the pipeline, so what it misses here is what was planted to be missed. Recall
  and precision of the keyword lists and of the gazetteer on real texts cannot be learnt from it.
* Faults, noise and losses are independent of person, place, time and destination. In reality travellers, VPNs, carrier
  addresses far from the person and unknown blocks differ from region to region, and so bias flows, not only thin them.
* A searcher is drawn anew for every search, in proportion to activity: no person has a story (search, move, stop), and
  none moves home. A spell of searching begins and ends for all on the same days, once a quarter.
* People of a city are alike but for activity and intentions: no age, occupation that decides where to go, or family.
  The very active have the same destinations as others.
* Repeated searches follow within twenty minutes; there is no browsing through pages and no copying of one query.
* A key is one person for the whole period: no shared devices, no key that is renewed, nobody at two holders.
* Automata ask 230 queries or more on each of their days and are never noisy: no slow crawler hides below the limit, and
  no person is taken for one.
* The market shares of holders that have a city in common are equal and constant, whoever the people are.
* Weekdays act alike everywhere, holidays other than Spring Festival do not exist, and all of it is one time zone.
* Names of cities cannot be parts of other words or of each other, which is the hardest part of real gazetteers; the
  traps that are there are stated in `place_names`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path

from protocol.errors import InputError
from protocol.plan import parse_config
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
        asked = {"num_cities": given.cities, "num_steps": given.days, "queries": given.queries, "start": given.start}
        config = parse_config(JobQueryWorld, asked, where="command line")
        world = make_query_world(config, given.seed)
        holders = split_cities(world.cities.codes, given.holders, overlap=given.overlap)
        started = time.process_time()
        rows = write_queries(world, given.out, holders=holders, progress=_shown(config.queries))
        seconds = time.process_time() - started
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(f"{rows:,} rows in {given.out}, {rows / max(seconds, 1e-9):,.0f} rows per CPU second\n")
    return 0


def _shown(expected: int) -> Callable[[int], None]:
    """Progress on stderr: a line that changes twice a second on a terminal, one for every tenth elsewhere."""
    terminal = sys.stderr.isatty()
    last = [0.0, 0]

    def show(rows: int) -> None:
        now, tenth = time.monotonic(), rows * 10 // expected
        if (now - last[0] >= 0.5) if terminal else (tenth > last[1]):
            sys.stderr.write(f"{rows:>13,} rows of about {expected:,}" + ("\r" if terminal else "\n"))
            sys.stderr.flush()
            last[:] = [now, tenth]

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
    parser.add_argument("--cities", type=int, default=358, help="default 358")
    parser.add_argument("--days", type=int, default=365, help="default 365")
    parser.add_argument("--start", type=dt.date.fromisoformat, default=dt.date(2019, 1, 1), help="default 2019-01-01")
    parser.add_argument("--holders", type=int, default=4, help="holders that split the cities (default 4)")
    parser.add_argument("--overlap", type=int, default=0, help="cities that the first two holders both hold")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
