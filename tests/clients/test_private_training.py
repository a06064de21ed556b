"""Private local steps: the loop of plain training with noisy means, fixed steps, and nothing told about the loss."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.private_training import steps_per_round, take_private_steps, train_round_privately
from clients.state import LocalState
from clients.training import train_round
from privacy.dpsgd import DPSGD, BatchOf
from privacy.per_example import Gradients, LossFunction
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError, PrivacyUnitError
from protocol.plan import TrainingSection
from protocol.tasks import task_names
from tests.private_problems import VARIANTS, make_plan, task_parts


def training_of(**changes: Any) -> TrainingSection:
    """Two rounds of one full batch, some values changed."""
    values = {"rounds": 2, "batch_size": 0, "learning_rate": 0.01, "select": "last"} | changes
    return TrainingSection.model_validate(values)


class Exact(DPSGD):
    """The mean gradient itself: no clipping, no integers, no noise."""

    def noisy_mean(
        self, loss: LossFunction, model: nn.Module, batch_of: BatchOf, positions: np.ndarray, *, physical_batch: int
    ) -> Gradients:
        total = loss(model, batch_of(positions)).sum() / self.plan.expected_batch
        names, leaves = zip(*model.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(total, leaves, materialize_grads=True), strict=True))


@functools.cache
def parts(name: str = "dhgsil", variant: int = 0, *, dropout: bool = True) -> tuple[Any, Any, dict[str, Tensor], Any]:
    """Task, dataset, first weights and the model to load them into."""
    changes = VARIANTS[name][variant] | ({} if dropout else {"model.dropout": 0.0})
    task, _, dataset, model = task_parts(name, changes)
    return task, dataset, {key: value.clone() for key, value in model.state_dict().items()}, model


def trained(
    training: TrainingSection, plan: DPSGDPlan, *, seed: int = 0, kind: type[DPSGD] = DPSGD, rounds: int = 2,
    proximal_mu: float = 0.0, dropout: bool = True,
) -> tuple[Mapping[str, Tensor], LocalState]:  # fmt: skip
    """Weights and state after private rounds from the first weights."""
    task, dataset, first, model = parts(dropout=dropout)
    model.load_state_dict(first)
    state, mechanism = LocalState(), kind(plan, SecureStream(seed.to_bytes(32, "big")))
    for number in range(1, rounds + 1):
        take_private_steps(
            mechanism, task, model, dataset, training, state, round_number=number, proximal_mu=proximal_mu
        )
    return {key: value.detach().clone() for key, value in model.named_parameters()}, state


@pytest.mark.parametrize(
    ("changes", "mu"),
    [
        ({}, 0.0),
        ({"optimizer": "sgd", "gradient_clip": 0.01, "weight_decay": 0.1}, 0.0),
        ({"optimizer_state": "reset", "schedule": "constant", "local_epochs": 2}, 5.0),
    ],
    ids=["adam", "sgd, clipped, decayed", "reset, proximal"],
)
def test_without_noise_and_clipping_it_is_plain_training(changes: dict[str, Any], mu: float) -> None:
    """Everybody drawn and an exact mean: weights, personal ones among them, and moments of `train_round`."""
    training = training_of(**changes)
    task, dataset, first, model = parts(dropout=False)
    model.load_state_dict(first)
    expected_state = LocalState()
    for number in (1, 2):
        train_round(task, model, dataset, training, expected_state, seed=0, round_number=number, proximal_mu=mu)
    expected = {key: value.detach().clone() for key, value in model.named_parameters()}
    count = len(dataset.examples("train"))
    plan = make_plan(sampling_rate=1.0, expected_batch=float(count), steps=2 * training.local_epochs)
    found, state = trained(training, plan, kind=Exact, proximal_mu=mu, dropout=False)
    assert any(not torch.allclose(expected[key], first[key], atol=1e-4) for key in expected)
    assert all(torch.allclose(found[key], expected[key], rtol=0, atol=2e-5) for key in expected)
    assert (state.steps, state.round) == (expected_state.steps, expected_state.round)
    assert state.first_moment.keys() == expected_state.first_moment.keys()
    for key, value in expected_state.first_moment.items():
        torch.testing.assert_close(state.first_moment[key], value, rtol=0, atol=1e-3)


def test_steps_are_those_of_the_plan() -> None:
    """Fixed and public: the same number in each round, however many examples are drawn, none among them."""
    training = training_of()
    for rate in (1e-9, 0.5):
        _, state = trained(training, make_plan(sampling_rate=rate, steps=6))
        assert (state.steps, state.round) == (6, 2)


def test_empty_batches_take_noisy_steps() -> None:
    """No example is ever drawn, and every parameter moves all the same, personal and unused ones among them."""
    task, _, first, model = parts()
    found, _ = trained(training_of(weight_decay=0.0), make_plan(sampling_rate=1e-12))
    assert all((found[key] != first[key]).float().mean() > 0.99 for key in found)
    assert task.personal(model) <= found.keys()


def test_noise_differs_between_runs_and_not_by_seed() -> None:
    training, plan = training_of(), make_plan()
    weights = []
    for seed, torch_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(torch_seed)
        weights.append(trained(training, plan, seed=seed, rounds=1)[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not any(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


@pytest.mark.parametrize("name", task_names())
def test_an_example_in_a_batch_is_the_same_whoever_else_is_in_it(name: str) -> None:
    """Masks and rows belong to the example and the step, not to its place in the batch."""
    for variant in (0, 1):
        _, dataset, _, _ = parts(name, variant)
        chosen = dataset.examples("train")[:4]
        whole, part = (dataset.training_examples(some, draw=3) for some in (chosen, chosen[2:]))
        assert all(torch.equal(whole[key][2:], part[key]) for key in whole)
        assert whole.keys() == dataset.training_batch(chosen, draw=3).keys()
        other = dataset.training_examples(chosen, draw=4)
        if name == "integration":  # a linear model has nothing to draw
            continue
        assert any(not torch.equal(whole[key], other[key]) for key in whole)
        assert any(not torch.equal(whole[key][0], whole[key][1]) for key in whole if "dropout" in key)


def test_one_draw_for_a_batch_depends_on_who_is_in_it() -> None:
    """Power of the test above: masks of `training_batch` go by place."""
    _, dataset, _, _ = parts()
    chosen = dataset.examples("train")[:4]
    whole, part = (dataset.training_batch(some, draw=3) for some in (chosen, chosen[2:]))
    assert any(not torch.equal(whole[key][2:], part[key]) for key in whole)


def test_nothing_is_told_about_the_loss(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """No return value, no output, and no refusal where a loss is not a number."""
    task, dataset, first, model = parts()
    model.load_state_dict(first)

    class Spoilt:
        name, unit, personal = task.name, task.unit, staticmethod(task.personal)

        @staticmethod
        def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
            return task.loss(model, batch) * float("nan")

    def trains(used: Any) -> object:
        return train_round_privately(
            used, model, dataset, training_of(), make_plan(), LocalState(),
            stream=SecureStream(), round_number=1,
        )  # fmt: skip

    assert trains(task) is None
    assert trains(Spoilt()) is None
    assert all(torch.isfinite(leaf).all() for leaf in model.parameters())
    assert (*capsys.readouterr(), caplog.text) == ("", "", "")


def test_mixing_models_are_refused_before_the_first_step() -> None:
    task, dataset, first, model = parts()
    model.load_state_dict(first)

    class Mixing:
        personal = staticmethod(task.personal)

        @staticmethod
        def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
            found = task.loss(model, batch)
            return found - found.mean()

    with pytest.raises(PrivacyUnitError, match="mixes examples"):
        train_round_privately(
            Mixing(), model, dataset, training_of(), make_plan(), LocalState(),  # type: ignore[arg-type]
            stream=SecureStream(), round_number=1,
        )  # fmt: skip
    assert all(torch.equal(value, first[key]) for key, value in model.state_dict().items())


def test_modes_that_cannot_do_the_model_are_refused_before_the_first_step() -> None:
    task, dataset, first, model = parts()
    model.load_state_dict(first)
    with pytest.raises(PrivacyParameterError, match="use mode 'vmap'"):
        train_round_privately(
            task, model, dataset, training_of(), make_plan(), LocalState(),
            stream=SecureStream(), round_number=1, mode="hooks",
        )  # fmt: skip
    assert all(torch.equal(value, first[key]) for key, value in model.state_dict().items())


def test_rounds_and_steps_must_fit() -> None:
    """The plan is charged for so many steps in so many rounds: none more, none in part."""
    training = training_of()
    assert steps_per_round(make_plan(steps=6), training, round_number=2) == 3
    with pytest.raises(PrivacyParameterError, match="5 private steps cannot be shared equally by 2 rounds"):
        steps_per_round(make_plan(steps=5), training, round_number=1)
    for beyond in (0, 3):
        with pytest.raises(PrivacyParameterError, match=f"round {beyond} is outside the 2 rounds"):
            steps_per_round(make_plan(steps=6), training, round_number=beyond)
