"""The tables over several seeds and over variants of the model: complete, and never trained twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from protocol.plan import Plan, load_plan
from simulations.experiments import ablation, seeds
from simulations.results import model_label
from simulations.run_tables import MODEL
from simulations.scores import Score
from tests.plans import tiny_values

CHANGES: dict[str, Any] = {"training.rounds": 1, "compare.baselines": ["last_value", "residual_mlp"]}
LABELS = {
    *(model_label(MODEL, scope, share) for scope, share in (("federated", "weights+margins"), ("pooled", ""))),
    model_label(MODEL, "alone"),
    "last_value",
    "residual_mlp",
}


def plan_file(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "tiny.toml"
    path.write_text(tomli_w.dumps(tiny_values(changes)), encoding="utf-8")
    return path


def rows_of(markdown: str) -> list[list[str]]:
    """Cells of the rows of all tables, heads and rules left out."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class Runs:
    """Two finished seeds of the tiny plan."""

    def __init__(self, folder: Path) -> None:
        self.jobs = [seeds.Job(plan_file(folder, CHANGES), None, folder / "out", seed, {}) for seed in (0, 1)]
        self.folders = [seeds.run(job) for job in self.jobs]
        self.scores: dict[str, list[Score]] = defaultdict(list)
        for job, run in zip(self.jobs, self.folders, strict=True):
            for label, score in seeds.scores_of(job.plan, run).items():
                self.scores[label].append(score)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("seeds"))


@pytest.mark.slow
def test_table_of_seeds_has_every_model(runs: Runs) -> None:
    """Every model in every table, each holder alone left to the run's own report."""
    plan = runs.jobs[0].plan
    skill, paired = seeds.report(plan, runs.scores).split("### Paired")
    tables = skill.split("### ")[1:]
    assert len(tables) >= 3
    for text in tables:
        table = {row[0]: row for row in rows_of(text) if row[0] != "model"}
        assert set(table) == LABELS
        again = {label for label, row in table.items() if row[1] == "2"}
        assert again == LABELS - {"last_value", model_label(MODEL, "alone")}
    best = [float(row[2].split(" ")[0]) for row in rows_of(tables[0]) if row[0] != "model"]
    assert best == sorted(best)
    compared = [row for row in rows_of(paired) if row[0] != "a"]
    assert {row[2] for row in compared} == {"rmse", "mae"}
    assert {name for row in compared for name in row[:2]} >= LABELS - {"last_value"}


@pytest.mark.slow
def test_finished_seed_is_not_run_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("a finished seed was run again")

    monkeypatch.setattr(seeds, "simulate", refuse)
    assert [seeds.run(job) for job in runs.jobs] == runs.folders


@pytest.mark.slow
def test_broken_off_seed_goes_on(runs: Runs, tmp_path: Path) -> None:
    """A run folder without its last file is resumed, not refused."""
    job = seeds.Job(runs.jobs[1].plan_file, None, tmp_path, 1, {"compare.pooled": "false"})
    metrics = (seeds.run(job) / "metrics.parquet").read_bytes()
    (tmp_path / "seed-1" / seeds.FACTS_FILE).unlink()
    assert (seeds.run(job) / "metrics.parquet").read_bytes() == metrics
    assert (tmp_path / "seed-1" / seeds.FACTS_FILE).is_file()


@pytest.mark.slow
def test_ablation_has_a_row_per_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variant is another model; a second run of the same job reads its score back."""
    path, wanted = plan_file(tmp_path, CHANGES), (ablation.FULL, "no season", "no graph")
    jobs = [ablation.Job(path, None, tmp_path, variant, seed, {}) for variant in wanted for seed in (0, 1)]
    scores: dict[str, list[Score]] = defaultdict(list)
    for job in jobs:
        scores[job.variant].append(ablation.run(job))
    head, *rows = rows_of(ablation.report(scores, scale="log1p", block=2))
    assert head[0] == "variant"
    assert [row[0] for row in rows] == list(wanted)
    assert {len(row) for row in rows} == {len(head)}
    assert len({row[1] for row in rows}) == len(wanted)
    monkeypatch.setattr(ablation, "train", None)
    again = [ablation.run(job).to_bytes() for job in jobs]
    assert again == [score.to_bytes() for runs in scores.values() for score in runs]


@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_every_variant_is_a_plan(variant: str, tmp_path: Path) -> None:
    """No misspelt switch, and none that takes nothing away from a model with every part."""
    path = plan_file(tmp_path, CHANGES | {"model.pair": "embedding", "model.context_inputs": "history"})
    changed: Plan = load_plan(path, overrides=ablation.VARIANTS[variant])
    full = load_plan(path)
    assert (changed.model != full.model) == (variant != ablation.FULL)
    assert changed.training == full.training
