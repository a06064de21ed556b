"""CPU time of a round of federated training against others that do the same arithmetic.

    ours          `server.rounds.Coordinator` over the in-process grid, with a journal; holders stacked, and one by one
    bare PyTorch  a loop over the holders with FedAvg by hand: no messages, no checks, no journal
    Flower Ray    the same plan on Flower's Ray engine; all its processes count
    pfl-research  `pfl.aggregate.SimulatedBackend` with FederatedAveraging on the same model and batches

All start from the same weights and visit the same windows in the same order. Their last weights must have the same
loss, or no ratio is printed. Contestants take turns, a whole training each, and the median round counts.

    python -m simulations.benchmarks.rounds --holders 8 --rounds 5 --ray
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clients.agent import Session
from clients.state import Tensors
from clients.training import Steps, batches, make_optimizer, mean_error
from clients.weights import load_weights
from dhgsil.series import ODSeries
from dhgsil.task import TASK
from protocol.errors import PlanError, TrainingError
from protocol.messages import READY, StatisticsRequest
from protocol.plan import Plan, parse_plan
from protocol.records import Header
from server.combining import add_up
from server.journal import Journal
from server.rounds import Coordinator, Grid, HolderStates, Stage
from simulations.benchmarks.pfl_rounds import train_with_pfl
from simulations.benchmarks.timing import print_table, tree_cpu_seconds
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.ray_engine import StoredHolders, check_ray, run_on_ray
from simulations.worlds.od_counts import WorldConfig, make_world

STEPS = 60
STAGE = Stage(name="benchmark", share="weights")
WARMUPS = 2
"""Rounds at the start of each training that are not counted: caches fill, Ray's actors open their holders."""
TOLERANCE = 1e-4
STACKED, SINGLY, BARE, RAY, PFL = "ours, stacked", "ours, one by one", "bare PyTorch", "Flower Ray", "pfl-research"
GOALS = {BARE: 0.75, RAY: 1 / 3}

Clock = Callable[[], float]


@dataclass(frozen=True)
class Trajectory:
    """One training: CPU seconds of each counted round, and the shared weights it ended with."""

    rounds: tuple[float, ...]
    weights: dict[str, np.ndarray]

    @classmethod
    def from_marks(cls, marks: list[float], weights: Mapping[str, np.ndarray]) -> Trajectory:
        """From readings of the clock at the end of each round."""
        spent = [end - start for start, end in itertools.pairwise(marks)]
        return cls(tuple(spent[WARMUPS - 1 :]), dict(weights))


def make_plan(
    *, holders: int, rows: int, rounds: int, channels: int, evaluate: bool = False, reset: bool = False
) -> Plan:
    """A plan of holders of equal shape; `evaluate` holds windows out and measures them after each round."""
    fit = {"fit_on": "train", "select": "best"} if evaluate else {"fit_on": "train+validation", "select": "last"}
    codes = [f"C{number:03d}" for number in range(1, holders * rows + 1)]
    return parse_plan(
        {
            "run": {"name": "benchmark", "task": "dhgsil"},
            "data": {"source": "synthetic", "index": "raw"},
            "model": {"channels": channels, "context_channels": channels},
            "training": fit
            | {
                "rounds": rounds + WARMUPS,
                "batch_size": 8,
                "schedule": "constant",
                "optimizer_state": "reset" if reset else "kept",
            },
            "federation": {
                "vectorise": "always",
                "aggregation": "plain",  # as the others; what masks cost is `simulations.benchmarks.secure_aggregation`
                "holders": {f"h{h}": codes[h * rows : (h + 1) * rows] for h in range(holders)},
            },
        }
    )


def make_series(plan: Plan) -> ODSeries:
    """The synthetic world of all holders together."""
    regions = sum(len(codes) for codes in plan.federation.holders.values())
    return make_world(WorldConfig(num_regions=regions, num_steps=STEPS), seed=0).series


def train_ours(plan: Plan, series: ODSeries) -> Trajectory:
    """The in-process federation, as `migrafed simulate` runs it."""
    holders = SimulatedHolders(Holdings.split(series, plan.federation.holders).parts, plan, TASK, STAGE)
    return _coordinated(holders.grid(), holders, plan, series, time.process_time)


