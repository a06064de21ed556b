"""Holders that lie: whoever can be named is named, by the coordinator or by a peer, and no wrong sum comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.keys import sealed
from privacy.secure_aggregation.messages import Advert, Contribution, Opening, Reveal, Survivors
from privacy.secure_aggregation.shamir import PRIME, SHARE_BYTES
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError, ProtocolError, TrainingError
from tests.masked_sums import (
    LAYOUT,
    Hook,
    Session,
    SumRun,
    identity,
    masked_sum,
    names_of,
    new_session,
    plain_sum,
    snapshot,
    vectors,
)

LIAR = "h01"
FIVE = names_of(5)
ELSEWHERE = bytes(31) + b"\1"


def signed_again(given: Contribution) -> bytes:
    """A contribution that its holder changed, and signed as it is now."""
    return replace(given, signature=identity(given.holder).sign(given.statement())).to_bytes()


def lying(change: Callable[[Contribution], Contribution]) -> Hook:
    """One holder contributes something else, correctly signed."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("contribution", LIAR):
            return message
        return signed_again(change(Contribution.from_bytes(message)))

    return hook


def lying_reveal(change: Callable[[Reveal], Reveal]) -> Hook:
    """One holder gives something else to open the sum, correctly signed."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("reveal", LIAR):
            return message
        given = change(Reveal.from_bytes(message))
        return replace(given, signature=identity(LIAR).sign(given.statement())).to_bytes()

    return hook


def fails(hook: Hook, reason: str, *, late: tuple[str, ...] = (), error: type[Exception] = ProtocolError) -> Session:
    """The sum ends with a reason and gives no words; the session, to go on with."""
    session = new_session(5, hook=hook)
    with pytest.raises(error, match=reason):
        masked_sum(session, vectors(FIVE, 6), late=late)
    return session


def goes_on_without(session: Session) -> None:
    """The others have their sum without the liar, in the same session."""
    inputs = vectors(FIVE, 6)
    run = masked_sum(session, inputs, late=[LIAR])
    np.testing.assert_array_equal(run.words, plain_sum(inputs, set(FIVE) - {LIAR}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda given: replace(given, context=ELSEWHERE), "'h01' contributed to another sum, or not in its form"),
        (lambda given: replace(given, threshold=3), "'h01' contributed to another sum, or not in its form"),
        (lambda given: replace(given, threshold=6), "'h01' contributed to another sum, or not in its form"),
        (lambda given: replace(given, digests={}), "'h01' contributed to another sum, or not in its form"),
        (
            lambda given: replace(given, parcels={**given.parcels, LIAR: b""}),
            "'h01' contributed to another sum, or not",
        ),
        (lambda given: replace(given, parcels={}), "'h01' contributed to another sum, or not in its form"),
        (lambda given: replace(given, unanimity=bytes(64)), "the contribution of 'h01' is not signed by it"),
        (lambda given: replace(given, layout=b"another"), "'h01' contributed 6 words of another layout than"),
        (lambda given: replace(given, masked=given.masked[4:]), "'h01' contributed 5 words of another layout than"),
        (lambda given: replace(given, masked=b""), "'h01' contributed 0 words of another layout than"),
    ],
)
def test_contribution_that_does_not_fit_is_named(
    change: Callable[[Contribution], Contribution], reason: str
) -> None:  # fmt: skip
    """Another sum, threshold, layout, form or an unsigned part: the coordinator says whose it is; the sum goes on."""
    session = fails(lying(change), reason)
    goes_on_without(session)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: replace(given, masked=bytes(24)),
        lambda given: replace(given, commitment=ELSEWHERE),
        lambda given: replace(given, digests={**given.digests, "h00": ELSEWHERE}),
        lambda given: replace(given, parcels={**given.parcels, "h00": b"parcel"}),
        lambda given: replace(given, layout=b"another"),
        lambda given: replace(given, threshold=5),
    ],
)
def test_contribution_changed_on_its_way_is_refused(change: Callable[[Contribution], Contribution]) -> None:
    """A holder's signature covers all of its contribution."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        return (
            change(Contribution.from_bytes(message)).to_bytes() if (kind, name) == ("contribution", LIAR) else message
        )  # fmt: skip

    fails(hook, "the contribution of 'h01' is not signed by it; it was changed on the way")


