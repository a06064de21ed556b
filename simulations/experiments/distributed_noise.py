"""What shared noise buys: holders that each add all of the noise, against holders that add shares to a masked sum.

    python -m simulations.experiments.distributed_noise --out FILE.json

Both at the same epsilon and with the same budget: the same Poisson rate q, the same number of steps T, one gradient of
each drawn row in each step, so the same noise multiplier z. Ten holders, of whom seven must be left in a sum.

======  ========================================================================================
local   each holder takes its own noised step (`privacy.dpsgd`), the steps are averaged
shared  parts with shares of the noise (`privacy.distributed`) are encoded and added up modulo 2^32
        as under masks, and one step is taken with the decoded mean
one     one place that holds all rows takes noised steps (`privacy.dpsgd`): what shared noise stands for
none    as `one` without clipping and noise
======  ========================================================================================

Two made-up problems with 40 features. *classes*: logistic regression, 20 % positives, see
`simulations.experiments.private_rows`. *numbers*: linear regression of a sum of features with noise of stddev 1 (RMSE
of the best weights 1). Learning rate .5 falling to 0 with a cosine, clip norm 1, delta 1e-6: fixed before, the same in
all cells.
Figures are of test rows that no training saw.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.metrics import log_loss as mean_log_loss
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from integration.prediction.networks import LinearScores, log_loss
from privacy.distributed import DistributedDPSGD, StepShares, mean_gradients
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.secure_aggregation.roster import least_survivors
from protocol.files import write_whole
from simulations.experiments.private_rows import Case, gaussian_problem

HOLDERS, ROWS, RATE, STEPS, CLIP_NORM, DELTA, LEARNING_RATE = 10, 500, 0.05, 100, 1.0, 1e-6, 0.5
FEATURES, TEST_ROWS = 40, 20_000
WAYS = ("local", "shared", "one", "none")
PROBLEMS = ("classes", "numbers")
_BATCH = 4096
Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows of all holders, one after the other, and rows to test on. Shapes: x (n, F), y (n,)."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Loss of each row, (B,): log loss of classes, half the squared error of numbers."""
        if self.y.dtype == torch.int64:
            return log_loss(model(batch["x"]), batch["y"])
        return (model(batch["x"])[:, 0] - batch["y"]) ** 2 / 2

    def scored(self, model: nn.Module) -> dict[str, float]:
        """Loss and AUC of classes, RMSE of numbers, on the test rows."""
        with torch.no_grad():
            scores = model(self.test_x)[:, 0].double().numpy()
        wanted = self.test_y.numpy()
        if self.y.dtype == torch.int64:
            return {
                "loss": float(mean_log_loss(wanted, expit(scores))),
                "auc": float(roc_auc_score(wanted, scores)),
            }
        return {"rmse": float(np.sqrt(((scores - wanted) ** 2).mean()))}


def problem_of(name: str, seed: int) -> Problem:
    """Made-up rows; another seed, other rows."""
    if name == "classes":
        made = gaussian_problem(Case("gaussian", HOLDERS * ROWS, 0, 1.0, seed))
        parts = (made.x, made.y, made.test_x[:TEST_ROWS], made.test_y[:TEST_ROWS])
    else:
        rng = np.random.default_rng([seed, 20180201])
        weights = rng.normal(size=FEATURES) / math.sqrt(FEATURES)
        x, test_x = rng.normal(size=(HOLDERS * ROWS, FEATURES)), rng.normal(size=(TEST_ROWS, FEATURES))
        parts = (x, x @ weights + rng.normal(size=len(x)), test_x, test_x @ weights + rng.normal(size=TEST_ROWS))
    tensors = [torch.as_tensor(part) for part in parts]
    return Problem(*(part if part.dtype == torch.int64 else part.float() for part in tensors))


def mechanism_of(epsilon: float, *, honest: int = 0, rows: int = ROWS) -> DPSGDPlan:
    """The least noise that keeps epsilon; the same multiplier for every way."""
    start = DPSGDPlan(
        clip_norm=CLIP_NORM, noise_multiplier=1.0, sampling_rate=RATE, expected_batch=RATE * rows, steps=STEPS,
        honest=honest,
    )  # fmt: skip
    return start.calibrate(epsilon=epsilon, delta=DELTA)


def train(problem: Problem, way: str, plan: DPSGDPlan, key: bytes) -> nn.Module:
    """The model after all steps."""
    model = LinearScores(FEATURES, 1)
    leaves = dict(model.named_parameters())
    with torch.no_grad():
        for leaf in leaves.values():
            leaf.zero_()
    stream = SecureStream(key)
    for step in range(STEPS):
        gradients = _gradients(problem, model, way, plan, stream)
        rate = LEARNING_RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.sub_(rate * gradients[name])
    return model


