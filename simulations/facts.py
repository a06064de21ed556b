"""What a finished run says of itself: who took part, what was compared with what, and how the graphs look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dhgsil.bootstrap import paired_block_bootstrap
from dhgsil.graphs import homophily_report
from server.run_folder import run_name, versions
from simulations.evaluation import Evaluation
from simulations.results import Comparison, GraphHomophily, HolderFacts, RunFacts, model_label
from simulations.run_tables import MODEL
from simulations.scores import Score

PEER = "residual_mlp"
"""The baseline of equal capacity: compared with whatever baseline is best."""


def run_facts(evaluation: Evaluation, scores: Sequence[Score], *, seconds: float, command: str) -> RunFacts:
    """The facts of a run, ready to be sealed."""
    plan = evaluation.plan
    notes = [*evaluation.calendar.notes, *(score.note for score in scores if score.note)]
    return RunFacts(
        run=run_name(plan),
        plan_hash=plan.digest(),
        task=plan.run.task,
        seconds=seconds,
        seeds=(plan.run.seed,),
        versions=versions(),
        measure=evaluation.series.provenance.measure,
        command=command,
        shares=plan.federation.shares,
        holders=tuple(HolderFacts(name=name, regions=codes) for name, codes in plan.federation.holders.items()),
        homophily=_homophily(evaluation),
        comparisons=tuple(_comparisons(evaluation, scores)),
        notes=tuple(notes),
        primary_metric=plan.report.metric,
        primary_scale=plan.report.scale,
    )


def headline(score: Score, *, metric: str, scale: str) -> float:
    """A score's error over all horizons on the declared metric and scale; infinite for an empty score."""
    found = [row[metric] for row in score.rows if row["slice"] == "all" and row["scale"] == scale]
    return float(found[0]) if found else float("inf")


def _comparisons(evaluation: Evaluation, scores: Sequence[Score]) -> Iterator[Comparison]:
    """The main model against the best baseline, its peer, pooled and alone; and every pair with the pooled model."""
    report, labelled = evaluation.plan.report, {label_of(score): score for score in scores if score.rows}
    baselines = [score for score in labelled.values() if score.rows[0]["scope"] == "baseline"]
    best = min(baselines, key=lambda s: headline(s, metric=report.metric, scale=report.scale), default=None)
    opponents = [label_of(best)] if best is not None else []
    if PEER in labelled and PEER not in opponents:
        opponents.append(PEER)
    ours = [model_label(MODEL, "federated", share) for share in reversed(evaluation.plan.federation.shares)]
    pooled, alone = model_label(MODEL, "pooled"), model_label(MODEL, "alone")
    pairs = [(ours[0], other) for other in opponents] + [(pooled, other) for other in opponents]
    pairs += [(name, pooled) for name in ours] + [(ours[0], alone)]
    for a, b in pairs:
        if a in labelled and b in labelled:
            for metric in ("rmse", "mae"):
                yield _compared(evaluation, labelled[a], labelled[b], a, b, metric)


def label_of(score: Score) -> str:
    """The name of a score in the skill table."""
    row = score.rows[0]
    return model_label(str(row["model"]), str(row["scope"]), str(row["share"]), str(row["holder"]))


def _compared(evaluation: Evaluation, a: Score, b: Score, label_a: str, label_b: str, metric: str) -> Comparison:
    plan = evaluation.plan
    key = (plan.report.scale, metric)
    found = paired_block_bootstrap(
        a.losses[key], b.losses[key], metric=metric, rng=np.random.default_rng(plan.run.seed),  # type: ignore[arg-type]
        block_length=plan.report.bootstrap_block,
    )  # fmt: skip
    return Comparison(
        model_a=label_a, model_b=label_b, metric=metric, scale=plan.report.scale,  # type: ignore[arg-type]
        difference=found.value, lo=found.low, hi=found.high, level=found.level,
    )  # fmt: skip


def _homophily(evaluation: Evaluation) -> dict[str, GraphHomophily]:
    """h of the graphs of the training span, for attraction (log1p of the mean inflow from other regions)."""
    mean = evaluation.problem.m[evaluation.problem.split.train.steps].mean(axis=0)
    away = mean * (1.0 - np.eye(len(mean)))
    report = homophily_report(away, evaluation.problem.distance, np.log1p(away.sum(axis=0)))
    names = {
        "geography": "geography",
        "mobility out, 20 largest": "mobility_out",
        "mobility in, 20 largest": "mobility_in",
        "mobility out, all pairs": "mobility_out_untruncated",
    }
    null = report["strength_null"]
    nulls = {"mobility_out_untruncated": null} if null > 0 else {}
    return {  # h does not exist without edges, or where all regions are equally attractive
        name: GraphHomophily(h=report[key], null=nulls.get(key))
        for name, key in names.items()
        if np.isfinite(report[key])
    }
