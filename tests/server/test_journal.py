"""A round is in the journal whole or not at all, and nothing but this run's own journal is continued."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import RunFolderError, StorageError
from server.journal import Journal, RoundRecord, best_of

RUN, PLAN = "tiny-s0", "a" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path, run=RUN, plan_hash=PLAN) as opened:
        yield opened


def commit(journal: Journal, number: int, error: float | None, *, best: int, stage: str = "pooled") -> None:
    journal.commit_round(
        stage,
        RoundRecord(round=number, loss=1.0 / number, error=error),
        best_round=best,
        weights={"w": np.full(3, number, dtype=np.float32)},
        strategy={"first:w": np.full(3, -number, dtype=np.float32)},
        holder_states={"north": bytes([number])},
    )


def test_checkpoint_has_last_and_best_round(journal: Journal) -> None:
    for number, error in enumerate((0.5, 0.2, 0.3), start=1):
        commit(journal, number, error, best=min(number, 2))
    found = journal.checkpoint("pooled")
    assert found is not None
    assert [record.error for record in found.records] == [0.5, 0.2, 0.3]
    assert found.best_round == 2
    assert found.weights["w"].tolist() == [3, 3, 3]
    assert found.best_weights["w"].tolist() == [2, 2, 2]
    assert found.strategy["first:w"].tolist() == [-3, -3, -3]
    assert journal.holder_states("pooled") == {"north": b"\x03"}


def test_without_validation_the_last_round_counts(journal: Journal) -> None:
    for number in (1, 2):
        commit(journal, number, None, best=0)
    found = journal.checkpoint("pooled")
    assert found is not None
    assert found.best_round == 0
    assert found.best_weights["w"].tolist() == [2, 2, 2]


def test_old_weights_are_dropped(journal: Journal, path: Path) -> None:
    """The journal of a long run does not grow with its rounds, but for a line each."""
    for number in range(1, 6):
        commit(journal, number, 1.0 - number / 10, best=number)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT round FROM rounds WHERE weights IS NOT NULL").fetchall() == [(5,)]
    db.close()


def test_stages_are_apart(journal: Journal) -> None:
    commit(journal, 1, 0.5, best=1)
    assert journal.checkpoint("federated, weights") is None
    assert journal.totals("pooled") is None
    assert journal.result("pooled") is None


def test_results_come_back_as_they_were(journal: Journal) -> None:
    """Alone or all together, without the digest that they are stored with."""
    values = {"pooled": b"one", "federated, weights": b""}
    for stage, value in values.items():
        journal.save_result(stage, value)
    assert journal.results() == values
    assert {stage: journal.result(stage) for stage in values} == values


def test_cut_inside_a_round_leaves_the_round_before(journal: Journal) -> None:
    """Weights, strategy and the holders' states of a round belong together."""
    commit(journal, 1, 0.5, best=1)

    class Torn(dict[str, bytes]):
        def items(self):  # type: ignore[no-untyped-def]
            yield "north", b"\x09"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.commit_round(
            "pooled", RoundRecord(round=2, loss=0.1, error=0.1), best_round=2, weights={"w": np.zeros(3, np.float32)},
            strategy={}, holder_states=Torn(),
        )  # fmt: skip
    found = journal.checkpoint("pooled")
    assert found is not None
    assert len(found.records) == 1
    assert found.weights["w"].tolist() == [1, 1, 1]
    assert journal.holder_states("pooled") == {"north": b"\x01"}
    commit(journal, 2, 0.4, best=2)


def test_arrays_come_back_as_they_were(journal: Journal, path: Path) -> None:
    totals = {"gram": np.arange(6.0).reshape(2, 3).T, "cells": np.array(7)}
    journal.save_totals("pooled", totals)
    journal.save_result("pooled", b"score")
    with Journal(path, run=RUN, plan_hash=PLAN) as again:
        found = again.totals("pooled")
        assert found is not None
        assert found.keys() == totals.keys()
        assert all(np.array_equal(found[name], totals[name]) for name in totals)
        assert again.result("pooled") == b"score"


