"""Who refuses says why: who it is, what it was asked, and what to do."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.messages import Contribution, Reveal, Survivors, Unmasking
from protocol.errors import AggregationRefusedError, ProtocolError
from tests.masked_sums import LAYOUT, SumRun, identity, new_session, vectors


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda holder: holder.advertise(), "to advertise a key"),
        (lambda holder: holder.agree({}), "to agree on keys"),
        (lambda holder: holder.begin(b""), "to begin a sum"),
        (lambda holder: holder.contribute(np.zeros(1, dtype=np.uint32), layout=LAYOUT), "to contribute"),
        (lambda holder: holder.sign(b""), "to sign who is left"),
        (lambda holder: holder.reveal(b""), "to open the sum"),
        (lambda holder: holder.open(), "to show what was put into a sum"),
    ],
)
def test_a_closed_holder_says_what_it_was_asked(ask: Callable[[MaskingHolder], object], asked: str) -> None:
    holder = new_session(3).holders["h01"]
    holder.close()
    reason = (
        f"holder 'h01' gives nothing away: it was asked {asked}, which does not follow after 'closed'; end the run, or "
        "start a new session, and ask the coordinator how it came to this"
    )
    with pytest.raises(AggregationRefusedError, match=f"^{re.escape(reason)}$"):
        ask(holder)


def test_no_more_than_three_names_are_listed() -> None:
    session = new_session(10)
    run = SumRun(session, session.order(), vectors(session.names, 2))
    run.contribute()
    twice = Survivors(context=run.masked.context, left=session.names, dropped=session.names[:5])
    rule = r"\['h00', 'h01', 'h02'\] are named as left and as dropped"
    with pytest.raises(AggregationRefusedError, match=rule):
        session.holders["h00"].sign(twice.to_bytes())


@pytest.mark.parametrize("context", [bytes(32), b"\xff" * 32])
def test_survivors_of_any_other_sum_are_refused(context: bytes) -> None:
    """Whether its hash is smaller or greater than that of the sum in progress."""
    session = new_session(3)
    run = SumRun(session, session.order(), vectors(session.names, 2))
    run.contribute()
    other = Survivors(context=context, left=session.names, dropped=())
    with pytest.raises(AggregationRefusedError, match="the message is of another sum, model, plan, cohort or weight"):
        session.holders["h00"].sign(other.to_bytes())
    asked = Unmasking.from_bytes(run.masked.unmasking("h00"))
    with pytest.raises(AggregationRefusedError, match="the message is of another sum, model, plan, cohort or weight"):
        session.holders["h00"].reveal(replace(asked, survivors=other).to_bytes())


@pytest.mark.parametrize("context", [bytes(32), b"\xff" * 32])
def test_answers_of_any_other_sum_are_left_out(context: bytes) -> None:
    """Signed well, and of another sum: the coordinator takes neither a contribution nor what opens it."""
    session = new_session(3)
    run = SumRun(session, session.order(), vectors(session.names, 2))
    holder = session.holders["h00"]
    holder.begin(run.order.to_bytes())
    given = Contribution.from_bytes(holder.contribute(run.inputs["h00"], layout=LAYOUT))
    with pytest.raises(ProtocolError, match="'h00' contributed to another sum, or not in its form"):
        run.masked.add_contribution("h00", _resigned(replace(given, context=context)))
    fresh = new_session(3)
    opened = SumRun(fresh, fresh.order(), vectors(fresh.names, 2))
    opened.contribute()
    reveal = Reveal.from_bytes(fresh.holders["h00"].reveal(opened.masked.unmasking("h00")))
    with pytest.raises(ProtocolError, match="'h00' does not open this sum, or did not sign what it gives"):
        opened.masked.add_reveal("h00", _resigned(replace(reveal, context=context)))


def _resigned(message: Contribution | Reveal) -> bytes:
    return replace(message, signature=identity("h00").sign(message.statement())).to_bytes()


@pytest.mark.parametrize("step", [-1, 1])
def test_another_process_is_refused_whatever_its_number(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of processes start again from the low ones."""
    holder = new_session(3).holders["h00"]
    other = os.getpid() + step
    monkeypatch.setattr(os, "getpid", lambda: other)
    reason = (
        "a process that was forked may not act for a holder of its parent: both could answer; start a session in the "
        "process that answers"
    )
    with pytest.raises(AggregationRefusedError, match=f"^{reason}$"):
        holder.begin(b"")


def test_a_copy_is_refused_by_its_name() -> None:
    with pytest.raises(
        TypeError, match=r"^a MaskingHolder cannot be copied or pickled: two of it could open two sums$"
    ):
        copy.copy(new_session(3).holders["h00"])
