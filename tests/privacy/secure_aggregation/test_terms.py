"""Terms and orders: what is hashed into keys and signatures, and what is read back."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.secure_aggregation.terms import SessionTerms, SumOrder, confirmation_statement
from privacy.secure_aggregation.wire import pack, pack_number, pack_table
from protocol.errors import ProtocolError

NAMES = st.text(min_size=1, max_size=12).filter(str.isprintable)
HASHES = st.binary(min_size=32, max_size=32)
TERMS = st.builds(
    SessionTerms, run=NAMES, stage=NAMES, plan_hash=HASHES, roster_hash=HASHES,
    session=st.binary(min_size=16, max_size=16),
)  # fmt: skip
ORDERS = st.builds(
    SumOrder, sequence=st.integers(1, 2**63 - 1), label=NAMES, model_hash=HASHES,
    weights=st.dictionaries(NAMES, st.integers(1, 2**63 - 1), max_size=4),
    confirmations=st.dictionaries(NAMES, st.binary(max_size=70), max_size=4),
)  # fmt: skip

SOME_TERMS = SessionTerms(run="run", stage="stage", plan_hash=b"p" * 32, roster_hash=b"r" * 32, session=b"s" * 16)
SOME_ORDER = SumOrder(
    sequence=3, label="train 3", model_hash=b"m" * 32, weights={"b": 2, "a": 1}, confirmations={"a": b"signed"}
)


@given(terms=TERMS)
def test_terms_come_out_as_they_went_in(terms: SessionTerms) -> None:
    assert SessionTerms.from_bytes(terms.to_bytes()) == terms


@given(order=ORDERS)
def test_an_order_comes_out_as_it_went_in(order: SumOrder) -> None:
    assert SumOrder.from_bytes(order.to_bytes()) == order


@given(one=TERMS, other=TERMS)
def test_different_terms_are_different_bytes(one: SessionTerms, other: SessionTerms) -> None:
    assert (one.to_bytes() == other.to_bytes()) == (one == other)


@pytest.mark.parametrize("read", [SessionTerms, SumOrder])
@given(data=st.data())
def test_a_changed_byte_is_refused_or_another_message(
    read: type[SessionTerms] | type[SumOrder], data: st.DataObject
) -> None:
    """What is read after a change is, written again, the changed bytes: nothing is read in two ways."""
    blob = data.draw(TERMS if read is SessionTerms else ORDERS).to_bytes()
    place, flip = data.draw(st.integers(0, len(blob) - 1)), data.draw(st.integers(1, 255))
    changed = blob[:place] + bytes([blob[place] ^ flip]) + blob[place + 1 :]
    try:
        found = read.from_bytes(changed)
    except ProtocolError:
        return
    assert found.to_bytes() == changed != blob


@pytest.mark.parametrize("blob", [SOME_TERMS.to_bytes(), SOME_ORDER.to_bytes()], ids=["terms", "order"])
def test_every_cut_is_refused(blob: bytes) -> None:
    read = SessionTerms if blob == SOME_TERMS.to_bytes() else SumOrder
    for length in range(len(blob)):
        with pytest.raises(ProtocolError):
            read.from_bytes(blob[:length])


CHANGED_TERMS = [
    replace(SOME_TERMS, run="run2"),
    replace(SOME_TERMS, stage="stage2"),
    replace(SOME_TERMS, plan_hash=b"q" * 32),
    replace(SOME_TERMS, roster_hash=b"q" * 32),
    replace(SOME_TERMS, session=b"t" * 16),
]


def test_an_agreement_covers_every_term_and_every_advert() -> None:
    adverts = {"a": b"advert of a", "b": b"advert of b"}
    agreements = [terms.agreement(adverts) for terms in (SOME_TERMS, *CHANGED_TERMS)]
    agreements += [
        SOME_TERMS.agreement(changed)
        for changed in (
            {"a": b"advert of a"},
            adverts | {"a": b"advert of A"},
            {"a": b"advert of a", "c": b"advert of b"},
        )
    ]
    assert len(set(agreements)) == len(agreements)
    assert SOME_TERMS.agreement(dict(reversed(adverts.items()))) == agreements[0]
    packed = pack("agreement", SOME_TERMS.to_bytes(), pack_table(adverts))
    assert agreements[0] == hashlib.sha256(packed).digest()


def test_the_statement_of_an_advert_covers_terms_name_and_key() -> None:
    statements = [terms.advert_statement("a", b"key") for terms in (SOME_TERMS, *CHANGED_TERMS)]
    statements += [SOME_TERMS.advert_statement("b", b"key"), SOME_TERMS.advert_statement("a", b"kez")]
    assert len(set(statements)) == len(statements)
    assert statements[0] == pack("advert statement", SOME_TERMS.to_bytes(), b"a", b"key")


def test_the_statement_of_a_confirmation_covers_agreement_and_name() -> None:
    assert confirmation_statement(b"h" * 32, "a") == pack("confirmation statement", b"h" * 32, b"a")
    assert len({confirmation_statement(bytes([n]) * 32, name) for n in (1, 2) for name in ("a", "b")}) == 4


CHANGED_ORDERS = [
    replace(SOME_ORDER, sequence=4),
    replace(SOME_ORDER, label="train 4"),
    replace(SOME_ORDER, model_hash=b"n" * 32),
    replace(SOME_ORDER, weights={"a": 1, "b": 3}),
    replace(SOME_ORDER, weights={"a": 1, "c": 2}),
    replace(SOME_ORDER, weights={"a": 1}),
]


def test_a_context_covers_the_agreement_and_all_of_the_order_but_confirmations() -> None:
    """Confirmations come with a holder's first order only, so two holders may see other ones."""
    contexts = [order.context(b"g" * 32) for order in (SOME_ORDER, *CHANGED_ORDERS)]
    contexts.append(SOME_ORDER.context(b"h" * 32))
    assert len(set(contexts)) == len(contexts)
    assert replace(SOME_ORDER, confirmations={}).context(b"g" * 32) == contexts[0]
    statement = pack(
        "sum", pack_number(3), b"train 3", b"m" * 32, pack_table({"a": pack_number(1), "b": pack_number(2)})
    )
    assert contexts[0] == hashlib.sha256(pack("context", b"g" * 32, statement)).digest()
    assert SOME_ORDER.to_bytes() == pack("order", statement, pack_table({"a": b"signed"}))


