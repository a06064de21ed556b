"""A coordinator that lies: what it tries, and with what reason a holder refuses. A refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.secure_aggregation.holder import MaskingHolder, State
from privacy.secure_aggregation.keys import FURTHEST
from privacy.secure_aggregation.messages import Advert, Contribution, Survivors, Unmasking
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.terms import SumOrder
from protocol.errors import AggregationRefusedError, MigrafedError, PlanError, ProtocolError
from tests.masked_sums import (
    LAYOUT,
    Session,
    SumRun,
    identity,
    masked_sum,
    names_of,
    new_session,
    plain_sum,
    roster_of,
    snapshot,
    terms_of,
    vectors,
)

NAME = "h00"
FIVE = names_of(5)  # a sum needs 4 of them
OTHER_HASH = bytes(31) + b"\1"


def refused(
    holder: MaskingHolder, call: Callable[[], object], reason: str, error: type[MigrafedError] = AggregationRefusedError
) -> None:
    """The call is refused for a reason, and the holder is as it was."""
    before = snapshot(holder)
    with pytest.raises(error, match=reason):
        call()
    assert snapshot(holder) == before


def advertised() -> tuple[MaskingHolder, dict[str, bytes], Session]:
    """A holder that has advertised, everybody's adverts, and the session of the others."""
    session = new_session(5, unconfirmed=[NAME])
    return session.holders[NAME], dict(session.enrolment.adverts), session


def contributed(*, late: tuple[str, ...] = (), session: Session | None = None) -> SumRun:
    """A sum that everybody has contributed to."""
    session = session or new_session(5)
    run = SumRun(session, session.order(), vectors(session.names, 4))
    run.contribute(late=late)
    return run


def signed() -> SumRun:
    """A sum without h04 that everybody else has signed for."""
    run = contributed(late=("h04",))
    run.sign()
    return run


def reads(run: SumRun, name: str = NAME) -> Unmasking:
    """What the coordinator would honestly ask a holder with."""
    return Unmasking.from_bytes(run.masked.unmasking(name))


def test_substituted_key_is_refused() -> None:
    """A key that its owner did not sign is not agreed with, whoever signed it instead."""
    holder, adverts, session = advertised()
    theirs = Advert.from_bytes(adverts["h01"])
    key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    statement = session.terms.advert_statement("h01", key)
    for signature in (theirs.signature, Ed25519PrivateKey.generate().sign(statement), identity("h02").sign(statement)):
        forged = adverts | {"h01": Advert(key=key, signature=signature).to_bytes()}
        refused(holder, lambda forged=forged: holder.agree(forged), "the key advertised for 'h01' is not signed by it")
    assert holder.agree(adverts)


@pytest.mark.parametrize("of", ["another session", "another run", "another stage", "another plan", "another holder"])
def test_replayed_advert_is_refused(of: str) -> None:
    """An advert counts for one holder in one session of one run and plan."""
    holder, adverts, session = advertised()
    roster = session.roster
    terms = {
        "another session": terms_of(roster, session=7),
        "another run": terms_of(roster, run="an earlier run"),
        "another stage": terms_of(roster, stage="an earlier stage"),
        "another plan": terms_of(roster, plan=OTHER_HASH),
        "another holder": session.terms,
    }[of]
    sender = "h02" if of == "another holder" else "h01"
    old = MaskingHolder(identity(sender), roster, terms=terms).advertise()
    refused(holder, lambda: holder.agree(adverts | {"h01": old}), "'h01' is not signed by it for this session")
    assert holder.agree(adverts)


def test_own_old_advert_is_refused() -> None:
    """A holder that started again in the same session is not shown the key of its first start."""
    holder, adverts, session = advertised()
    first = MaskingHolder(identity(NAME), session.roster, terms=session.terms).advertise()
    refused(holder, lambda: holder.agree(adverts | {NAME: first}), "another key is shown as ours")


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (("h00", "h01", "h02"), "adverts name 3 holders, and this holder needs 4"),
        (("h00",), "adverts name 1 holders, and this holder needs 4"),
        (("h01", "h02", "h03", "h04"), "adverts do not have this holder"),
        ((), "adverts do not have this holder"),
    ],
)
def test_isolated_holder_refuses_to_agree(shown: tuple[str, ...], reason: str) -> None:
    """A holder agrees on keys with t holders at least, itself among them."""
    holder, adverts, _ = advertised()
    refused(holder, lambda: holder.agree({name: adverts[name] for name in shown}), reason)


