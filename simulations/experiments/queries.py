"""What bounds and noise do to counts of job queries, on a synthetic log whose truth is known.

    python -m simulations.experiments.queries bias --queries 10e6 --cities 120 --days 364 --seed 0 --out FILE.json
    python -m simulations.experiments.queries attraction --seed 0 1 2 --out FILE.json

Raw rows go through the production pipeline once and are kept staged (`query_staging`). Every finished case is written
to the file at once; run again, the file is continued, and all of it is printed as markdown.

Declared before the first run:

* **bias**: which rule drops what (`query_bounding`, `query_bias`), and the total error of released counts against clean
  counts before bounding, as **relative RMSE and WMAPE of cells and of inflows per step**, at epsilon 1 and 2, delta
  1e-7, margins half of the budget, for k = 1, 5, 10, 20, 50, as released and rescaled. Sums over the whole period are
  secondary. A choice by hash must not know the time: counts of every step are compared with what a choice at random
  would keep of it.
* **attraction**: Spearman's correlation of planted and estimated attraction, by the one estimator that
  `query_attraction` declares; the goal is 0.9 without noise. k = 10, epsilon 0.25 to 8, with and without margins, by
  one holder of all cities and by four that split them and add their releases.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clients.query_counts import QueryCounts
from privacy.release import release_counts
from protocol.files import write_whole
from simulations.experiments import query_bias as bias
from simulations.experiments.query_attraction import (
    fit_gravity,
    period_counts,
    rank_agreement,
    season_agreement,
    shock_effect,
)
from simulations.experiments.query_bounding import APART, BEFORE, Bounding, bounded, rule_of
from simulations.experiments.query_staging import POOLED, Setting, StagedWorld, staged_world
from simulations.experiments.query_tables import tables
from simulations.worlds.od_counts import Shock
from tables.balance import Balance

Case = Mapping[str, Any]
Figures = Mapping[str, Any]
SPLIT = "four holders"
KS = (1, 5, 10, 20, 50)
_TRUTH = ("wanted", "found")


class Results:
    """Finished cases of a file, written after every one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.all: list[dict[str, Any]] = json.loads(path.read_text())["results"] if path.is_file() else []

    def has(self, setting: Setting, case: Case) -> bool:
        """Whether a case is finished."""
        wanted = {"setting": asdict(setting), "case": dict(case)}
        return any({name: result[name] for name in wanted} == wanted for result in self.all)

    def add(self, setting: Setting, case: Case, figures: Figures) -> None:
        """Keep a finished case."""
        self.all.append({"setting": asdict(setting), "case": dict(case), "figures": dict(figures)})
        text = json.dumps({"results": self.all}, indent=1, ensure_ascii=False)
        write_whole(self._path, lambda path: path.write_text(text, encoding="utf-8"))


def measure_bias(staged: StagedWorld, ks: Sequence[int], epsilons: Sequence[float]) -> Iterator[tuple[Case, Callable]]:
    """Cases of `bias`, each with what measures it; the counting is done when the first is asked for."""
    kept: list[Bounding] = []

    def counts() -> Bounding:
        if not kept:
            kept.append(bounded(staged, POOLED, ks))
        return kept[0]

    yield {"part": "rows"}, lambda: row_fates(staged)
    yield {"part": "rows", "several_share": 0}, lambda: row_fates(_plain_world(staged))
    yield {"part": "persons"}, lambda: bias.persons_of(counts())
    yield {"part": "constant"}, lambda: bias.constant_errors(counts())
    for rule in (BEFORE, APART, *map(rule_of, ks)):
        yield {"part": "bias", "rule": rule}, lambda r=rule: bias.bias_of(counts(), r, staged.world.truth)
        yield {"part": "classes", "rule": rule}, lambda r=rule: bias.classes_of(counts(), r)
    for k in ks:
        rule = rule_of(k)
        yield {"part": "time", "rule": rule}, lambda r=rule: bias.over_time(counts(), r)
        yield {"part": "sorts", "rule": rule}, lambda r=rule: bias.by_sort(counts(), r)
        yield {"part": "error", "k": k, "epsilon": 0.0}, lambda r=rule: bias.errors_of(counts(), r, None)
        for epsilon in epsilons:
            yield {"part": "error", "k": k, "epsilon": epsilon}, lambda k=k, e=epsilon: noisy_errors(counts(), k, e)


