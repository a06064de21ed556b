"""What a holder puts into a sum is a vector of 32-bit words with something in it."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.secure_aggregation.holder import State
from protocol.errors import ProtocolError
from tests.masked_sums import LAYOUT, new_session


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (np.array(5, dtype=np.uint32), r"uint32 \(\)"),
        (np.zeros((2, 2), dtype=np.uint32), r"uint32 \(2, 2\)"),
        (np.zeros(0, dtype=np.uint32), r"uint32 \(0,\)"),
        (np.zeros(3, dtype=np.int32), r"int32 \(3,\)"),
        (np.zeros(3, dtype=np.uint64), r"uint64 \(3,\)"),
        (np.zeros(3), r"float64 \(3,\)"),
    ],
)
def test_anything_else_is_refused_and_can_be_put_right(words: np.ndarray, shown: str) -> None:
    session = new_session(3)
    holder = session.holders["h00"]
    holder.begin(session.order().to_bytes())
    with pytest.raises(ProtocolError, match=rf"^a vector {shown} was given; a sum takes words \(n,\) of uint32$"):
        holder.contribute(words, layout=LAYOUT)
    assert holder.state is State.BEGUN
    assert holder.contribute(np.zeros(3, dtype=np.uint32), layout=LAYOUT)


def test_the_words_that_were_given_stay_as_they_are() -> None:
    """Masks are added to a copy, so the caller may sum the same words again."""
    session = new_session(3)
    words = np.arange(5, dtype=np.uint32)
    session.holders["h00"].begin(session.order().to_bytes())
    session.holders["h00"].contribute(words, layout=LAYOUT)
    assert words.tolist() == [0, 1, 2, 3, 4]
