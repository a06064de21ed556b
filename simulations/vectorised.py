"""Train simulated holders of equal shape in one call: `torch.func.vmap` over stacked weights.

The arithmetic is that of `clients.training.train_round`, holder by holder: the same windows in the same order, the
same optimiser (Adam and SGD act element by element, so a stack of holders is exact), gradients clipped per holder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from flwr.app import Message, MessageType, RecordDict
from torch.func import functional_call, grad_and_value, vmap

from clients.agent import HolderAgent, Session
from clients.state import LocalState, Tensors
from clients.training import Steps, batches, keep_moments, load_moments, make_optimizer
from protocol.errors import TrainingError
from protocol.masked_messages import MaskedReply
from protocol.messages import RoundRequest, TrainReply
from protocol.plan import Plan
from protocol.tasks import Dataset, Task

LARGEST_STACKED = 16_000
"""Numbers in one example up to which a stacked call is faster; beyond, arithmetic outweighs what calls cost.

Measured with `simulations.benchmarks.vectorised`, CPU time of the loop over that of the stack: 1.9 .. 1.4 up to 3,000
numbers (16 regions), about 1.2 at 10,000 (47 and 52 regions), 0.9 at 31,000 (120) and 0.7 at 260,000 (358).
"""


class TogetherTrainer:
    """Answers the train messages of holders that can be stacked; leaves all others to the grid.

    Args:
        agents: The simulated holders, by name.
        plan: The run plan.
        task: The plan's task.
        always: Stack even where one by one is expected to be faster.
    """

    def __init__(self, agents: Mapping[str, HolderAgent], plan: Plan, task: Task, *, always: bool = False) -> None:
        self._agents, self._plan, self._task, self._always = agents, plan, task, always
        self._sizes: dict[tuple[str, tuple[int, ...]], int] = {}

    def __call__(self, messages: Sequence[tuple[str, Message]]) -> dict[str, RecordDict]:
        """Records of the replies, by holder."""
        groups: dict[tuple[int, ...], list[tuple[str, RoundRequest]]] = defaultdict(list)
        for holder, message in messages:
            if message.metadata.message_type == MessageType.TRAIN:
                request = RoundRequest.from_records(message.content)
                session = self._agents[holder].session(request.header.stage)
                groups[session.dataset.shape_key].append((holder, request))
        replies: dict[str, RecordDict] = {}
        for group in groups.values():
            if len(group) > 1 and (self._always or self._pays_off(group)):
                replies |= {name: reply.to_records() for name, reply in self._train(group).items()}
        return replies

    def _pays_off(self, group: list[tuple[str, RoundRequest]]) -> bool:
        """Whether stacking is expected to beat one call per holder (measured in simulations/benchmarks)."""
        holder, request = group[0]
        dataset = self._agents[holder].session(request.header.stage).dataset
        key = (request.header.stage, dataset.shape_key)
        if key not in self._sizes:
            self._sizes[key] = example_size(dataset)
        return self._sizes[key] <= LARGEST_STACKED

    def _train(self, group: list[tuple[str, RoundRequest]]) -> dict[str, TrainReply | MaskedReply]:
        sessions = [self._agents[holder].receive(request) for holder, request in group]
        request = group[0][1]
        losses = train_together(
            self._task,
            sessions,
            self._plan,
            round_number=request.round,
            proximal_mu=request.proximal_mu,
        )
        return {
            holder: self._agents[holder].trained(session, own, loss=loss)
            for (holder, own), session, loss in zip(group, sessions, losses, strict=True)
        }


def example_size(dataset: Dataset) -> int:
    """Numbers in one example, all its tensors together."""
    example = dataset.batch(dataset.examples("train")[:1])
    return sum(value.numel() for value in example.values())


def train_together(
    task: Task, sessions: Sequence[Session], plan: Plan, *, round_number: int, proximal_mu: float
) -> list[float]:
    """One round of local steps of several holders at once; models and states change in place.

    Returns:
        Mean loss of each holder over its steps.

    Raises:
        TrainingError: a loss is not finite.
    """
    training, model = plan.training, sessions[0].model
    stacked = _stack([dict(session.model.named_parameters()) for session in sessions])
    leaves = {name: value.requires_grad_() for name, value in stacked.items()}
    start = {name: leaf.detach().clone() for name, leaf in leaves.items() if name not in sessions[0].personal}
    mean_loss = _MeanLoss(task, model)

    def objective(parameters: Tensors, batch: Tensors) -> torch.Tensor:
        lent = {f"model.{name}": value for name, value in parameters.items()}
        return functional_call(mean_loss, lent, (batch,))

    gradients = vmap(grad_and_value(objective), randomness="error")
    state = _stack_states([session.state for session in sessions])
    optimizer = make_optimizer(training, leaves)
    if training.optimizer_state == "kept":
        load_moments(optimizer, leaves, state)
    examples = sessions[0].dataset.examples(training.fit_on)
    steps = Steps(training, len(examples), round_number)
    losses = []
    model.train()
    for step, chosen in enumerate(batches(examples, training, seed=plan.run.seed, round_number=round_number)):
        batch = _stack([session.dataset.training_batch(chosen, draw=steps.number(step)) for session in sessions])
        values = {name: leaf.detach() for name, leaf in leaves.items()}
        grads, loss = gradients(values, batch)
        if not torch.isfinite(loss).all():
            raise TrainingError(
                f"the loss is not finite in round {round_number}, step {step + 1}; lower training.learning_rate"
            )
        if proximal_mu:
            for name, value in start.items():
                grads[name] = grads[name] + proximal_mu * (values[name] - value)
        if training.gradient_clip:
            _clip_each(grads, training.gradient_clip)
        for name, leaf in leaves.items():
            leaf.grad = grads[name]
        for settings in optimizer.param_groups:
            settings["lr"] = steps.learning_rate(step)
        optimizer.step()
        losses.append(loss.detach())
    state.steps += len(losses)
    state.round = round_number
    if training.optimizer_state == "kept":
        keep_moments(optimizer, leaves, state)
    _hand_back(sessions, leaves, state)
    return [float(value) for value in torch.stack(losses).mean(dim=0)]


class _MeanLoss(torch.nn.Module):
    """A task's mean loss as a module, so that `functional_call` can swap the parameters inside."""

    def __init__(self, task: Task, model: torch.nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Tensors) -> torch.Tensor:
        return self.task.loss(self.model, batch).mean()