def test_sybil_in_the_adverts_is_refused() -> None:
    """Who is not in the roster that the operator approved has no key here."""
    holder, adverts, session = advertised()
    key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    sybil = identity("sybil").sign(session.terms.advert_statement("sybil", key))
    shown = adverts | {"sybil": Advert(key=key, signature=sybil).to_bytes()}
    refused(holder, lambda: holder.agree(shown), r"adverts name \['sybil'\], who are not in the roster")


def test_two_holders_with_one_key_are_refused() -> None:
    """A key belongs to one holder, even if two sign for it."""
    holder, adverts, session = advertised()
    key = Advert.from_bytes(adverts["h03"]).key
    again = Advert(key=key, signature=identity("h04").sign(session.terms.advert_statement("h04", key)))
    shown = adverts | {"h04": again.to_bytes()}
    refused(holder, lambda: holder.agree(shown), "one key is advertised for two holders")


@pytest.mark.parametrize("point", [0, 1])
def test_key_of_small_order_is_refused(point: int) -> None:
    """A point that makes every agreement the same is no key."""
    holder, adverts, session = advertised()
    key = point.to_bytes(32, "little")
    weak = Advert(key=key, signature=identity("h03").sign(session.terms.advert_statement("h03", key)))
    shown = adverts | {"h03": weak.to_bytes()}
    refused(holder, lambda: holder.agree(shown), "a key that was advertised cannot be used", ProtocolError)


def test_session_of_another_roster_is_refused() -> None:
    """A roster with one member more, fewer or another is another roster."""
    roster = roster_of(FIVE)
    for names in (names_of(6), names_of(4), (*names_of(4), "sybil")):
        with pytest.raises(AggregationRefusedError, match=r"the session is for roster .* and this holder approved"):
            MaskingHolder(identity(NAME), roster, terms=terms_of(roster_of(names)))
    with pytest.raises(PlanError, match="the roster does not have 'h05' with this key"):
        MaskingHolder(identity("h05"), roster, terms=terms_of(roster))
    with pytest.raises(PlanError, match="the roster does not have 'h00' with this key"):
        MaskingHolder(Identity(NAME, Ed25519PrivateKey.generate()), roster, terms=terms_of(roster))


@pytest.mark.parametrize("least", [-1, 0, 1, 3, 6])
def test_threshold_cannot_be_lowered(least: int) -> None:
    """A holder may ask for more survivors than floor(2n/3) + 1, not for fewer, nor for more than there are."""
    roster = roster_of(FIVE)
    with pytest.raises(PlanError, match=f"a sum over {least} of 5 holders was allowed; it must be 4 or more"):
        MaskingHolder(identity(NAME), roster, terms=terms_of(roster), least_survivors=least)


def test_threshold_is_no_message() -> None:
    """No message of the coordinator has a threshold: a holder that wants 5 does not follow an order over 4."""
    session = new_session(5, least_survivors=5)
    order = session.order(weights=dict.fromkeys(FIVE[:4], 1))
    holder = session.holders[NAME]
    refused(holder, lambda: holder.begin(order.to_bytes()), "the cohort name 4 holders, and this holder needs 5")


def test_two_views_of_the_adverts_are_refused() -> None:
    """Who was shown other adverts has confirmed something else, and no sum begins."""
    holder, adverts, session = advertised()
    holder.agree({name: adverts[name] for name in FIVE[:4]})
    theirs = session.enrolment.confirmations
    for confirmations, reason in (
        ({name: theirs[name] for name in FIVE[1:4]}, "not everybody who advertised a key has confirmed the keys"),
        (theirs, "not everybody who advertised a key has confirmed the keys of all"),
        ({NAME: bytes(64)} | {name: theirs[name] for name in FIVE[1:4]}, "did not confirm the keys that we were shown"),
    ):
        order = session.order(weights=dict.fromkeys(FIVE[:4], 1), confirmations=confirmations)
        refused(holder, lambda order=order: holder.begin(order.to_bytes()), reason)


def test_confirmation_of_another_session_is_refused() -> None:
    """A confirmation counts for one session."""
    session, old = new_session(5), new_session(5, session=2)
    mixed = session.enrolment.confirmations | {"h03": old.enrolment.confirmations["h03"]}
    holder = session.holders[NAME]
    order = session.order(confirmations=mixed).to_bytes()
    refused(holder, lambda: holder.begin(order), "'h03' did not confirm the keys that we were shown")


