"""Error of forecasts against epsilon: counts released with noise, estimated, trained on, scored on the clean test span.

    python -m simulations.experiments.privacy plans/japan_regions.toml --data DIR --out runs/privacy/japan.json

Every count of the series is read as one person's contribution; a person has at most k of them in the whole series. Each
holder of the plan releases its rows by the production mechanism (`privacy.release`), with and without margins. The same
model with the same schedule and seed is fitted to the clean counts and to the estimates, forecasts from what it was
fitted to, and is scored on clean test targets. Reported is the change of its error against the clean run, on the plan's
own metric and scale, and on three others declared here: cells as WMAPE, inflows of regions as WMAPE, and log1p MAE.

Each finished case is written to the file at once; run again, the file is continued. With `--dhgsil` the pooled model of
the plan is trained in place of the linear baselines; `--set` gives the schedule, the same for clean and private runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dhgsil.baselines.registry import BASELINES
from dhgsil.metrics import to_index
from dhgsil.series import ODSeries
from dhgsil.task import TASK, data_section
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from protocol.files import write_whole
from protocol.plan import Plan, load_plan
from server.journal import Journal
from server.run_folder import run_name
from simulations.evaluation import Evaluation
from simulations.forecasts import forecast_all
from simulations.holdings import Holdings
from simulations.progress import SilentProgress
from simulations.records import held_rows, load_series
from simulations.run_tables import MODEL
from simulations.stages import train, trainings

DELTA = 1e-7
MARGIN_SHARE = 0.5
Errors = dict[str, float]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One model fitted once: to the clean counts (epsilon 0) or to one draw of a release."""

    model: str
    epsilon: float = 0.0
    contributions: int = 0
    margin_share: float = 0.0
    delta: float = 0.0
    draw: int = 0

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def mechanism(self) -> CountReleasePlan:
        """The least noise that keeps the case's promise."""
        return _calibrated(self.contributions, self.epsilon, self.delta, self.margin_share)

    @property
    def noise(self) -> dict[str, float]:
        """Stddev of the noise on each number, by query; 0 where there is none."""
        if self.epsilon == 0:
            return {"cells": 0.0, "margins": 0.0}
        mechanism = self.mechanism
        return {"cells": mechanism.cells_stddev, "margins": mechanism.margins_stddev or 0.0}


@cache
def _calibrated(contributions: int, epsilon: float, delta: float, margin_share: float) -> CountReleasePlan:
    margins = 1.0 if margin_share else None
    start = CountReleasePlan(contributions=contributions, cells_stddev=1.0, margins_stddev=margins)
    return start.calibrate(epsilon=epsilon, delta=delta, margin_share=margin_share or MARGIN_SHARE)


def release(plan: Plan, series: ODSeries, mechanism: CountReleasePlan, *, draw: int) -> dict[str, NoisyCounts]:
    """What each holder releases, by name. The stream has a key, so that a table can be made again."""
    released = {}
    for name, codes in plan.federation.holders.items():
        queries = TASK.counts(series.held_by(codes))
        if mechanism.margins_stddev is None:
            queries = {"cells": queries["cells"]}
        key = hashlib.sha256(f"simulated release, holder {name}, draw {draw}".encode()).digest()
        released[name] = release_counts(queries, mechanism, SecureStream(key))
    return released


def estimated(plan: Plan, series: ODSeries, released: Mapping[str, NoisyCounts]) -> ODSeries:
    """The series of all holders as their releases tell it."""
    parts = (
        TASK.with_released(series.held_by(codes), released[name].values, released[name].stddev, plan)
        for name, codes in plan.federation.holders.items()
    )
    return reduce(add, parts)


def forecast(model: str, evaluation: Evaluation) -> np.ndarray:
    """Test forecasts of a model fitted to the evaluation's own series. Shapes: -> (W, H, N, N)"""
    if model != MODEL:
        return BASELINES[model]().fit(evaluation.problem).predict(evaluation.test_origins)
    plan, series = evaluation.plan, evaluation.series
    pooled = next(training for training in trainings(plan) if training.scope == "pooled")
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite", run=run_name(plan), plan_hash=plan.digest()) as journal,
    ):
        _, holders = train(
            pooled, Holdings.split(series, {}), TASK, run=run_name(plan), journal=journal, progress=SilentProgress()
        )
    return forecast_all(holders, evaluation.test_origins, num_regions=series.num_regions)


def errors_of(evaluation: Evaluation, values: np.ndarray) -> Errors:
    """Errors of test forecasts on the clean targets: the plan's own, and those declared at the top of the module.

    Shapes: values (W, H, N, N) in model space
    """
    score = evaluation.score(values, {"model": "any", "scope": "baseline"}, seconds=0.0)
    found = {
        f"{row['scale']} {metric}": float(row[metric])
        for row in score.rows
        if row["slice"] == "all"
        for metric in ("rmse", "mae")
    }
    off = evaluation.scoring.scored & ~np.eye(values.shape[-1], dtype=bool)
    truth, guess = (to_index(x, evaluation.truth.space) * off for x in (evaluation.test_truth, values))
    found["cells WMAPE"] = _wmape(truth, guess)
    if data_section(evaluation.plan).index != "row_share":
        found["inflow WMAPE"] = _wmape(truth.sum(axis=2), guess.sum(axis=2))
    return found