@pytest.mark.parametrize(("run", "plan"), [("other-s0", PLAN), (RUN, "b" * 64)])
def test_journal_of_another_run_is_refused(journal: Journal, path: Path, run: str, plan: str) -> None:
    before = path.read_bytes()
    with pytest.raises(RunFolderError, match="resume with the run's own plan"):
        Journal(path, run=run, plan_hash=plan)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as one" * 40])
def test_file_that_is_no_journal_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="not a readable journal"):
        Journal(path, run=RUN, plan_hash=PLAN)
    assert path.read_bytes() == content


def test_torn_journal_is_refused(path: Path) -> None:
    with Journal(path, run=RUN, plan_hash=PLAN) as journal:
        journal.save_result("pooled", bytes(20_000))
    path.write_bytes(path.read_bytes()[:8_192])
    with pytest.raises(RunFolderError, match="not a readable journal"):
        Journal(path, run=RUN, plan_hash=PLAN)


def test_changed_value_is_refused(path: Path) -> None:
    """One flipped bit in stored weights is found before anybody trains on them."""
    with Journal(path, run=RUN, plan_hash=PLAN) as journal:
        journal.save_result("pooled", b"the score of pooled training")
    whole = path.read_bytes()
    assert whole.count(b"pooled training") == 1
    path.write_bytes(whole.replace(b"pooled training", b"pooled trainiog"))
    with Journal(path, run=RUN, plan_hash=PLAN) as journal, pytest.raises(RunFolderError, match="SHA-256"):
        journal.result("pooled")


def test_best_round_is_the_first_of_equals() -> None:
    records = tuple(RoundRecord(round=n, loss=0.0, error=e) for n, e in ((1, 0.3), (2, 0.1), (3, 0.1)))
    assert best_of(records) == 2
    assert best_of(()) == 0


def test_sessions_and_sums_come_back_in_order(journal: Journal) -> None:
    """In the order of making, whatever their numbers are; each stage on its own."""
    late, early = b"\x02" * 16, b"\x01" * 16
    journal.save_session("train", late, b"first")
    journal.save_session("other", early, b"of another stage")
    journal.save_session("train", early, b"second")
    for sequence, record in ((10, b"ten"), (9, b"nine")):
        journal.save_sum("train", late, sequence, record)
    journal.save_sum("train", early, 1, b"one")
    journal.save_sum("lost", early, 1, b"a sum whose session is gone")
    assert journal.masked_stages() == ("train", "other", "lost")
    assert journal.sessions("train") == [(late, b"first"), (early, b"second")]
    assert list(journal.sums("train", late)) == [(10, b"ten"), (9, b"nine")], "as they were opened"
    assert journal.masked_sums("train") == [(late, 10), (late, 9), (early, 1)]
    assert journal.masked_sum("train", late, 9) == b"nine"
    with pytest.raises(RunFolderError, match="sum 11 of 'train' is not there"):
        journal.masked_sum("train", late, 11)
    assert list(journal.sums("other", early)) == []


def test_a_recorded_sum_is_never_replaced(journal: Journal) -> None:
    journal.save_session("train", b"s" * 16, b"begun")
    journal.save_sum("train", b"s" * 16, 1, b"sum")
    with pytest.raises(RunFolderError, match="already"):
        journal.save_session("train", b"s" * 16, b"begun otherwise")
    with pytest.raises(RunFolderError, match="already"):
        journal.save_sum("train", b"s" * 16, 1, b"another sum")
    assert list(journal.sums("train", b"s" * 16)) == [(1, b"sum")]


