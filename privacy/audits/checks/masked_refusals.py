"""A coordinator that lies, and members that help it: what a masking holder must refuse, and give nothing away for.

Each case is a message that such a coordinator can make, with signatures of members that help it where that matters. A
refusal must change nothing: after all attempts the honest sum is still opened, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.small_sums import LAYOUT, People, SmallSession, plain_sum
from privacy.audits.subject import Subject
from privacy.secure_aggregation.coordinator import MaskedSum
from privacy.secure_aggregation.keys import opened
from privacy.secure_aggregation.messages import Advert, Contribution, Reveal, Survivors, Unmasking
from privacy.secure_aggregation.terms import SumOrder, confirmation_statement
from protocol.errors import MigrafedError

_NO_SUM = "stream masking_holder enrolment"
_PIECES = f"{_NO_SUM} masked_sum"
_ALL = ("h0", "h1", "h2", "h3", "h4")
_FOUR, _THREE = _ALL[:4], _ALL[:3]
"""Of five holders four must be left; three are too few."""
Attempts = Mapping[str, Callable[[], object]]


@asks("Are keys refused that the roster's members did not sign for this session?", of=_NO_SUM)
def adverts_are_signed(subject: Subject) -> Measurement:
    """Keys of the coordinator's own, replayed ones, and too few; shown to one of five holders."""
    session = SmallSession(subject, 5).advertise()
    true, victim = dict(session.enrolment.adverts), session.holders["h0"]
    other = SmallSession(subject, 5, people=session.people).advertise().enrolment.adverts
    stage = SmallSession(subject, 5, people=session.people, stage="another", session=session.terms.session).advertise()
    own = Advert.from_bytes(true["h1"])
    forged = replace(own, key=Advert.from_bytes(other["h2"]).key)
    by_helper = replace(forged, signature=_signed_advert(session, "h1", forged.key, by="h2"))
    doubled = replace(own, key=Advert.from_bytes(true["h2"]).key)
    doubled = replace(doubled, signature=_signed_advert(session, "h1", doubled.key, by="h1"))
    shown = {
        "a key that its owner did not sign": true | {"h1": forged.to_bytes()},
        "a key signed by somebody else": true | {"h1": by_helper.to_bytes()},
        "a key of another session": true | {"h1": other["h1"]},
        "a key of another stage": true | {"h1": stage.enrolment.adverts["h1"]},
        "an old key as our own": true | {"h0": other["h0"]},
        "one key for two holders": true | {"h1": doubled.to_bytes()},
        "a holder nobody approved": true | {"h9": true["h1"]},
        "fewer holders than needed": {name: true[name] for name in _THREE},
        "a list without us": {name: true[name] for name in _ALL[1:]},
    }
    found = accepted({what: lambda adverts=adverts: victim.agree(adverts) for what, adverts in shown.items()})
    found += _stopped({"the true keys": lambda: victim.agree(true)}) if not found else []
    return violations(found, asked=len(shown))


@asks("Does a holder give its part only once everybody confirmed the same keys?", of=_NO_SUM)
def confirmations_are_checked(subject: Subject) -> Measurement:
    """Signatures that are missing, of others, of another session, or of another set of keys."""
    session = SmallSession(subject, 5).enrol()
    true = session.enrolment.confirmations
    other = SmallSession(subject, 5, people=session.people).enrol().enrolment.confirmations
    elsewhere = session.terms.agreement({name: session.enrolment.adverts[name] for name in _FOUR})
    split = session.people.identities["h1"].sign(confirmation_statement(elsewhere, "h1"))
    sent = {
        "no confirmation": {},
        "one confirmation missing": {name: true[name] for name in _FOUR},
        "a confirmation by somebody else": true | {"h1": true["h2"]},
        "a confirmation of another session": true | {"h1": other["h1"]},
        "a confirmation of other keys": true | {"h1": split},
    }
    victim = session.holders["h0"]
    found = accepted({
        what: lambda confirmations=confirmations: victim.begin(session.order(1, confirmations=confirmations).to_bytes())
        for what, confirmations in sent.items()
    })  # fmt: skip
    found += (
        _stopped({"the true confirmations": lambda: victim.begin(session.order(1).to_bytes())}) if not found else []
    )
    return violations(found, asked=len(sent))


