"""The two tasks: operators together compute what one who had all rows would, and every row weighs the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from integration import catalogue
from integration.prediction.dataset import labelled
from integration.prediction.logistic import NewtonSums, fit_logistic
from integration.prediction.networks import LinearScores, coefficients_of, set_coefficients
from integration.prediction.scores import binary_scores
from integration.task import COEFFICIENTS, MLP_TASK, NEWTON, TASK, CallTables, IntegrationTask, feature_names
from protocol.errors import DataError, PlanError
from protocol.plan import Plan
from server.combining import add_up
from tests.call_rows import OPERATORS, call_plan, gaussian_rows, tables_of

TABLES = tables_of(gaussian_rows(local=500, settled=300, new=60, missing=0.05, seed=2))
PARTS = [TABLES.held_by((name,)) for name in OPERATORS]


def totals_of(plan: Plan, parts: list[CallTables], task: IntegrationTask = TASK) -> dict[str, np.ndarray]:
    totals: dict[str, np.ndarray] = {}
    for phase in task.phases(plan, "weights"):
        totals |= add_up([dict(task.statistics(phase, part, plan, "weights", totals)) for part in parts])
    return totals


def newton(plan: Plan, parts: list[CallTables], totals: dict[str, np.ndarray]) -> np.ndarray:
    """Coefficients by sums of the parts, asked for step by step."""

    def sums(flat: np.ndarray) -> NewtonSums:
        asked = totals | {COEFFICIENTS: flat}
        return NewtonSums.from_arrays(
            add_up([dict(TASK.statistics(NEWTON, part, plan, "weights", asked)) for part in parts])
        )

    classes = len(TASK.problem(plan).classes)
    features = len(TASK.preparation(plan, totals).columns)
    start = TASK.zero_coefficients(plan, totals)
    l2 = 1 / TASK.section(plan).c
    return fit_logistic(sums, features=features, classes=classes, l2=l2, start=start).flat()


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("problem", ["T1", "T2", "T3"])
def test_newton_over_three_operators_is_the_pooled_fit(problem: str, weights: str) -> None:
    """Preparation, class weights and steps by sums alone; scikit-learn on pooled rows agrees to 1e-6."""
    plan = call_plan(changes={"model.problem": problem, "model.class_weights": weights, "model.c": 0.1})
    totals, pooled = totals_of(plan, PARTS), totals_of(plan, [TABLES])
    found = newton(plan, PARTS, totals)
    np.testing.assert_allclose(found, newton(plan, [TABLES], pooled), rtol=0, atol=1e-6)
    data = TASK.prepare(TABLES, plan, "weights", pooled)
    rows = data.batch(data.examples("train"))
    other = LogisticRegression(
        C=0.1, tol=1e-13, max_iter=100_000, class_weight="balanced" if weights == "balanced" else None
    ).fit(_exact(plan, pooled), rows["y"].numpy())
    np.testing.assert_allclose(TASK.coefficients(plan, totals, found).weights, other.coef_, rtol=0, atol=1e-6)


def _exact(plan: Plan, totals: dict[str, np.ndarray]) -> np.ndarray:
    """Prepared training rows in double precision, in the dataset's order."""
    rows = labelled(TABLES.rows, TASK.problem(plan), plan.run.seed)
    return TASK.preparation(plan, totals).transform(rows[rows["split"] == 0])


@pytest.mark.parametrize("task", [TASK, MLP_TASK], ids=lambda task: task.name)
def test_a_full_batch_gradient_over_operators_is_the_pooled_one(task: IntegrationTask) -> None:
    """Means of operators weighted by their training rows; weighted equally they are another thing."""
    plan = call_plan(task.name)
    totals = totals_of(plan, PARTS, task)
    model = task.build_model(task.public(TABLES), plan, "weights", totals)

    def gradient(tables: CallTables) -> tuple[torch.Tensor, int]:
        data = task.prepare(tables, plan, "weights", totals)
        model.zero_grad()
        task.loss(model, data.batch(data.examples("train"))).mean().backward()
        leaves = [leaf.grad.ravel() for leaf in model.parameters() if leaf.grad is not None]
        return torch.cat(leaves), data.num_examples

    pooled, count = gradient(TABLES)
    parts = [gradient(part) for part in PARTS]
    assert sum(size for _, size in parts) == count
    together = sum(value * size for value, size in parts) / count
    torch.testing.assert_close(together, pooled, rtol=1e-5, atol=1e-6)
    equal = torch.stack([value for value, _ in parts]).mean(dim=0)
    assert (equal - pooled).abs().max() > 1e-3


