"""What an audit found: one frozen value, the same for every audit, that goes into the card as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """The finding of one audit.

    Args:
        name: What was audited and how, in a few words.
        lower_bound: With probability `confidence` the mechanism's epsilon (at `delta`) is at least this; None for an
            attack that proves no bound.
        confidence: Probability that a correct mechanism is not accused, 1 - beta.
        largest_provable: The bound a mechanism without any noise would have given: a claim above it cannot be falsified
            by this audit. None where `lower_bound` is None.
        claimed_epsilon: What the accountant says of the mechanism; None if nothing is claimed.
        delta: The delta of all three epsilons.
        consistent: True if nothing found contradicts the claim. It never proves the claim.
        seconds: CPU seconds of this process that the audit took.
        assumptions: What the bound rests on, in words.
        figures: Further measured numbers by name.
    """

    name: str
    lower_bound: float | None
    confidence: float
    largest_provable: float | None
    claimed_epsilon: float | None
    delta: float
    consistent: bool
    seconds: float
    assumptions: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", MappingProxyType(dict(self.figures)))

    def to_json(self) -> dict[str, object]:
        """Plain values only, ready for `json.dumps`."""
        return {
            "name": self.name,
            "lower_bound": self.lower_bound,
            "confidence": self.confidence,
            "largest_provable": self.largest_provable,
            "claimed_epsilon": self.claimed_epsilon,
            "delta": self.delta,
            "consistent": self.consistent,
            "seconds": self.seconds,
            "assumptions": list(self.assumptions),
            "figures": dict(self.figures),
        }
