"""A recheck of what is recorded gives the sum again, and nothing that was changed afterwards passes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secure_aggregation.messages import Contribution, Opening
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.transcript import (
    SessionRecord,
    SumRecord,
    check_opening,
    verify_session,
    verify_sum,
)
from privacy.secure_aggregation.wire import pack
from protocol.errors import ProtocolError
from tests.masked_sums import (
    LAYOUT,
    Session,
    SumRun,
    identity,
    masked_sum,
    new_session,
    plain_sum,
    roster_of,
    terms_of,
    vectors,
)

WORDS = 5


def session_record(session: Session) -> SessionRecord:
    """What a coordinator stores of a session."""
    return SessionRecord(
        terms=session.terms.to_bytes(),
        roster=session.roster.members,
        adverts=session.enrolment.adverts,
        confirmations=session.enrolment.confirmations,
    )


def sum_record(run: SumRun) -> SumRecord:
    """What a coordinator stores of a sum; the driver's log has everything of all its sums."""
    context = run.masked.context
    arrived: dict[str, dict[str, bytes]] = {"contribution": {}, "signature": {}, "reveal": {}}
    for kind, name, message in run.session.log:
        if kind == "signature" or (kind in arrived and context in message):
            arrived[kind][name] = message
    return SumRecord(
        order=run.order.to_bytes(),
        contributions=arrived["contribution"],
        survivors=run.survivors.to_bytes(),
        signatures=arrived["signature"],
        reveals=arrived["reveal"],
    )


def summed(count: int, *, late: Iterable[str] = (), silent: Iterable[str] = ()) -> tuple[SessionRecord, SumRecord]:
    session = new_session(count, seed=b"transcript")
    run = masked_sum(session, vectors(session.names, WORDS), late=late, silent=silent)
    return session_record(session), sum_record(run)


ALL = summed(3)
DROPPED = summed(4, late=("h01",))


@pytest.mark.parametrize(
    ("count", "late", "silent"),
    [(2, (), ()), (3, (), ()), (4, ("h00",), ()), (5, ("h04",), ()), (7, ("h02",), ("h05",)), (7, (), ("h00", "h03"))],
)
def test_a_recheck_gives_the_sum(count: int, late: tuple[str, ...], silent: tuple[str, ...]) -> None:
    """From stored bytes alone: order, survivors, layout and words, whoever dropped out at whichever message."""
    session, record = summed(count, late=late, silent=silent)
    session, record = SessionRecord.from_bytes(session.to_bytes()), SumRecord.from_bytes(record.to_bytes())
    found = verify_sum(session, record)
    left = tuple(name for name in session.roster if name not in late)
    assert found.survivors.left == left
    assert found.survivors.dropped == late
    assert found.order == SumOrder.from_bytes(record.order)
    assert found.layout == LAYOUT
    assert found.words.dtype == np.uint32
    assert found.words.tolist() == plain_sum(vectors(session.roster, WORDS), left).tolist()


def test_a_recheck_gives_the_agreement() -> None:
    session = new_session(3)
    assert verify_session(session_record(session)) == session.enrolment.agreement


def test_a_later_order_needs_no_confirmations() -> None:
    session = new_session(3)
    masked_sum(session, vectors(session.names, WORDS))
    run = masked_sum(session, vectors(session.names, WORDS, seed=1), order=session.order(confirmations={}))
    assert verify_sum(session_record(session), sum_record(run)).words.tolist() == run.words.tolist()