def _gradients(problem: Problem, model: nn.Module, way: str, plan: DPSGDPlan, stream: SecureStream) -> Weights:
    if way == "none":
        batch = {"x": problem.x, "y": problem.y}
        found = torch.autograd.grad(problem.loss(model, batch).mean(), list(model.parameters()))
        return dict(zip(dict(model.named_parameters()), found, strict=True))
    if way == "one":
        return _noisy_mean(DPSGD(plan, stream, mode="linear"), problem, model, 0, len(problem.y))
    if way == "local":
        mechanism = DPSGD(plan, stream, mode="linear")
        found = [_noisy_mean(mechanism, problem, model, number * ROWS, ROWS) for number in range(HOLDERS)]
        return {name: torch.stack([each[name] for each in found]).mean(dim=0) for name in found[0]}
    return _shared_mean(problem, model, plan, stream)


def _shared_mean(problem: Problem, model: nn.Module, plan: DPSGDPlan, stream: SecureStream) -> Weights:
    """The mean from the sum of encoded parts of all holders, modulo 2^32."""
    leaves = {name: tuple(leaf.shape) for name, leaf in model.named_parameters()}
    shares = StepShares(plan, sum(math.prod(shape) for shape in leaves.values()), HOLDERS)
    mechanism, layout = DistributedDPSGD(shares, stream, mode="linear"), shares.layout(leaves)
    words = np.zeros(layout.words, dtype=np.uint32)
    for number in range(HOLDERS):
        positions = mechanism.draw(ROWS) + number * ROWS
        words += layout.encode(
            mechanism.part(problem.loss, model, _rows_of(problem), positions, physical_batch=_BATCH)
        )  # fmt: skip
    sums = layout.decode(words, survivors=HOLDERS)
    means = mean_gradients(sums, survivors=HOLDERS, holders=HOLDERS)
    return {name: torch.as_tensor(value).float() for name, value in means.items()}


def _noisy_mean(mechanism: DPSGD, problem: Problem, model: nn.Module, first: int, rows: int) -> Weights:
    positions = mechanism.draw(rows) + first
    return mechanism.noisy_mean(problem.loss, model, _rows_of(problem), positions, physical_batch=_BATCH)


def _rows_of(problem: Problem) -> Any:
    return lambda positions: {"x": problem.x[positions], "y": problem.y[positions]}


def measure(name: str, way: str, epsilon: float, seed: int, plan: DPSGDPlan) -> dict[str, Any]:
    """One training and its figures."""
    problem = problem_of(name, seed)
    key = hashlib.sha256(f"shared noise: {name} {way} {epsilon} {seed}".encode()).digest()
    cell = {"problem": name, "way": way, "epsilon": epsilon, "seed": seed, "noise": plan.noise_multiplier}
    return cell | problem.scored(train(problem, way, plan, key))


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over seeds."""
    lines = ["| problem | epsilon | z | noise | loss | AUC | RMSE | seeds |", "|---|---|---|---|---|---|---|---|"]
    frame = pd.DataFrame(results)
    frame["order"] = frame["way"].map({way: place for place, way in enumerate(WAYS)})
    for (name, epsilon, _), cell in frame.groupby(["problem", "epsilon", "order"]):
        figures = [
            f"{cell[key].mean():.4f} ± {cell[key].std(ddof=1):.4f}" if key in cell and cell[key].notna().all() else ""
            for key in ("loss", "auc", "rmse")
        ]
        way = cell["way"].iloc[0]
        noise = "" if way == "none" else f"{cell['noise'].iloc[0]:.2f}"
        shown = [str(name), f"{epsilon:g}", noise, way, *figures, str(len(cell))]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def against_table(plan: DPSGDPlan) -> str:
    """Markdown: epsilon against so many dishonest holders."""
    found = [(count, plan.epsilon_against(DELTA, dishonest=count)) for count in range(plan.honest + 1)]
    lines = ["| dishonest c of t | epsilon |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {count} | {'none' if value == math.inf else f'{value:.3g}'} |" for count, value in found)]
    )


def main() -> None:
    """Parse arguments, train, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    honest, results, shared = least_survivors(HOLDERS), [], {}
    plans: dict[tuple[float, str], DPSGDPlan] = {}
    for epsilon in given.epsilons:
        plan = mechanism_of(epsilon)
        everybody = plan.model_copy(update={"expected_batch": RATE * ROWS * HOLDERS})
        shared[epsilon] = everybody.model_copy(update={"honest": honest})
        plans |= {(epsilon, "local"): plan, (epsilon, "shared"): shared[epsilon], (epsilon, "one"): everybody}
        plans[epsilon, "none"] = plan
    for seed in range(given.seeds):
        for name in PROBLEMS:
            for (epsilon, way), plan in plans.items():
                results.append(measure(name, way, epsilon, seed, plan))
        text = json.dumps({"results": results, "settings": {key: setting(key) for key in _SETTINGS}}, indent=1)
        write_whole(given.out, lambda path, text=text: path.write_text(text))
    print(table(results))
    for epsilon, plan in shared.items():
        print(f"\nepsilon {epsilon:g}, t = {plan.honest}\n\n{against_table(plan)}")


_SETTINGS = ("HOLDERS", "ROWS", "RATE", "STEPS", "CLIP_NORM", "DELTA", "LEARNING_RATE", "TEST_ROWS")


def setting(name: str) -> float:
    """A setting of this module, for the file of results."""
    return float(globals()[name])


if __name__ == "__main__":
    main()
