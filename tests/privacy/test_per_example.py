"""Per-example gradients are those of one example at a time, in every mode, for every model that is shipped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privacy.dpsgd import Mode, per_example_gradients
from privacy.per_example import Gradients, check_unit, one_by_one, units_in
from protocol.errors import PrivacyParameterError, PrivacyUnitError
from protocol.tasks import task_names
from tests.private_problems import (
    PROBLEMS,
    TASK_PROBLEMS,
    VARIANTS,
    FoldedGraph,
    Problem,
    graph_layers,
    perceptron,
    squared_error,
)

EXACT = 1e-6


def largest_difference(a: Gradients, b: Gradients) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_every_registered_task_is_tried() -> None:
    assert set(VARIANTS) == set(task_names())


@pytest.mark.parametrize("name", sorted(PROBLEMS | TASK_PROBLEMS))
def test_vmap_equals_one_by_one(name: str) -> None:
    """Every parameter of every shipped model: at most 1e-6 off, and not all zero."""
    problem = (PROBLEMS | TASK_PROBLEMS)[name]()
    expected = one_by_one(problem.loss, problem.model, problem.batch)
    found = per_example_gradients(problem.loss, problem.model, problem.batch, "vmap")
    assert largest_difference(found, expected) <= EXACT
    assert all(value.shape == (problem.examples, *leaf.shape) for value, leaf in paired(found, problem.model))
    assert sum(float(value.abs().sum()) for value in expected.values()) > 0.1
    assert all(leaf.grad is None for leaf in problem.model.parameters())


@pytest.mark.parametrize("mode", ["hooks", "ew"])
@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_opacus_equals_one_by_one(name: str, mode: Mode) -> None:
    """An independent implementation agrees, twice in a row, and leaves nothing behind on the model."""
    problem = PROBLEMS[name]()
    expected = one_by_one(problem.loss, problem.model, problem.batch)
    for _ in range(2):
        found = per_example_gradients(problem.loss, problem.model, problem.batch, mode)
        assert largest_difference(found, expected) <= EXACT
    assert all(leaf.grad is None and not vars(leaf) for leaf in problem.model.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in problem.model.modules())


def test_outer_products_equal_one_by_one_for_a_linear_model() -> None:
    """One linear layer, alone or inside another module, with and without a bias, several scores, an empty batch."""
    plain = PROBLEMS["logistic regression"]()
    torch.manual_seed(5)
    batch = {"x": torch.randn(6, 5), "y": torch.randn(6, 3)}
    cases = [
        plain,
        Problem(squared_error, nn.Linear(5, 3, bias=False), batch),
        Problem(squared_error, nn.Sequential(nn.Linear(5, 3), nn.Tanh()), batch),
        TASK_PROBLEMS["integration 0"](),
        TASK_PROBLEMS["integration 1"](),
    ]
    for problem in cases:
        expected = one_by_one(problem.loss, problem.model, problem.batch)
        found = per_example_gradients(problem.loss, problem.model, problem.batch, "linear")
        assert largest_difference(found, expected) <= EXACT
        assert not any(layer._forward_hooks for layer in problem.model.modules())
    none = {name: value[:0] for name, value in plain.batch.items()}
    found = per_example_gradients(plain.loss, plain.model, none, "linear")
    assert [value.shape[0] for value in found.values()] == [0, 0]


@pytest.mark.parametrize("name", ["perceptron", "graph layers"])
def test_outer_products_refuse_other_models(name: str) -> None:
    problem = PROBLEMS[name]()
    with pytest.raises(PrivacyParameterError, match="use mode 'vmap'"):
        per_example_gradients(problem.loss, problem.model, problem.batch, "linear")


def test_outer_products_refuse_a_layer_that_is_called_on_more_than_rows() -> None:
    """Called twice, or on rows of rows: an outer product of one call would be a part of the gradient."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    batch = {"x": torch.randn(4, 5), "y": torch.randn(4, 5)}
    wide = {"x": torch.randn(4, 2, 5), "y": torch.randn(4, 2, 5)}
    for problem in (Problem(squared_error, Twice(), batch), Problem(squared_error, nn.Linear(5, 5), wide)):
        with pytest.raises(PrivacyParameterError, match="called once on rows of numbers"):
            per_example_gradients(problem.loss, problem.model, problem.batch, "linear")


