"""After a sum that cannot be right: who shows what it put in, and whether it had committed to that.

Whoever arbitrates asks the survivors of the last sum of a stage (`SecureSums.dispute`). A holder answers where its
policy has ``openings = true``, and is heard at most once for each sum. What it shows is in the journal before it is
judged.

* It is what the holder committed to, before anybody could know the sum, or it is not (`check_opening`).
* Words that no honest holder of this layout can have are named.
* That they are the words that were *masked* follows only if all survivors show theirs and they add up to the sum. If
  they do not add up, somebody masked others than it committed to; who that was cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.transcript import SumRecord, VerifiedSum, check_opening
from protocol.errors import ProtocolError


@dataclass(frozen=True)
class Dispute:
    """What was found of one sum.

    Args:
        label: What was summed.
        shown: Words of those who show what they committed to, by name.
        refused: Why others show nothing, by name.
        false: Why what others show is not what they committed to, by name.
        beyond: Those whose words are beyond what the layout allows a holder.
        adds_up: Whether the words of all survivors give the sum; None unless all show them.

    Shapes: shown (n,) of uint32
    """

    label: str
    shown: Mapping[str, np.ndarray]
    refused: Mapping[str, str]
    false: Mapping[str, str]
    beyond: tuple[str, ...]
    adds_up: bool | None

    def in_words(self) -> str:
        """What was found, in sentences."""
        parts = [f"of '{self.label}', {len(self.shown)} holders show what they committed to"]
        if self.refused:
            parts.append(f"{', '.join(self.refused)} show nothing, which proves nothing")
        if self.false:
            parts.append(f"{', '.join(self.false)} show something else than they committed to")
        if self.beyond:
            parts.append(f"{', '.join(self.beyond)} committed to words that no honest holder can have")
        if self.adds_up is not None:
            parts.append(
                "all of it adds up to the sum, so it is what was masked"
                if self.adds_up
                else "it does not add up to the sum: somebody masked other words than it committed to"
            )
        return "; ".join(parts)


def judged(record: SumRecord, found: VerifiedSum, openings: Mapping[str, bytes], refused: Mapping[str, str]) -> Dispute:
    """What openings say about a sum.

    Args:
        record: The sum, as it is recorded.
        found: The same, rechecked.
        openings: What holders show, by name.
        refused: Why others do not, by name.
    """
    shown: dict[str, np.ndarray] = {}
    false: dict[str, str] = {}
    for name, opening in openings.items():
        try:
            shown[name] = check_opening(record, opening, holder=name)
        except ProtocolError as error:
            false[name] = str(error)
    layout = Layout.from_bytes(found.layout)
    beyond = tuple(name for name, words in shown.items() if not _possible(layout, words))
    adds_up = None
    if shown.keys() == set(found.survivors.left):
        adds_up = bool(np.array_equal(np.sum(list(shown.values()), axis=0, dtype=np.uint32), found.words))
    return Dispute(found.order.label, shown, dict(refused), false, beyond, adds_up)


def _possible(layout: Layout, words: np.ndarray) -> bool:
    """Whether one honest holder can have these words."""
    try:
        layout.decode(words, survivors=1)
    except ProtocolError:
        return False
    return True