def test_first_holder_of_another_layout_is_named_beside_the_others() -> None:
    """Which of two layouts is wrong a sum cannot know: both sides are named, and no sum of a mixture comes out."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("contribution", "h00"):
            return message
        return signed_again(replace(Contribution.from_bytes(message), layout=b"another"))

    fails(hook, r"'h01' contributed 6 words of another layout than \['h00'\] with 6")


def test_contribution_of_another_is_refused() -> None:
    """A holder cannot contribute for another one, nor hand on what another contributed."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("contribution", LIAR):
            return message
        return session.last("contribution")["h00"]

    session = new_session(5, hook=hook)
    with pytest.raises(ProtocolError, match="'h01' contributed to another sum"):
        masked_sum(session, vectors(FIVE, 6))


def test_contribution_of_a_stranger_is_refused() -> None:
    """Who was not asked cannot contribute, although it is in the roster."""
    session = new_session(5)
    masked = MaskedSum(session.enrolment.agreement, session.order(weights=dict.fromkeys(FIVE[:4], 1)), session.roster)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute()
    with pytest.raises(ProtocolError, match="'h04' contributed to another sum"):
        masked.add_contribution("h04", session.last("contribution")["h04"])


def test_second_or_late_contribution_is_refused() -> None:
    """A holder contributes once, and not after it was seen who is left."""
    session = new_session(5)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute()
    again = session.last("contribution")[LIAR]
    with pytest.raises(ProtocolError, match="'h01' contributed twice, or after the sum was closed"):
        run.masked.add_contribution(LIAR, again)
    run.reveal()
    np.testing.assert_array_equal(run.total(), plain_sum(run.inputs, FIVE))


@pytest.mark.parametrize("late", [(), ("h04",)])
def test_wrong_digest_of_a_pair_is_named(late: tuple[str, ...]) -> None:
    """Two holders that do not have one seed are named before anything is opened."""
    hook = lying(lambda given: replace(given, digests={**given.digests, "h02": ELSEWHERE}))
    session = fails(hook, "'h01' and 'h02' do not have one seed for their pair, so the sum cannot be opened", late=late)
    assert not session.last("reveal")
    goes_on_without(session)


def test_wrong_digest_of_the_own_mask_is_named() -> None:
    """Shares must give the seed that the holder named; if not, it is named together with those who gave shares."""
    hook = lying(lambda given: replace(given, digests={**given.digests, LIAR: ELSEWHERE}))
    fails(hook, "the shares of a seed of 'h01' do not give it: 'h01' shared another one, or one of")


def test_wrong_digest_of_a_dropped_pair_is_named() -> None:
    """A seed of a pair with one who dropped out is compared with what was said before."""
    hook = lying(lambda given: replace(given, digests={**given.digests, "h04": ELSEWHERE}))
    fails(hook, "'h01' gives another seed than it masked with; it is left out", late=("h04",))


def test_wrong_share_is_not_summed() -> None:
    """A false share of another's mask: no sum comes out, and those who gave shares are named."""
    wrong = (PRIME - 1).to_bytes(SHARE_BYTES, "big")
    hook = lying_reveal(lambda given: replace(given, shares={**given.shares, "h03": wrong}))
    fails(hook, r"(the shares of a seed of 'h03' do not give it: .* one of \['h00', 'h01', 'h02', 'h03'\])|no 32 bytes")


@pytest.mark.parametrize("value", [0, 1, 2**200])
def test_any_wrong_share_is_not_summed(value: int) -> None:
    """Whatever the false share is."""
    wrong = value.to_bytes(SHARE_BYTES, "big")
    hook = lying_reveal(lambda given: replace(given, shares={**given.shares, "h03": wrong}))
    fails(hook, "(do not give it)|(shares do not belong together)")


def test_wrong_share_of_a_pair_is_not_summed() -> None:
    """A false share of a seed of one that is lost before it answers: no sum comes out."""
    wrong = (2**200).to_bytes(SHARE_BYTES, "big")
    hook = lying_reveal(lambda given: replace(given, pair_shares={**given.pair_shares, "h05": wrong}))
    session = new_session(7, hook=hook)
    with pytest.raises(ProtocolError, match=r"(a seed of 'h05' do not give it)|(shares do not belong together)"):
        masked_sum(session, vectors(session.names, 6), late=["h02"], silent=["h05"])


def test_share_that_is_no_element_is_not_summed() -> None:
    """A share above the prime is refused as such."""
    wrong = b"\xff" * SHARE_BYTES
    hook = lying_reveal(lambda given: replace(given, shares={**given.shares, "h03": wrong}))
    fails(hook, "a share is no element of the field")