@pytest.mark.parametrize(
    ("cohort", "reason"),
    [
        (FIVE[:3], "the cohort name 3 holders, and this holder needs 4"),
        (FIVE[1:], "the cohort do not have this holder"),
        ((*FIVE, "sybil"), r"the cohort name \['sybil'\], who are not in the roster"),
    ],
)
def test_order_over_a_wrong_cohort_is_refused(cohort: tuple[str, ...], reason: str) -> None:
    """A sum is over t members of the roster at least, this holder among them."""
    session = new_session(5)
    holder = session.holders[NAME]
    order = session.order(weights=dict.fromkeys(cohort, 1)).to_bytes()
    refused(holder, lambda: holder.begin(order), reason)


def test_order_over_a_holder_without_a_key_is_refused() -> None:
    """Who advertised nothing in this session cannot be asked in it."""
    session = new_session(5, absent=["h03"])
    holder = session.holders[NAME]
    order = session.order(weights=dict.fromkeys(FIVE, 1)).to_bytes()
    refused(holder, lambda: holder.begin(order), r"\['h03'\] advertised no key in this session")


def test_number_of_a_sum_is_not_used_again() -> None:
    """Numbers of sums grow: neither the same nor an earlier one is begun."""
    session = new_session(5)
    for sequence in (3, 5):
        masked_sum(session, vectors(FIVE, 4), order=session.order(sequence=sequence))
    holder = session.holders[NAME]
    for sequence in (1, 3, 4, 5):
        order = session.order(sequence=sequence, label="again").to_bytes()
        refused(holder, lambda order=order, sequence=sequence: holder.begin(order),
                f"sum {sequence} was asked for after sum 5: replayed, or out of order")  # fmt: skip


def test_number_of_a_sum_that_leaps_is_refused_before_any_key_moves() -> None:
    """A coordinator cannot keep a holder busy, nor make it throw its keys away."""
    session = new_session(5)
    holder = session.holders[NAME]
    for sequence in (FURTHEST + 1, 2**62):
        order = session.order(sequence=sequence).to_bytes()
        refused(holder, lambda order=order: holder.begin(order), f"sum {sequence} does not follow sum 0")
    inputs = vectors(FIVE, 4)
    run = masked_sum(session, inputs, order=session.order(sequence=1))
    np.testing.assert_array_equal(run.words, plain_sum(inputs, FIVE))


CHANGED: Mapping[str, Callable[[SumOrder], SumOrder]] = {
    "model": lambda order: replace(order, model_hash=OTHER_HASH),
    "weight": lambda order: replace(order, weights={**order.weights, NAME: 2}),
    "weight of another": lambda order: replace(order, weights={**order.weights, "h03": 2}),
    "label": lambda order: replace(order, label="another"),
    "cohort": lambda order: replace(order, weights=dict.fromkeys(FIVE[:4], 1)),
    "number": lambda order: replace(order, sequence=2),
}


@pytest.mark.parametrize("what", CHANGED)
def test_holder_that_was_told_something_else_opens_nothing(what: str) -> None:
    """Told of another model, weight, cohort, label or number, a holder is in another sum, and opens none of ours."""
    session = new_session(5)
    order = session.order()
    run = SumRun(session, order, vectors(FIVE, 4))
    holder = session.holders[NAME]
    holder.begin(CHANGED[what](order).to_bytes())
    given = holder.contribute(run.inputs[NAME], layout=LAYOUT)
    with pytest.raises(ProtocolError, match=f"'{NAME}' contributed to another sum"):
        run.masked.add_contribution(NAME, given)
    run.contribute(late=(NAME,))
    reason = "the message is of another sum, model, plan, cohort or weight"
    ours = Survivors(context=run.masked.context, left=FIVE, dropped=())
    refused(holder, lambda: holder.sign(ours.to_bytes()), reason)
    parts = {name: Contribution.from_bytes(blob) for name, blob in session.last("contribution").items()}
    unanimous = {name: part.unanimity for name, part in parts.items()}
    parcels = {name: part.parcels[NAME] for name, part in parts.items()}
    asked = Unmasking(survivors=ours, signatures=unanimous, parcels=parcels)
    refused(holder, lambda: holder.reveal(asked.to_bytes()), reason)
    own, cohort = Contribution.from_bytes(given), CHANGED[what](order).cohort
    theirs = Survivors(context=own.context, left=cohort, dropped=())
    signatures = {name: own.unanimity if name == NAME else unanimous[name] for name in cohort}
    asked = Unmasking(survivors=theirs, signatures=signatures, parcels=parcels)
    refused(holder, lambda: holder.reveal(asked.to_bytes()), "did not sign that these holders are left of this sum")


