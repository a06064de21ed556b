"""The two made-up federations in which `simulations.experiments.poisoning` lets holders be dishonest.

A world is one seed of one task with n holders. `outcome` trains it once under a mode and an attack and says what came
of it: the loss on clean test data of the honest holders, what the trigger achieves, and whether the run was stopped.
"""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from clients.person_rows import person_mechanism
from dhgsil.task import TASK
from integration.features.private_rows import person_rows
from integration.task import CallTables
from privacy.plan import DPSGDPlan
from protocol.errors import MigrafedError
from protocol.plan import Plan, parse_plan
from protocol.tasks import Task, task_named
from server.journal import Journal, RoundRecord
from server.rounds import Coordinator, Stage, StageOutcome
from simulations.evaluation import Evaluation
from simulations.experiments.dishonest import Attack, DishonestAgent, highest, triggered
from simulations.experiments.privacy import Case as Release
from simulations.experiments.privacy import release
from simulations.experiments.private_city import city_records
from simulations.holders import SimulatedHolders
from simulations.protection import open_custodies
from simulations.records import held_rows, load_series
from tables.engine import Engine, Limits

EPSILON, DELTA, CONTRIBUTIONS = 4.0, 1e-6, 4
UPDATE_NORM = {"dhgsil": 0.8, "integration": 2.7}
"""About twice the length of an honest holder's first update in a run of another seed (1000) without attack."""
TRIM = {5: 0.2, 7: 0.3}
LARGEST = 1e6
ALARM = 1.1
RUN = "poisoning"


class World(ABC):
    """One seed of one task; see the module.

    Args:
        holders: Their number n.
        seed: Of everything that the world draws.
    """

    task_name: str

    def __init__(self, holders: int, seed: int) -> None:
        self.holders, self.seed = holders, seed
        self.names = tuple(f"holder-{number}" for number in range(1, holders + 1))

    @property
    def task(self) -> Task:
        return task_named(self.task_name)

    @property
    @abstractmethod
    def tables(self) -> Mapping[str, Any]:
        """What each holder trains on."""

    @property
    def mechanism(self) -> DPSGDPlan | None:
        """Noise of every training step, if it is there that noise is added."""
        return None

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """The plan of the world as nested mappings, without how updates are combined."""

    @abstractmethod
    def scored(self, holders: SimulatedHolders, outcome: StageOutcome, honest: tuple[str, ...]) -> tuple[float, float]:
        """Clean loss over the honest holders, and what the trigger achieves there."""

    def plan(self, mode: str) -> Plan:
        """The plan under one mode: masked sums, or a robust rule."""
        values = self.values()
        combining = {"aggregation": "secure"} if mode == "secure" else {"aggregation": "robust", "robust_rule": mode}
        values["federation"] |= combining | {"update_norm": UPDATE_NORM[self.task_name], "trim": TRIM[self.holders]}
        return parse_plan(values)

    def outcome(self, *, mode: str, attack: Attack, dishonest: int) -> dict[str, Any]:
        """Train once; the last holders are the dishonest ones, and are left out of scores without an attack too.

        Returns:
            loss, success and alarm of the run; stopped: None, or the kind of error that ended it and its words.
        """
        plan = self.plan(mode)
        stage = Stage(name=RUN, share=plan.federation.shares[0])
        honest, liars = self.names[: self.holders - dishonest], self.names[self.holders - dishonest :]
        seen: list[float] = []

        def on_round(_: Stage, record: RoundRecord) -> None:
            if record.error is not None:
                seen.append(min(record.error, LARGEST))

        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poisoning-")))
            private = plan.trains_privately
            custodies = stack.enter_context(open_custodies(plan, folder / "ledgers")) if private else {}
            holders = SimulatedHolders(
                self.tables, plan, self.task, stage, custodies=custodies, mechanism=self.mechanism
            )  # fmt: skip
            for number, name in enumerate(liars if attack != Attack() else ()):
                holders.agents[name] = DishonestAgent.in_place_of(
                    holders, name, attack, seed=1000 * self.seed + number, colluders=dishonest,
                    custody=custodies.get(name), mechanism=self.mechanism,
                )  # fmt: skip
            journal = stack.enter_context(Journal(folder / "journal.sqlite", run=RUN, plan_hash=plan.digest()))
            public = self.task.public(self.tables[self.names[0]])
            coordinator = Coordinator(
                holders.grid(), self.task, public, plan, run=RUN, journal=journal, roster=holders.roster,
                on_round=on_round,
            )  # fmt: skip
            try:
                trained = coordinator.run_stage(stage)
            except MigrafedError as error:
                return _answer(None, None, seen, stopped=f"{type(error).__name__}: {_general(str(error))}")
            loss, success = self.scored(holders, trained, honest)
        return _answer(loss, success, seen, stopped=None)


