"""What a holder remembers between rounds: personal parameters and optimiser moments, never sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import safetensors.numpy
import safetensors.torch
import torch

Tensors = dict[str, torch.Tensor]


@dataclass
class LocalState:
    """Training state that stays beside the data.

    `personal` holds the parameters that never leave; `kept` a copy of them for each round that may still be chosen;
    `first_moment`, `second_moment` and `steps` belong to Adam.
    """

    personal: Tensors = field(default_factory=dict)
    kept: dict[int, Tensors] = field(default_factory=dict)
    first_moment: Tensors = field(default_factory=dict)
    second_moment: Tensors = field(default_factory=dict)
    steps: int = 0
    round: int = 0

    def remember(self, *, best_round: int) -> None:
        """Keep the personal parameters of this round and of the best one; forget the others."""
        self.kept[self.round] = {name: value.clone() for name, value in self.personal.items()}
        self.kept = {number: value for number, value in self.kept.items() if number in (self.round, best_round)}

    def to_bytes(self) -> bytes:
        """Deterministic serialisation (safetensors)."""
        flat: Tensors = {"counters": torch.tensor([self.steps, self.round], dtype=torch.int64)}
        groups = {"personal": self.personal, "first": self.first_moment, "second": self.second_moment}
        groups |= {f"kept.{number}": value for number, value in self.kept.items()}
        for group, tensors in groups.items():
            flat |= {f"{group}:{name}": value.contiguous() for name, value in tensors.items()}
        # The bytes of safetensors.torch.save, in half its time.
        return safetensors.numpy.save({name: value.numpy() for name, value in flat.items()})

    @classmethod
    def from_bytes(cls, blob: bytes) -> LocalState:
        """Inverse of `to_bytes`."""
        state = cls()
        for key, value in safetensors.torch.load(blob).items():
            if key == "counters":
                state.steps, state.round = (int(number) for number in value)
                continue
            group, name = key.split(":", 1)
            if group.startswith("kept."):
                state.kept.setdefault(int(group.removeprefix("kept.")), {})[name] = value
            else:
                owner = {"personal": state.personal, "first": state.first_moment, "second": state.second_moment}[group]
                owner[name] = value
        return state