def test_plan_that_one_holder_was_told_differently_ends_at_the_keys() -> None:
    """A holder whose terms have another plan finds no advert signed for them."""
    session = new_session(5)
    other = MaskingHolder(identity(NAME), session.roster, terms=terms_of(session.roster, plan=OTHER_HASH))
    own = other.advertise()
    shown = session.enrolment.adverts | {NAME: own}
    refused(other, lambda: other.agree(shown), "is not signed by it for this session")
    with pytest.raises(ProtocolError, match="the advert of 'h00' is not signed by the roster's key"):
        session.enrolment.add_advert(NAME, own)


@pytest.mark.parametrize(
    ("left", "dropped", "reason"),
    [
        (FIVE[:3], FIVE[3:], "survivors name 3 holders, and this holder needs 4"),
        (FIVE[:1], FIVE[1:], "survivors name 1 holders, and this holder needs 4"),
        (FIVE[1:], FIVE[:1], "survivors do not have this holder"),
        (FIVE, FIVE[4:], r"\['h04'\] are named as left and as dropped"),
        (FIVE[:4], (), "are not the cohort that was asked"),
        (FIVE[:4], ("sybil",), "are not the cohort that was asked"),
        ((*FIVE, "sybil"), (), "are not the cohort that was asked"),
    ],
)
def test_wrong_survivors_are_refused(left: tuple[str, ...], dropped: tuple[str, ...], reason: str) -> None:
    """Survivors are t of the cohort at least, this holder among them, and everybody is left or dropped, not both."""
    run = contributed()
    holder = run.session.holders[NAME]
    asked = Survivors(context=run.masked.context, left=left, dropped=dropped)
    refused(holder, lambda: holder.sign(asked.to_bytes()), reason)
    parcels = dict.fromkeys(left, b"")
    unmasking = Unmasking(survivors=asked, signatures=dict.fromkeys(left, bytes(64)), parcels=parcels).to_bytes()
    refused(holder, lambda: holder.reveal(unmasking), reason)


def test_survivors_of_another_sum_are_refused() -> None:
    """Who is left of the sum before says nothing about this one."""
    first = contributed()
    second = contributed(session=first.session)
    holder = first.session.holders[NAME]
    refused(holder, lambda: holder.sign(first.survivors.to_bytes()), "the message is of another sum")
    refused(holder, lambda: holder.reveal(first.masked.unmasking(NAME)), "the message is of another sum")
    assert second.survivors.left == FIVE


def test_sum_is_not_opened_without_holders_that_nobody_signed_away() -> None:
    """Where somebody dropped out, a holder opens nothing that it was not asked to sign first."""
    run = contributed(late=("h04",))
    signatures = {name: run.session.holders[name].sign(run.survivors.to_bytes()) for name in FIVE[1:4]}
    holder = run.session.holders[NAME]
    asked = replace(reads(run), signatures=signatures)
    refused(holder, lambda: holder.reveal(asked.to_bytes()), "whose absence nobody asked us to sign")


def test_other_survivors_than_those_signed_for_are_refused() -> None:
    """A holder that signed for h00-h03 opens neither the sum over all nor one over others."""
    run = contributed()
    holder = run.session.holders[NAME]
    holder.sign(Survivors(context=run.masked.context, left=FIVE[:4], dropped=FIVE[4:]).to_bytes())
    everybody = run.masked.unmasking(NAME)
    others = Survivors(context=run.masked.context, left=(*FIVE[:3], "h04"), dropped=("h03",))
    for asked in (everybody, replace(reads(run), survivors=others).to_bytes()):
        refused(holder, lambda asked=asked: holder.reveal(asked), "over other holders than those we signed for")