def train_singly(plan: Plan, series: ODSeries) -> Trajectory:
    """The in-process federation with one call per holder."""
    federation = plan.federation.model_copy(update={"vectorise": "never"})
    return train_ours(plan.model_copy(update={"federation": federation}), series)


def train_on_ray(plan: Plan, series: ODSeries) -> Trajectory:
    """Flower's Ray engine; starting and stopping it is not counted."""
    tables = {name: TASK.held_by(series, codes) for name, codes in plan.federation.holders.items()}
    trajectories: list[Trajectory] = []
    with tempfile.TemporaryDirectory(prefix="migrafed-holders-") as folder:
        stored = StoredHolders.store(Path(folder), tables, plan, STAGE, {})

        def run_stage(grid: Grid):
            trajectory, outcome = _run_stage(grid, stored, plan, series, tree_cpu_seconds)
            trajectories.append(trajectory)
            return outcome

        run_on_ray(stored, run_stage)
    return trajectories[0]


def train_bare(plan: Plan, series: ODSeries) -> Trajectory:
    """A loop over the holders, written down as plainly as PyTorch allows."""
    sessions, training, marks = open_sessions(plan, series), plan.training, []
    shared = {name: leaf.detach().clone() for name, leaf in sessions[0].model.named_parameters()}
    optimizers = [make_optimizer(training, dict(session.model.named_parameters())) for session in sessions]
    for number in range(1, training.rounds + 1):
        if training.optimizer_state == "reset":
            optimizers = [make_optimizer(training, dict(session.model.named_parameters())) for session in sessions]
        for session, optimizer in zip(sessions, optimizers, strict=True):
            _put(session.model, shared)
            _local_steps(session, optimizer, plan, number)
        trained = [dict(session.model.named_parameters()) for session in sessions]
        with torch.no_grad():
            shared = {name: torch.stack([each[name] for each in trained]).mean(dim=0) for name in shared}
        if training.fit_on == "train":
            for session in sessions:
                _put(session.model, shared)
                mean_error(TASK, session.model, session.dataset, split="validation")
        marks.append(time.process_time())
    return Trajectory.from_marks(marks, {name: value.numpy() for name, value in shared.items()})


def train_pfl(plan: Plan, series: ODSeries) -> Trajectory:
    """Apple's simulator; it makes a new local optimiser for each round."""
    if plan.training.optimizer_state != "reset" or plan.training.fit_on == "train":
        raise PlanError('pfl keeps no local optimiser and is not asked to evaluate; use optimizer_state = "reset"')
    marks, weights = train_with_pfl(open_sessions(plan, series), plan, clock=time.process_time)
    return Trajectory.from_marks(marks, weights)


def _local_steps(session: Session, optimizer: torch.optim.Optimizer, plan: Plan, number: int) -> None:
    examples = session.dataset.examples(plan.training.fit_on)
    steps = Steps(plan.training, len(examples), number)
    session.model.train()
    for step, chosen in enumerate(batches(examples, plan.training, seed=plan.run.seed, round_number=number)):
        batch = session.dataset.training_batch(chosen, draw=steps.number(step))
        optimizer.zero_grad(set_to_none=True)
        TASK.loss(session.model, batch).mean().backward()  # type: ignore[arg-type]
        torch.nn.utils.clip_grad_norm_(session.model.parameters(), plan.training.gradient_clip)
        optimizer.step()


@torch.no_grad()
def _put(model: torch.nn.Module, shared: Tensors) -> None:
    for name, leaf in model.named_parameters():
        leaf.copy_(shared[name])


def _coordinated(grid: Grid, states: HolderStates, plan: Plan, series: ODSeries, clock: Clock) -> Trajectory:
    return _run_stage(grid, states, plan, series, clock)[0]


def _run_stage(grid: Grid, states: HolderStates, plan: Plan, series: ODSeries, clock: Clock):
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        with Journal(path, run="benchmark", plan_hash=plan.digest()) as journal:
            outcome = Coordinator(
                grid, TASK, TASK.public(series), plan, run="benchmark", journal=journal, holder_states=states,
                on_round=lambda stage, record: marks.append(clock()),
            ).run_stage(STAGE)  # fmt: skip
    return Trajectory.from_marks(marks, outcome.weights), outcome


