"""The table of errors against epsilon: complete, continued where it stopped, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from dhgsil.task import TASK
from simulations.evaluation import Evaluation
from simulations.experiments import privacy
from simulations.run_tables import MODEL
from tests.plans import series_of, tiny_plan, tiny_values

PRIVATE = privacy.Case("linear_ar", epsilon=2.0, contributions=10, margin_share=0.5, delta=1e-7)


def run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *more: str
) -> list[list[str]]:
    """Rows of the printed table, the head first."""
    plan = folder / "tiny.toml"
    plan.write_text(tomli_w.dumps(tiny_values()), encoding="utf-8")
    given = ["privacy", str(plan), "--out", str(folder / "out.json"), "--draws", "2", "--contributions", "10"]
    monkeypatch.setattr("sys.argv", [*given, "--models", "linear_ar", *more])
    privacy.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


@pytest.mark.slow
def test_a_table_is_continued_and_not_measured_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, capsys, monkeypatch, "--epsilons", "2", "--margin-shares", "0.5")
    before = json.loads((tmp_path / "out.json").read_text())["results"]
    second = run(tmp_path, capsys, monkeypatch, "--epsilons", "2", "--margin-shares", "0.5", "0")
    after = json.loads((tmp_path / "out.json").read_text())["results"]
    assert after[: len(before)] == before
    assert [row[1:4] for row in first[1:]] == [["", "none", ""], ["10", "2", "0.5"]]
    assert [row[2:4] for row in second[2:]] == [["2", "0"], ["2", "0.5"]]
    assert {row[5] for row in second[2:]} == {"2"}


def test_a_release_belongs_to_its_draw() -> None:
    """The same draw gives the same numbers again, another draw others, and the stated noise is on every query."""
    plan = tiny_plan()
    series = series_of(plan)
    one, again, other = (privacy.release(plan, series, PRIVATE.mechanism, draw=draw) for draw in (0, 0, 1))
    for name, codes in plan.federation.holders.items():
        truth = TASK.counts(series.held_by(codes))
        for query, values in one[name].values.items():
            assert np.array_equal(values, again[name].values[query])
            assert not np.array_equal(values, other[name].values[query])
            spread = float((values - truth[query]).std())
            assert spread == pytest.approx(one[name].stddev[query], rel=0.25)


def test_private_forecasts_are_scored_on_clean_targets() -> None:
    plan = tiny_plan()
    series = series_of(plan)
    evaluation = privacy.evaluations(plan, series)
    clean, private = evaluation(privacy.Case("linear_ar")), evaluation(PRIVATE)
    assert np.array_equal(private.test_truth, Evaluation.of(plan, series).test_truth)
    assert not np.array_equal(private.problem.y, clean.problem.y)
    perfect = privacy.errors_of(private, private.test_truth)
    assert max(perfect.values()) < 1e-9
    slices = privacy.slices_of(private, private.test_truth + 0.5)
    assert set(slices) == {*plan.federation.holders, *(f"decile {n}" for n in range(1, 11))}
    assert all(value == pytest.approx(0.5) for value in slices.values())


@pytest.mark.slow
def test_the_pooled_model_is_trained_on_the_released_counts() -> None:
    plan = tiny_plan({"training.rounds": 1})
    evaluation = privacy.evaluations(plan, series_of(plan))
    clean, private = (privacy.forecast(MODEL, evaluation(case)) for case in (privacy.Case(MODEL), PRIVATE))
    assert clean.shape == private.shape
    assert not np.allclose(clean, private)