class ForecastWorld(World):
    """Counts between 2 n regions over 120 days, released once by each holder."""

    task_name = "dhgsil"

    def values(self) -> dict[str, Any]:
        codes = [f"C{number:03d}" for number in range(1, 2 * self.holders + 1)]
        world = {
            "num_regions": len(codes), "num_steps": 120, "step": "day", "start": "2018-01-01",
            "cross_city_queries": 80_000 * self.holders, "dispersion": 50.0,
        }  # fmt: skip
        return {
            "run": {"name": RUN, "task": "dhgsil", "seed": self.seed},
            "data": {
                "source": "synthetic", "index": "raw", "input_steps": 7, "horizon": 3, "label_steps": 3,
                "block_steps": 7, "world": world,
            },
            "model": {
                "channels": 8, "context_channels": 8, "region_embedding": 4, "projection_channels": 4, "layers": 1,
                "contrastive_weight": 0.0,
            },
            "training": {
                "rounds": 3, "batch_size": 32, "learning_rate": 5e-3, "weight_decay": 0.0, "select": "last",
            },
            "federation": {
                "shares": ["weights+margins"], "vectorise": "never",
                "holders": {name: codes[2 * number : 2 * number + 2] for number, name in enumerate(self.names)},
            },
            "compare": {"baselines": []},
            "privacy": {
                "epsilon": EPSILON, "delta": DELTA, "contributions": CONTRIBUTIONS, "score_against": "truth",
            },
        }  # fmt: skip

    @cached_property
    def _made(self) -> tuple[Mapping[str, Any], Evaluation]:
        plan = self.plan("secure")
        series = held_rows(load_series(plan, TASK, None), plan)
        noise = Release("", EPSILON, CONTRIBUTIONS, 0.5, DELTA, self.seed).mechanism
        released = release(plan, series, noise, draw=self.seed)
        parts = {
            name: TASK.with_released(series.held_by(codes), released[name].values, released[name].stddev, plan)
            for name, codes in plan.federation.holders.items()
        }
        return parts, Evaluation.of(plan, series)

    @property
    def tables(self) -> Mapping[str, Any]:
        return self._made[0]

    @torch.no_grad()
    def scored(self, holders: SimulatedHolders, outcome: StageOutcome, honest: tuple[str, ...]) -> tuple[float, float]:
        evaluation = self._made[1]
        squares, reached = [], []
        for name in honest:
            agent = holders.agents[name]
            dataset: Any = agent.session(RUN).dataset
            model = agent.final_model(RUN, outcome.weights, chosen_round=outcome.chosen_round)
            batch = dataset.inputs(evaluation.test_origins)
            clean = _finite(model(batch).total)
            scored = evaluation.scoring.scored[dataset.rows]
            squares.append(np.square(clean - evaluation.test_truth[:, :, dataset.rows])[:, :, scored].ravel())
            top = highest(dataset)
            chosen = torch.ones(len(clean), dtype=torch.bool)
            planted = triggered("dhgsil", batch | {"target": torch.as_tensor(clean)}, top=top, chosen=chosen)
            moved = _finite(model(planted).total) >= (clean + top) / 2
            reached.append(moved[:, :, scored].ravel())
        return float(np.sqrt(np.concatenate(squares).mean())), float(np.concatenate(reached).mean())


