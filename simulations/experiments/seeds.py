"""Run a plan over several seeds and print one table: mean and standard deviation of every model, paired intervals.

    python -m simulations.experiments.seeds plans/japan_regions.toml --data DIR --seeds 5 --out runs/japan

Baselines without randomness, and each holder alone, are run once, with the first seed; a finished seed is not run
again. Comparisons average the window losses of a model over its seeds before the bootstrap, so the interval is over
time and not over seeds.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dhgsil.bootstrap import Difference, paired_block_bootstrap
from protocol.plan import Plan, load_plan
from server.journal import Journal
from server.run_folder import FACTS_FILE, JOURNAL_FILE, run_name
from simulations.facts import PEER, label_of
from simulations.results import model_label
from simulations.run_tables import MODEL
from simulations.runner import simulate
from simulations.scores import Score

RANDOM_BASELINES = (PEER,)
TableRow = tuple[str, int, float, float, float, float]


@dataclass(frozen=True)
class Job:
    """One seed of a plan and where its run goes."""

    plan_file: Path
    data: Path | None
    out: Path
    seed: int
    overrides: Mapping[str, str]

    @property
    def plan(self) -> Plan:
        """The plan of this seed; later seeds leave out what does not depend on the seed."""
        overrides = dict(self.overrides)
        if self.seed > 0:
            overrides["compare.baselines"] = str(list(RANDOM_BASELINES)).replace("'", '"')
            overrides["compare.alone"] = "false"
        return load_plan(self.plan_file, overrides=overrides, seed=self.seed)


def run(job: Job) -> Path:
    """Carry out one seed, or continue it, or leave it if it is finished."""
    torch.set_num_threads(1)
    folder = job.out / f"seed-{job.seed}"
    if (folder / FACTS_FILE).is_file():
        return folder
    started = (folder / JOURNAL_FILE).is_file()
    simulate(job.plan, data=job.data, out=None if started else folder, resume=folder if started else None)
    return folder


def scores_of(plan: Plan, folder: Path) -> dict[str, Score]:
    """All scores of a run, by the label of the skill table."""
    with Journal(folder / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal:
        found = [Score.from_bytes(blob) for name, blob in journal.results().items() if not name.endswith("forecast")]
    return {label_of(score): score for score in found if score.rows}


def table(scores: Mapping[str, Sequence[Score]], *, scale: str, slice_name: str) -> list[TableRow]:
    """Label, seeds, mean and sd of RMSE and of MAE, best first."""
    rows = []
    for label, runs in scores.items():
        cells = [row for score in runs for row in score.rows if (row["scale"], row["slice"]) == (scale, slice_name)]
        if cells:
            rmse, mae = (np.array([float(cell[m]) for cell in cells]) for m in ("rmse", "mae"))
            rows.append((label, len(cells), rmse.mean(), _sd(rmse), mae.mean(), _sd(mae)))
    return sorted(rows, key=lambda row: row[2])


def compare(a: Sequence[Score], b: Sequence[Score], *, scale: str, metric: str, block: int) -> Difference:
    """Error of a minus error of b; window losses averaged over seeds first."""
    losses = (np.mean([score.losses[scale, metric] for score in runs], axis=0) for runs in (a, b))
    return paired_block_bootstrap(*losses, metric=metric, rng=np.random.default_rng(0), block_length=block)  # type: ignore[arg-type]


def report(plan: Plan, scores: Mapping[str, Sequence[Score]]) -> str:
    """Markdown: the skill table on every scale, by horizon for the declared one, and the paired comparisons."""
    lines = []
    any_score = next(iter(scores.values()))[0]
    for scale in dict.fromkeys([plan.report.scale, *(str(row["scale"]) for row in any_score.rows)]):
        lines += [f"\n### {scale}, all horizons\n", "| model | seeds | RMSE | MAE |", "|---|---|---|---|"]
        lines += [
            f"| {label} | {n} | {rmse:.5g} ± {rs:.2g} | {mae:.5g} ± {ms:.2g} |"
            for label, n, rmse, rs, mae, ms in table(scores, scale=scale, slice_name="all")
            if "alone (" not in label
        ]
    lines += [f"\n### {plan.report.scale}, one step ahead\n", "| model | seeds | RMSE | MAE |", "|---|---|---|---|"]
    lines += [
        f"| {label} | {n} | {rmse:.5g} ± {rs:.2g} | {mae:.5g} ± {ms:.2g} |"
        for label, n, rmse, rs, mae, ms in table(scores, scale=plan.report.scale, slice_name="h=1")
        if "alone (" not in label
    ]
    return "\n".join([*lines, *_comparisons(plan, scores)])


def _comparisons(plan: Plan, scores: Mapping[str, Sequence[Score]]) -> list[str]:
    pooled = model_label(MODEL, "pooled")
    ours = [model_label(MODEL, "federated", share) for share in plan.federation.shares]
    baselines = [label for label, runs in scores.items() if runs[0].rows[0]["scope"] == "baseline"]
    ranked = [row[0] for row in table(scores, scale=plan.report.scale, slice_name="all") if row[0] in baselines]
    opponents = list(dict.fromkeys([*ranked[:1], *(name for name in (PEER,) if name in baselines)]))
    pairs = [(a, b) for a in (ours[-1], pooled) for b in opponents] + [(a, pooled) for a in ours]
    pairs.append((ours[-1], model_label(MODEL, "alone")))
    lines = ["\n### Paired block bootstrap, 95 %\n", "| a | b | metric | a - b | interval |", "|---|---|---|---|---|"]
    for a, b in pairs:
        if a in scores and b in scores:
            for metric in ("rmse", "mae"):
                block = plan.report.bootstrap_block
                d = compare(scores[a], scores[b], scale=plan.report.scale, metric=metric, block=block)
                lines.append(f"| {a} | {b} | {metric} | {d.value:+.5g} | [{d.low:+.5g}, {d.high:+.5g}] |")
    return lines


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def main() -> None:
    """Parse arguments, run the seeds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    given = parser.parse_args()
    overrides = dict(item.split("=", 1) for item in given.overrides)
    jobs = [Job(given.plan, given.data, given.out, seed, overrides) for seed in range(given.seeds)]
    with ProcessPoolExecutor(given.jobs) as pool:
        folders = list(pool.map(run, jobs))
    gathered: dict[str, list[Score]] = defaultdict(list)
    for job, folder in zip(jobs, folders, strict=True):
        for label, score in scores_of(job.plan, folder).items():
            gathered[label].append(score)
    print(report(jobs[0].plan, gathered))


if __name__ == "__main__":
    main()
