"""Models in which examples touch each other are refused with the reason; models that do not are let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from privacy.mixing import check_examples_apart
from privacy.per_example import Batch
from protocol.errors import PrivacyUnitError
from tests.private_problems import PROBLEMS, TASK_PROBLEMS, Problem, perceptron, squared_error


@pytest.mark.parametrize("name", sorted(PROBLEMS | TASK_PROBLEMS))
def test_shipped_models_keep_examples_apart(name: str) -> None:
    """The check passes, and leaves weights, mode and gradients of the model as they were."""
    problem = PROBLEMS[name]() if name in PROBLEMS else TASK_PROBLEMS[name](one_draw=True)
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    problem.model.eval()
    check_examples_apart(problem.loss, problem.model, problem.batch)
    assert not problem.model.training
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    assert all(leaf.grad is None for leaf in problem.model.parameters())


def of(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), layer, nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm1d(4), "BatchNorm1d.*statistics of the batch; use LayerNorm or GroupNorm"),
        (nn.SyncBatchNorm(4), "statistics of the batch"),
        (nn.LazyBatchNorm1d(), "statistics of the batch"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "running statistics"),
        (nn.Dropout(0.5), "draws from torch's generator"),
        (nn.RReLU(), "draws from torch's generator"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_that_mix_are_refused_by_name(layer: nn.Module, reason: str) -> None:
    with pytest.raises(PrivacyUnitError, match=f"layer '1' .*{reason}"):
        check_examples_apart(squared_error, of(layer), perceptron().batch)


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Identity()])
def test_layers_within_an_example_are_let_through(layer: nn.Module) -> None:
    check_examples_apart(squared_error, of(layer), perceptron().batch)


class Centred(nn.Module):
    """Takes the batch mean off."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Running(nn.Module):
    """Keeps a mean of what it saw, by a name of its own."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 0.1 * (x.detach().mean(dim=0) - self.seen)
        return x


class Queue(nn.Module):
    """Keeps the last batch outside of any buffer and compares with it."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        past = self.last[-1].mean() if self.last else x.new_zeros(())
        self.last.append(x.detach())
        return x + past


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand_like(x)


class NextRow(nn.Module):
    """Looks at the next example only."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-3 * x.roll(1, dims=0)


class Cancelled(nn.Module):
    """Mixes gradients but no values: straight-through tricks."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=0)
        return x + mean - mean.detach()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Centred(), "alone differs"),
        (Running(), "changes buffer '1.seen'"),
        (Queue(), "other losses the second time"),
        (Noisy(), "other losses the second time"),
        (NextRow(), "alone differs|changes the loss of another"),
        (Cancelled(), "gradient of one example's loss"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_unknown_layers_are_refused_by_what_they_do(layer: nn.Module, reason: str) -> None:
    with pytest.raises(PrivacyUnitError, match=reason):
        check_examples_apart(squared_error, of(layer), perceptron().batch)


def in_batch_contrast(model: nn.Module, batch: Batch) -> Tensor:
    """InfoNCE whose negatives are the other examples."""
    ours, theirs = model(batch["x"]), batch["y"]
    return nn.functional.cross_entropy(ours @ theirs.mT / 0.1, torch.arange(len(ours)), reduction="none")


def mean_of_batch(model: nn.Module, batch: Batch) -> Tensor:
    found = squared_error(model, batch)
    return found.mean().expand_as(found)


def weighted_by_batch(model: nn.Module, batch: Batch) -> Tensor:
    """Class weights from the batch."""
    weight = batch["x"].abs().sum(dim=1)
    return squared_error(model, batch) * weight / weight.sum()


@pytest.mark.parametrize("loss", [in_batch_contrast, mean_of_batch, weighted_by_batch])
def test_losses_that_mix_are_refused(loss: Callable[[nn.Module, Batch], Tensor]) -> None:
    problem = perceptron()
    with pytest.raises(PrivacyUnitError, match="mixes examples"):
        check_examples_apart(loss, problem.model, problem.batch)


def test_contrast_within_an_example_is_let_through() -> None:
    """Positives and negatives inside the same window, as in DHG-SIL, mix nothing."""

    def contrast(model: nn.Module, batch: Batch) -> Tensor:
        roles = model(batch["x"].unflatten(1, (5, 1)).expand(-1, 5, 5))  # five nodes per example
        return torch.logsumexp(roles @ roles.mT, dim=-1).mean(dim=-1)

    problem = perceptron()
    check_examples_apart(contrast, problem.model, problem.batch)


def test_one_loss_for_all_is_refused() -> None:
    problem = perceptron()
    with pytest.raises(PrivacyUnitError, match="return one per example"):
        check_examples_apart(lambda model, batch: squared_error(model, batch).mean(), problem.model, problem.batch)


def test_a_single_example_is_enough_and_none_is_not() -> None:
    problem = perceptron(1)
    check_examples_apart(problem.loss, problem.model, problem.batch)
    with pytest.raises(PrivacyUnitError, match=r"alone differs|changes the loss"):
        check_examples_apart(in_batch_contrast, problem.model, problem.batch)
    empty = {name: value[:0] for name, value in problem.batch.items()}
    with pytest.raises(PrivacyUnitError, match="at least one example"):
        check_examples_apart(problem.loss, problem.model, empty)


def test_numbers_that_are_not_finite_say_nothing() -> None:
    """A refusal must not depend on what an example holds: NaN and infinity are let through."""
    problem = perceptron()
    for odd in (float("nan"), float("inf")):
        batch = {name: value.clone() for name, value in problem.batch.items()}
        batch["y"][1] = odd
        check_examples_apart(problem.loss, problem.model, batch)


def test_losses_without_float_inputs() -> None:
    """Integer tensors alone: nothing to differentiate by, the values still tell."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x)

    apart = Problem(lambda model, batch: model(batch["x"]).sum(dim=1), Table(), {"x": torch.arange(5)})
    check_examples_apart(apart.loss, apart.model, apart.batch)
    with pytest.raises(PrivacyUnitError, match="mixes examples"):
        check_examples_apart(
            lambda model, batch: model(batch["x"]).sum(dim=1) * batch["x"].max(), apart.model, apart.batch
        )


def test_a_model_of_fixed_precision_is_checked_in_its_own() -> None:
    """A matrix made inside the forward pass cannot be turned into float64; mixing is found all the same."""

    class Fixed(nn.Module):
        def __init__(self, *, mixes: bool) -> None:
            super().__init__()
            self.map, self.mixes = nn.Linear(5, 2), mixes

        def forward(self, x: Tensor) -> Tensor:
            mapped = self.map(x) @ torch.eye(2, dtype=torch.float32)
            return mapped - mapped.mean(dim=0) if self.mixes else mapped

    batch = perceptron().batch
    check_examples_apart(squared_error, Fixed(mixes=False), batch)
    with pytest.raises(PrivacyUnitError, match="alone differs"):
        check_examples_apart(squared_error, Fixed(mixes=True), batch)