def test_different_survivors_for_different_holders_open_nothing() -> None:
    """Half of the holders sign for h00-h03, half for the sum without h03: neither set has t signatures."""
    run = contributed()
    first = Survivors(context=run.masked.context, left=FIVE[:4], dropped=("h04",))
    second = Survivors(context=run.masked.context, left=(*FIVE[:3], "h04"), dropped=("h03",))
    told = {"h00": first, "h01": first, "h02": second, "h03": first, "h04": second}
    signatures = {name: run.session.holders[name].sign(asked.to_bytes()) for name, asked in told.items()}
    for name, asked in told.items():
        holder, honest = run.session.holders[name], reads(run, name)
        parcels = {other: honest.parcels[other] for other in asked.left if other != name}
        own = {other: signatures[other] for other in asked.left if told[other] == asked}
        few = Unmasking(survivors=asked, signatures=own, parcels=parcels)
        refused(holder, lambda few=few, holder=holder: holder.reveal(few.to_bytes()), "holders signed who is left, and")
        mixed = replace(few, signatures={other: signatures[other] for other in asked.left})
        refused(holder, lambda mixed=mixed, holder=holder: holder.reveal(mixed.to_bytes()),
                "did not sign that these holders are left of this sum")  # fmt: skip


def test_whatever_five_holders_are_told_one_set_is_opened_at_most() -> None:
    """n = 5: every way to tell each holder another set of survivors (of 6 that are large enough): one has t answers."""
    sets = [set(FIVE), *(set(found) for found in combinations(FIVE, 4))]
    most = 0
    for told in product(range(len(sets)), repeat=5):
        answers = [
            sum(at == place and name in sets[place] for name, at in zip(FIVE, told, strict=True)) for place in range(6)
        ]
        most = max(most, sum(count >= 4 for count in answers))
    assert most == 1


@pytest.mark.parametrize("what", ["parcel", "signature", "contribution"])
def test_message_of_another_sum_is_refused(what: str) -> None:
    """Parcels and signatures of sum 1 do not serve in sum 2, nor do contributions."""
    session = new_session(5)
    first, second = contributed(session=session), contributed(session=session)
    holder, asked, old = session.holders[NAME], reads(second), reads(first)
    if what == "contribution":
        third = SumRun(session, session.order(), first.inputs)
        given = session.last("contribution")["h01"]
        with pytest.raises(ProtocolError, match="'h01' contributed to another sum"):
            third.masked.add_contribution("h01", given)
    elif what == "parcel":
        mixed = replace(asked, parcels={**asked.parcels, "h02": old.parcels["h02"]})
        refused(holder, lambda: holder.reveal(mixed.to_bytes()), "'h0[12]', shares do not open")
    else:
        mixed = replace(asked, signatures={**asked.signatures, "h02": old.signatures["h02"]})
        refused(holder, lambda: holder.reveal(mixed.to_bytes()), "'h02' did not sign that these holders are left")
    if what != "contribution":
        assert holder.reveal(asked.to_bytes())


@pytest.mark.parametrize("of", ["another run", "another session", "another sender", "another recipient", "nobody"])
def test_shares_of_something_else_are_refused(of: str) -> None:
    """Shares open in their run and session, from their sender, for their recipient."""
    run = contributed()
    asked, holder = reads(run), run.session.holders[NAME]
    wrong = {
        "another run": lambda: reads(contributed(session=new_session(5, run="another"))).parcels["h01"],
        "another session": lambda: reads(contributed(session=new_session(5, session=9))).parcels["h01"],
        "another sender": lambda: asked.parcels["h02"],
        "another recipient": lambda: reads(run, "h02").parcels["h01"],
        "nobody": lambda: b"",
    }[of]()
    mixed = replace(asked, parcels={**asked.parcels, "h01": wrong})
    refused(holder, lambda: holder.reveal(mixed.to_bytes()), "'h0[12]', shares do not open")
    assert holder.reveal(asked.to_bytes())


def test_every_cut_and_bit_of_a_parcel_counts() -> None:
    """A parcel that lost or changed a bit does not open."""
    run = contributed()
    asked, holder = reads(run), run.session.holders[NAME]
    parcel = asked.parcels["h01"]
    wrong = [parcel[:-1], parcel[:12], parcel[1:], parcel + b"\0"]
    wrong += [parcel[:place] + bytes([parcel[place] ^ 1]) + parcel[place + 1 :] for place in range(0, len(parcel), 9)]
    for changed in wrong:
        mixed = replace(asked, parcels={**asked.parcels, "h01": changed})
        refused(holder, lambda mixed=mixed: holder.reveal(mixed.to_bytes()), "'h0[12]', shares do not open")


