"""Operators exchange counts through a coordinator that cannot read them, within their policies, and pay once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients.agent import HolderAgent
from clients.app import relay
from clients.call_holding import CallHolding
from clients.custody import Custody
from clients.policy import HolderPolicy, PushPolicy
from clients.push_mail import Tokens, pack_pushed, unpack_pushed
from dhgsil.task import TASK
from integration.exchange import ANSWERS, HUBS, KEYS, PUSHES, QUESTIONS, exchange_phases
from integration.features.assembling import Pushed
from integration.push_histograms import bins_of_a_tie
from integration.study import StudySection
from privacy.sealed import SealingKey
from privacy.signed_keys import KeySigner
from protocol.errors import PolicyRefusedError, ProtocolError, TrainingError
from protocol.records import Header
from server.journal import Journal
from server.rounds import Coordinator, Stage
from simulations.grid import NODE_NAME, InProcessGrid
from tables.engine import Engine, Limits
from tests.federation import journal_in
from tests.masked_sums import identity, roster_of
from tests.operators import PERSONS, WEEKS, city, holders
from tests.plans import PLAIN, PLAIN_POLICY, tiny_plan

PLAN = tiny_plan(PLAIN)
STAGE = Stage(name="stage", share="weights")
HEADER = Header(run="test", plan_hash=PLAN.digest(), stage="stage")
NAMES = ("east", "north", "west")
KEYS_OF = {name: SealingKey(bytes([number + 1] * 32)) for number, name in enumerate(NAMES)}
MADE_UP = PushPolicy(made_up=True)
HALF = PushPolicy(allow="threshold", least_contacts=3)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


@dataclass
class World:
    records: dict[str, Any]
    engine: Engine

    def holding(self, name: str, level: str, **given: Any) -> CallHolding:
        threshold = given.pop("threshold", 3)
        study = StudySection(source="rows", pushes=level, push_threshold=threshold, push_epsilon=8.0)  # type: ignore[arg-type]
        given = {"key": KEYS_OF[name], "weeks": WEEKS, "policy": MADE_UP} | given
        return CallHolding(name, self.records[name], self.engine, study, **given)


@pytest.fixture(scope="module")
def world(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> World:
    calls, people = city(11)
    operators = np.random.default_rng(11).choice(NAMES, size=PERSONS)
    return World(holders(calls, people, operators, tmp_path_factory.mktemp("city")), engine)


def coordinator(holdings: Mapping[str, CallHolding], journal: Journal) -> Coordinator:
    agents = {
        name: HolderAgent(name, None, PLAN, TASK, {"stage": "weights"}, aggregation=PLAIN_POLICY, letters=own)
        for name, own in holdings.items()
    }
    app = relay(lambda context: agents[str(context.node_config[NODE_NAME])])
    return Coordinator(InProcessGrid(app, list(agents)), TASK, None, PLAN, run="test", journal=journal)


def exchanged(holdings: dict[str, CallHolding], phases: tuple[str, ...], folder: Path) -> Journal:
    journal = journal_in(folder, PLAN)
    coordinator(holdings, journal).exchange(STAGE, phases)
    return journal


@pytest.mark.slow
def test_counts_arrive_as_they_were_sent_and_the_coordinator_sees_none(world: World, tmp_path: Path) -> None:
    """Level L0 through messages, agents and journal; what the journal keeps opens for the recipient alone."""
    holdings = {name: world.holding(name, "L0") for name in NAMES}
    with exchanged(holdings, (KEYS, HUBS, PUSHES), tmp_path) as journal:
        mail = journal.mail("stage", PUSHES)
    assert mail is not None
    sent = {name: holding.pushes() for name, holding in holdings.items()}
    for sender in NAMES:
        for other in NAMES:
            if other == sender:
                continue
            got = holdings[other]._received[sender]
            assert len(got.provinces)
            for name in ("provinces", "sexes", "birth_years", "structure"):
                keys = [c for c in ("person", "week", "province", "sex", "birth_year") if c in getattr(got, name)]
                one, two = (
                    getattr(push, name).sort_values(keys, ignore_index=True) for push in (got, sent[sender][other])
                )
                pd.testing.assert_frame_equal(one, two)
            parcel = mail[sender][other]
            numbers = sent[sender][other].provinces["person"].to_numpy()
            assert not any(int(number).to_bytes(8, "little") in parcel for number in numbers)
            with pytest.raises(ProtocolError, match="does not open"):
                SealingKey.generate().open(parcel, sender=KEYS_OF[sender].public, context=b"")
    rows = holdings["east"].rows()
    assert set(rows["operator"]) == {"east"}
    assert (holdings["east"].tables().rows["known_share"] > world.holding("east", "none").rows()["known_share"]).any()


@pytest.mark.slow
def test_a_resumed_exchange_brings_the_same_rows_and_asks_nobody_again(world: World, tmp_path: Path) -> None:
    first = {name: world.holding(name, "L0") for name in NAMES}
    exchanged(first, (KEYS, HUBS, PUSHES), tmp_path).__exit__(None, None, None)
    again = {name: world.holding(name, "L0") for name in NAMES}

    def refuse(header: Header, phase: str) -> dict[str, bytes]:
        raise ProtocolError("asked again; nobody should be")

    for holding in again.values():
        holding.write = refuse  # type: ignore[method-assign]
    exchanged(again, (KEYS, HUBS, PUSHES), tmp_path).__exit__(None, None, None)
    for name in NAMES:
        pd.testing.assert_frame_equal(first[name].rows(), again[name].rows())


@pytest.mark.slow
def test_small_counts_stay_at_level_l1(world: World, tmp_path: Path) -> None:
    holdings = {name: world.holding(name, "L1", policy=HALF) for name in NAMES}
    exchanged(holdings, (KEYS, HUBS, PUSHES), tmp_path).__exit__(None, None, None)
    got = [push for holding in holdings.values() for push in holding._received.values()]
    assert any(len(push.provinces) for push in got)
    for push in got:
        assert (push.provinces.groupby(["person", "week"])["contacts"].sum() >= 3).all()
        assert (push.structure["degree_contacts"] >= 3).all()


@pytest.mark.parametrize(
    ("level", "policy", "words"),
    [
        ("L0", PushPolicy(allow="threshold"), "birthplace of single persons"),
        ("L1", None, 'pushes.allow = "none"'),
        ("L1", PushPolicy(allow="private"), 'pushes.allow = "private"'),
        ("L1", PushPolicy(allow="threshold", least_contacts=5), "push_threshold is 3"),
        ("L2", None, 'pushes.allow = "none"'),
        ("L2", PushPolicy(allow="private"), "without a ledger"),
    ],
)
def test_a_level_beyond_the_policy_is_refused(world: World, level: str, policy: PushPolicy | None, words: str) -> None:
    with pytest.raises(PolicyRefusedError, match=words):
        world.holding("north", level, policy=policy)


def holder_policy(**changes: object) -> HolderPolicy:
    values = {
        "holder": "north", "population": "ties", "period": "2016", "max_epsilon": 8.0, "delta": 1e-6,
        "contributions": 9, "least_noise_multiplier": 0.2, "clip_norm": 1.0, "pushes": {"allow": "private"},
    }  # fmt: skip
    return HolderPolicy.model_validate(values | changes)


@pytest.mark.slow
def test_level_l2_is_charged_once_and_is_the_same_again(world: World, tmp_path: Path) -> None:
    """The noise is drawn through the ledger: after a restart the same release, and nothing more is spent."""
    found, spent = [], []
    for _ in range(2):
        with Custody.at(tmp_path, holder_policy()) as custody:
            holding = world.holding("north", "L2", policy=custody.policy.pushes, custody=custody)
            assert holding.mechanism().contributions == bins_of_a_tie(1) == 3
            found.append(holding.pushes())
            spent.append(custody.ledger.spent)
    assert spent[0] == spent[1]
    for other in ("east", "west"):
        for name in ("provinces", "sexes", "birth_years"):
            pd.testing.assert_frame_equal(getattr(found[0][other], name), getattr(found[1][other], name))
        assert (found[0][other].provinces["contacts"] >= 1).all()
        assert found[0][other].structure.empty
    exact = world.holding("north", "L0").pushes()["east"].provinces
    assert len(found[0]["east"].provinces) != len(exact)


def test_a_ledger_that_cannot_pay_stops_the_exchange(world: World, tmp_path: Path) -> None:
    with Custody.at(tmp_path / "ledger", holder_policy(max_epsilon=1.0)) as custody:
        holdings = {name: world.holding(name, "L2", policy=custody.policy.pushes, custody=custody) for name in NAMES}
        with pytest.raises(TrainingError, match="epsilon"):
            exchanged(holdings, (KEYS, PUSHES), tmp_path)


def with_keys(world: World, **given: Any) -> dict[str, CallHolding]:
    holdings = {name: world.holding(name, "L0", **given) for name in NAMES}
    public = {name: KEYS_OF[name].public for name in NAMES}
    for name, holding in holdings.items():
        holding.read(HEADER, KEYS, {other: key for other, key in public.items() if other != name})
    return holdings


def test_mail_that_was_changed_misdirected_or_replayed_is_refused(world: World) -> None:
    holdings = with_keys(world)
    east = {name: holding.write(HEADER, HUBS)["east"] for name, holding in holdings.items() if name != "east"}
    changed = east["north"][:-1] + bytes([east["north"][-1] ^ 1])
    elsewhere = Header(run="another", plan_hash=HEADER.plan_hash, stage="stage")
    for header, phase, inbox in (
        (HEADER, HUBS, east | {"north": changed}),
        (HEADER, HUBS, {"north": east["west"], "west": east["north"]}),
        (elsewhere, HUBS, east),
        (HEADER, PUSHES, east),
    ):
        with pytest.raises(ProtocolError, match="does not open"):
            holdings["east"].read(header, phase, inbox)
    for inbox in ({"north": east["north"]}, east | {"south": b""}):
        with pytest.raises(ProtocolError, match="missing or unexpected"):
            holdings["east"].read(HEADER, HUBS, inbox)
    assert holdings["east"]._hubs == {}
    with pytest.raises(ProtocolError, match="knows no phase"):
        holdings["east"].write(HEADER, "gossip")


def test_without_keys_nothing_is_written(world: World) -> None:
    with pytest.raises(ProtocolError, match="exchange keys first"):
        world.holding("east", "L0").write(HEADER, HUBS)


def test_a_coordinator_that_replaces_keys_is_found_out(world: World) -> None:
    """Signed by the roster's members, keys come through; the coordinator's own, unsigned ones and old ones do not."""
    roster = roster_of((*NAMES, "south"))
    signers = {name: KeySigner(identity(name), roster) for name in NAMES}
    holdings = {name: world.holding(name, "L0", signer=signers[name]) for name in NAMES}
    keys = {name: holding.write(HEADER, KEYS)["east"] for name, holding in holdings.items() if name != "east"}
    elsewhere = Header(run="another", plan_hash=HEADER.plan_hash, stage="stage")
    own = SealingKey.generate().public
    liar = KeySigner(identity("south"), roster)
    for header, replaced in (
        (HEADER, liar.signed(own, of=b"")),
        (HEADER, keys["west"]),
        (HEADER, own),
        (elsewhere, keys["north"]),
    ):
        with pytest.raises(ProtocolError, match=r"not signed by the roster's 'north'|signed key"):
            holdings["east"].read(header, KEYS, keys | {"north": replaced})
        with pytest.raises(ProtocolError, match="exchange keys first"):
            holdings["east"].write(HEADER, HUBS)
    holdings["east"].read(HEADER, KEYS, keys)
    assert holdings["east"]._public == {name: KEYS_OF[name].public for name in ("north", "west")}
    with pytest.raises(ProtocolError, match="32 bytes"):  # one version at all, and one way of sending keys
        world.holding("east", "L0").read(HEADER, KEYS, keys)


SOME = Pushed(sexes=pd.DataFrame({"person": [7], "week": np.array([2], np.int16), "sex": [1], "contacts": [3]}))
TOKENS = Tokens(bytes(32), np.array([7, 8]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(sex=2), "outside"),
        (lambda t: t.assign(contacts=0), "outside"),
        (lambda t: t.assign(contacts=-4), "outside"),
        (lambda t: t.assign(week=9), "outside"),
        (lambda t: pd.concat([t, t]), "counts somebody twice"),
        (lambda t: t.drop(columns="contacts"), "other arrays"),
    ],
)
def test_counts_that_make_no_sense_are_refused(change: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    """A parcel that opens is still from somebody else."""
    wrong = Pushed(sexes=change(SOME.sexes))
    with pytest.raises(ProtocolError, match=words):
        unpack_pushed(pack_pushed(wrong, TOKENS), TOKENS, weeks=range(2, 5))
    with pytest.raises(ProtocolError, match="no arrays"):
        unpack_pushed(b"something else", TOKENS, weeks=range(2, 5))


def test_tokens_belong_to_a_pair_and_unknown_ones_are_left_out() -> None:
    other = Tokens(b"\1" * 32, np.array([7, 8]))
    assert not set(TOKENS.of(np.array([7, 8]))) & set(other.of(np.array([7, 8])))
    packed = pack_pushed(SOME, TOKENS)
    assert unpack_pushed(packed, TOKENS, weeks=range(2, 3)).sexes["person"].tolist() == [7]
    assert unpack_pushed(packed, other, weeks=range(2, 3)).sexes.empty
    assert (7).to_bytes(8, "little") not in packed[packed.index(b"}}") :]


def test_phases_follow_from_the_level() -> None:
    levels = {level: exchange_phases(StudySection(source="rows", pushes=level)) for level in ("none", "L0", "L1", "L2")}  # type: ignore[arg-type]
    matched = exchange_phases(StudySection(source="rows", pushes="none", matching=True))
    assert matched == (KEYS, QUESTIONS, ANSWERS)
    assert levels == {"none": (), "L0": (KEYS, HUBS, PUSHES), "L1": (KEYS, HUBS, PUSHES), "L2": (KEYS, PUSHES)}
