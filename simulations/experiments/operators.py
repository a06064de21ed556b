"""What operators gain from telling each other of contacts, at every level, and what finding switchers does for "new".

    python -m simulations.experiments.operators --scale 0.003 --newcomers 5 --seeds 5 --out results

Settings: all calls together (*pooled*); each operator for itself (*silo*); one classifier for all, and nothing told of
contacts (*federated, none*); everything told (L0), counts of five known contacts or more (L1), counts with noise at
several epsilon (L2). For L2 two readings of the same noisy histograms: every positive count is kept (*clamped*), or
only what stands two standard deviations of the noise above zero (*cut*). Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from clients.desk.calls import Operator
from integration.analysis.panels import TEN
from integration.analysis.verdicts import verdicts
from integration.features.assembling import Pushed, assemble
from integration.features.counts import WeekCounts, count_weeks
from integration.push_histograms import bins_of_a_tie, histograms, pushed_from
from integration.pushes import UNIT, added, hubs_for, push_aggregates, thresholded
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import release_counts
from protocol.plan import Plan, parse_plan
from simulations.call_data import CallData
from simulations.call_settings import BORROWED, POOLED, SILO, agreement, federation_table
from simulations.experiments.switchers import matching_table
from simulations.progress import SilentProgress
from simulations.worlds.call_config import CallWorldConfig

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
DELTA = 1e-6
LEAST_CONTACTS = 5
CUT = 2.0
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
Sent = dict[str, dict[str, Pushed]]
"""What each operator sends to each other one: sender → recipient → counts."""


@dataclass
class Levels:
    """Rows of features of one city at every level of telling."""

    city: CallData

    @property
    def weeks(self) -> range:
        return range(2, self.city.study.calendar.weeks + 1)

    @cached_property
    def hubs(self) -> pd.DataFrame:
        """Hubs of all operators, as they tell each other at L0 and L1."""
        found = [hubs_for(one.records, self.city.engine, own=name) for name, one in self.city.operators.items()]
        return pd.concat(found, ignore_index=True)

    @cached_property
    def counts(self) -> dict[str, WeekCounts]:
        """Counts at home that leave out the hubs of all."""
        operators = self.city.operators.items()
        return {name: count_weeks(one.records, self.city.engine, hubs=self.hubs) for name, one in operators}

    @cached_property
    def exact(self) -> Sent:
        return {
            name: push_aggregates(one.records, self.city.engine, own=name, hubs=self.hubs)
            for name, one in self.city.operators.items()
        }

    @cached_property
    def plain(self) -> dict[str, tuple[np.ndarray, pd.DataFrame]]:
        """Dense histograms of every operator before noise, and whose they are; hubs are contacts like any other."""
        found = {}
        for name, one in self.city.operators.items():
            operators = one.records.operators
            if operators is None:
                continue
            routes = operators[operators["operator"] != name].astype({"operator": str})
            sent = push_aggregates(one.records, self.city.engine, own=name, structure=False)
            found[name] = histograms(added(sent.values()), routes["number"].to_numpy(), self.weeks), routes
        return found

    def pooled(self) -> pd.DataFrame:
        return named(self.city.pooled.rows(), self.city)

    def silo(self) -> pd.DataFrame:
        return pd.concat([one.rows() for one in self.city.operators.values()], ignore_index=True)

    def told(self, sent: Sent, *, hubs: bool) -> pd.DataFrame:
        """Rows of all operators once this was sent."""
        rows = []
        for name, one in self.city.operators.items():
            pushed = added(to[name] for sender, to in sent.items() if sender != name)
            counts = self.counts[name] if hubs else one.counts
            rows.append(rows_of(one, counts, pushed))
        return pd.concat(rows, ignore_index=True)

    def noisy(self, epsilon: float, *, seed: int) -> Iterator[tuple[str, Sent]]:
        """The same noisy release read in two ways."""
        mechanism = push_mechanism(epsilon, weeks=len(self.weeks))
        released = {
            name: release_counts({"cells": dense}, mechanism, stream(name, epsilon, seed)).values["cells"]
            for name, (dense, _) in self.plain.items()
        }
        for reading, floor in (("clamped", 0.0), ("cut", CUT)):
            sent: Sent = {}
            for name, noisy in released.items():
                routes = self.plain[name][1]
                sent[name] = {}
                for other, theirs in routes.groupby("operator"):
                    numbers = theirs["number"].to_numpy()
                    part = noisy[:, (routes["operator"] == other).to_numpy()]
                    floor_here = floor * mechanism.cells_stddev
                    sent[name][str(other)] = pushed_from(part, numbers, self.weeks, least=floor_here)
            yield f"L2, epsilon {epsilon:g}, {reading}", sent

    def settings(self, *, epsilons: tuple[float, ...] = EPSILONS, seed: int = 0) -> dict[str, pd.DataFrame]:
        """Rows by setting."""
        silo = self.silo()
        settings = {
            POOLED: self.pooled(),
            SILO: silo,
            "federated, none": silo,
            "L0": self.told(self.exact, hubs=True),
            "L1": self.told(
                {
                    sender: {to: thresholded(pushed, least=LEAST_CONTACTS) for to, pushed in sent.items()}
                    for sender, sent in self.exact.items()
                },
                hubs=True,
            ),
        }
        for epsilon in epsilons:
            for name, sent in self.noisy(epsilon, seed=seed):
                settings[name] = self.told(sent, hubs=False)
        return settings


def push_mechanism(epsilon: float, *, weeks: int) -> CountReleasePlan:
    """The noise of level L2 for one tie over so many weeks."""
    plan = CountReleasePlan(unit=UNIT, contributions=bins_of_a_tie(weeks), cells_stddev=1.0)
    return plan.calibrate(epsilon=epsilon, delta=DELTA)


def stream(*key: object) -> SecureStream:
    """Noise that can be drawn again: simulated releases only."""
    return SecureStream(hashlib.sha256(f"simulated pushes, {key}".encode()).digest())


def rows_of(one: Operator, counts: WeekCounts, pushed: Pushed) -> pd.DataFrame:
    """An operator's rows with counts of others added."""
    records = one.records
    rows = assemble(counts, records.people, city=records.city, rules=records.rules, pushed=pushed)
    return rows.assign(operator=one.name)