def open_sessions(plan: Plan, series: ODSeries) -> list[Session]:
    """Datasets and models of all holders, opened with the sums the coordinator would send them."""
    holders = SimulatedHolders(Holdings.split(series, plan.federation.holders).parts, plan, TASK, STAGE)
    agents = holders.agents.values()
    header = Header(run="benchmark", plan_hash=plan.digest(), stage=STAGE.name)
    totals: dict[str, np.ndarray] = {}
    for phase in TASK.phases(plan, STAGE.share):
        totals |= add_up(
            [dict(TASK.statistics(phase, own, plan, STAGE.share, totals)) for own in holders.tables.values()]
        )
    for agent in agents:
        agent.statistics(StatisticsRequest(header=header, phase=READY, totals=totals))
    return [agent.session(STAGE.name) for agent in agents]


@torch.no_grad()
def final_loss(weights: dict[str, np.ndarray], sessions: list[Session], plan: Plan) -> float:
    """Mean loss of shared weights over all training windows of all holders."""
    losses = []
    for session in sessions:
        load_weights(session.model, weights, {}, session.personal)
        batch = session.dataset.batch(session.dataset.examples(plan.training.fit_on))
        losses.append(TASK.loss(session.model.eval(), batch).double().mean())  # type: ignore[arg-type]
    return float(torch.stack(losses).mean())


def compare(
    contestants: Mapping[str, Callable[[Plan, ODSeries], Trajectory]], plan: Plan, *, repeats: int
) -> dict[str, tuple[float, float]]:
    """Median CPU seconds of a round and final loss of each contestant, taken in turns.

    Raises:
        TrainingError: final losses differ, so the contestants did not do the same work.
    """
    series = make_series(plan)
    sessions = open_sessions(plan, series)
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for name, train in contestants.items():
            trajectory = train(plan, series)
            rounds[name] += trajectory.rounds
            losses[name] = final_loss(trajectory.weights, sessions, plan)
            if not abs(losses[name] - next(iter(losses.values()))) < TOLERANCE:
                raise TrainingError(f"final losses differ, so no ratio means anything: {losses}")
    return {name: (statistics.median(rounds[name]), losses[name]) for name in contestants}


def rows_of(found: Mapping[str, tuple[float, float]]) -> list[list[str | float]]:
    """Rows of the table: seconds, loss, and our stacked round as a share of each, beside its goal."""
    ours = found[STACKED][0]
    rows: list[list[str | float]] = []
    for name, (seconds, loss) in found.items():
        ratio, goal = ours / seconds, GOALS.get(name)
        verdict = "" if goal is None else f"<= {goal:.2f}: {'reached' if ratio <= goal else 'not reached'}"
        rows.append([name, 1000 * seconds, f"{loss:.6f}", "" if name == STACKED else f"{ratio:.2f}", verdict])
    return rows


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holders", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2, help="regions of each holder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluate", action="store_true", help="hold windows out and measure them after each round")
    parser.add_argument("--ray", action="store_true", help="against Flower's Ray engine (extra `ray`)")
    parser.add_argument("--pfl", action="store_true", help="against pfl-research; Adam starts anew in each round then")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    contestants = {STACKED: train_ours, SINGLY: train_singly, BARE: train_bare}
    if given.ray:
        check_ray()
        contestants[RAY] = train_on_ray
    missing = given.pfl and importlib.util.find_spec("pfl") is None
    if given.pfl and not missing:
        contestants[PFL] = train_pfl
    plan = make_plan(
        holders=given.holders, rows=given.rows, rounds=given.rounds, channels=given.channels,
        evaluate=given.evaluate, reset=given.pfl,
    )  # fmt: skip
    rows = rows_of(compare(contestants, plan, repeats=given.repeats))
    rows += [[PFL, "-", "-", "-", "not installed"]] if missing else []
    adam = "starts anew each round" if given.pfl else "kept"
    print_table(
        f"A round of {given.holders} holders with {given.rows} of {given.holders * given.rows} regions each, "
        f"{given.channels} channels, {'with' if given.evaluate else 'without'} evaluation, Adam {adam}",
        ["contestant", "CPU ms a round", "final loss", "ours, stacked / this", "goal"],
        rows,
        note=f"Median of {given.repeats} x {given.rounds} rounds, in turns, one thread; all processes count.",
    )


if __name__ == "__main__":
    main()
