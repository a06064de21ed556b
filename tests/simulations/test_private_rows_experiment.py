"""The experiment on private rows: its problem has the AUC it states, noise costs AUC, and its table pairs by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from integration import catalogue
from integration.person_rows import own_features
from integration.prediction.networks import LinearScores, log_loss
from privacy.dpsgd import DPSGD, UNITS
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from simulations.experiments import private_rows
from simulations.experiments.private_rows import Case, city_problem, gaussian_problem, measure, table


@pytest.mark.statistical
def test_the_gaussian_problem_is_as_hard_as_it_says() -> None:
    """AUC of the best direction is Φ(1.14 / √2) = .790; 50,000 test rows: standard deviation .003."""
    found = measure(Case("gaussian", 20_000, 0, 0.0, 0), gaussian_problem(Case("gaussian", 20_000, 0, 0.0, 0)), 0.0)
    assert found["auc"] == pytest.approx(0.789, abs=0.008)


def test_private_training_learns_and_noise_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly any noise AUC is near the plain one, with a hundred times the noise it is not."""
    monkeypatch.setattr(private_rows, "STEPS", 60)
    monkeypatch.setattr(private_rows, "RATE", 0.1)
    case = Case("gaussian", 3_000, 0, 1.0, 0)
    problem = gaussian_problem(case)
    plain = measure(Case("gaussian", 3_000, 0, 0.0, 0), problem, 0.0)["auc"]
    little, much = (measure(case, problem, noise)["auc"] for noise in (0.5, 50.0))
    assert little > plain - 0.03
    assert much < plain - 0.05


def test_clipped_sums_are_those_of_the_mechanism() -> None:
    """The closed form, for two plans at once, equals what `privacy.dpsgd` adds up for each, to its integer units."""
    problem = gaussian_problem(Case("gaussian", 200, 0, 1.0, 0))
    x = np.column_stack([problem.x, np.ones(200)])
    weights = np.random.default_rng(2).normal(scale=0.3, size=(2, x.shape[1]))
    found = private_rows.clipped_sums(x, problem.y, np.linalg.norm(x, axis=1), weights)
    plan = DPSGDPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=20.0, steps=1)
    mechanism = DPSGD(plan, SecureStream(bytes(32)))
    batch = {"x": torch.as_tensor(problem.x, dtype=torch.float32), "y": torch.as_tensor(problem.y)}
    for row, expected in zip(weights, found, strict=True):
        model = LinearScores(x.shape[1] - 1, 1)
        with torch.no_grad():
            model.linear.weight.copy_(torch.as_tensor(row[None, :-1]))
            model.linear.bias.copy_(torch.as_tensor(row[-1:]))
        total = mechanism._clipped_sum(
            lambda linear, part: log_loss(linear(part["x"]), part["y"]), model,
            lambda positions: {name: value[positions] for name, value in batch.items()}, np.arange(200),
            physical_batch=64,
        )  # fmt: skip
        assert total / UNITS == pytest.approx(expected, abs=2e-4)


def test_the_table_pairs_by_seed() -> None:
    """The change is the mean of differences between equal seeds, whatever the level of each seed."""
    results = [
        {"problem": "gaussian", "rows": 100, "contacts": 0, "epsilon": epsilon, "seed": seed, "trained_on": 90,
         "noise": 2.0 * epsilon, "auc": level + 0.01 * (seed - 1) * bool(epsilon) - 0.02 * bool(epsilon), "f1": 0.5}
        for seed, level in enumerate((0.7, 0.8, 0.9))
        for epsilon in (0.0, 1.0)
    ]  # fmt: skip
    lines = table(results).splitlines()
    assert lines[2].startswith("| 90 | 0 | none | 0.00 | 0.800 ± 0.100 | +0.000 |")
    assert lines[3].startswith("| 90 | 0 | 1 | 2.00 | 0.780 ± 0.110 | -0.020 | 0.500 ± 0.000 | 3 |")


def test_city_rows_have_the_features_of_their_cap(tmp_path: Path) -> None:
    """Half of the persons are tested on; at most so many rows as asked for are trained on; K adds capped features."""
    rng = np.random.default_rng(1)
    for contacts in (0, 1):
        names = own_features(contacts)
        rows = pd.DataFrame({name: rng.gamma(2.0, 1.0, 60) for name in names})
        rows = rows.assign(person=np.arange(60), week=2, group=["local", "settled", "new"] * 20)
        rows.to_parquet(tmp_path / f"rows-{contacts}.parquet")
    of = city_problem(tmp_path)
    alone, capped = (of(Case("city", 15, contacts, 1.0, 0)) for contacts in (0, 1))
    assert (len(alone.y), len(alone.test_y)) == (15, 20)
    assert alone.x.shape[1] == 2 * len(catalogue.own())  # with a flag for each that may be missing
    assert capped.x.shape[1] == alone.x.shape[1] + 2 * len(catalogue.capped())
    assert np.array_equal(alone.y, capped.y)
