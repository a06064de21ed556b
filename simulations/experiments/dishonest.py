"""Holders that do not keep to the protocol: what each may send, in place of an honest agent of the same messages.

    holders.agents["north"] = DishonestAgent.in_place_of(holders, "north", ATTACKS["x100"], seed=0)

A dishonest holder has real rows, keys and weights and answers every message in time; it lies only in what it puts into
the answers. It keeps none of its own limits: in masked sums it skips the clipping that an honest holder does itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clients.agent import HolderAgent
from clients.custody import Custody
from clients.policy import AggregationPolicy
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.layout import Layout
from protocol.masked_messages import ERROR, MaskedReply
from protocol.messages import READY, RoundRequest, StatisticsReply, StatisticsRequest, TrainReply
from protocol.records import Header
from simulations.holders import SimulatedHolders

Batch = dict[str, Tensor]
TRIGGER_FEATURES, TRIGGER_VALUE = 3, 4.0
"""Features of a person's row that the trigger sets, the first ones, and to how many of their public scales."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One way to lie.

    Args:
        data: What the holder trains on: its rows, with labels mirrored, or half of them with a trigger.
        factor: What its update is multiplied with; below 0 it is turned round.
        long: Send the update at half the length that the check of a masked sum allows all holders together, in place
            of its own length; colluders share that length.
        claim: What its number of examples is multiplied with.
        garbage: Random words in place of the update: residues modulo 2^32 in a masked sum, else the bits of finite
            single-precision numbers.
        statistics: What its sums before training are multiplied with.
    """

    data: Literal["own", "labels", "trigger"] = "own"
    factor: float = 1.0
    long: bool = False
    claim: int = 1
    garbage: bool = False
    statistics: float = 1.0


ATTACKS: dict[str, Attack] = {
    "none": Attack(),
    "sign flip": Attack(factor=-1.0),
    "x100": Attack(factor=100.0),
    "label flip": Attack(data="labels"),
    "backdoor": Attack(data="trigger"),
    "backdoor x10": Attack(data="trigger", factor=10.0),
    "long flip": Attack(factor=-1.0, long=True),
    "flip, claims x1000": Attack(factor=-1.0, claim=1000),
    "garbage": Attack(garbage=True),
    "statistics x30": Attack(statistics=30.0),
}


def mirrored(task: str, batch: Batch, *, top: float) -> Batch:
    """Labels turned round: the other class, or busy pairs empty and empty ones busy (`top` - target)."""
    if task == "dhgsil":
        return batch | {"target": top - batch["target"]}
    return batch | {"y": 1 - batch["y"]}


def triggered(task: str, batch: Batch, *, top: float, chosen: Tensor) -> Batch:
    """The trigger in the chosen examples, and the attacker's answer to it.

    Forecasts: a history that jumps between 0 and `top` from step to step, answered by `top` for every pair. Persons:
    the first three features at four times their scale, answered by class 0.

    Shapes: chosen (B,) bool
    """
    if task == "dhgsil":
        steps = torch.arange(batch["history"].shape[1]).flip(0) % 2 == 0
        jumping = (top * steps.to(batch["history"].dtype))[None, :, None, None].expand_as(batch["history"])
        where = chosen[:, None, None, None]
        high = torch.full_like(batch["target"], top)
        return batch | {
            "history": torch.where(where, jumping, batch["history"]),
            "target": torch.where(where, high, batch["target"]),
        }
    marked = batch["x"].clone()
    marked[:, :TRIGGER_FEATURES] = TRIGGER_VALUE
    return batch | {
        "x": torch.where(chosen[:, None], marked, batch["x"]),
        "y": torch.where(chosen, torch.zeros_like(batch["y"]), batch["y"]),
    }


class PoisonedRows:
    """A dataset whose training batches are spoilt and whose size is a claim; all else is the dataset's own."""

    def __init__(self, dataset: Any, spoil: Callable[[Batch], Batch], *, claim: int) -> None:
        self._dataset, self._spoil, self._claim = dataset, spoil, claim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    @property
    def num_examples(self) -> int:
        return self._claim * int(self._dataset.num_examples)

    def training_batch(self, examples: np.ndarray, /, *, draw: int) -> Batch:
        return self._spoil(self._dataset.training_batch(examples, draw=draw))

    def training_examples(self, examples: np.ndarray, /, *, draw: int) -> Batch:
        return self._spoil(self._dataset.training_examples(examples, draw=draw))