def _stack(tensors: Sequence[Mapping[str, torch.Tensor]]) -> Tensors:
    return {name: torch.stack([part[name].detach() for part in tensors]) for name in tensors[0]}


def _stack_states(states: Sequence[LocalState]) -> LocalState:
    """The holders' Adam moments, stacked; empty before the first round."""
    return LocalState(
        first_moment=_stack([state.first_moment for state in states]) if states[0].first_moment else {},
        second_moment=_stack([state.second_moment for state in states]) if states[0].second_moment else {},
        steps=states[0].steps,
    )


def _clip_each(grads: Tensors, limit: float) -> None:
    """Scale each holder's gradient to at most `limit`, as `clip_grad_norm_` does for one holder."""
    squares = sum(value.flatten(1).square().sum(dim=1) for value in grads.values())
    factor = (limit / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)
    for name, value in grads.items():
        grads[name] = value * factor.reshape(-1, *[1] * (value.dim() - 1))


def _hand_back(sessions: Sequence[Session], leaves: Tensors, state: LocalState) -> None:
    with torch.no_grad():
        for position, session in enumerate(sessions):
            for name, parameter in session.model.named_parameters():
                parameter.copy_(leaves[name][position])
            session.state.steps, session.state.round = state.steps, state.round
            session.state.first_moment = {name: value[position].clone() for name, value in state.first_moment.items()}
            session.state.second_moment = {name: value[position].clone() for name, value in state.second_moment.items()}
