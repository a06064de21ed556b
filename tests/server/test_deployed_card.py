"""The card of a deployed run promises what a simulation of the same plan promises, and says what only holders know."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.desk.calls import private_mechanism
from integration.task import study_section
from privacy.card import PrivacyCard
from protocol.errors import RunFolderError
from protocol.plan import Plan
from server.cards.deployed import Known, deployed_card, known_mechanism
from server.deployed_facts import DeployedResult
from server.run_folder import CARD_FILE, FACTS_FILE, MODEL_FILE
from simulations import protection
from simulations.person_promises import person_holder_cards
from simulations.protection import open_custodies
from simulations.runner import simulate
from simulations.verification import verify_run
from tests.call_rows import OPERATORS, call_plan
from tests.deployed_runs import PLAN, Holders, carried_out
from tests.plans import tiny_plan

pytestmark = pytest.mark.slow

COUNTS = {"privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.contributions": 4, "privacy.budget": 20.0}
MODES: dict[str, dict[str, Any]] = {
    "none": {},
    "counts": COUNTS,
    "window-dpsgd": COUNTS | {
        "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.score_against": "truth",
        "training.select": "last", "model.node_features": False, "federation.vectorise": "auto",
    },
}  # fmt: skip
PERSONS = {
    "privacy.mode": "person-dpsgd", "privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.score_against": "truth",
    "model.features": "own", "training.batch_size": 8, "training.select": "last", "compare.alone": False,
    "compare.pooled": False, "data.training_rows": 40, "data.pushes": "none",
}  # fmt: skip
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/card.schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Pair:
    """One plan, simulated and deployed over the same ledgers."""

    plan: Plan
    simulated: Path
    deployed: Path

    @property
    def cards(self) -> tuple[PrivacyCard, PrivacyCard]:
        return card_of(self.simulated), card_of(self.deployed)


def card_of(folder: Path) -> PrivacyCard:
    return PrivacyCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=MODES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    place = tmp_path_factory.mktemp(request.param)
    plan = tiny_plan(PLAN | MODES[request.param] | {"training.rounds": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protection, "require_conformance", lambda subject: [])
        simulated = simulate(plan, out=place / "simulated", ledgers=place / "ledgers").folder
        holders = Holders(plan, place / "holders", ledgers=place / "ledgers")
        deployed = carried_out(holders, place / "runs").folder
        holders.close()
    return Pair(plan, simulated, deployed)


def test_the_same_promise_to_the_same_unit(pair: Pair) -> None:
    """Epsilon, delta, unit, mechanism and its noise are computed from the plan alone, and are what holders charged."""
    simulated, deployed = pair.cards
    assert (pair.simulated / MODEL_FILE).read_bytes() == (pair.deployed / MODEL_FILE).read_bytes()
    assert [holder.holder for holder in deployed.holders] == [holder.holder for holder in simulated.holders]
    for ours, theirs in zip(deployed.holders, simulated.holders, strict=True):
        assert ours.promises == theirs.promises
        assert (ours.joint_epsilon, ours.joint_delta, ours.period) == (
            theirs.joint_epsilon, theirs.joint_delta, theirs.period,
        )  # fmt: skip
        assert (ours.ledger_length, ours.ledger_head) == (theirs.ledger_length, theirs.ledger_head)
    for name in ("run", "plan_hash", "mode", "flavour", "headline", "trust_model", "across_holders", "sums"):
        assert getattr(deployed, name) == getattr(simulated, name)
    assert len(deployed.holders) == (0 if pair.plan.privacy is None else 3)


def test_the_same_messages_leave_the_holders(pair: Pair) -> None:
    """In the same sizes and as often; but rows for scoring leave nobody, and released counts stay where they are."""
    simulated, deployed = pair.cards
    left = {each.name: each for each in simulated.released if each.place == "leaves a holder"}
    assert "rows of all holders, for scoring" in left
    wanted = {name: each for name, each in left.items() if "for scoring" not in name and "with noise" not in name}
    assert {each.name: each for each in deployed.released if each.place == "leaves a holder"} == wanted
    kept = {(each.name, each.holder, each.numbers) for each in deployed.released if "stays" in each.place}
    noised = [each for each in simulated.released if each.name.startswith("counts with noise")]
    assert kept == {(each.name, each.holder, each.numbers) for each in noised}
    assert bool(kept) == (pair.plan.mode == "counts")
    files = {path.name for path in pair.deployed.iterdir()} - {".lock"}
    listed = " ".join(each.name for each in deployed.released if each.place == "run folder")
    assert not [name for name in files if name not in listed], "every file of the folder is on its card"


def test_what_only_holders_know_is_left_open_and_said(pair: Pair) -> None:
    _, card = pair.cards
    words = " ".join(card.not_promised)
    for holder in card.holders:
        assert holder.population is holder.budget_epsilon is holder.spent_epsilon is holder.left is None
        assert "It has seen no row and no ledger" in words
    assert card.audits == ()
    assert "see audits" not in card.to_json()
    assert "in a simulation" not in card.to_json()
    assert "in this folder" not in card.to_json()
    assert "anonym" not in card.to_json().lower()
    assert card.parties[-1].party == "node of a holder, and the network"


def test_the_published_schema_lets_them_be_open(pair: Pair) -> None:
    """Fields are exactly those of the schema, and null stands only where it may."""
    values = json.loads((pair.deployed / CARD_FILE).read_text(encoding="utf-8"))
    assert values.keys() == SCHEMA["properties"].keys()
    fields = SCHEMA["$defs"]["HolderCard"]["properties"]
    for holder in values["holders"]:
        assert holder.keys() == fields.keys()
        for name, value in holder.items():
            assert value is not None or {"type": "null"} in fields[name]["anyOf"]
    places = SCHEMA["$defs"]["ReleasedObject"]["properties"]["place"]["enum"]
    assert {each["place"] for each in values["released"]} <= set(places)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None], *, sealed: bool) -> None:
    """Change the card; `sealed`: whoever did so also wrote its new SHA-256 into run.json."""
    path = folder / CARD_FILE
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(PrivacyCard.model_validate(values).to_json(), encoding="utf-8")
    if sealed:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        facts["files"][CARD_FILE] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")


def a_word(values: dict[str, Any]) -> None:
    values["headline"] += " Truly."


def another_plan(values: dict[str, Any]) -> None:
    values["plan_hash"] = "0" * 64


def another_ledger(values: dict[str, Any]) -> None:
    values["holders"][0]["ledger_length"] += 1


@pytest.mark.parametrize(
    ("change", "sealed", "words"),
    [
        (a_word, False, "differs from what the run wrote"),
        (another_plan, True, "another plan_hash than the plan"),
        (another_ledger, True, "of the ledger of 'north'"),
    ],
)
def test_a_changed_card_is_noticed(
    pair: Pair, tmp_path: Path, change: Callable[[dict[str, Any]], None], sealed: bool, words: str
) -> None:
    """By `server verify`, which also compares it with plan and journal, and by `report`, which compares all files."""
    if change is another_ledger and pair.plan.privacy is None:
        pytest.skip("nobody keeps a ledger without privacy")
    folder = shutil.copytree(pair.deployed, tmp_path / "run")
    found = verify_run(folder)
    assert (found.failure, found.card) == (None, True)
    rewritten(folder, change, sealed=sealed)
    found = verify_run(folder)
    assert found.failure is not None
    assert found.failure.stage == CARD_FILE
    assert words in found.failure.problem
    if not sealed:
        with pytest.raises(RunFolderError, match=r"card\.json differs"):
            DeployedResult.read(folder)
    (folder / CARD_FILE).unlink()
    assert "missing" in str(verify_run(folder).failure)
    (folder / FACTS_FILE).unlink()  # as a holder gets it: journal, plan and model
    found = verify_run(folder)
    assert (found.failure, found.card) == (None, False)


def test_figures_that_the_journal_does_not_have_are_refused(pair: Pair, tmp_path: Path) -> None:
    folder = shutil.copytree(pair.deployed, tmp_path / "run")
    assert DeployedResult.read(folder).card == card_of(folder)
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    facts["stages"][0]["rounds"][0]["loss"] = 0.125
    (folder / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(RunFolderError, match="differ in stages"):
        DeployedResult.read(folder)


@pytest.mark.parametrize("noise", ["local", "distributed"])
def test_persons_are_promised_what_their_operators_charge(tmp_path: Path, noise: str) -> None:
    plan = call_plan(changes=PERSONS | {"privacy.noise": noise, "training.optimizer": "sgd"})
    mechanism = private_mechanism(plan, study_section(plan))
    assert mechanism is not None
    assert known_mechanism(plan, None) == mechanism
    card = deployed_card(Known(plan, None, {"a": (3, "b" * 64)}, 10))
    with open_custodies(plan, tmp_path) as custodies:
        theirs = person_holder_cards(plan, mechanism, custodies)
    assert [(h.promises, h.joint_epsilon, h.joint_delta) for h in card.holders] == [
        (h.promises, h.joint_epsilon, h.joint_delta) for h in theirs
    ]
    assert [h.holder for h in card.holders] == list(OPERATORS)
    assert card.shown.origin == "public", "no loss and no error is told"
    assert ("honest" in card.headline) == (noise == "distributed")


def test_operators_without_noise_are_promised_nothing() -> None:
    plan = call_plan()
    card = deployed_card(Known(plan, None, {}, 10))
    assert (card.mode, card.holders, card.registry.unit) == ("none", (), "none")
    assert "relays sealed mail" in card.parties[0].trusted_with
    assert "small groups" in " ".join(card.not_promised)
    assert "greyed" not in card.to_json()
