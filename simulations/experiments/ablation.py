"""The ablation table of a plan: the pooled model with one thing taken away at a time, over several seeds.

    python -m simulations.experiments.ablation plans/japan_regions.toml --data DIR --seeds 3 --out runs/ablation

Every variant has the same schedule, seeds and windows. No order is expected: if taking something away does not hurt,
the table says so. "The graph helps" needs the full model to beat both no graph and the random graph of equal degrees.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dhgsil.task import TASK
from protocol.files import write_whole
from protocol.plan import load_plan
from server.journal import Journal
from server.run_folder import run_name
from simulations.evaluation import Evaluation
from simulations.experiments.seeds import compare
from simulations.forecasts import forecast_all
from simulations.holdings import Holdings
from simulations.progress import SilentProgress
from simulations.records import held_rows, load_series
from simulations.run_tables import MODEL
from simulations.scores import Score
from simulations.stages import train, trainings

VARIABLES = ("attraction", "outflow", "retention", "diversity")
FULL = "full"
VARIANTS: dict[str, dict[str, str]] = {
    FULL: {},
    "no geography": {"model.geography": "false"},
    "no mobility": {"model.mobility": '"off"'},
    "mobility low-pass": {"model.mobility": '"lowpass"'},
    "mobility signed": {"model.mobility": '"signed"'},
    "no graph": {"model.geography": "false", "model.mobility": '"off"'},
    "random graph, equal degrees": {"model.graph": '"random"'},
    "no trend": {"model.trend": "false"},
    "no season": {"model.season": "false"},
    "GRU for the temporal module": {"model.temporal": '"gru"'},
    "no autoregression": {"model.autoregression": "false"},
    "no contrastive losses": {"model.contrastive_weight": "0.0"},
    **{
        f"no {name} losses": {"model.contrastive_variables": str([v for v in VARIABLES if v != name]).replace("'", '"')}
        for name in VARIABLES
    },
    "no structure part": {"model.structure": "false"},
    "no region embedding": {"model.region_embedding": "0"},
    "no pair term": {"model.pair": '"none"'},
    "static context (no history)": {"model.context_inputs": '"static"'},
}


@dataclass(frozen=True)
class Job:
    """One variant with one seed."""

    plan_file: Path
    data: Path | None
    out: Path
    variant: str
    seed: int
    overrides: Mapping[str, str]


def run(job: Job) -> Score:
    """Train the pooled model of a variant and score it; a finished one is read back."""
    torch.set_num_threads(1)
    name = job.variant.replace(" ", "-").replace(",", "").replace("(", "").replace(")", "")
    stored = job.out / f"{name}-{job.seed}.score"
    if stored.is_file():
        return Score.from_bytes(stored.read_bytes())
    plan = load_plan(job.plan_file, overrides={**job.overrides, **VARIANTS[job.variant]}, seed=job.seed)
    series = held_rows(load_series(plan, TASK, job.data), plan)
    evaluation = Evaluation.of(plan, series)
    pooled = next(training for training in trainings(plan) if training.scope == "pooled")
    journal_file = job.out / f"{name}-{job.seed}.sqlite"
    with Journal(journal_file, run=run_name(plan), plan_hash=plan.digest()) as journal:
        _, holders = train(
            pooled, Holdings.split(series, {}), TASK, run=run_name(plan), journal=journal, progress=SilentProgress()
        )
    forecast = forecast_all(holders, evaluation.test_origins, num_regions=series.num_regions)
    score = evaluation.score(forecast, {"model": MODEL, "scope": "pooled"}, seconds=0.0)
    write_whole(stored, lambda path: path.write_bytes(score.to_bytes()))
    return score


def report(scores: Mapping[str, list[Score]], *, scale: str, block: int) -> str:
    """Markdown: RMSE and MAE over seeds, and the paired difference to the full model."""
    lines = ["| variant | RMSE | MAE | RMSE - full | interval |", "|---|---|---|---|---|"]
    for variant, runs in scores.items():
        cells = [row for score in runs for row in score.rows if (row["scale"], row["slice"]) == (scale, "all")]
        rmse, mae = (np.array([float(cell[metric]) for cell in cells]) for metric in ("rmse", "mae"))
        spread = rmse.std(ddof=1) if len(rmse) > 1 else 0.0
        line = f"| {variant} | {rmse.mean():.4f} ± {spread:.4f} | {mae.mean():.4f} |"
        if variant != FULL:
            d = compare(runs, scores[FULL], scale=scale, metric="rmse", block=block)
            line += f" {d.value:+.4f} | [{d.low:+.4f}, {d.high:+.4f}] |"
        lines.append(line if variant != FULL else line + " | |")
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, run the variants, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="variants to run; all by default")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    overrides = dict(item.split("=", 1) for item in given.overrides)
    wanted = [FULL, *(name for name in given.only or VARIANTS if name != FULL)]
    jobs = [
        Job(given.plan, given.data, given.out, variant, seed, overrides)
        for seed in range(given.seeds)
        for variant in wanted
    ]
    with ProcessPoolExecutor(given.jobs) as pool:
        results = list(pool.map(run, jobs))
    scores: dict[str, list[Score]] = {variant: [] for variant in wanted}
    for job, score in zip(jobs, results, strict=True):
        scores[job.variant].append(score)
    plan = load_plan(given.plan, overrides=overrides)
    print(report(scores, scale=plan.report.scale, block=plan.report.bootstrap_block))


if __name__ == "__main__":
    main()