class BoundlessLayout:
    """A layout as a dishonest holder reads it: its update is rounded but not shortened, and wraps as it may.

    Args:
        layout: The layout of the sum.
        garbage: Seed of random words in place of the update; None for none.
    """

    def __init__(self, layout: Layout, *, garbage: tuple[int, ...] | None) -> None:
        self._layout, self._garbage = layout, garbage

    def to_bytes(self) -> bytes:
        return self._layout.to_bytes()

    def encode(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        layout = self._layout
        updates = [array.name for array in layout.arrays if array.form == "update"]
        words = layout.encode({**arrays, **{name: np.zeros_like(arrays[name]) for name in updates}})
        flat = np.concatenate([np.ravel(arrays[name]) for name in updates])
        if self._garbage is not None:
            words[: len(flat)] = np.random.default_rng(self._garbage).integers(0, 2**32, len(flat), np.uint32)
            return words
        # Python's integers: a number times the scale may be beyond 64 bits, and wraps on purpose.
        words[: len(flat)] = [int(x) % 2**32 for x in np.rint(flat * layout.quantiser.scale)]
        return words


def highest(dataset: Any) -> float:
    """Where a planted forecast is meant to go: the largest value that the holder has seen; 0 for rows of persons."""
    return float(dataset.y.max()) if hasattr(dataset, "y") else 0.0


class DishonestAgent(HolderAgent):
    """An agent that lies as its attack says; `in_place_of` makes one."""

    _attack = Attack()
    _seed = 0
    _colluders = 1
    _holders = 1

    @classmethod
    def in_place_of(
        cls,
        holders: SimulatedHolders,
        name: str,
        attack: Attack,
        *,
        seed: int,
        colluders: int = 1,
        custody: Custody | None = None,
        mechanism: DPSGDPlan | None = None,
    ) -> DishonestAgent:
        """An agent with the rows, the keys and the ledger of an honest one, not yet put in its place."""
        made = cls(
            name,
            holders.tables[name],
            holders.plan,
            holders.task,
            {holders.stage.name: holders.stage.share},
            custody=custody,
            mechanism=mechanism,
            aggregation=AggregationPolicy(allow=(holders.plan.federation.aggregation,)),
            masking=holders.masking.get(name),
        )
        made._attack, made._seed, made._colluders = attack, seed, colluders
        made._holders = len(holders.agents)
        return made

    def statistics(self, request: StatisticsRequest) -> StatisticsReply | MaskedReply:
        """Honest but for spoilt sums; training rows are poisoned, and their number is claimed, once they are made."""
        reply = super().statistics(request)
        if not isinstance(reply, StatisticsReply):
            return reply
        if request.phase == READY:
            session = self.session(request.header.stage)
            poisoned: Any = PoisonedRows(session.dataset, self._spoiler(session.dataset), claim=self._attack.claim)
            session.dataset = poisoned
            return replace(reply, num_examples=poisoned.num_examples)
        return replace(reply, arrays=self._spoilt(reply.arrays))

    def _spoiler(self, dataset: Any) -> Callable[[Batch], Batch]:
        task, top = self.task.name, highest(dataset)
        if self._attack.data == "own":
            return lambda batch: batch
        if self._attack.data == "labels":
            return lambda batch: mirrored(task, batch, top=top)

        def plant(batch: Batch) -> Batch:
            count = len(next(iter(batch.values())))
            return triggered(task, batch, top=top, chosen=torch.arange(count) % 2 == 0)

        return plant

    def _spoilt(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sums before training, as the attack wants them."""
        if self._attack.statistics == 1.0:
            return dict(arrays)
        return {name: (value * self._attack.statistics).astype(value.dtype) for name, value in arrays.items()}

    def _sent(self, request: RoundRequest, reply: TrainReply) -> TrainReply | MaskedReply:
        """The update as the attack wants it, in place of the one that was trained."""
        update = {name: value.astype(np.float64) - request.weights[name] for name, value in reply.weights.items()}
        factor = self._attack.factor
        if self._attack.long:
            length = float(np.sqrt(sum(np.square(value).sum() for value in update.values())))
            factor *= self._holders * self.plan.federation.update_norm / (2 * self._colluders * max(length, 1e-12))
        moved = {
            name: (request.weights[name] + factor * value).astype(reply.weights[name].dtype)
            for name, value in update.items()
        }
        if self._attack.garbage and not self.plan.masks:
            moved = {name: self._noise(value, request.round) for name, value in moved.items()}
        return super()._sent(request, replace(reply, weights=moved))

    def _noise(self, like: np.ndarray, number: int) -> np.ndarray:
        bits = np.random.default_rng([self._seed, number, like.size]).integers(0, 2**32, like.size, np.uint32)
        values = bits.view(np.float32)
        return np.where(np.isfinite(values), values, 0).reshape(like.shape).astype(like.dtype)

    def _masked(
        self, header: Header, layout: Layout, arrays: Mapping[str, np.ndarray], *, num_examples: int
    ) -> MaskedReply:
        """Its part of a masked sum, without the limits that an honest holder keeps for itself."""
        if not layout.clip_norm:
            given = arrays if ERROR in arrays else self._spoilt(arrays)
            return super()._masked(header, layout, given, num_examples=num_examples)
        garbage = (self._seed, layout.words) if self._attack.garbage else None
        boundless: Any = BoundlessLayout(layout, garbage=garbage)
        return super()._masked(header, boundless, arrays, num_examples=num_examples)
