"""When is one stacked call for all holders faster than one call per holder?

Same plan, same data, same steps, in turns; the ratio is CPU time of the loop over CPU time of the stack, so above 1 the
stack wins. It sets `simulations.vectorised.LARGEST_STACKED`: the stack saves what each call costs, and once a window
is large enough that arithmetic outweighs it, moving stacked tensors costs more than it saves.

    python -m simulations.benchmarks.vectorised --rows 1 2 4 8 --regions 16 47 --holders 8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from clients.training import train_round
from dhgsil.task import TASK
from protocol.messages import READY, StatisticsRequest
from protocol.plan import Plan, parse_plan
from protocol.records import Header
from server.rounds import Stage
from simulations.benchmarks.timing import alternated, print_table
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.vectorised import example_size, train_together
from simulations.worlds.od_counts import WorldConfig, make_world

STEPS = 40
STAGE = Stage(name="benchmark", share="weights")


@dataclass(frozen=True)
class Comparison:
    """CPU seconds of a round, one call per holder and one call for all; `size` numbers are in one window."""

    size: int
    loop: float
    stack: float

    @property
    def ratio(self) -> float:
        return self.loop / self.stack


def make_plan(*, regions: int, rows: int, holders: int, channels: int) -> Plan:
    """A plan with holders of equal shape on a synthetic world."""
    codes = [f"C{number:03d}" for number in range(1, regions + 1)]
    return parse_plan(
        {
            "run": {"name": "benchmark", "task": "dhgsil"},
            "data": {"source": "synthetic", "index": "raw"},
            "model": {"channels": channels, "context_channels": channels},
            "training": {"rounds": 1, "batch_size": 8},
            "federation": {
                "aggregation": "plain",
                "holders": {f"h{h}": [codes[(h * rows + r) % regions] for r in range(rows)] for h in range(holders)},
            },
        }
    )


def open_holders(plan: Plan, *, regions: int) -> SimulatedHolders:
    """Holders with datasets and models ready to train."""
    series = make_world(WorldConfig(num_regions=regions, num_steps=STEPS + 20), seed=0).series
    holders = SimulatedHolders(Holdings.split(series, plan.federation.holders).parts, plan, TASK, STAGE)
    header = Header(run="benchmark", plan_hash=plan.digest(), stage=STAGE.name)
    for name, agent in holders.agents.items():
        totals = dict(TASK.statistics("linear", holders.tables[name], plan, STAGE.share, {}))
        agent.statistics(StatisticsRequest(header=header, phase=READY, totals=totals))
    return holders


def measure(*, regions: int, rows: int, holders: int, repeats: int, channels: int = 64) -> Comparison:
    """Time one round both ways, in turns."""
    plan = make_plan(regions=regions, rows=rows, holders=holders, channels=channels)
    sessions = [agent.session(STAGE.name) for agent in open_holders(plan, regions=regions).agents.values()]

    def loop() -> None:
        for session in sessions:
            train_round(
                TASK, session.model, session.dataset, plan.training, session.state, seed=0, round_number=1
            )  # fmt: skip

    def stack() -> None:
        train_together(TASK, sessions, plan, round_number=1, proximal_mu=0.0)

    cases: dict[str, Callable[[], object]] = {"loop": loop, "stack": stack}
    times = alternated(cases, repeats=repeats)
    return Comparison(example_size(sessions[0].dataset), min(times["loop"].cpu), min(times["stack"].cpu))


def main() -> None:
    """Measure at the sizes asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, nargs="+", default=[16, 47])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--holders", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = []
    for regions in given.regions:
        for rows in (rows for rows in given.rows if rows <= regions):
            found = measure(
                regions=regions, rows=rows, holders=given.holders, repeats=given.repeats, channels=given.channels
            )
            label = f"N = {regions}, R = {rows}"
            table.append([label, f"{found.size:,}", found.loop, found.stack, f"{found.ratio:.2f}"])
    print_table(
        f"A round of {given.holders} holders, one call each or stacked, {given.threads} thread(s)",
        ["problem", "numbers in a window", "loop, CPU s", "stacked, CPU s", "ratio"],
        table,
        note="Ratio above 1: stacking is faster.",
    )


if __name__ == "__main__":
    main()
