"""Who looks new or gone at one operator and is known at another is found, by the asker alone, within the policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clients.agent import HolderAgent
from clients.app import relay
from clients.call_holding import CallHolding
from clients.policy import PushPolicy
from dhgsil.task import TASK
from integration.exchange import exchange_phases
from integration.people import NEW, NONE, SETTLED
from integration.study import StudySection
from privacy.matching import MatchRules, QuestionBook
from privacy.sealed import SealingKey
from protocol.errors import DataError, PolicyRefusedError, ProtocolError, RefusedError
from protocol.records import Header
from server.rounds import Coordinator, Stage
from simulations.grid import NODE_NAME, InProcessGrid
from tests.federation import journal_in
from tests.operators import holders
from tests.plans import PLAIN, PLAIN_POLICY, tiny_plan
from tests.staged_calls import call_table, people_table, person

PLAN = tiny_plan(PLAIN)
STAGE = Stage(name="stage", share="weights")
HEADER = Header(run="test", plan_hash=PLAN.digest(), stage="stage")
STUDY = StudySection(source="rows", pushes="none", matching=True)
RULES = MatchRules(question_size=8, answer_size=8)
ANSWERING = PushPolicy(matching="bits")
KEYS_OF = {name: SealingKey(bytes([number + 1] * 32)) for number, name in enumerate(("north", "south"))}


def people() -> pd.DataFrame:
    """At north 1 came from south, 2 is truly new, 3 has gone over to south, 4 is truly gone; 11 to 14 are at south."""
    table = people_table(person(code, "AH", group=NEW) for code in (1, 2, 3, 4, 11, 12, 13, 14))
    table["group"] = [NEW] * 4 + [SETTLED, NONE, NEW, SETTLED]
    table["weeks"] = [0b1110, 0b1110, 0b0010, 0b0010, 0b0001, 0b0001, 0b1100, 0b1111]
    table["identity"] = ["one", "two", "three", "four", "one", None, "three", "elsewhere"]
    return table


def holdings(folder: Path, **given: object) -> dict[str, CallHolding]:
    table = people()
    operators = np.where(table["person"] < 10, "north", "south")
    records = holders(call_table([(1, 11, 8, 5, 60, 0, 0)]), table, operators, folder)
    given = {"policy": ANSWERING, "match_rules": RULES} | given
    return {
        name: CallHolding(name, own, None, STUDY, key=KEYS_OF[name], **given)  # type: ignore[arg-type]
        for name, own in records.items()
    }


def exchanged(each: dict[str, CallHolding], folder: Path) -> None:
    agents = {
        n: HolderAgent(n, None, PLAN, TASK, {"stage": "weights"}, aggregation=PLAIN_POLICY, letters=own)
        for n, own in each.items()
    }
    app = relay(lambda context: agents[str(context.node_config[NODE_NAME])])
    with journal_in(folder, PLAN) as journal:
        grid = InProcessGrid(app, list(agents))
        Coordinator(grid, TASK, None, PLAN, run="test", journal=journal).exchange(STAGE, exchange_phases(STUDY))


def test_those_who_came_from_another_operator_are_not_new(tmp_path: Path) -> None:
    each = holdings(tmp_path / "city")
    exchanged(each, tmp_path)
    north, south = each["north"].matching, each["south"].matching
    assert north is not None
    assert south is not None
    assert dict(zip(north.corrected()["person"], north.corrected()["group"], strict=True)) == {
        1: NONE, 2: NEW, 3: NEW, 4: NEW,
    }  # fmt: skip
    assert north.still_there().tolist() == [3]
    assert south.corrected()["group"].tolist() == [SETTLED, NONE, NEW, SETTLED]
    assert south.still_there().size == 0


def test_a_restarted_operator_reads_the_same_answers(tmp_path: Path) -> None:
    """The journal delivers answers to a question of before; its keys are derived anew."""
    exchanged(holdings(tmp_path / "city"), tmp_path)
    again = holdings(tmp_path / "city2")
    exchanged(again, tmp_path)
    assert again["north"].matching is not None
    assert again["north"].matching.corrected()["group"].tolist() == [NONE, NEW, NEW, NEW]


def test_matching_needs_consent_identities_and_questions_left(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefusedError, match="asked for, and the policy has"):
        holdings(tmp_path / "a", policy=PushPolicy(allow="threshold"))
    with pytest.raises(PolicyRefusedError, match='tells "bits"'):
        holdings(tmp_path / "b", policy=PushPolicy(matching="cardinality"))
    each = holdings(tmp_path / "c", book=QuestionBook(2, {"north": 1}))
    assert each["north"].matching is not None
    assert each["south"].matching is not None
    question = each["north"].matching.question(HEADER, "south")
    with pytest.raises(RefusedError, match="asked 2 questions"):
        each["south"].matching.answer(HEADER, "north", question)
    with pytest.raises(ProtocolError, match="no questions"):
        each["south"].write(HEADER, "answers")
    del each["north"].records.people["identity"]
    with pytest.raises(DataError, match="no identities"):
        CallHolding("north", each["north"].records, None, STUDY, key=KEYS_OF["north"], policy=ANSWERING)  # type: ignore[arg-type]


def test_the_same_question_gets_the_same_answer_and_is_charged_once(tmp_path: Path) -> None:
    each = holdings(tmp_path / "city")
    north, south = each["north"].matching, each["south"].matching
    assert north is not None
    assert south is not None
    question = north.question(HEADER, "south")
    assert north.question(HEADER, "south") == question
    assert south.answer(HEADER, "north", question) == south.answer(HEADER, "north", question)
