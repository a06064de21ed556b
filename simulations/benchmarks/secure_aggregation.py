"""Cost of masked sums: a holder's and the server's CPU time, bytes, and the same vector through Flower's SecAgg+.

    python -m simulations.benchmarks.secure_aggregation --words 1000000 --repeats 3

The rate of masks is compared with the bare cipher, AES-256-CTR of the same library, in the same run: once filling a
buffer that stays in the processor's cache (the faster way, which the goal is about), once the whole key stream in one
call. Contestants take turns, and the median counts. What is counted of SecAgg+, its module says (`secagg_plus`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from privacy.secure_aggregation.masks import add_masks
from simulations.benchmarks.masked_costs import Cost, Scenario, masked_cost
from simulations.benchmarks.secagg_plus import flower_cost
from simulations.benchmarks.timing import alternated, print_table

SCENARIOS = (Scenario(3, 0), Scenario(10, 2), Scenario(50, 5))
GOALS = {Scenario(10, 2): (0.12, 0.20), Scenario(50, 5): (0.55, 2.3)}
"""CPU seconds at 1,000,000 words: a holder, the server."""
RATE_GOAL, BYTES_GOAL = 0.80, 1.1
BUFFER = 1 << 16
"""Bytes that the bare cipher fills at a time, as many as a block of masks has."""
IN_CACHE, AT_ONCE = "bare cipher, in cache", "bare cipher, in one call"


@dataclass(frozen=True)
class Rate:
    """Key stream made, GB a CPU second, and its share of the bare cipher's rate in cache."""

    case: str
    gigabytes: float
    share: float


def rates(*, words: int, repeats: int, masks: Sequence[int] = (1, 3, 10, 50)) -> list[Rate]:
    """The bare cipher, and this many masks added to one vector."""
    cases: dict[str, Callable[[], object]] = {
        IN_CACHE: lambda: _in_cache(4 * words),
        AT_ONCE: lambda: _at_once(4 * words),
    }
    seeds = [bytes([number]) * 32 for number in range(max(masks))]
    vector = np.zeros(words, dtype=np.uint32)
    sizes = {IN_CACHE: 1, AT_ONCE: 1}
    for count in masks:
        case = f"{count} masks of one vector"
        cases[case] = lambda count=count: add_masks(vector, [(seed, 1) for seed in seeds[:count]])
        sizes[case] = count
    times = alternated(cases, repeats=repeats)
    found = {case: 4 * words * sizes[case] / max(timing.median_cpu, 1e-9) / 1e9 for case, timing in times.items()}
    return [Rate(case, speed, speed / found[IN_CACHE]) for case, speed in found.items()]


def _in_cache(size: int) -> None:
    stream, zeros, buffer = Cipher(AES(bytes(32)), CTR(bytes(16))).encryptor(), bytes(BUFFER), bytearray(BUFFER)
    for _ in range(0, size, BUFFER):
        stream.update_into(zeros, buffer)


def _at_once(size: int) -> None:
    Cipher(AES(bytes(32)), CTR(bytes(16))).encryptor().update(bytes(size))


def costs(
    scenarios: Sequence[Scenario], *, words: int, repeats: int, flower_repeats: int
) -> dict[Scenario, tuple[Cost, Cost | None]]:
    """Ours and Flower's, in turns as long as both have any left."""
    ours: dict[Scenario, list[Cost]] = {scenario: [] for scenario in scenarios}
    theirs: dict[Scenario, list[Cost]] = {scenario: [] for scenario in scenarios}
    for repeat in range(max(repeats, flower_repeats)):
        for scenario in scenarios:
            if repeat < repeats:
                ours[scenario].append(masked_cost(scenario, words))
            if repeat < flower_repeats:
                theirs[scenario].append(flower_cost(scenario, words))
    return {
        scenario: (_median(ours[scenario]), _median(theirs[scenario]) if flower_repeats else None)
        for scenario in scenarios
    }


def _median(found: Sequence[Cost]) -> Cost:
    return Cost(**{name: statistics.median(getattr(cost, name) for cost in found) for name in vars(found[0])})


def rows(found: dict[Scenario, tuple[Cost, Cost | None]]) -> list[list[str | float]]:
    """The table: one row for a contestant in a scenario."""
    table: list[list[str | float]] = []
    for scenario, (ours, theirs) in found.items():
        case = f"{scenario.holders}/{scenario.dropouts}"
        goal = "{}, {}".format(*GOALS[scenario]) if scenario in GOALS else ""
        table.append(
            [f"{case} ours", ours.holder, ours.server, ours.sent, ours.received, ours.setup, goal]
        )  # fmt: skip
        if theirs is not None:
            table.append([f"{case} SecAgg+", theirs.holder, theirs.server, theirs.sent, "", "", ""])
            table.append(
                ["  as a multiple", theirs.holder / ours.holder, theirs.server / ours.server, theirs.sent / ours.sent]
                + [""] * 3
            )
    return table


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=1_000_000, help="parameters, one word of 32 bits each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flower-repeats", type=int, default=1, help="of SecAgg+, which takes most of the time; or 0")
    given = parser.parse_args()
    print_table(
        f"Masks of {given.words:,} words, one thread",
        ["case", "GB/s", "of the bare cipher"],
        [[rate.case, rate.gigabytes, rate.share] for rate in rates(words=given.words, repeats=4 * given.repeats)],
        note=f"Goal: {RATE_GOAL:.0%} of the bare cipher.",
    )
    found = costs(SCENARIOS, words=given.words, repeats=given.repeats, flower_repeats=given.flower_repeats)
    print_table(
        f"One sum of {given.words:,} words",
        ["case", "holder", "server", "sent", "received", "setup", "goal"],
        rows(found),
        note="Case: holders/dropouts. Holder, server, setup (of a holder, once a session, on top): CPU seconds. Sent, "
        f"received (without the model): of 4 bytes a word; sent has the goal {BYTES_GOAL}. Goal: holder, server.",
    )


if __name__ == "__main__":
    main()
