"""F1 and AUC of a classifier trained privately on rows of persons, against epsilon, the cap on contacts and the rows.

    python -m simulations.experiments.private_rows --out FILE.json                    # a Gaussian problem
    python -m simulations.experiments.private_rows --out FILE.json --rows FOLDER      # rows of a made-up city

Logistic regression by DP-SGD as the toolkit runs it (`privacy.dpsgd.DPSGD`): Poisson samples at rate q = .02, T = 500
steps, clip norm 1, delta 1e-6, learning rate .5 falling to 0 with a cosine. These were fixed on a Gaussian problem with
another seed and are the same in every cell, so nothing is tuned on the data of a cell. Unit: a subscriber's own
outgoing records; K (`contacts`) rows of others read them too.

*Gaussian*: 40 features of unit variance, 20 % positives whose mean is 1.14 away, so that no classifier has an AUC above
.790. The rows do not depend on K: what K costs is the noise alone. *City*: `FOLDER/rows-K.parquet` for each K, made by
`simulations.experiments.private_city`; at K = 0 a row has own features only, at K >= 1 the capped ones beside them, so
that K may also buy something.

`--together` simulates the mechanism with closed-form sums and numpy's noise, all cells of the same rows at once;
without it each cell is a run of the production code.

AUC and F1 are of test rows that no training saw; F1 calls positive as many test rows as the public share of positives.
Change of AUC: against logistic regression without privacy on the same training rows and the features of K = 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from integration.person_rows import own_features
from integration.prediction.networks import LinearScores, log_loss
from integration.prediction.preparing import public_preparation
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.files import write_whole

RATE, STEPS, CLIP_NORM, DELTA, LEARNING_RATE = 0.02, 500, 1.0, 1e-6, 0.5
FEATURES, POSITIVE, DISTANCE, TEST_ROWS = 40, 0.2, 1.14, 50_000
PHYSICAL_BATCH = 4096


@dataclass(frozen=True)
class Case:
    """One training; epsilon 0 is the one without privacy."""

    problem: str
    rows: int
    contacts: int
    epsilon: float
    seed: int

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.problem}, n {self.rows}, K {self.contacts}, epsilon {self.epsilon:g}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to train on and rows to test on. Shapes: x (n, F) float64, y (n,) int64."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    positive: float


def gaussian_problem(case: Case) -> Problem:
    """Two Gaussians; the direction between them is the same in every case, the rows are those of n and the seed."""
    direction = np.random.default_rng(20180201).normal(size=FEATURES)
    direction *= DISTANCE / np.linalg.norm(direction)
    x, y = _gaussian_rows(case.rows, direction, np.random.default_rng([case.seed, case.rows]))
    test_x, test_y = _gaussian_rows(TEST_ROWS, direction, np.random.default_rng([case.seed, 0]))
    return Problem(x, y, test_x, test_y, POSITIVE)


def _gaussian_rows(rows: int, direction: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = (rng.random(rows) < POSITIVE).astype(np.int64)
    return rng.normal(size=(rows, FEATURES)) + y[:, None] * direction, y


def city_problem(folder: Path) -> Callable[[Case], Problem]:
    """Settled migrants against locals in week 2: a random half of the persons, or n of them, to train on."""

    @lru_cache(maxsize=4)
    def table(contacts: int) -> pd.DataFrame:
        rows = pd.read_parquet(folder / f"rows-{contacts}.parquet")
        return rows[(rows["week"] == 2) & rows["group"].isin(["local", "settled"])].sort_values("person")

    def of(case: Case) -> Problem:
        rows = table(case.contacts)
        names = own_features(case.contacts)
        x = public_preparation(names).transform(rows)
        y = (rows["group"] == "settled").to_numpy().astype(np.int64)
        order = np.random.default_rng([case.seed, 7]).permutation(len(rows))
        half = len(rows) // 2
        train, test = order[: min(case.rows, half)], order[half:]
        return Problem(x[train], y[train], x[test], y[test], float(np.round(y.mean(), 2)))

    return of


def noise_multiplier(contacts: int, epsilon: float) -> float:
    """The least noise that keeps the promise, 0 for epsilon 0; the number of rows has no say in it."""
    if not epsilon:
        return 0.0
    return _plan(contacts, noise=1.0, rows=1).calibrate(epsilon=epsilon, delta=DELTA).noise_multiplier


def _plan(contacts: int, *, noise: float, rows: int) -> DPSGDPlan:
    return DPSGDPlan(
        unit="a subscriber's own outgoing records",
        clip_norm=CLIP_NORM,
        noise_multiplier=noise,
        sampling_rate=RATE,
        expected_batch=RATE * rows,
        steps=STEPS,
        contacts=contacts,
    )


def fit_privately(problem: Problem, plan: DPSGDPlan, stream: SecureStream) -> np.ndarray:
    """Weights and intercept after all steps. Shapes: -> (F + 1,)"""
    mechanism = DPSGD(plan, stream, mode="linear")
    model = LinearScores(problem.x.shape[1], 1)
    x, y = torch.as_tensor(problem.x, dtype=torch.float32), torch.as_tensor(problem.y)

    def batch_of(positions: np.ndarray) -> Batch:
        return {"x": x[positions], "y": y[positions]}

    def loss(linear: Any, batch: Batch) -> torch.Tensor:
        return log_loss(linear(batch["x"]), batch["y"])

    leaves = dict(model.named_parameters())
    for step in range(plan.steps):
        drawn = mechanism.draw(len(y))
        gradients = mechanism.noisy_mean(loss, model, batch_of, drawn, physical_batch=PHYSICAL_BATCH)
        rate = LEARNING_RATE * (1 + np.cos(np.pi * step / plan.steps)) / 2
        with torch.no_grad():
            for name, gradient in gradients.items():
                leaves[name].sub_(rate * gradient)
    weight, bias = model.linear.weight.detach(), model.linear.bias.detach()
    return np.concatenate([weight.double().numpy().ravel(), bias.double().numpy()])


def fit_together(
    problem: Problem, plans: Sequence[DPSGDPlan], rng: np.random.Generator, *, learning_rate: float = LEARNING_RATE
) -> np.ndarray:
    """As `fit_privately` for several plans of one rate and length at once, a hundred times quicker; simulation only.

    A gradient of logistic regression is the residual times (x, 1), so its norm is a product and clipped sums of all
    plans are two matrix products. Plans share their samples; noise is numpy's, and sums are not rounded to integers.

    Shapes: -> (plans, F + 1)
    """
    x = np.column_stack([problem.x, np.ones(len(problem.x))])
    norms = np.linalg.norm(x, axis=1)
    scale = np.array([plan.noise_multiplier * plan.clip_norm for plan in plans])
    weights = np.zeros((len(plans), x.shape[1]))
    for step in range(STEPS):
        drawn = np.flatnonzero(rng.random(len(x)) < RATE)
        total = clipped_sums(x[drawn], problem.y[drawn], norms[drawn], weights)
        noisy = total + scale[:, None] * rng.normal(size=total.shape)
        weights -= learning_rate * (1 + np.cos(np.pi * step / STEPS)) / 2 * noisy / (RATE * len(x))
    return weights


def clipped_sums(x: np.ndarray, y: np.ndarray, norms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of clipped gradients of the log loss, for each row of weights.

    Shapes: x (B, D), y (B,), norms (B,), weights (P, D) -> (P, D)
    """
    residuals = expit(x @ weights.T) - y[:, None]
    lengths = np.abs(residuals) * norms[:, None]
    return (residuals * (CLIP_NORM / np.maximum(lengths, CLIP_NORM))).T @ x