def slices_of(evaluation: Evaluation, values: np.ndarray) -> Errors:
    """RMSE in model space of each holder's rows, and of each decile of volume of pairs (10: the largest).

    Shapes: values (W, H, N, N) in model space
    """
    squares = np.square(values - evaluation.test_truth).mean(axis=(0, 1))  # (N, N)
    scored, deciles = evaluation.scoring.scored, evaluation.scoring.deciles
    found = {}
    for name, codes in evaluation.plan.federation.holders.items():
        held = np.zeros_like(scored)
        held[evaluation.series.regions.positions(codes)] = True
        found[name] = float(np.sqrt(squares[held & scored].mean()))
    for decile in range(1, 11) if deciles is not None else ():
        found[f"decile {decile}"] = float(np.sqrt(squares[scored & (deciles == decile)].mean()))
    return found


def measure(case: Case, evaluation: Evaluation) -> dict[str, object]:
    """Fit and score one case."""
    started = time.monotonic()
    values = forecast(case.model, evaluation)
    found = {"errors": errors_of(evaluation, values), "slices": slices_of(evaluation, values)}
    return asdict(case) | found | {"noise": case.noise, "seconds": time.monotonic() - started}


def evaluations(plan: Plan, series: ODSeries) -> Callable[[Case], Evaluation]:
    """The evaluation of a case; the last one is kept, since cases that differ in the model alone share a release."""
    kept: dict[Case, Evaluation] = {}

    def of(case: Case) -> Evaluation:
        shared = replace(case, model="")
        if shared not in kept:
            kept.clear()
            if case.epsilon == 0:
                kept[shared] = Evaluation.of(plan, series)
            else:
                released = release(plan, series, case.mechanism, draw=case.draw)
                kept[shared] = Evaluation.of(plan, estimated(plan, series, released), truth=series)
        return kept[shared]

    return of


def cases(given: argparse.Namespace) -> Iterator[Case]:
    """Clean runs first, then releases draw by draw."""
    models = [MODEL] if given.dhgsil else given.models
    yield from (Case(model) for model in models)
    for draw in range(given.draws):
        for contributions in given.contributions:
            for epsilon in given.epsilons:
                for share in given.margin_shares:
                    for model in models:
                        yield Case(model, epsilon, contributions, share, given.delta, draw)


def volumes(plan: Plan, series: ODSeries) -> dict[str, dict[str, float]]:
    """Mean counts of a step by holder: all, and between regions. Of the clean series, for the reader of the table."""
    found = {}
    for name, codes in plan.federation.holders.items():
        queries = TASK.counts(series.held_by(codes))
        found[name] = {
            "all": float(queries["cells"].sum(axis=(1, 2)).mean()),
            "between regions": float(queries["outflow"].sum(axis=1).mean()),
        }
    return found


def table(results: Sequence[Result], *, primary: str) -> str:
    """Markdown: each error of the clean run, then its change; for the primary one the range over draws too."""
    clean = {r["model"]: r["errors"] for r in results if not r["epsilon"]}
    names = list(dict.fromkeys([primary, *next(iter(clean.values()))]))
    head = ["model", "k", "epsilon", "share of margins", "sd of a cell", "draws", *names]
    rows: list[list[str]] = [head, ["---"] * len(head)]
    rows += [
        [model, "", "none", "", "0", "", *(f"{errors[name]:.5g}" for name in names)] for model, errors in clean.items()
    ]
    groups: dict[tuple[str, int, float, float], list[Result]] = {}
    for r in results:
        if r["epsilon"]:
            groups.setdefault((r["model"], r["contributions"], r["epsilon"], r["margin_share"]), []).append(r)
    for (model, k, epsilon, share), runs in sorted(groups.items()):
        changes = {name: [100 * (r["errors"][name] / clean[model][name] - 1) for r in runs] for name in names}
        cells = [f"{np.mean(change):+.2f} %" for change in changes.values()]
        if len(runs) > 1:
            cells[0] += f" ({min(changes[primary]):+.2f} .. {max(changes[primary]):+.2f})"
        noise = f"{runs[0]['noise']['cells']:.2f}"
        rows.append([model, str(k), f"{epsilon:g}", f"{share:g}", noise, str(len(runs)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _wmape(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(np.abs(guess - truth).sum() / truth.sum())


def main() -> None:
    """Parse arguments, measure what the file does not hold yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--contributions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--margin-shares", type=float, nargs="+", default=[MARGIN_SHARE, 0.0], help="0: no margins")
    parser.add_argument("--delta", type=float, default=DELTA)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["linear_ar", "linear_ar_28"], choices=list(BASELINES))
    parser.add_argument("--dhgsil", action="store_true", help="train the plan's pooled model in place of baselines")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = load_plan(given.plan, overrides=dict(item.split("=", 1) for item in given.overrides))
    series = held_rows(load_series(plan, TASK, given.data), plan)
    facts = {"plan": plan.digest(), "steps": series.num_steps, "volumes": volumes(plan, series)}
    results = json.loads(given.out.read_text())["results"] if given.out.is_file() else []
    evaluation = evaluations(plan, series)
    done = {Case(**{name: r[name] for name in asdict(Case(""))}).key for r in results}
    for case in cases(given):
        if case.key not in done:
            results.append(measure(case, evaluation(case)))
            text = json.dumps(facts | {"results": results}, indent=1)
            write_whole(given.out, lambda path, text=text: path.write_text(text))
    print(json.dumps(facts["volumes"], indent=1))
    print(table(results, primary=f"{plan.report.scale} {plan.report.metric}"))


if __name__ == "__main__":
    main()