@asks("Is a sum over fewer holders than ours needs refused, whatever the coordinator says is enough?", of=_NO_SUM)
def too_few_are_refused(subject: Subject) -> Measurement:
    """Cohorts and survivors below t, signed by all who help; and a holder whose operator asks for more than t."""
    found = _few(subject, None, _THREE) + _few(subject, 5, _FOUR)
    people = People.of(5)
    found += accepted(
        {
            f"a threshold of {least} of 5": lambda least=least: SmallSession(subject, 5, people=people, least=least)
            for least in (1, 3, 6)
        }
    )
    return violations(found, asked=9)


@asks("Is a sum opened only over survivors that enough of them signed?", of=_PIECES)
def survivors_are_signed(subject: Subject) -> Measurement:
    """Signatures that are missing, too few, forged, of somebody who dropped out, or of other survivors."""
    session, order, given, masked = _one_late(subject)
    victim, left = session.holders["h0"], _survivors(session, order, _FOUR)
    found = accepted({"survivors whom we did not sign for": lambda: victim.reveal(_asked(session, given, left))})
    victim.sign(left.to_bytes())
    other = _survivors(session, order, ("h0", "h1", "h2", "h4"))
    true = session.signatures(left, _FOUR)
    everybody = session.signatures(_survivors(session, order, _ALL), _FOUR)
    signed = {
        "no signature": {},
        "three signatures": {name: true[name] for name in _THREE},
        "a signature by somebody else": true | {"h1": true["h2"]},
        "a signature of one who dropped out": true | session.signatures(left, ["h4"]),
        "signatures of other survivors": session.signatures(other, _FOUR),
        "signatures that all are left": everybody,
    }
    found += accepted({
        what: lambda signatures=signatures: victim.reveal(_asked(session, given, left, signatures))
        for what, signatures in signed.items()
    })  # fmt: skip
    found += accepted({"other survivors than signed": lambda: victim.reveal(_asked(session, given, other))})
    return violations(found or _opened(session, masked, signed=("h0",)), asked=len(signed) + 2)


@asks("Does a holder sign one set, open one sum, and answer each question once?", of=_PIECES)
def one_answer_per_sum(subject: Subject) -> Measurement:
    """A second set, a second opening, a second contribution, the order of a sum that is over, an old sum."""
    session, order, given, masked = _one_late(subject)
    victim, left = session.holders["h0"], _survivors(session, order, _FOUR)
    second = _survivors(session, order, ("h0", "h1", "h2", "h4"))
    words = np.zeros(4, np.uint32)
    found = accepted({
        "a second contribution": lambda: victim.contribute(words, layout=LAYOUT),
        "the same sum once more": lambda: victim.begin(order.to_bytes()),
        "an older sum": lambda: victim.begin(session.order(1).to_bytes()),
    })  # fmt: skip
    if found:  # the sum is spoiled
        return violations(found, asked=8)
    victim.sign(left.to_bytes())
    found += accepted({"a second set to sign": lambda: victim.sign(second.to_bytes())})
    found += _opened(session, masked, signed=("h0",)) if not found else []
    found += accepted({
        "the same opening once more": lambda: victim.reveal(_asked(session, given, left)),
        "a second opening": lambda: victim.reveal(_asked(session, given, second)),
        "a set to sign after the opening": lambda: victim.sign(second.to_bytes()),
        "the order of a sum that is over": lambda: victim.begin(order.to_bytes()),
    })  # fmt: skip
    return violations(found, asked=8)