def fit_plainly(problem: Problem) -> np.ndarray:
    """Weights and intercept without privacy. Shapes: -> (F + 1,)"""
    found = LogisticRegression(C=1.0, max_iter=1000).fit(problem.x, problem.y)
    return np.concatenate([found.coef_.ravel(), found.intercept_])


def measure_together(
    cases: Sequence[Case], problem: Problem, noises: Sequence[float], *, learning_rate: float = LEARNING_RATE
) -> list[dict[str, Any]]:
    """As `measure`, for cases of the same rows; see `fit_together`."""
    private = [number for number, case in enumerate(cases) if case.epsilon]
    plans = [_plan(cases[n].contacts, noise=noises[n], rows=len(problem.y)) for n in private]
    rng = np.random.default_rng([cases[0].seed, cases[0].rows, cases[0].contacts, 3])
    weights = dict(zip(private, fit_together(problem, plans, rng, learning_rate=learning_rate), strict=True))
    plainly = [number for number in range(len(cases)) if number not in weights]
    weights |= dict.fromkeys(plainly, fit_plainly(problem) if plainly else np.zeros(0))
    return [scored(case, problem, noises[number], weights[number]) for number, case in enumerate(cases)]


def measure(case: Case, problem: Problem, noise: float) -> dict[str, Any]:
    """Train and score one case; `noise` is its noise multiplier, 0 without privacy."""
    if case.epsilon:
        stream = SecureStream(hashlib.sha256(f"private rows: {case.key}".encode()).digest())
        weights = fit_privately(problem, _plan(case.contacts, noise=noise, rows=len(problem.y)), stream)
    else:
        weights = fit_plainly(problem)
    return scored(case, problem, noise, weights)