def named(rows: pd.DataFrame, city: CallData) -> pd.DataFrame:
    """Rows of all calls together with the operator each person is at."""
    people = [one.records.people[["person"]].assign(operator=name) for name, one in city.operators.items()]
    where = pd.concat(people).set_index("person")["operator"]
    return rows.assign(operator=rows["person"].map(where))


def cross_shares(levels: Levels) -> pd.Series:
    """Share of a person's contacts of a week that are at other operators, by person and week."""
    home = pd.concat([counts.structure for counts in levels.counts.values()]).set_index(["person", "week"])
    exact = pd.concat([counts.exact for counts in levels.counts.values()]).set_index(["person", "week"])
    at_home = home["degree_contacts"].reindex(exact.index, fill_value=0)
    return 1 - at_home / exact["degree"].where(exact["degree"] > 0)


def errors_by_share(settings: Mapping[str, pd.DataFrame], shares: pd.Series) -> pd.DataFrame:
    """Mean distance from all calls together, in their standard deviations, by share of contacts elsewhere.

    A value that is missing where the other has one counts as a distance of 1. Columns: setting, share, rows, error.
    """
    truth = settings[POOLED].set_index(["person", "week"])
    spread = truth[list(BORROWED)].std(ddof=0)
    lines = []
    for setting, rows in settings.items():
        if setting == POOLED:
            continue
        here = rows.set_index(["person", "week"]).reindex(truth.index)
        away = (truth[list(BORROWED)] - here[list(BORROWED)]).abs() / spread
        both_missing = truth[list(BORROWED)].isna() & here[list(BORROWED)].isna()
        away = away.fillna(1.0).mask(both_missing)
        share = shares.reindex(truth.index).to_numpy()
        for low, high in pairwise(SHARES):
            chosen = (share >= low) & ((share < high) | (high == 1.0))
            lines.append((setting, f"{low:.2f} to {high:.2f}", int(chosen.sum()), float(np.nanmean(away[chosen]))))
    return pd.DataFrame(lines, columns=["setting", "share elsewhere", "rows", "error"])


def verdict_agreement(settings: Mapping[str, pd.DataFrame], *, draws: int, seed: int) -> pd.DataFrame:
    """Share of the ten trajectories whose verdict is that of all calls together."""
    found = {name: verdicts(rows, features=TEN, draws=draws, seed=seed) for name, rows in settings.items()}
    return agreement(found)


def city_plan(world: CallWorldConfig, *, seed: int) -> Plan:
    """The plan of a made-up city with everything told."""
    names = sorted(world.operators)
    return parse_plan({
        "run": {"name": "operators", "task": "integration", "seed": seed},
        "data": {"source": "synthetic_calls", "pushes": "L0", "world": world.model_dump(mode="json")},
        "federation": {"shares": ["weights"], "holders": {name: [name] for name in names}},
        "report": {},
    })  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of one city."""
    given = _parser().parse_args(arguments)
    world = CallWorldConfig(scale=given.scale, newcomers=given.newcomers)
    with tempfile.TemporaryDirectory(prefix="operators-", dir=given.work) as work:
        plan = city_plan(world, seed=given.seed)
        with CallData(plan, data=None, work=Path(work), progress=SilentProgress()) as city:
            levels = Levels(city)
            tables = {"matching": matching_table(city, given.seed)}
            settings = levels.settings(seed=given.seed)
            tables["scores"] = federation_table(settings, seeds=range(given.seeds), city=city.study.city)
            tables["errors"] = errors_by_share(settings, cross_shares(levels))
            tables["verdicts"] = verdict_agreement(settings, draws=given.draws, seed=given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(given.out / f"operators_{name}.csv", index=False)
        print(f"\n## {name}\n\n{table.to_string(index=False)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations.experiments.operators", description="See the module.")
    parser.add_argument("--scale", type=float, default=0.003, help="of the made-up city; 1 is the study's size")
    parser.add_argument("--newcomers", type=float, default=5.0, help="times as many arrivals in week 2")
    parser.add_argument("--seed", type=int, default=1, help="of the city")
    parser.add_argument("--seeds", type=int, default=5, help="random halves of week 2")
    parser.add_argument("--draws", type=int, default=300, help="bootstrap draws of persons")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--work", type=Path, default=None, help="folder for what lies on the disk meanwhile")
    return parser


if __name__ == "__main__":
    sys.exit(main())