def test_wrong_seed_is_named() -> None:
    """A false seed of a pair with one who dropped out is named, and not used; too few answers are left here."""
    hook = lying_reveal(lambda given: replace(given, seeds=dict.fromkeys(given.seeds, ELSEWHERE)))
    session = new_session(5, hook=hook)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute(late=["h04"])
    run.sign()
    with pytest.raises(ProtocolError, match="'h01' gives another seed than it masked with; it is left out"):
        run.reveal()
    with pytest.raises(TrainingError, match="1 holders helped to open 'sum' and 4 are needed"):
        run.total()


@pytest.mark.parametrize(
    "change",
    [
        lambda given: replace(given, context=ELSEWHERE),
        lambda given: replace(given, holder="h02"),
        lambda given: replace(given, shares={}),
        lambda given: replace(given, shares={**given.shares, "h04": given.shares["h00"]}),
        lambda given: replace(given, seeds={}, pair_shares=dict.fromkeys(given.pair_shares, b"")),
        lambda given: replace(
            given,
            seeds={**given.seeds, "h02": ELSEWHERE},
            pair_shares={name: 2 * row for name, row in given.pair_shares.items()},
        ),
        lambda given: replace(given, pair_shares={}),
        lambda given: replace(given, pair_shares={**given.pair_shares, LIAR: given.pair_shares["h00"]}),
    ],
)
def test_answer_in_another_form_is_named(change: Callable[[Reveal], Reveal]) -> None:
    """An answer has a share for each survivor and a seed for each who dropped out: not more, not fewer, of this sum."""
    fails(lying_reveal(change), "'h01' does not open this sum, or did not sign what it gives", late=("h04",))