def test_the_loss_is_that_of_the_newton_sums() -> None:
    """Torch, in single precision, and numpy see one and the same problem."""
    plan = call_plan(changes={"model.problem": "T2", "model.class_weights": "balanced"})
    totals = totals_of(plan, PARTS)
    model = TASK.build_model(TASK.public(TABLES), plan, "weights", totals)
    assert isinstance(model, LinearScores)
    flat = np.random.default_rng(0).normal(size=TASK.zero_coefficients(plan, totals).shape)
    set_coefficients(model, TASK.coefficients(plan, totals, flat))
    np.testing.assert_allclose(coefficients_of(model).flat(), flat, rtol=1e-6)
    data = TASK.prepare(TABLES, plan, "weights", totals)
    loss = TASK.loss(model, data.batch(data.examples("train"))).sum().item()
    asked = totals | {COEFFICIENTS: flat}
    sums = NewtonSums.from_arrays(dict(TASK.statistics(NEWTON, TABLES, plan, "weights", asked)))
    assert loss == pytest.approx(sums.loss, rel=1e-5)


def test_training_finds_what_newton_steps_find() -> None:
    """Gradient steps with weight decay 1/(c·n) end at the penalised minimum, up to the intercept's penalty."""
    plan = call_plan(changes={"model.c": 1.0})
    totals = totals_of(plan, PARTS)
    model = TASK.build_model(TASK.public(TABLES), plan, "weights", totals)
    data = TASK.prepare(TABLES, plan, "weights", totals)
    batch = data.batch(data.examples("train"))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        weight = next(model.parameters())
        loss = TASK.loss(model, batch).sum() + 0.5 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    assert isinstance(model, LinearScores)
    np.testing.assert_allclose(coefficients_of(model).flat(), newton(plan, PARTS, totals), rtol=0, atol=5e-3)


def test_splits_are_halves_of_week_2_and_the_weeks_after() -> None:
    """No person of the training half is in validation; later weeks are the test."""
    plan = call_plan()
    data = TASK.prepare(TABLES, plan, "weights", totals_of(plan, PARTS))
    assert set(data.weeks[data.examples("train+validation")]) == {2}
    assert set(data.weeks[data.examples("test")]) == {3, 4}
    assert len(data.examples("train+validation")) == 800
    assert 320 < len(data.examples("train")) < 480


def test_a_person_is_on_the_same_side_at_every_operator() -> None:
    """Cut by threshold of a keyed hash: the parts' training rows are the pool's."""
    plan = call_plan()
    totals = totals_of(plan, PARTS)
    sizes = [TASK.prepare(part, plan, "weights", totals).num_examples for part in PARTS]
    assert sum(sizes) == TASK.prepare(TABLES, plan, "weights", totals).num_examples
    assert len(set(sizes)) == 3


def test_no_feature_of_a_plan_is_made_of_the_label() -> None:
    leaky = {feature.name for feature in catalogue.FEATURES if feature.leaks}
    for features in ("families", "rarefied", "own"):
        names = feature_names(call_plan(changes={"model.features": features, "data.families": ["friends", "call"]}))
        assert names
        assert not set(names) & leaky
    assert feature_names(call_plan(changes={"data.families": ["geo"]})) == catalogue.primary(("geo",))
    assert "n_calls" not in feature_names(call_plan(changes={"model.features": "rarefied"}))


