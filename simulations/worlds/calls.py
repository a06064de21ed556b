"""A synthetic city whose call records are like those of the study of migrant integration, where they are known.

    world = make_call_world(CallWorldConfig(scale=0.01), seed=1)
    write_calls(world, Path("city"))        # or: python -m simulations.worlds.calls --out city --scale 0.01 --seed 1

Mechanism, not painted features: people arrive, live and work somewhere, and begin ties with townsmen, locals and
others by habits that move with the days since they arrived; calls follow from the ties, and features from the calls.
All habits are invented (`call_config`). How it differs from a real city: the people of a block call only each other and
numbers nobody knows, so that a city can be drawn block by block; a person's places are independent of whom it calls;
nobody moves home; a number that changes operator is a new number; all that is not said here is random.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.errors import DataError, InputError, PlanError
from protocol.plan import parse_config
from simulations.worlds.call_city import Ground, make_ground
from simulations.worlds.call_config import TINY, CallWorldConfig, Course, Habits
from simulations.worlds.call_files import CityWriter, Progress
from simulations.worlds.call_rows import BlockMaker

__all__ = ["TINY", "CallWorld", "CallWorldConfig", "Course", "Habits", "main", "make_call_world", "write_calls"]


@dataclass(frozen=True, eq=False)
class CallWorld:
    """A city before its people: ready in no time. Blocks of people are drawn by `blocks`."""

    config: CallWorldConfig
    seed: int
    ground: Ground

    @property
    def blocks(self) -> BlockMaker:
        """Draws the people and calls of blocks."""
        return BlockMaker(self.config, self.ground, self.seed)


def make_call_world(config: CallWorldConfig, seed: int) -> CallWorld:
    """Cells, estates and prices of a city; the same seed gives the same city.

    Raises:
        PlanError: a seed below 0.
    """
    if seed < 0:
        raise PlanError(f"seed must be 0 or more, got {seed}")
    return CallWorld(config, seed, make_ground(config, np.random.default_rng([seed, 5])))


def write_calls(world: CallWorld, folder: Path, *, progress: Progress | None = None) -> int:
    """Write the records of every operator, the public tables and the truth; the same world gives the same rows.

    Args:
        world: See `make_call_world`.
        folder: Does not exist, or is empty.
        progress: Called with the blocks written so far and the number of all blocks.

    Returns:
        Rows of calls written; one between two operators is two.

    Raises:
        DataError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("the folder is not empty", way_out="give a new folder", source=folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer, maker = CityWriter(world.config, world.seed, world.ground, folder), world.blocks
    for number in range(world.config.blocks):
        writer.write(number, maker.make(number))
        if progress is not None:
            progress(number + 1, world.config.blocks)
    writer.close({"seed": world.seed, "config": world.config.model_dump(mode="json")})
    return writer.rows


def main(arguments: list[str] | None = None) -> int:
    """Command line: write a city."""
    given = _parser().parse_args(arguments)
    try:
        asked: dict[str, object] = {"scale": given.scale, "newcomers": given.newcomers}
        if given.pooled:
            asked["operators"] = {"city": 1.0}
        world = make_call_world(parse_config(CallWorldConfig, asked, where="command line"), given.seed)
        started = time.process_time()
        rows = write_calls(world, given.out, progress=_show)
        seconds = time.process_time() - started
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(f"{rows:,} rows in {given.out}, {rows / max(seconds, 1e-9):,.0f} rows per CPU second\n")
    return 0


def _show(done: int, blocks: int) -> None:
    if done * 10 // blocks > (done - 1) * 10 // blocks:
        sys.stderr.write(f"{done} of {blocks} blocks\n")
        sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.worlds.calls",
        description="Write the call records of a synthetic city, with the truth beside them.",
    )
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--scale", type=float, default=0.01, help="1 is the size of the study (default 0.01)")
    parser.add_argument("--newcomers", type=float, default=1.0, help="times as many arrivals in week 2 (default 1)")
    parser.add_argument("--pooled", action="store_true", help="one operator instead of three")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