def test_second_request_to_open_is_refused() -> None:
    """A holder answers once; not again the same, and not another one."""
    run = signed()
    holder = run.session.holders[NAME]
    holder.reveal(run.masked.unmasking(NAME))
    for asked in (run.masked.unmasking(NAME), replace(reads(run), signatures={}).to_bytes()):
        refused(
            holder, lambda asked=asked: holder.reveal(asked), "to open the sum, which does not follow after 'revealed'"
        )


@pytest.mark.parametrize(
    ("signatures", "reason"),
    [
        (lambda own: {name: own[name] for name in FIVE[:3]}, "3 holders signed who is left, and this holder needs 4"),
        (lambda own: {}, "0 holders signed who is left, and this holder needs 4"),
        (lambda own: {**own, "h04": own["h00"]}, "somebody signed who is not left"),
        (lambda own: {**own, "sybil": own["h00"]}, "somebody signed who is not left"),
        (lambda own: {**own, "h03": own["h02"]}, "'h03' did not sign that these holders are left"),
        (lambda own: {**own, "h03": bytes(64)}, "'h03' did not sign that these holders are left"),
    ],
)
def test_wrong_signatures_of_who_is_left_are_refused(
    signatures: Callable[[Mapping[str, bytes]], dict[str, bytes]], reason: str
) -> None:
    """At least t survivors signed for these survivors, each for itself."""
    run = signed()
    holder, asked = run.session.holders[NAME], reads(run)
    wrong = replace(asked, signatures=signatures(asked.signatures))
    refused(holder, lambda: holder.reveal(wrong.to_bytes()), reason)
    assert holder.reveal(asked.to_bytes())


def test_signature_in_advance_does_not_sign_a_dropout() -> None:
    """That everybody is left, signed with each contribution, is no signature for fewer."""
    run = contributed()
    fewer = Survivors(context=run.masked.context, left=FIVE[:4], dropped=FIVE[4:])
    holder = run.session.holders[NAME]
    holder.sign(fewer.to_bytes())
    asked = reads(run)
    used = {name: asked.signatures[name] for name in fewer.left}
    parcels = {name: asked.parcels[name] for name in fewer.left if name != NAME}
    wrong = Unmasking(survivors=fewer, signatures=used, parcels=parcels)
    refused(holder, lambda: holder.reveal(wrong.to_bytes()), "did not sign that these holders are left of this sum")


def test_missing_or_additional_shares_are_refused() -> None:
    """Shares come from every other survivor and from nobody else: none of one who dropped out is even opened."""
    run = signed()
    holder, asked = run.session.holders[NAME], reads(run)
    fewer = {name: parcel for name, parcel in asked.parcels.items() if name != "h02"}
    for parcels in (fewer, {**asked.parcels, "h04": b"parcel"}, {**asked.parcels, NAME: b"parcel"}):
        wrong = replace(asked, parcels=parcels)
        refused(holder, lambda wrong=wrong: holder.reveal(wrong.to_bytes()), "shares are missing, or are of holders")


def test_dropped_holder_that_is_told_it_is_left_gives_nothing() -> None:
    """Whoever is declared dropped in one set and left in another finds no t signatures for the other."""
    run = signed()
    late = run.session.holders["h04"]
    late.begin(run.order.to_bytes())
    late.contribute(run.inputs["h04"], layout=LAYOUT)
    everybody = Survivors(context=run.masked.context, left=FIVE, dropped=())
    parts = {name: Contribution.from_bytes(blob) for name, blob in run.session.last("contribution").items()}
    signatures = {name: part.unanimity for name, part in parts.items()}
    parcels = {name: part.parcels["h04"] for name, part in parts.items()}
    asked = Unmasking(survivors=everybody, signatures=signatures, parcels=parcels)
    late.reveal(asked.to_bytes())  # it opens the sum over all, as all have signed; nobody else does
    assert late.state is State.REVEALED
    for name in FIVE[:4]:
        holder, honest = run.session.holders[name], reads(run, name)
        both = replace(honest, survivors=everybody)
        refused(
            holder,
            lambda holder=holder, both=both: holder.reveal(both.to_bytes()),
            "other holders than those we signed",
        )
        run.masked.add_reveal(name, holder.reveal(honest.to_bytes()))
    np.testing.assert_array_equal(run.total(), plain_sum(run.inputs, FIVE[:4]))


def test_roster_with_one_key_twice_is_no_roster() -> None:
    """One holder under two names would count twice among t."""
    key = identity(NAME).public
    with pytest.raises(PlanError, match="two members of the roster have one key"):
        Roster({"h00": key, "h01": key, "h02": identity("h02").public})