def scored(case: Case, problem: Problem, noise: float, weights: np.ndarray) -> dict[str, Any]:
    """What a case's weights come to on the test rows."""
    scores = problem.test_x @ weights[:-1] + weights[-1]
    called = scores >= np.quantile(scores, 1 - problem.positive)
    return asdict(case) | {
        "trained_on": len(problem.y),
        "noise": noise,
        "auc": float(roc_auc_score(problem.test_y, scores)),
        "f1": float(f1_score(problem.test_y, called)),
    }


def cases(given: argparse.Namespace, problem: str) -> Iterator[Case]:
    """Every cell, seed after seed, so that a table can be printed early."""
    for seed in range(given.seeds):
        for rows in given.sizes:
            for contacts in given.contacts:
                for epsilon in (0.0, *given.epsilons):
                    if problem == "gaussian" and contacts and not epsilon:
                        continue  # the rows are those of K = 0
                    yield Case(problem, rows, contacts, epsilon, seed)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over seeds of AUC and F1, and the mean change of AUC, paired by seed."""
    frame = pd.DataFrame(results)
    plain = frame[(frame["epsilon"] == 0) & (frame["contacts"] == 0)].set_index(["rows", "seed"])["auc"]
    frame["change"] = frame["auc"] - plain.reindex(pd.MultiIndex.from_frame(frame[["rows", "seed"]])).to_numpy()
    lines = [
        "| rows | K | epsilon | noise / C | AUC | change of AUC | F1 | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, cell in frame.groupby(["trained_on", "contacts", "epsilon"]):
        rows, contacts, epsilon = (cell[name].iloc[0] for name in ("trained_on", "contacts", "epsilon"))
        wanted = "none" if not epsilon else f"{epsilon:g}"
        auc, f1 = (f"{cell[name].mean():.3f} ± {cell[name].std(ddof=1):.3f}" for name in ("auc", "f1"))
        lines.append(
            f"| {rows} | {contacts} | {wanted} | {cell['noise'].iloc[0]:.2f} | {auc} | {cell['change'].mean():+.3f} | "
            f"{f1} | {len(cell)} |"
        )
    return "\n".join(lines)


def _groups(left: Sequence[Case], *, together: bool, by_contacts: bool) -> list[list[Case]]:
    """Cases one by one, or those of the same rows; in the city rows differ with K."""
    groups: dict[object, list[Case]] = {}
    for case in left:
        key = (case.rows, case.seed, case.contacts * by_contacts) if together else case.key
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def main() -> None:
    """Parse arguments, measure what the file does not hold yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path, help="folder with rows-K.parquet; without it a Gaussian problem")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--contacts", type=int, nargs="+", default=[0, 1, 5])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noises", type=Path, help="results whose noise multipliers are taken over: the same plans")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="at the first step; with --together")
    parser.add_argument("--together", action="store_true", help="all cells of the same rows at once; see fit_together")
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = "gaussian" if given.rows is None else "city"
    problem_of = gaussian_problem if given.rows is None else city_problem(given.rows)
    results = json.loads(given.out.read_text())["results"] if given.out.is_file() else []
    known = json.loads(given.noises.read_text())["results"] if given.noises else []
    noises = {(r["contacts"], r["epsilon"]): r["noise"] for r in known + results}
    done = {Case(**{key: r[key] for key in Case.__dataclass_fields__}).key for r in results}
    left = [case for case in cases(given, name) if case.key not in done]
    for kind in dict.fromkeys((case.contacts, case.epsilon) for case in left):
        noises[kind] = noises.get(kind) or noise_multiplier(*kind)
    for group in _groups(left, together=given.together, by_contacts=name == "city"):
        problem, noise = problem_of(group[0]), [noises[case.contacts, case.epsilon] for case in group]
        if given.together:
            results += measure_together(group, problem, noise, learning_rate=given.learning_rate)
        else:
            results.append(measure(group[0], problem, noise[0]))
        text = json.dumps({"results": results}, indent=1)
        write_whole(given.out, lambda path, text=text: path.write_text(text))
    print(table(results))


if __name__ == "__main__":
    main()