def test_private_training_sums_nothing_of_raw_rows() -> None:
    """No phase, public scale, every class counts as it is; asking all the same is refused."""
    plan = private_plan()
    assert TASK.phases(plan, "weights") == TASK.requests(plan, "weights") == ()
    own = CallTables(PARTS[0].rows.assign(contact_cap=0), OPERATORS)
    data = TASK.prepare(own, plan, "weights", {})
    model = TASK.build_model(TASK.public(TABLES), plan, "weights", {})
    assert TASK.loss(model, data.batch(data.examples("train")[:5])).shape == (5,)
    for phase in ("medians", "moments", NEWTON):
        with pytest.raises(PlanError, match="trains privately"):
            TASK.statistics(phase, own, plan, "weights", {})
    with pytest.raises(PlanError, match="needs counts of raw rows"):
        TASK.prepare(own, private_plan({"model.class_weights": "balanced"}), "weights", {})


def private_plan(changes: dict[str, Any] | None = None) -> Plan:
    privacy = {"mode": "person-dpsgd", "epsilon": 1.0, "delta": 1e-6, "score_against": "truth"}
    values = {f"privacy.{key}": value for key, value in privacy.items()}
    values |= {"training.select": "last", "training.batch_size": 64, "compare.pooled": False, "compare.alone": False}
    return call_plan(changes=values | {"model.features": "own"} | (changes or {}))


def test_the_perceptron_learns_what_a_line_cannot() -> None:
    """Settled migrants at both ends of a feature: the linear model is at chance, the perceptron is not."""
    rows = TABLES.rows.copy()
    settled = (rows["group"] == "settled").to_numpy()
    ends = np.where(np.random.default_rng(3).random(len(rows)) < 0.5, 0.05, 0.95)
    rows["frac_local"] = np.where(settled, ends, 0.5)
    changes = {"data.families": ["friends"]}
    areas = {}
    for task in (TASK, MLP_TASK):
        plan = call_plan(task.name, changes)
        tables = CallTables(rows, OPERATORS)
        totals = totals_of(plan, [tables], task)
        model = task.build_model(task.public(tables), plan, "weights", totals)
        data = task.prepare(tables, plan, "weights", totals)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(60):
            optimiser.zero_grad()
            task.loss(model, data.training_batch(data.examples("train"), draw=0)).mean().backward()
            optimiser.step()
        batch = data.batch(data.examples("validation"))
        score = torch.sigmoid(model(batch["x"])[:, 0]).detach().numpy()
        areas[task.name] = binary_scores(batch["y"].numpy() == 1, score)["auc"]
    assert areas["integration-mlp"] > 0.9 > areas["integration"] + 0.05


def test_rows_come_from_a_folder_for_each_operator(tmp_path: Path) -> None:
    plan = call_plan()
    with pytest.raises(PlanError, match="needs a data folder"):
        TASK.load(plan, None)
    for name, part in zip(OPERATORS, PARTS, strict=True):
        (tmp_path / name).mkdir()
        part.rows.drop(columns="operator").to_parquet(tmp_path / name / "rows.parquet")
    tables = TASK.load(plan, tmp_path)
    assert tables.operators == OPERATORS
    columns = ["person", "week", "frac_local"]
    pd.testing.assert_frame_equal(TASK.held_by(tables, ("east",)).rows[columns], PARTS[1].rows[columns])
    (tmp_path / "east" / "rows.parquet").unlink()
    with pytest.raises(DataError, match="there are no rows of features"):
        TASK.load(plan, tmp_path)
    with pytest.raises(PlanError, match="features from them first"):
        TASK.load(call_plan(changes={"data.source": "calls"}), tmp_path)


def test_bad_tables_are_refused() -> None:
    plan = call_plan()
    totals = totals_of(plan, PARTS)
    with pytest.raises(PlanError, match="no operator 'south'"):
        TABLES.held_by(("south",))
    with pytest.raises(DataError, match="not among north"):
        CallTables(TABLES.rows, ("north",))
    twice = CallTables(pd.concat([PARTS[0].rows, PARTS[0].rows.iloc[:3]]), OPERATORS)
    with pytest.raises(DataError, match="that have a row already"):
        TASK.prepare(twice, plan, "weights", totals)
    nobody = CallTables(PARTS[0].rows[PARTS[0].rows["week"] > 2], OPERATORS)
    with pytest.raises(DataError, match="no training row"):
        TASK.prepare(nobody, plan, "weights", totals)
    with pytest.raises(PlanError, match="needs 'coefficients'"):
        TASK.statistics(NEWTON, PARTS[0], plan, "weights", totals)