def test_the_cohort_stands_in_the_order_of_names() -> None:
    assert SOME_ORDER.cohort == ("a", "b")
    assert SumOrder.from_bytes(SOME_ORDER.to_bytes()).cohort == ("a", "b")


def test_terms_are_written_in_the_documented_order() -> None:
    assert SOME_TERMS.to_bytes() == pack("session", b"run", b"stage", b"p" * 32, b"r" * 32, b"s" * 16)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"plan_hash": b"p" * 31}, "the hash of a plan has 31 bytes and must have 32"),
        ({"roster_hash": b"r" * 33}, "the hash of a roster has 33 bytes and must have 32"),
        ({"session": b"s" * 15}, "the number of a session has 15 bytes and must have 16"),
        ({"run": ""}, "a name in a message is empty"),
        ({"stage": "a\nb"}, "a name in a message is empty, too long or not printable"),
    ],
)
def test_terms_of_another_form_are_refused(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{rule}"):
        SessionTerms.from_bytes(replace(SOME_TERMS, **changes).to_bytes())


LEAST = "a sum's number and its weights must be at least 1; the coordinator must correct it$"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"sequence": 0}, LEAST),
        ({"weights": {"a": 0, "b": 1}}, LEAST),
        ({"weights": {"a": 1, "b": 0}}, LEAST),
        ({"label": ""}, "a name in a message is empty"),
        ({"model_hash": b"m" * 31}, "the hash of a model has 31 bytes and must have 32"),
    ],
)
def test_orders_of_another_form_are_refused(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{rule}"):
        SumOrder.from_bytes(replace(SOME_ORDER, **changes).to_bytes())


def test_an_order_with_another_number_of_fields_is_refused() -> None:
    statement = SOME_ORDER._statement()
    for blob in (
        pack("order", statement),
        pack("order", statement, pack_table({}), b""),
        pack("order", b"", pack_table({})),
    ):
        with pytest.raises(ProtocolError):
            SumOrder.from_bytes(blob)