@asks("Does a holder give one kind of share for each other, never both?", of=_PIECES)
def one_kind_of_share(subject: Subject) -> Measurement:
    """Somebody named as left and as dropped, or as neither; and what a holder gives when it is asked properly."""
    session, order, given, masked = _one_late(subject)
    victim, context = session.holders["h0"], order.context(session.agreement)
    both = Survivors(context=context, left=_ALL, dropped=("h4",))
    neither = Survivors(context=context, left=_FOUR, dropped=())
    found = accepted({
        "somebody left and dropped, to sign": lambda: victim.sign(both.to_bytes()),
        "somebody left out, to sign": lambda: victim.sign(neither.to_bytes()),
        "somebody left and dropped": lambda: victim.reveal(session.unmasking("h0", given, both, _ALL)),
        "a sum opened before anybody was asked who is left": lambda: victim.reveal(
            _asked(session, given, _survivors(session, order, _FOUR))
        ),
    })  # fmt: skip
    if found:  # the sum is spoiled
        return violations(found, asked=6)
    survivors = masked.close()
    for name in survivors.left:
        masked.add_signature(name, session.holders[name].sign(survivors.to_bytes()))
    reveal = Reveal.from_bytes(victim.reveal(masked.unmasking("h0")))
    if twice := reveal.shares.keys() & reveal.seeds.keys():
        found.append(f"a share of the own mask and the seed of the pair with {sorted(twice)[:2]}")
    if reveal.shares.keys() != set(_FOUR) or reveal.seeds.keys() != {"h4"}:
        found.append("what is given is not that of the survivors")
    return violations(found, asked=6)


@asks("Do holders that were told different things give parts that do not fit together?", of=_NO_SUM)
def parts_are_bound_to_the_sum(subject: Subject) -> Measurement:
    """Another model, weight, label, number or cohort for one of two; another plan, run, stage or session."""
    session = SmallSession(subject, 5).enrol()
    order, zeros, found = session.order(1), np.zeros(4, np.uint32), []
    changed = {
        "model": {"model_hash": b"\x01" * 32},
        "weight": {"weights": dict(order.weights) | {"h1": 2}},
        "label": {"label": "something else"},
        "cohort": {"weights": dict.fromkeys(_FOUR, 1)},
        "number": {"sequence": 99},
    }
    for number, (what, change) in enumerate(changed.items()):
        first = replace(order, sequence=10 * number + 1)
        told = first, replace(first, **change)
        parts = [Contribution.from_bytes(session.contribute(f"h{who}", told[who], zeros)) for who in (0, 1)]
        if parts[0].context == parts[1].context or parts[0].digests["h1"] == parts[1].digests["h0"]:
            found.append(f"a part does not depend on the {what}")
    terms: dict[str, dict[str, Any]] = {
        "plan": {"plan_hash": b"\x01" * 32},
        "run": {"run": "another"},
        "stage": {"stage": "another"},
        "session": {},
    }
    base = SmallSession(subject, 5, people=session.people).advertise()
    for what, change in terms.items():
        told = change if what == "session" else {"session": base.terms.session, **change}
        elsewhere = SmallSession(subject, 5, people=session.people, **told)
        adverts = dict(base.enrolment.adverts) | {"h1": elsewhere.holders["h1"].advertise()}
        found += accepted({f"keys for another {what}": lambda adverts=adverts: base.holders["h0"].agree(adverts)})
    return violations(found, asked=len(changed) + len(terms))


@asks("Does a parcel of shares open only for its sum, from its sender, as it was sent?", of=_PIECES)
def shares_are_bound_to_their_sender(subject: Subject) -> Measurement:
    """Parcels sent back to their sender, swapped, of an older sum, of another holder, changed and cut short."""
    session = SmallSession(subject, 5).enrol()
    old = session.carry_out(1, session.inputs(4)).given
    order, inputs = session.order(2), session.inputs(4)
    masked, given = session.collect(order, inputs)
    victim, asked = session.holders["h0"], Unmasking.from_bytes(masked.unmasking("h0"))
    own, theirs = Contribution.from_bytes(given["h0"]), Contribution.from_bytes(given["h1"])
    true = asked.parcels["h1"]
    swaps = {
        "our own parcel": own.parcels["h1"],
        "a parcel of another sender": asked.parcels["h2"],
        "a parcel for somebody else": theirs.parcels["h2"],
        "a parcel of an older sum": old["h1"].parcels["h0"],
        "a changed parcel": true[:-1] + bytes([true[-1] ^ 1]),
        "a parcel cut short": true[:-1],
        "an empty parcel": b"",
    }
    found = accepted({
        what: lambda parcel=parcel: victim.reveal(replace(asked, parcels={**asked.parcels, "h1": parcel}).to_bytes())
        for what, parcel in swaps.items()
    })  # fmt: skip
    found += ["a parcel opens without saying what it is for"] if _opens_unlabelled(session, theirs) else []
    found += accepted({"a parcel missing": lambda: victim.reveal(replace(asked, parcels={}).to_bytes())})
    return violations(found or _opened(session, masked, inputs=inputs), asked=len(swaps) + 3)