class PersonWorld(World):
    """Rows of a made-up city, dealt to the operators at random.

    Args:
        rows: Of everybody; see `city_rows`.
    """

    task_name = "integration"

    def __init__(self, holders: int, seed: int, rows: pd.DataFrame) -> None:
        super().__init__(holders, seed)
        number = np.random.default_rng([seed, holders]).integers(0, holders, len(rows))
        self._rows = rows.assign(operator=np.array(self.names)[number])

    def values(self) -> dict[str, Any]:
        return {
            "run": {"name": RUN, "task": "integration", "seed": self.seed},
            "data": {"source": "rows"},
            "model": {"features": "own"},
            "training": {
                "rounds": 3, "batch_size": 128, "learning_rate": 0.05, "weight_decay": 0.0, "select": "last",
            },
            "federation": {"shares": ["weights"], "holders": {name: [name] for name in self.names}},
            "compare": {"alone": False, "pooled": False, "baselines": []},
            "privacy": {"mode": "person-dpsgd", "epsilon": EPSILON, "delta": DELTA, "score_against": "truth"},
        }  # fmt: skip

    @property
    def mechanism(self) -> DPSGDPlan:
        """For a public number of rows: half of an operator's part of the city, in hundreds."""
        return self._mechanism

    @property
    def tables(self) -> Mapping[str, CallTables]:
        return self._tables

    @cached_property
    def _mechanism(self) -> DPSGDPlan:
        return person_mechanism(self.plan("secure"), num_rows=len(self._rows) // (2 * self.holders) // 100 * 100)

    @cached_property
    def _tables(self) -> Mapping[str, CallTables]:
        return {
            name: CallTables(self._rows[self._rows["operator"] == name].reset_index(drop=True), (name,))
            for name in self.names
        }

    @torch.no_grad()
    def scored(self, holders: SimulatedHolders, outcome: StageOutcome, honest: tuple[str, ...]) -> tuple[float, float]:
        scores, labels, reached = [], [], []
        for name in honest:
            agent = holders.agents[name]
            dataset, model = agent.session(RUN).dataset, agent.final_model(RUN, outcome.weights, chosen_round=3)
            batch = dataset.batch(dataset.examples("validation"))
            scores.append(_scores(model, batch))
            labels.append(batch["y"].numpy())
            settled = {key: value[batch["y"] == 1] for key, value in batch.items()}
            chosen = torch.ones(len(settled["y"]), dtype=torch.bool)
            reached.append(_scores(model, triggered("integration", settled, top=0.0, chosen=chosen)) < 0)
        auc = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
        return 1.0 - float(auc), float(np.concatenate(reached).mean())


def city_rows(scale: float, seed: int = 1) -> pd.DataFrame:
    """Rows of settled migrants and locals of a made-up city in week 2, as a holder makes them for private training."""
    secret = hashlib.sha256(f"made-up city {seed}".encode()).digest()
    with (
        tempfile.TemporaryDirectory(prefix="poisoning-") as work,
        Engine.duckdb(Limits(memory_gb=2.0, threads=1), Path(work)) as engine,
    ):
        rows = person_rows(city_records(scale, seed, Path(work), engine), engine, contacts=0, secret=secret)
    return rows[(rows["week"] == 2) & rows["group"].isin(["local", "settled"])].reset_index(drop=True)


def _answer(loss: float | None, success: float | None, seen: list[float], *, stopped: str | None) -> dict[str, Any]:
    alarm = any(seen[place] > ALARM * min(seen[:place]) for place in range(1, len(seen)))
    return {"loss": loss, "success": success, "alarm": alarm, "errors": seen, "stopped": stopped}


def _general(words: str) -> str:
    """The start of an error's words, without its numbers, so that equal causes look equal."""
    return "".join("#" if letter.isdigit() else letter for letter in words)[:120]


def _finite(values: torch.Tensor) -> np.ndarray:
    return np.clip(np.nan_to_num(values.double().numpy(), nan=LARGEST), -LARGEST, LARGEST)


def _scores(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Log odds of class 1, (B,)."""
    return _finite(model(batch["x"])[:, 0])
