"""One holder, one answer at a time: no thread, fork, copy or closed session gives a second one."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.secure_aggregation.alone import Alone, alone
from privacy.secure_aggregation.keys import PairChain
from privacy.secure_aggregation.messages import Survivors
from privacy.secure_aggregation.states import State
from protocol.errors import AggregationRefusedError
from tests.masked_sums import LAYOUT, Session, new_session, vectors


class Slow(Alone):
    """Waits in the middle of a step until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = threading.Event(), threading.Event()

    @alone
    def step(self) -> str:
        """A step that takes its time."""
        self.inside.set()
        self.go_on.wait(10)
        return "done"

    @alone
    def broken(self) -> str:
        """A step that fails."""
        raise ValueError("broken")

    @alone
    def nested(self) -> str:
        """A step that asks for another."""
        return self.step()


def contributed(session: Session) -> Survivors:
    """A session whose holders have contributed to a sum, and a set without the first."""
    order = session.order()
    inputs = vectors(session.names, 4)
    for name, holder in session.holders.items():
        holder.begin(order.to_bytes())
        holder.contribute(inputs[name], layout=LAYOUT)
    context = order.context(session.enrolment.agreement)
    return Survivors(context=context, left=session.names[1:], dropped=session.names[:1])


def test_a_second_thread_is_refused_while_a_step_is_under_way() -> None:
    """Two threads that both passed the check of the state could sign two sets."""
    slow, results = Slow(), list[str]()
    thread = threading.Thread(target=lambda: results.append(slow.step()))
    thread.start()
    assert slow.inside.wait(10)
    with pytest.raises(AggregationRefusedError, match="one thing after the other"):
        slow.step()
    slow.go_on.set()
    thread.join(10)
    assert results == ["done"]
    assert slow.step() == "done"


def test_a_step_that_fails_does_not_block_the_next_and_none_runs_inside_another() -> None:
    """A refused message must not end the session; a callback out of a step must not begin another."""
    slow = Slow()
    slow.go_on.set()
    with pytest.raises(ValueError, match="broken"):
        slow.broken()
    with pytest.raises(AggregationRefusedError, match="one thing after the other"):
        slow.nested()
    assert slow.step() == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_signs_nothing() -> None:
    """Parent and child would each sign one set, and both would be opened."""
    session = new_session(4)
    survivors = contributed(session)
    holder = session.holders["h01"]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            holder.sign(survivors.to_bytes())
        except AggregationRefusedError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert holder.sign(survivors.to_bytes())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_holder_cannot_be_copied(copied: object) -> None:
    """A copy has a state of its own, and would answer again."""
    session = new_session(4)
    contributed(session)
    with pytest.raises(TypeError, match="cannot be copied"):
        copied(session.holders["h01"])  # type: ignore[operator]


def test_keys_of_a_closed_session_are_none_and_not_those_of_zeros() -> None:
    """Whoever still had a chain after it was wiped would mask with a key that everybody can compute."""
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    chain = PairChain(own, other, info=b"")
    chain.wipe()
    for ask in (
        lambda: chain.seed(b"context"),
        lambda: chain.parcel_key(b"context", sender="a", recipient="b"),
        lambda: chain.advance(1),
        lambda: chain.check(0),
    ):
        with pytest.raises(AggregationRefusedError, match="closed are gone"):
            ask()


def test_a_closed_holder_does_nothing_more() -> None:
    """Closing in the middle of a sum leaves nothing that could be asked for."""
    session = new_session(4)
    survivors = contributed(session)
    holder = session.holders["h01"]
    holder.close()
    assert holder.state is State.CLOSED
    with pytest.raises(AggregationRefusedError, match="does not follow"):
        holder.sign(survivors.to_bytes())