def _few(subject: Subject, least: int | None, left: tuple[str, ...]) -> list[str]:
    """A cohort and survivors of this size, asked of a holder that needs more."""
    session = SmallSession(subject, 5, least=least).enrol()
    victim, few = session.holders["h0"], session.order(1, weights=dict.fromkeys(left, 1))
    found = accepted({f"a cohort of {len(left)}": lambda: victim.begin(few.to_bytes())})
    order, inputs = session.order(2), session.inputs(4)
    given = {name: session.contribute(name, order, inputs[name]) for name in session.names}
    survivors = _survivors(session, order, left)
    return found + accepted({
        f"{len(left)} survivors to sign": lambda: victim.sign(survivors.to_bytes()),
        f"{len(left)} survivors": lambda: victim.reveal(session.unmasking("h0", given, survivors, left)),
    })  # fmt: skip


def _one_late(subject: Subject) -> tuple[SmallSession, SumOrder, dict[str, bytes], MaskedSum]:
    """Five holders contributed; the coordinator says that the part of the last came too late, and keeps it."""
    session = SmallSession(subject, 5).enrol()
    order = session.order(2)
    masked, given = session.collect(order, session.inputs(4), late=("h4",))
    return session, order, given, masked


def _survivors(session: SmallSession, order: SumOrder, left: Iterable[str]) -> Survivors:
    kept = tuple(sorted(left))
    gone = tuple(name for name in order.cohort if name not in kept)
    return Survivors(context=order.context(session.agreement), left=kept, dropped=gone)


def _asked(
    session: SmallSession, given: Mapping[str, bytes], left: Survivors, signatures: Mapping[str, bytes] | None = None
) -> bytes:
    """Asks the first holder to open, with everybody's signatures of that set unless told otherwise."""
    asked = session.unmasking("h0", given, left, left.left)
    return asked if signatures is None else replace(Unmasking.from_bytes(asked), signatures=signatures).to_bytes()


def _opens_unlabelled(session: SmallSession, given: Contribution) -> bool:
    """Whether a parcel for the first holder opens with its key alone."""
    chain = session.holders["h0"]._chains[given.holder]
    key = chain.parcel_key(given.context, sender=given.holder, recipient="h0")
    return bool(accepted({"": lambda: opened(key, given.parcels["h0"], label=b"")}))


def _signed_advert(session: SmallSession, name: str, key: bytes, *, by: str) -> bytes:
    return session.people.identities[by].sign(session.terms.advert_statement(name, key))


def _opened(
    session: SmallSession,
    masked: MaskedSum,
    *,
    signed: Iterable[str] = (),
    inputs: Mapping[str, np.ndarray] | None = None,
) -> list[str]:
    """Whether the honest sum is still opened, exactly, after all that was refused."""
    survivors = masked.close()
    for name in survivors.left if survivors.dropped else ():
        asked = survivors.to_bytes()
        mine = session.signatures(survivors, [name])[name] if name in signed else session.holders[name].sign(asked)
        masked.add_signature(name, mine)
    for name in survivors.left:
        masked.add_reveal(name, session.holders[name].reveal(masked.unmasking(name)))
    wanted = plain_sum(session.inputs(4) if inputs is None else inputs, survivors.left)
    return [] if np.array_equal(masked.total(), wanted) else ["an attempt that was refused changed the sum"]


def accepted(attempts: Attempts) -> list[str]:
    """Which of these were not refused."""
    found = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except MigrafedError:
            continue
        found.append(f"{what}: accepted")
    return found


def _stopped(attempts: Attempts) -> list[str]:
    """Which of these were refused, and should not have been."""
    return [
        f"{what}: refused"
        for what in attempts.keys() - {each.removesuffix(": accepted") for each in accepted(attempts)}
    ]


CHECKS = (
    adverts_are_signed, confirmations_are_checked, too_few_are_refused, survivors_are_signed, one_answer_per_sum,
    one_kind_of_share, parts_are_bound_to_the_sum, shares_are_bound_to_their_sender,
)  # fmt: skip
