"""Where a holder stands in a session, and what it keeps of the sum in progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from privacy.secure_aggregation.messages import Opening, Survivors
from privacy.secure_aggregation.terms import SumOrder


class State(Enum):
    """Where a holder stands in a session."""

    NEW = "new"
    ADVERTISED = "advertised"
    AGREED = "agreed"
    BEGUN = "begun"
    CONTRIBUTED = "contributed"
    SIGNED = "signed"
    REVEALED = "revealed"
    CLOSED = "closed"


@dataclass
class SumInProgress:
    """What a holder keeps of the sum in progress."""

    order: SumOrder
    context: bytes
    seeds: dict[str, bytearray] = field(default_factory=dict)
    own_shares: list[bytes] = field(default_factory=list)
    signed: Survivors | None = None
    opening: Opening | None = None