def noisy_errors(counts: Bounding, k: int, epsilon: float) -> Figures:
    """Errors of one draw of the release, and the noise on a cell and on a margin."""
    plan = bias.mechanism(k, epsilon)
    released = bias.release(counts, rule_of(k), plan, k, epsilon)
    noise = {"noise of a cell": released.stddev["cells"], "noise of a margin": released.stddev["inflow"]}
    return {**bias.errors_of(counts, rule_of(k), released), **noise}


def row_fates(staged: StagedWorld) -> Figures:
    """Rows by reason as planted and as the pipeline found them, over the holders, and counts against the planted ones.

    `found` in the truth leaves out queries that name two cities, whose city a keyed hash chooses: those can only add.
    """
    truth, balances, cells = staged.truth, {}, np.zeros(3, dtype=np.int64)
    for holder in staged.holders:
        counts = staged.counted(holder, 1)
        balances[holder] = Balance(counts.balance.rows_in, counts.balance.steps[:-2])
        extra = counts.plain_counts - truth.dense(holder, "found")[:, staged.columns(holder)]
        cells += [int(extra[extra > 0].sum()), int(extra[extra < 0].sum()), int(np.count_nonzero(extra))]
    planted = [truth.planted[holder] for holder in staged.holders]
    found = [{name.split(": ", 1)[1]: rows for name, rows in b.dropped().items()} for b in balances.values()]
    sums = {name: int(sum(truth.dense(holder, name).sum() for holder in staged.holders)) for name in _TRUTH}
    return {
        "rows": sum(balance.rows_in for balance in balances.values()),
        "planted": _added(each["dropped"] for each in planted),
        "found": _added(found),
        "kinds": _added(each["kinds"] for each in planted),
        "too many": int(cells[0]),
        "too few": int(-cells[1]),
        "cells that differ": int(cells[2]),
        "wanted": sums["wanted"],
        "sure": sums["found"],
    }


def _plain_world(staged: StagedWorld) -> StagedWorld:
    """A tenth of the world, whose queries name one city at most: nothing is left to the keyed hash."""
    setting = staged.setting
    setting = Setting(max(1, setting.queries // 10), setting.cities, setting.days, setting.step, setting.seed)
    return staged_world(setting, staged.folder.parent, several_share=0.0)


def _added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(part) for part in parts), Counter()))


def measure_attraction(
    staged: StagedWorld, k: int, epsilons: Sequence[float], draws: int
) -> Iterator[tuple[Case, Callable]]:
    """Cases of `attraction`, each with what measures it."""
    kept: dict[str, QueryCounts] = {}

    def counts(scope: str) -> QueryCounts:
        if scope not in kept:
            kept[scope] = staged.counted(scope, k)
        return kept[scope]

    def cells(scopes: Sequence[str], *, plain: bool) -> np.ndarray:
        found = np.zeros_like(counts(POOLED).plain_counts)
        for scope in scopes:
            own = counts(scope)
            found[:, staged.columns(scope)] += own.plain_counts if plain else own.bounded_counts.cells
        return found

    of = {POOLED: [POOLED], SPLIT: list(staged.holders)}
    yield {"part": "attraction", "counts": "planted rates"}, lambda: agreement(staged, _rates(staged))
    for scope, scopes in of.items():
        for plain, name in ((True, BEFORE), (False, rule_of(k))):
            case = {"part": "attraction", "counts": name, "scope": scope}
            yield case, lambda p=plain, s=scopes: agreement(staged, cells(s, plain=p))
    for draw in range(draws):
        for scope, scopes in of.items():
            for epsilon in epsilons:
                for margins in (True, False):
                    case = {"part": "attraction", "scope": scope, "k": k, "epsilon": epsilon, "margins": margins}
                    yield (
                        {**case, "draw": draw},
                        lambda s=scopes, e=epsilon, m=margins, d=draw: released_agreement(
                            staged, {scope: counts(scope) for scope in s}, k, e, margins=m, draw=d
                        ),
                    )