def test_gradients_are_those_of_vmap_of_grad() -> None:
    """A second independent way, straight from torch's manual."""
    problem = perceptron()
    values = {name: leaf.detach() for name, leaf in problem.model.named_parameters()}

    def alone(parameters: Gradients, x: Tensor, y: Tensor) -> Tensor:
        return (functional_call(problem.model, parameters, (x[None],))[0] - y).square().mean()

    expected = vmap(grad(alone), in_dims=(None, 0, 0))(values, problem.batch["x"], problem.batch["y"])
    with torch.no_grad():  # a caller's mode does not matter
        found = per_example_gradients(problem.loss, problem.model, problem.batch, "vmap")
    assert largest_difference(found, expected) <= EXACT


def paired(gradients: Gradients, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return [(gradients[name], leaf) for name, leaf in model.named_parameters()]


def test_wrong_gradients_would_be_seen() -> None:
    """Power: gradients of the mean loss, repeated for each example, are not those of the examples."""
    problem = perceptron()
    expected = one_by_one(problem.loss, problem.model, problem.batch)
    mean = {name: value.mean(dim=0, keepdim=True).expand_as(value) for name, value in expected.items()}
    assert largest_difference(mean, expected) > 1000 * EXACT


@pytest.mark.parametrize("mode", ["hooks", "ew"])
def test_opacus_refuses_what_it_cannot_do(mode: Mode) -> None:
    """Not for every model: DHG-SIL has parameters outside layers; the refusal names the way out."""
    problem = TASK_PROBLEMS["dhgsil 0"]()
    with pytest.raises(PrivacyParameterError, match="use mode 'vmap'"):
        per_example_gradients(problem.loss, problem.model, problem.batch, mode)
    assert all(not vars(leaf) for leaf in problem.model.parameters())


def test_nodes_folded_into_the_batch_are_refused() -> None:
    """Opacus would clip per (window, node) and say nothing: 7 windows of 6 nodes give 42 rows."""
    problem = graph_layers(kind=FoldedGraph)
    with pytest.raises(PrivacyUnitError, match=r"leading dimension 42 for 7 unit\(s\)"):
        per_example_gradients(problem.loss, problem.model, problem.batch, "hooks")
    with pytest.raises(PrivacyParameterError, match="batch size of 42"):
        per_example_gradients(problem.loss, problem.model, problem.batch, "ew")
    expected = one_by_one(problem.loss, problem.model, problem.batch)
    found = per_example_gradients(problem.loss, problem.model, problem.batch, "vmap")
    assert largest_difference(found, expected) <= EXACT  # a window at a time, folding does no harm


def test_unused_and_frozen_parameters() -> None:
    """An unused parameter has a gradient of zero for every example, a frozen one has none."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(5, 2), nn.Linear(5, 2), nn.Linear(5, 2)
            self.frozen.requires_grad_(requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + self.frozen(x)

    problem = Problem(squared_error, Odd(), perceptron().batch)
    modes: tuple[Mode, ...] = ("vmap", "hooks", "ew", "loop")
    for mode in modes:
        found = per_example_gradients(problem.loss, problem.model, problem.batch, mode)
        assert found.keys() == {"used.weight", "used.bias", "unused.weight", "unused.bias"}
        assert found["unused.weight"].shape == (7, 2, 5)
        assert not found["unused.weight"].any()
        assert found["used.weight"].any()


def test_one_row_per_unit_or_refused() -> None:
    check_unit({"a": torch.zeros(3, 2)}, units=3)
    for wrong in (torch.zeros(6, 2), torch.zeros(1, 2), torch.tensor(0.0)):
        with pytest.raises(PrivacyUnitError, match="'b'"):
            check_unit({"a": torch.zeros(3, 2), "b": wrong}, units=3)


def test_a_batch_counts_its_units_once() -> None:
    assert units_in({"x": torch.zeros(3, 2), "y": torch.zeros(3)}) == 3
    for batch in ({"x": torch.zeros(3, 2), "y": torch.zeros(6)}, {}):
        with pytest.raises(PrivacyUnitError, match="leading dimensions"):
            units_in(batch)


def test_unknown_mode_is_refused() -> None:
    problem = perceptron()
    with pytest.raises(PrivacyParameterError, match="vmap, hooks, ew, loop"):
        per_example_gradients(problem.loss, problem.model, problem.batch, "ghost")  # type: ignore[arg-type]


def test_a_weight_used_twice_counts_twice() -> None:
    """A layer applied at two places, as over time steps: each mode adds both uses."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.map(torch.tanh(self.map(x)))[:, :2]

    make: Callable[[], Problem] = perceptron
    problem = Problem(squared_error, Twice(), make().batch)
    expected = one_by_one(problem.loss, problem.model, problem.batch)
    modes: tuple[Mode, ...] = ("vmap", "hooks", "ew")
    for mode in modes:
        found = per_example_gradients(problem.loss, problem.model, problem.batch, mode)
        assert largest_difference(found, expected) <= EXACT