def test_answer_that_is_not_signed_is_named() -> None:
    """What is given away is signed, so that nobody can say it was another."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("reveal", LIAR):
            return message
        return replace(Reveal.from_bytes(message), signature=bytes(64)).to_bytes()

    fails(hook, "'h01' does not open this sum, or did not sign what it gives; it is left out")


def test_answer_of_one_who_dropped_out_is_refused() -> None:
    """Only survivors open a sum."""
    session = new_session(5)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute(late=["h04"])
    run.sign()
    run.reveal()
    given = replace(Reveal.from_bytes(session.last("reveal")["h00"]), holder="h04")
    forged = replace(given, signature=identity("h04").sign(given.statement())).to_bytes()
    with pytest.raises(ProtocolError, match="'h04' does not open this sum"):
        run.masked.add_reveal("h04", forged)


@pytest.mark.parametrize("name", ["h04", "sybil", LIAR])
def test_signature_of_who_is_left_must_be_a_survivors(name: str) -> None:
    """Neither one who dropped out, nor a stranger, nor a survivor with another signature."""
    session = new_session(5)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute(late=["h04"])
    other = Survivors(context=run.masked.context, left=FIVE, dropped=())
    statements = {LIAR: other.statement(), "h04": run.survivors.statement(), "sybil": run.survivors.statement()}
    before = snapshot(run.masked)
    with pytest.raises(ProtocolError, match=f"'{name}' did not sign who is left; its answer is left out"):
        run.masked.add_signature(name, identity(name).sign(statements[name]))
    assert snapshot(run.masked) == before


def forged_parcel(session: Session, content: bytes) -> Hook:
    """A holder seals something else than shares for h00, with the right key."""

    def hook(kind: str, name: str, message: bytes) -> bytes:
        if (kind, name) != ("contribution", LIAR):
            return message
        given, liar = Contribution.from_bytes(message), session.holders[LIAR]
        key = liar._chains["h00"].parcel_key(given.context, sender=LIAR, recipient="h00")
        label = pack("parcel", given.context, LIAR.encode(), b"h00")
        parcel = sealed(key, content, nonce=bytes(12), label=label)
        return signed_again(replace(given, parcels={**given.parcels, "h00": parcel}))

    return hook


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "of 'h01', a parcel of shares has 0 bytes and must have 165"),
        (bytes(SHARE_BYTES), "of 'h01', a parcel of shares has 33 bytes and must have 165"),
        (b"\xff" * 5 * SHARE_BYTES, "of 'h01', a share is no element of the field"),
    ],
)
def test_peer_names_who_sealed_no_shares(content: bytes, reason: str) -> None:
    """Sealed rubbish is found by the one it was for; it names the sender and gives nothing away."""
    session = new_session(5)
    session.hook = forged_parcel(session, content)
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute()
    holder = session.holders["h00"]
    before = snapshot(holder)
    with pytest.raises(AggregationRefusedError, match=reason):
        run.reveal()
    assert snapshot(holder) == before


def test_peer_names_whose_parcel_was_changed() -> None:
    """A parcel that does not open is named by its sender."""
    hook = lying(lambda given: replace(given, parcels={**given.parcels, "h00": bytes(len(given.parcels["h00"]))}))
    fails(hook, "'h00' gives nothing away: of 'h01', shares do not open", error=AggregationRefusedError)


def test_false_shares_for_one_peer_do_not_stop_the_others() -> None:
    """Where one peer got rubbish and gives nothing, t others open the sum, and it is exact."""
    session = new_session(5)
    session.hook = forged_parcel(session, b"")
    run = SumRun(session, session.order(), vectors(FIVE, 6))
    run.contribute()
    for name in FIVE[1:]:
        run.masked.add_reveal(name, session.holders[name].reveal(run.masked.unmasking(name)))
    np.testing.assert_array_equal(run.total(), plain_sum(run.inputs, FIVE))


def test_wrong_commitment_shows_when_it_is_opened() -> None:
    """Under dispute what a holder shows must be what it signed the commitment of."""
    hook = lying(lambda given: replace(given, commitment=ELSEWHERE))
    session = new_session(5, hook=hook)
    inputs = vectors(FIVE, 6)
    run = masked_sum(session, inputs)
    np.testing.assert_array_equal(run.words, plain_sum(inputs, FIVE))
    for name in FIVE:
        shown = Opening.from_bytes(session.holders[name].open())
        committed = Contribution.from_bytes(session.last("contribution")[name]).commitment
        assert (shown.commitment() == committed) is (name != LIAR)
        assert shown.words == inputs[name].astype("<u4").tobytes()


@pytest.mark.parametrize("change", ["salt", "words", "holder", "context"])
def test_commitment_binds(change: str) -> None:
    """Another salt, vector, holder or sum has another commitment."""
    session = new_session(3)
    masked_sum(session, vectors(session.names, 6))
    shown = Opening.from_bytes(session.holders["h00"].open())
    other = {
        "salt": replace(shown, salt=bytes(32)),
        "words": replace(shown, words=shown.words[4:]),
        "holder": replace(shown, holder="h01"),
        "context": replace(shown, context=ELSEWHERE),
    }[change]
    assert other.commitment() != shown.commitment()


@pytest.mark.parametrize(
    "words",
    [np.zeros(3, np.int64), np.zeros((3, 1), np.uint32), np.zeros(0, np.uint32), np.zeros(3, np.float32)],
    ids=["int64", "two axes", "empty", "float32"],
)
def test_only_words_are_masked(words: np.ndarray) -> None:
    """A vector that is not of 32-bit words is refused before any secret is drawn."""
    session = new_session(3)
    holder = session.holders["h00"]
    holder.begin(session.order().to_bytes())
    before = snapshot(holder)
    with pytest.raises(ProtocolError, match="a sum takes words"):
        holder.contribute(words, layout=LAYOUT)
    assert snapshot(holder) == before


def test_advert_and_confirmation_must_be_the_holders() -> None:
    """An advert that another signed, and a confirmation of other adverts, are named."""
    session = new_session(3)
    enrolment = Enrolment(session.terms, session.roster)
    theirs = session.enrolment.adverts
    with pytest.raises(ProtocolError, match="the advert of 'h01' is not signed by the roster's key"):
        enrolment.add_advert("h01", theirs["h02"])
    with pytest.raises(ProtocolError, match="the advert of 'sybil' is not signed by the roster's key"):
        enrolment.add_advert("sybil", theirs["h02"])
    with pytest.raises(ProtocolError, match="the advert of 'h01' is not signed"):
        enrolment.add_advert("h01", replace(Advert.from_bytes(theirs["h01"]), key=bytes(32)).to_bytes())
    assert enrolment.adverts == {}
    for name in ("h00", "h01"):
        enrolment.add_advert(name, theirs[name])
    for name in ("h00", "h02"):
        with pytest.raises(ProtocolError, match=f"'{name}' did not confirm the adverts of this session"):
            enrolment.add_confirmation(name, session.enrolment.confirmations[name])
    assert enrolment.confirmations == {}


def test_holder_that_masks_with_other_seeds_spoils_the_sum() -> None:
    """What a holder puts in cannot be checked: nothing is promised there."""
    hook = lying(lambda given: replace(given, masked=bytes(24)))
    session = new_session(5, hook=hook)
    run = masked_sum(session, vectors(FIVE, 6))
    assert not (run.words == plain_sum(run.inputs, FIVE)).all()