def agreement(staged: StagedWorld, cells: np.ndarray) -> Figures:
    """How well counts without noise show what was planted. Shapes: cells (T, N, N)"""
    cross = bias.off_diagonal(cells)
    return _figures(staged, cross.sum(axis=0), cross.sum(axis=1))


def released_agreement(
    staged: StagedWorld, counts: Mapping[str, QueryCounts], k: int, epsilon: float, *, margins: bool, draw: int
) -> Figures:
    """How well the releases of some holders show what was planted."""
    plan = bias.mechanism(k, epsilon, margins=margins)
    releases, inflow = [], np.zeros((len(staged.world.calendar.times), len(staged.world.cities)))
    for scope, own in counts.items():
        columns = np.array(staged.columns(scope))
        stream = bias.stream(staged.setting.name, scope, k, epsilon, margins, draw)
        released = release_counts(own.bounded_counts.queries(margins=margins), plan, stream)
        releases.append((released, columns))
        sums = bias.queries_of(released.values["cells"], columns)
        inflow += released.values.get("inflow", sums["inflow"])
    noise = {"noise of a cell": plan.cells_stddev, "noise of a margin": plan.margins_stddev or 0.0}
    return {**_figures(staged, period_counts(releases, len(staged.world.cities)), inflow), **noise}


def _figures(staged: StagedWorld, counts: np.ndarray, inflow: np.ndarray) -> Figures:
    world = staged.world
    model = fit_gravity(counts, world.regions, world.cities.provinces)
    rates = bias.off_diagonal(_rates(staged)).sum(axis=1)
    return {
        "spearman": rank_agreement(model.attraction, world.truth.attraction),
        "spearman of plain inflow": rank_agreement(counts.sum(axis=0), world.truth.attraction),
        "decay": model.decay,
        "province": model.province,
        "season": season_agreement(inflow, world.truth),
        "shocks": [_shock(inflow, rates, shock) for shock in world.truth.shocks],
    }


def _shock(inflow: np.ndarray, rates: np.ndarray, shock: Shock) -> tuple[float, float]:
    """Change of the regions' share of inflow, over their share around the shock in the planted rates: found, planted.

    The measured share is not divided by itself, since noise can bring it to 0.
    """
    (during, around), (planted, before) = shock_effect(inflow, shock), shock_effect(rates, shock)
    return (during - around) / before, (planted - before) / before


def _rates(staged: StagedWorld) -> np.ndarray:
    truth = staged.world.truth
    return np.stack([truth.rate(step) for step in range(staged.world.config.num_steps)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure what the file does not hold yet, print the tables."""
    given = _parser().parse_args(arguments)
    results = Results(given.out)
    for seed in given.seed:
        setting = Setting(int(given.queries), given.cities, given.days, given.step, seed)
        staged = staged_world(setting, given.work or given.out.with_suffix(".work"))
        if given.part == "bias":
            measures = measure_bias(staged, given.contributions or KS, given.epsilons or [1.0, 2.0])
        else:
            epsilons = given.epsilons or [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
            measures = measure_attraction(staged, (given.contributions or [10])[0], epsilons, given.draws)
        for case, measure in measures:
            if not results.has(setting, case):
                results.add(setting, case, measure())
    print(tables(results.all))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.experiments.queries", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("part", choices=["bias", "attraction"])
    parser.add_argument("--queries", type=float, default=10e6, help="expected raw rows (default 10e6)")
    parser.add_argument("--cities", type=int, default=120)
    parser.add_argument("--days", type=int, default=364)
    parser.add_argument("--step", choices=["day", "week"], default="week")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of the world; several are measured in turn")
    parser.add_argument("--contributions", type=int, nargs="+", help="k; of attraction the first (10), of bias all")
    parser.add_argument("--epsilons", type=float, nargs="+")
    parser.add_argument("--draws", type=int, default=5, help="of attraction: releases of each case")
    parser.add_argument("--work", type=Path, help="folder for staged queries (default: beside --out)")
    parser.add_argument("--out", type=Path, required=True, help="results, continued if it is there")
    return parser


if __name__ == "__main__":
    main()