@pytest.mark.parametrize("records", [ALL, DROPPED], ids=["all", "dropped"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_changed_bit_is_found(records: tuple[SessionRecord, SumRecord], data: st.DataObject) -> None:
    """Wherever it is in what is stored of a session or of a sum."""
    blobs = [record.to_bytes() for record in records]
    which = data.draw(st.sampled_from((0, 1)))
    place = data.draw(st.integers(0, 8 * len(blobs[which]) - 1))
    changed = bytearray(blobs[which])
    changed[place // 8] ^= 1 << place % 8
    blobs[which] = bytes(changed)
    with pytest.raises(ProtocolError):
        verify_sum(SessionRecord.from_bytes(blobs[0]), SumRecord.from_bytes(blobs[1]))


@pytest.mark.parametrize("reader", [SessionRecord, SumRecord])
@pytest.mark.parametrize("records", [ALL, DROPPED], ids=["all", "dropped"])
def test_what_is_cut_short_is_no_record(
    reader: type[SessionRecord | SumRecord], records: tuple[SessionRecord, SumRecord]
) -> None:
    """At any place; nor is one kind of record the other."""
    blob = records[reader is SumRecord].to_bytes()
    for length in (*range(0, len(blob), 97), len(blob) - 1):
        with pytest.raises(ProtocolError):
            reader.from_bytes(blob[:length])
    with pytest.raises(ProtocolError, match="kind"):
        reader.from_bytes(records[reader is not SumRecord].to_bytes())


def without(table: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: value for name, value in table.items() if name not in names}


def test_another_roster_is_found() -> None:
    """Even one whose members could have signed everything."""
    session, _ = ALL
    with pytest.raises(ProtocolError, match="name roster"):
        verify_session(replace(session, roster={**session.roster, "h99": identity("h99").public}))


@pytest.mark.parametrize("key", [b"", bytes(31), b"\xff" * 32])
def test_a_roster_with_a_key_that_is_none_is_found(key: bytes) -> None:
    session, _ = ALL
    with pytest.raises(ProtocolError):
        verify_session(replace(session, roster={**session.roster, "h00": key}))


def test_a_roster_of_one_is_found() -> None:
    session, _ = ALL
    with pytest.raises(ProtocolError, match="recorded roster is none"):
        verify_session(replace(session, roster={"h00": session.roster["h00"]}))


def test_too_few_adverts_are_found() -> None:
    """Although all of those who are there signed for each other."""
    session = new_session(4, absent=("h02", "h03"), unconfirmed=("h00", "h01"))
    with pytest.raises(ProtocolError, match="2 holders advertised"):
        verify_session(session_record(session))


def test_one_key_for_two_is_found() -> None:
    """Signed by both: they conspire, or a coordinator let two holders be one."""
    roster = roster_of(("h00", "h01", "h02"))
    terms = terms_of(roster)
    adverts = {
        name: pack("advert", b"k" * 32, identity(name).sign(terms.advert_statement(name, b"k" * 32)))
        for name in roster.names
    }
    record = SessionRecord(terms=terms.to_bytes(), roster=roster.members, adverts=adverts, confirmations={})
    with pytest.raises(ProtocolError, match="one key"):
        verify_session(record)


def test_an_advert_of_another_session_is_found() -> None:
    session, _ = ALL
    other = session_record(new_session(3, session=2))
    with pytest.raises(ProtocolError, match="advert of 'h01'"):
        verify_session(replace(session, adverts={**session.adverts, "h01": other.adverts["h01"]}))


def test_an_unconfirmed_session_is_found() -> None:
    session, _ = ALL
    with pytest.raises(ProtocolError, match=r"\['h02'\] did not confirm"):
        verify_session(replace(session, confirmations=without(session.confirmations, "h02")))


def test_a_confirmation_of_a_stranger_is_found() -> None:
    session, _ = ALL
    with pytest.raises(ProtocolError, match="'h07' did not confirm"):
        verify_session(replace(session, confirmations={**session.confirmations, "h07": bytes(64)}))


def test_a_sum_over_an_absent_holder_is_found() -> None:
    session = new_session(4, absent=("h03",))
    run = masked_sum(session, vectors(session.names, WORDS))
    order = replace(run.order, weights=dict(run.order.weights) | {"h03": 1})
    with pytest.raises(ProtocolError, match=r"\['h03'\] were asked"):
        verify_sum(session_record(session), replace(sum_record(run), order=order.to_bytes()))


def test_other_confirmations_in_the_order_are_found() -> None:
    session, record = ALL
    order = SumOrder.from_bytes(record.order)
    changed = replace(order, confirmations=dict(order.confirmations) | {"h00": bytes(64)})
    with pytest.raises(ProtocolError, match="other confirmations"):
        verify_sum(session, replace(record, order=changed.to_bytes()))


def test_another_weight_is_found() -> None:
    """A coordinator cannot say later that a holder counted more than it was told."""
    session, record = ALL
    order = SumOrder.from_bytes(record.order)
    changed = replace(order, weights=dict(order.weights) | {"h00": 2})
    with pytest.raises(ProtocolError, match="another sum"):
        verify_sum(session, replace(record, order=changed.to_bytes()))


def test_a_sum_of_another_session_is_found() -> None:
    _, record = ALL
    with pytest.raises(ProtocolError):
        verify_sum(session_record(new_session(3, session=2)), record)


def test_a_missing_contribution_is_found() -> None:
    """Too few are left; or those who signed were more than those whose parts are there."""
    session, record = ALL
    with pytest.raises(ProtocolError, match=r"2 of 3 holders contributed.*does not open it"):
        verify_sum(session, replace(record, contributions=without(record.contributions, "h00")))
    session, record = summed(4)
    with pytest.raises(ProtocolError, match="recorded survivors"):
        verify_sum(session, replace(record, contributions=without(record.contributions, "h00")))


def test_too_few_signatures_are_found() -> None:
    session, record = DROPPED
    with pytest.raises(ProtocolError, match="2 holders signed who is left, and 3 were needed"):
        verify_sum(session, replace(record, signatures=without(record.signatures, "h00")))


def test_a_signature_of_a_dropped_holder_is_found() -> None:
    session, record = DROPPED
    with pytest.raises(ProtocolError, match="'h01' did not sign"):
        verify_sum(session, replace(record, signatures=dict(record.signatures) | {"h01": bytes(64)}))


def test_too_few_answers_are_found() -> None:
    session, record = DROPPED
    with pytest.raises(ProtocolError, match=r"2 holders helped.*does not open it"):
        verify_sum(session, replace(record, reveals=without(record.reveals, "h00")))


def test_answers_that_are_not_needed_may_be_missing() -> None:
    """Shares of any t holders give the same sum."""
    session, record = summed(7)
    fewer = replace(record, reveals=without(record.reveals, "h00", "h04"))
    assert verify_sum(session, fewer).words.tolist() == verify_sum(session, record).words.tolist()


def test_an_answer_to_another_sum_is_found() -> None:
    session = new_session(3)
    first = masked_sum(session, vectors(session.names, WORDS))
    second = masked_sum(session, vectors(session.names, WORDS, seed=1))
    mixed = replace(sum_record(second), reveals=sum_record(first).reveals)
    with pytest.raises(ProtocolError, match="does not open this sum"):
        verify_sum(session_record(session), mixed)


def opened(count: int = 3) -> tuple[Session, SumRun, SumRecord]:
    session = new_session(count)
    run = masked_sum(session, vectors(session.names, WORDS))
    return session, run, sum_record(run)


def test_openings_of_all_add_up_to_the_sum() -> None:
    """Each is what its holder committed to, and together they are what was opened."""
    session, run, record = opened()
    shown = {name: check_opening(record, holder.open(), holder=name) for name, holder in session.holders.items()}
    for name, words in shown.items():
        assert words.dtype == np.uint32
        assert words.tolist() == run.inputs[name].tolist()
    assert plain_sum(shown, shown).tolist() == run.words.tolist()


def test_other_words_than_committed_to_are_found() -> None:
    session, _, record = opened()
    shown = Opening.from_bytes(session.holders["h00"].open())
    words = np.frombuffer(shown.words, "<u4") + np.uint32(1)
    for changed in (
        replace(shown, words=words.tobytes()),
        replace(shown, words=shown.words[:-4]),
        replace(shown, salt=bytes(32)),
    ):
        with pytest.raises(ProtocolError, match="'h00' shows other words than it committed to"):
            check_opening(record, changed.to_bytes(), holder="h00")


def test_an_opening_of_another_sum_or_holder_is_found() -> None:
    session, _, record = opened()
    shown = session.holders["h00"].open()
    with pytest.raises(ProtocolError, match="'h01' shows a part of another sum, or of another holder"):
        check_opening(record, shown, holder="h01")
    renamed = replace(Opening.from_bytes(shown), holder="h01").to_bytes()
    with pytest.raises(ProtocolError, match="other words than it committed to"):
        check_opening(record, renamed, holder="h01")
    with pytest.raises(ProtocolError, match="'h09' shows its part of a sum in which it has none"):
        check_opening(record, shown, holder="h09")
    later = sum_record(masked_sum(session, vectors(session.names, WORDS)))
    with pytest.raises(ProtocolError, match="'h00' shows a part of another sum"):
        check_opening(later, shown, holder="h00")


def test_a_committed_length_other_than_masked_is_found() -> None:
    """Who committed to a longer vector than it masked is not believed, although the commitment fits."""
    session, _, record = opened()
    shown = Opening.from_bytes(session.holders["h00"].open())
    longer = replace(shown, words=shown.words + bytes(4))
    parts = dict(record.contributions)
    parts["h00"] = replace(Contribution.from_bytes(parts["h00"]), commitment=longer.commitment()).to_bytes()
    with pytest.raises(ProtocolError, match="other words"):
        check_opening(replace(record, contributions=parts), longer.to_bytes(), holder="h00")


def test_the_roster_is_the_one_that_was_approved() -> None:
    """What the operator approved can be computed from the record."""
    session, _ = ALL
    assert Roster(session.roster).digest() == roster_of(session.roster).digest()
