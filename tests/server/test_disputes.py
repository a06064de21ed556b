"""Under dispute, a holder shows what it put into the last sum if its policy allows it, and what it shows is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.policy import AggregationPolicy
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import Contribution, Opening
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord, verify_sum
from protocol.errors import PlanError, RunFolderError, TrainingError, TranscriptError
from protocol.plan import Plan
from server.disputes import Dispute, judged
from server.journal import Journal
from server.rounds import Coordinator, Stage
from simulations.holders import SimulatedHolders
from tests.federation import coordinator, journal_in, make_holders
from tests.masked_sums import Session, SumRun, identity, new_session
from tests.plans import tiny_plan
from tests.server.test_replay import repeated

UPDATE = {"w": np.array([0.5, -0.25, 0.125])}
LAYOUT = Layout.for_update({"w": (3,)}, clip_norm=1.0, holders=3)


def summed(
    words: Mapping[str, np.ndarray], *, committed: Mapping[str, np.ndarray] | None = None
) -> tuple[SumRecord, SumRun, dict[str, bytes]]:
    """A sum of these words among honest holders but for those that commit to others, and what each would show."""
    claimed = committed or {}

    def on_its_way(kind: str, name: str, message: bytes) -> bytes:
        if kind != "contribution" or name not in claimed:
            return message
        given = Contribution.from_bytes(message)
        changed = replace(given, commitment=opening_of(name, given.context, claimed[name]).commitment())
        return replace(changed, signature=identity(name).sign(changed.statement())).to_bytes()

    session = new_session(3, hook=on_its_way)
    run = SumRun(session, session.order(), words, layout=LAYOUT.to_bytes())
    run.contribute()
    run.reveal()
    run.total()
    shown = {
        name: opening_of(name, run.masked.context, claimed[name]).to_bytes() if name in claimed else holder.open()
        for name, holder in session.holders.items()
    }
    return record_of(run), run, shown


def opening_of(name: str, context: bytes, words: np.ndarray) -> Opening:
    return Opening(context=context, holder=name, salt=bytes(32), words=words.astype("<u4").tobytes())


def record_of(run: SumRun) -> SumRecord:
    arrived = {kind: {n: m for k, n, m in run.session.log if k == kind} for kind in ("contribution", "reveal")}
    return SumRecord(
        order=run.order.to_bytes(), contributions=arrived["contribution"], survivors=run.survivors.to_bytes(),
        signatures={}, reveals=arrived["reveal"],
    )  # fmt: skip


def session_record(session: Session) -> SessionRecord:
    return SessionRecord(
        terms=session.terms.to_bytes(), roster=session.roster.members, adverts=session.enrolment.adverts,
        confirmations=session.enrolment.confirmations,
    )  # fmt: skip


def judgement(
    words: Mapping[str, np.ndarray],
    *,
    committed: Mapping[str, np.ndarray] | None = None,
    silent: tuple[str, ...] = (),
    instead: Mapping[str, bytes] | None = None,
) -> Dispute:
    record, run, shown = summed(words, committed=committed)
    found = verify_sum(session_record(run.session), record)
    shown |= instead or {}
    openings = {name: opening for name, opening in shown.items() if name not in silent}
    return judged(record, found, openings, dict.fromkeys(silent, "not allowed"))


def honest() -> dict[str, np.ndarray]:
    return dict.fromkeys(("h00", "h01", "h02"), LAYOUT.encode(UPDATE))


FAR = np.full(3, 2**31 - 1, dtype=np.uint32)


def test_honest_holders_show_what_adds_up() -> None:
    found = judgement(honest())
    assert found.adds_up is True
    assert (dict(found.refused), dict(found.false), found.beyond) == ({}, {}, ())
    assert {name: words.tolist() for name, words in found.shown.items()} == {n: w.tolist() for n, w in honest().items()}
    assert "3 holders show what they committed to; all of it adds up" in found.in_words()


def test_a_holder_whose_words_nobody_can_have_is_named() -> None:
    """Whoever put in an update beyond the clip norm and committed to it."""
    found = judgement(honest() | {"h01": FAR})
    assert found.beyond == ("h01",)
    assert found.adds_up is True
    assert "h01 committed to words that no honest holder can have" in found.in_words()


def test_a_holder_that_commits_to_other_words_than_it_masks_spoils_the_sum_of_openings() -> None:
    """It shows something harmless; that somebody lied is seen, and who did is not."""
    found = judgement(honest() | {"h01": FAR}, committed={"h01": LAYOUT.encode(UPDATE)})
    assert (found.beyond, found.adds_up) == ((), False)
    assert "does not add up to the sum: somebody masked other words" in found.in_words()


def test_words_that_were_not_committed_to_are_false() -> None:
    found = judgement(honest(), instead={"h02": opening_of("h02", bytes(32), FAR).to_bytes(), "h00": b"nothing"})
    assert found.false.keys() == {"h00", "h02"}
    assert found.shown.keys() == {"h01"}
    assert found.adds_up is None
    assert "h02, h00 show something else" in found.in_words() or "h00, h02 show something else" in found.in_words()


def test_who_shows_nothing_proves_nothing() -> None:
    found = judgement(honest(), silent=("h00",))
    assert found.refused == {"h00": "not allowed"}
    assert found.adds_up is None
    assert "h00 show nothing, which proves nothing" in found.in_words()


def disputed(plan: Plan, folder: Path, *, allow: tuple[str, ...]) -> tuple[SimulatedHolders, Coordinator, Journal]:
    """A training to its end, among holders of whom some show things under dispute."""
    holders = make_holders(plan)
    for name in allow:
        holders.masking[name].policy = AggregationPolicy(openings=True)
    journal = journal_in(folder, plan)
    made = coordinator(plan, holders, journal)
    made.run_stage(holders.stage)
    return holders, made, journal


@pytest.mark.slow
def test_policies_decide_who_shows_its_part(tmp_path: Path) -> None:
    """By default nobody does. What is shown is in the journal, and rechecked with the run."""
    plan = tiny_plan()
    holders, asking, journal = disputed(plan, tmp_path, allow=("east", "north"))
    with journal:
        found = asking.dispute(holders.stage)
        assert found.label == "evaluate 2"
        assert found.shown.keys() == {"east", "north"}
        assert "does not show what it put into a sum" in found.refused["west"]
        ((session, _),) = journal.sessions("stage")
        assert journal.openings("stage", session, 5).keys() == {"east", "north"}
        with pytest.raises(RunFolderError, match="already"):
            asking.dispute(holders.stage)
    recorded, _ = repeated(plan, tmp_path)
    assert recorded.counts.openings == 2
    with journal_in(tmp_path, plan) as journal:
        journal._db.execute("DELETE FROM openings")
        journal.save_opening("stage", session, 5, "east", opening_of("east", bytes(32), FAR).to_bytes())
    with pytest.raises(TranscriptError, match="'east' shows a part of another sum") as error:
        repeated(plan, tmp_path)
    assert error.value.sequence == 5


@pytest.mark.slow
def test_all_parts_add_up_to_the_last_sum(tmp_path: Path) -> None:
    plan = tiny_plan()
    holders, asking, journal = disputed(plan, tmp_path, allow=("east", "north", "west"))
    with journal:
        assert asking.dispute(holders.stage).adds_up is True
        with pytest.raises(TrainingError, match="no session of stage 'other'"):
            asking.dispute(Stage(name="other", share="weights"))


def test_without_masks_there_is_no_dispute(tmp_path: Path) -> None:
    plan = tiny_plan().unmasked()
    holders = make_holders(plan)
    with journal_in(tmp_path, plan) as journal, pytest.raises(PlanError, match="nothing that was hidden"):
        coordinator(plan, holders, journal).dispute(holders.stage)
