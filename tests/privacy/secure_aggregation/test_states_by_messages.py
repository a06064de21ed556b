"""Every state of a holder by every message: what the table of `holder` allows happens, all else is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from privacy.secure_aggregation.holder import MaskingHolder, State
from privacy.secure_aggregation.messages import Advert, Contribution, Opening, Reveal, Survivors
from privacy.secure_aggregation.terms import confirmation_statement
from protocol.errors import AggregationRefusedError
from tests.masked_sums import LAYOUT, SumRun, new_session, plain_sum, snapshot, vectors

NAME, GONE, SEED = "h00", "h02", b"states"
WORDS = 6


class Script:
    """All messages of two sums that a holder of its session gets, one sum with a dropout; made by a twin session.

    Holders of the twin draw the same secrets, so what is legal for one is legal for the other.
    """

    def __init__(self) -> None:
        twin = new_session(5, seed=SEED)
        self.adverts = dict(twin.enrolment.adverts)
        self.agreement = twin.enrolment.agreement
        self.inputs = vectors(twin.names, WORDS)
        self.orders = [twin.order(sequence=1), twin.order(sequence=2)]
        self.dropping = SumRun(twin, self.orders[0], self.inputs)
        self.dropping.contribute(late=[GONE])
        self.survivors = self.dropping.survivors
        self.dropping.sign()
        self.unmasking = self.dropping.masked.unmasking(NAME)
        self.dropping.reveal()
        whole_twin = new_session(5, seed=SEED)
        self.whole = SumRun(whole_twin, self.orders[0], self.inputs)
        self.whole.contribute()
        self.whole_unmasking = self.whole.masked.unmasking(NAME)


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


Call = Callable[[MaskingHolder, Script], object]
CALLS: dict[str, Call] = {
    "advertise": lambda holder, script: holder.advertise(),
    "agree": lambda holder, script: holder.agree(script.adverts),
    "begin": lambda holder, script: holder.begin(script.orders[0].to_bytes()),
    "contribute": lambda holder, script: holder.contribute(script.inputs[NAME], layout=LAYOUT),
    "sign": lambda holder, script: holder.sign(script.survivors.to_bytes()),
    "reveal": lambda holder, script: holder.reveal(script.unmasking),
    "open": lambda holder, script: holder.open(),
    "close": lambda holder, script: holder.close(),
}
WAY = ("advertise", "agree", "begin", "contribute", "sign", "reveal")
"""Calls from the first state to the last, each of which leads to the next state."""
AFTER = (State.NEW, State.ADVERTISED, State.AGREED, State.BEGUN, State.CONTRIBUTED, State.SIGNED, State.REVEALED)
LEGAL: dict[tuple[State, str], State] = {
    (State.NEW, "advertise"): State.ADVERTISED,
    (State.ADVERTISED, "agree"): State.AGREED,
    (State.AGREED, "begin"): State.BEGUN,
    (State.BEGUN, "begin"): State.BEGUN,
    (State.CONTRIBUTED, "begin"): State.BEGUN,
    (State.SIGNED, "begin"): State.BEGUN,
    (State.REVEALED, "begin"): State.BEGUN,
    (State.BEGUN, "contribute"): State.CONTRIBUTED,
    (State.CONTRIBUTED, "sign"): State.SIGNED,
    (State.CONTRIBUTED, "reveal"): State.REVEALED,  # if nobody dropped out, see below
    (State.SIGNED, "reveal"): State.REVEALED,
    (State.REVEALED, "open"): State.REVEALED,
    **{(state, "close"): State.CLOSED for state in State},
}
ILLEGAL = [(state, call) for state in State for call in CALLS if (state, call) not in LEGAL]


def holder_in(state: State, script: Script) -> MaskingHolder:
    """A holder of the session that was brought to a state."""
    twin = new_session(5, seed=SEED, absent=[NAME], unconfirmed=["h01", "h02", "h03", "h04"])
    holder = twin.holders[NAME]
    if state is State.CLOSED:
        go_on(holder, State.BEGUN, script)
        holder.close()
    else:
        go_on(holder, state, script)
    assert holder.state is state
    return holder


def go_on(holder: MaskingHolder, until: State, script: Script) -> object:
    """Make the calls that lead from where it is to a state; what the last gave."""
    given: object = None
    for call in WAY[AFTER.index(holder.state) : AFTER.index(until)]:
        given = CALLS[call](holder, script)
    return given


def legal_message(call: str, state: State, script: Script) -> Call:
    """The call with a message that fits the state: a second sum after a first, a whole cohort where nobody signed."""
    if call == "begin" and state is not State.AGREED:
        return lambda holder, script: holder.begin(script.orders[1].to_bytes())
    if call == "reveal" and state is State.CONTRIBUTED:
        return lambda holder, script: holder.reveal(script.whole_unmasking)
    return CALLS[call]


def test_table_has_every_cell() -> None:
    """8 states by 8 messages: 20 cells are legal, and 44 are refused."""
    assert len(LEGAL) + len(ILLEGAL) == len(State) * len(CALLS) == 64
    assert len(ILLEGAL) == 44


@pytest.mark.parametrize(("state", "call"), ILLEGAL, ids=lambda value: getattr(value, "value", value))
def test_message_that_is_not_next_is_refused_and_changes_nothing(state: State, call: str, script: Script) -> None:
    """A message that is not the next one is refused, changes nothing, and the next legal one still works."""
    holder = holder_in(state, script)
    before = snapshot(holder)
    with pytest.raises(AggregationRefusedError, match=f"does not follow after '{state.value}'"):
        CALLS[call](holder, script)
    assert snapshot(holder) == before
    if state is not State.CLOSED:
        go_on(holder, State.REVEALED, script)
        assert Opening.from_bytes(holder.open()).words == script.inputs[NAME].astype("<u4").tobytes()
    holder.close()
    assert holder.state is State.CLOSED


@pytest.mark.parametrize(("state", "call"), list(LEGAL), ids=lambda value: getattr(value, "value", value))
def test_legal_message_leads_on(state: State, call: str, script: Script) -> None:
    """What the table allows leads to the state the table says."""
    holder = holder_in(state, script)
    legal_message(call, state, script)(holder, script)
    assert holder.state is LEGAL[state, call]


def test_advert_and_confirmation_are_signed(script: Script) -> None:
    """advertise and agree: signed for these terms, and for everything that was advertised."""
    holder = holder_in(State.NEW, script)
    session = script.dropping.session
    advert = Advert.from_bytes(holder.advertise())
    assert session.roster.signed(NAME, session.terms.advert_statement(NAME, advert.key), advert.signature)
    word = holder.agree(script.adverts)
    assert session.roster.signed(NAME, confirmation_statement(script.agreement, NAME), word)


def test_begin_gives_the_order_and_contribute_a_vector_that_is_masked(script: Script) -> None:
    """begin gives back what was asked; contribute gives no word of the vector as it was."""
    holder = holder_in(State.AGREED, script)
    assert holder.begin(script.orders[0].to_bytes()) == script.orders[0]
    given = Contribution.from_bytes(holder.contribute(script.inputs[NAME], layout=LAYOUT))
    assert (given.holder, given.layout, given.context) == (NAME, LAYOUT, script.dropping.masked.context)
    assert not (given.words() == script.inputs[NAME]).any()


def test_sign_signs_who_is_left(script: Script) -> None:
    """sign: a signature of the survivors and nothing else."""
    holder = holder_in(State.CONTRIBUTED, script)
    signature = holder.sign(script.survivors.to_bytes())
    assert script.dropping.session.roster.signed(NAME, script.survivors.statement(), signature)


@pytest.mark.parametrize("dropping", [True, False])
def test_reveal_gives_shares_of_survivors_and_seeds_of_the_others(script: Script, dropping: bool) -> None:
    """reveal: of each other holder the share of its own mask or the seed of the pair, never both; and the sum opens."""
    run = script.dropping if dropping else script.whole
    for name in run.survivors.left:
        if name == NAME:
            holder = holder_in(State.SIGNED if dropping else State.CONTRIBUTED, script)
            reveal = Reveal.from_bytes(holder.reveal(script.unmasking if dropping else script.whole_unmasking))
            run.masked.add_reveal(name, reveal.to_bytes())
            assert reveal.shares.keys() == set(run.survivors.left)
            assert reveal.seeds.keys() == set(run.survivors.dropped) == ({GONE} if dropping else set())
        elif not dropping:
            run.masked.add_reveal(name, run.session.holders[name].reveal(run.masked.unmasking(name)))
    np.testing.assert_array_equal(run.total(), plain_sum(script.inputs, run.survivors.left))


def test_sum_with_a_dropout_is_not_opened_before_it_was_signed(script: Script) -> None:
    """reveal after contribute is for a whole cohort; where somebody dropped out, sign comes first."""
    holder = holder_in(State.CONTRIBUTED, script)
    before = snapshot(holder)
    with pytest.raises(AggregationRefusedError, match="whose absence nobody asked us to sign"):
        holder.reveal(script.unmasking)
    assert snapshot(holder) == before
    go_on(holder, State.REVEALED, script)


def test_second_signature_is_refused_whatever_it_is_for(script: Script) -> None:
    """Nobody signs a second set of survivors, and not the same one again."""
    holder = holder_in(State.SIGNED, script)
    others = Survivors(context=script.survivors.context, left=("h00", "h01", "h02", "h03"), dropped=("h04",))
    for asked in (others, script.survivors):
        with pytest.raises(AggregationRefusedError, match="asked to sign who is left, which does not follow"):
            holder.sign(asked.to_bytes())


@pytest.mark.parametrize("state", [State.BEGUN, State.CONTRIBUTED, State.SIGNED, State.REVEALED])
@pytest.mark.parametrize("call", ["begin", "close"])
def test_secrets_of_a_sum_that_is_over_are_gone(state: State, call: str, script: Script) -> None:
    """A new sum, or the end of the session, overwrites the secrets of the sum before."""
    holder = holder_in(state, script)
    current = holder._sum
    assert current is not None
    seeds, chains = list(current.seeds.values()), [bytes(chain._chain) for chain in holder._chains.values()]
    buffers = [chain._chain for chain in holder._chains.values()]
    assert bool(seeds) == (state in {State.CONTRIBUTED, State.SIGNED})
    legal_message(call, state, script)(holder, script)
    assert not any(any(seed) for seed in seeds)
    assert not current.seeds
    assert not current.own_shares
    if call == "close":
        assert not any(any(buffer) for buffer in buffers)
        assert not holder._chains
        assert holder._key is None
    elif state is not State.REVEALED:  # there it has moved on already
        assert all(bytes(now) != then for now, then in zip(buffers, chains, strict=True))


def test_secrets_are_gone_once_they_were_given(script: Script) -> None:
    """After its answer a holder has neither seeds nor shares of the sum, nor keys to make them again."""
    holder = holder_in(State.SIGNED, script)
    current = holder._sum
    assert current is not None
    seeds, before = list(current.seeds.values()), [bytes(chain._chain) for chain in holder._chains.values()]
    holder.reveal(script.unmasking)
    assert not any(any(seed) for seed in seeds)
    assert (current.seeds, current.own_shares) == ({}, [])
    assert all(bytes(chain._chain) not in before for chain in holder._chains.values())


@pytest.mark.parametrize(
    ("state", "call", "reason"),
    [
        (State.ADVERTISED, "agree", "there is no key of this session"),
        (State.BEGUN, "contribute", "no sum was begun"),
        (State.CONTRIBUTED, "sign", "no sum was begun"),
        (State.SIGNED, "reveal", "no sum was begun"),
        (State.REVEALED, "open", "no sum was begun"),
    ],
)
def test_holder_that_lost_its_memory_gives_nothing_away(state: State, call: str, reason: str, script: Script) -> None:
    """A state whose secrets are missing (which no message can bring about) ends in a refusal."""
    holder = holder_in(State.NEW, script)
    holder._state = state
    with pytest.raises(AggregationRefusedError, match=reason):
        CALLS[call](holder, script)


def test_sum_without_an_opening_is_not_shown(script: Script) -> None:
    """Where nothing was kept, nothing is shown."""
    holder = holder_in(State.BEGUN, script)
    holder._state = State.REVEALED
    with pytest.raises(AggregationRefusedError, match="nothing is kept of this sum"):
        holder.open()


def test_name_of_a_holder_is_its_identitys(script: Script) -> None:
    """A holder is called what the roster calls it."""
    assert holder_in(State.NEW, script).name == NAME