def test_a_changed_record_is_refused(journal: Journal, path: Path) -> None:
    journal.save_session("train", b"s" * 16, b"begun")
    journal.save_sum("train", b"s" * 16, 1, b"sum")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sums SET record = CAST(record || X'00' AS BLOB)")
        db.execute("UPDATE sessions SET record = CAST(record || X'00' AS BLOB)")
    db.close()
    with pytest.raises(RunFolderError, match="SHA-256"):
        list(journal.sums("train", b"s" * 16))
    with pytest.raises(RunFolderError, match="SHA-256"):
        journal.sessions("train")


def test_a_journal_of_an_older_run_is_continued(journal: Journal, path: Path) -> None:
    """One that was begun before there were masked sums gets their tables when it is opened."""
    commit(journal, 1, 0.5, best=1)
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE sessions; DROP TABLE sums")
    db.close()
    with Journal(path, run=RUN, plan_hash=PLAN) as again:
        assert again.masked_stages() == ()
        assert again.checkpoint("pooled") is not None


def test_the_start_of_a_stage_comes_back(journal: Journal) -> None:
    assert journal.start("pooled") is None
    journal.save_start("pooled", {"w": np.arange(3, dtype=np.float32)})
    found = journal.start("pooled")
    assert found is not None
    assert found["w"].dtype == np.float32
    assert found["w"].tolist() == [0, 1, 2]


def test_reading_changes_nothing(journal: Journal, path: Path) -> None:
    """Not a byte, whatever is read; and nothing can be written."""
    commit(journal, 1, 0.5, best=1)
    journal.__exit__(None, None, None)
    before = path.read_bytes()
    with Journal(path, run=RUN, plan_hash=PLAN, read_only=True) as again:
        assert again.checkpoint("pooled") is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            again.save_result("pooled", b"")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_reading_sees_what_a_killed_writer_left(journal: Journal, path: Path) -> None:
    """What is still in the write-ahead log is read too."""
    commit(journal, 1, 0.5, best=1)
    assert path.with_name(f"{path.name}-wal").is_file()
    with Journal(path, run=RUN, plan_hash=PLAN, read_only=True) as again:
        assert again.checkpoint("pooled") is not None


def test_damage_that_shows_while_reading_is_named(journal: Journal, path: Path) -> None:
    """A table that is gone, say, is a damaged journal and no crash."""
    journal.__exit__(None, None, None)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE sums")
    db.close()
    with (
        pytest.raises(RunFolderError, match="no such table"),
        Journal(path, run=RUN, plan_hash=PLAN, read_only=True) as again,
    ):
        list(again.sums("train", bytes(16)))


def test_a_full_disk_is_no_damage(path: Path) -> None:
    """What was committed stays, and the run can be resumed once there is room."""
    full = Journal(path, run=RUN, plan_hash=PLAN)
    full.save_start("train", {"w": np.ones(3)})
    full._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StorageError, match=r"database or disk is full.*make room, then resume"), full:
        full.save_start("other", {"w": np.zeros(100_000)})
    with Journal(path, run=RUN, plan_hash=PLAN) as again:
        start = again.start("train")
        assert start is not None
        assert start["w"].tolist() == [1, 1, 1]
        assert again.start("other") is None


def test_reading_makes_no_journal(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not there"):
        Journal(tmp_path / "none.sqlite", run=RUN, plan_hash=PLAN, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_journal_of_another_plan_is_refused(journal: Journal, path: Path) -> None:
    del journal
    with pytest.raises(RunFolderError, match="belongs to run"):
        Journal(path, run=RUN, plan_hash="b" * 64, read_only=True)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE rounds SET metrics = '{'",
        "UPDATE rounds SET metrics = '{\"odd\": 1}'",
        "UPDATE rounds SET weights = NULL",
    ],
)
def test_a_damaged_round_is_refused(journal: Journal, path: Path, damage: str) -> None:
    commit(journal, 1, 0.5, best=1)
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(RunFolderError, match="not a readable journal"):
        journal.checkpoint("pooled")
