"""A whole federation's files pass; every kind of damage is found, and named by its place."""

from __future__ import annotations

import json
import sqlite3
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clients.service.outbox import Outbox, Sent
from privacy.ledger import Witness
from privacy.ledger_book import reserved_body, served_body
from privacy.ledger_lines import Head, digest, encode_head, encode_line
from server.journal import Journal, RoundRecord
from simulations.deployment.invariants import (
    broken_journal,
    broken_ledgers,
    broken_outbox,
    drafts_in,
    other_files,
    rounds_in,
    spent_in,
    torn_files,
    witnessed,
)
from tests.ledgers import KEY, gaussian_cost, new_ledger

WEIGHTS = {"w": np.arange(3.0)}


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    """A holder with one ledger of four lines: opened, reserved, served twice."""
    folder = tmp_path / "north"
    with new_ledger(folder / "ledgers" / "person" / "ledger") as ledger:
        ledger.reserve("spring", gaussian_cost("1/1000"), request="plan", rounds=3)
        for number in (1, 2):
            ledger.serve("spring", number, request=f"round {number}", produce=lambda: b"noisy")
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two stages, of two rounds and of one; one witness."""
    path = tmp_path / "journal.sqlite"
    with Journal(path, run="run", plan_hash="plan") as book:
        for stage, number in (("first", 1), ("first", 2), ("second", 1)):
            record = RoundRecord(round=number, loss=1.0, error=None)
            book.commit_round(
                stage, record, best_round=0, weights=WEIGHTS, strategy=WEIGHTS, holder_states={"north": b"state"}
            )
        book.save_totals("first", WEIGHTS)
        book.save_witness("north", 4, "a" * 64)
    return path


def lines_of(holder: Path) -> Path:
    return holder / "ledgers" / "person" / "ledger" / "ledger.jsonl"


def heads(holder: Path) -> list[Witness]:
    lines = lines_of(holder).read_bytes().splitlines()
    return [Witness(number, digest(line)) for number, line in enumerate(lines, start=1)]


def appended(holder: Path, kind: str, body: dict[str, object]) -> None:
    """A line that the program itself would never write, with a signature and a head that are right."""
    path = lines_of(holder)
    lines = path.read_bytes().splitlines()
    last = json.loads(lines[-1])
    line = encode_line(
        KEY, seq=len(lines) + 1, previous=digest(lines[-1]), time=last["time"] + 1, kind=kind, body=body
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + line)
    path.with_name("ledger.head").write_bytes(encode_head(KEY, Head(len(lines) + 1, digest(line[:-1]))))


def changed(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


def test_a_sound_ledger_passes_with_all_that_was_seen_of_it(holder: Path) -> None:
    assert broken_ledgers(holder, heads(holder)) == []
    (spent,) = spent_in(holder).values()
    assert (spent.releases, spent.campaigns, spent.cap, spent.epsilon) == (2, 1, Fraction(2), Fraction(1, 2))


def test_an_overspent_ledger_is_found(holder: Path) -> None:
    """Even where every signature is right: the holder's own program gone wrong."""
    body = reserved_body("too much", gaussian_cost(10, 50), request="plan", rounds=1)
    appended(holder, "reserved", body)
    (found,) = broken_ledgers(holder)
    assert "asks for epsilon 50" in found


def test_a_round_that_was_served_twice_is_found(holder: Path) -> None:
    appended(holder, "served", served_body("spring", 2, request="round 2", blob=digest(b"other noise")))
    (found,) = broken_ledgers(holder)
    assert "served twice" in found


def test_a_ledger_that_was_put_back_is_found_by_who_saw_it(holder: Path) -> None:
    seen = heads(holder)[-1]
    path = lines_of(holder)
    kept = path.read_bytes().splitlines(keepends=True)[:-1]
    path.write_bytes(b"".join(kept))
    path.with_name("ledger.head").write_bytes(encode_head(KEY, Head(len(kept), digest(kept[-1][:-1]))))
    assert broken_ledgers(holder) == []
    assert broken_ledgers(holder, [seen]) == [f"{holder}: no ledger went through {seen}, which somebody saw"]


@pytest.mark.parametrize("damage", ["lines", "head", "release", "lost release", "torn"])
def test_a_damaged_ledger_is_found(holder: Path, damage: str) -> None:
    place = lines_of(holder).parent
    release = next((place / "served").iterdir())
    if damage == "lines":
        place.joinpath("ledger.jsonl").write_bytes(
            place.joinpath("ledger.jsonl").read_bytes().replace(b"spring", b"sprint")
        )
    elif damage == "head":
        place.joinpath("ledger.head").write_bytes(b"")
    elif damage == "release":
        release.write_bytes(b"less noise")
    elif damage == "lost release":
        release.unlink()
    else:
        place.joinpath("ledger.jsonl").write_bytes(place.joinpath("ledger.jsonl").read_bytes() + b'{"body"')
    assert len(broken_ledgers(holder)) == 1


def test_a_sound_journal_passes_and_is_not_touched(journal: Path) -> None:
    before = sorted(path.name for path in journal.parent.iterdir())
    assert broken_journal(journal) == []
    assert rounds_in(journal) == {"first": 2, "second": 1}
    assert witnessed(journal) == {"north": Witness(4, "a" * 64)}
    assert sorted(path.name for path in journal.parent.iterdir()) == before


def test_what_a_killed_writer_left_in_its_log_counts(journal: Path) -> None:
    writer = sqlite3.connect(journal, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("DELETE FROM rounds WHERE stage = 'first' AND round = 1")
    assert any("rounds [2]" in found for found in broken_journal(journal))
    writer.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM rounds WHERE stage = 'first' AND round = 1", "rounds [2], not 1 to 1"),
        ("UPDATE rounds SET round = 4 WHERE stage = 'second'", "rounds [4], not 1 to 1"),
        ("UPDATE rounds SET weights = NULL", "no weights of its last round"),
        ("UPDATE totals SET arrays = CAST(x'00' || arrays AS BLOB)", "totals.arrays differs"),
        ("UPDATE holder_states SET state = zeroblob(40)", "holder_states.state differs"),
    ],
    ids=str,
)
def test_a_journal_with_gaps_or_changes_is_found(journal: Path, statement: str, words: str) -> None:
    changed(journal, statement)
    assert any(words in found for found in broken_journal(journal))


def test_a_journal_that_is_none_is_found(journal: Path) -> None:
    journal.write_bytes(b"nothing that SQLite would write" * 100)
    (found,) = broken_journal(journal)
    assert "cannot be read" in found


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Two answers to rounds and one refusal."""
    path = tmp_path / "outbox.jsonl"
    with Outbox(path) as log:
        for code in ("", "", "PolicyRefusedError"):
            kind = "refusal" if code else "TrainReply"
            log.write(Sent(run="run", stage="first", message_type="train", kind=kind, bytes=3, code=code))
    return path


def test_a_log_of_what_left_passes_with_the_rounds_that_were_made_of_it(outbox: Path) -> None:
    assert broken_outbox(outbox, {"run": 2}) == []
    assert broken_outbox(outbox.with_name("none"), {}) == []


def test_a_round_made_of_what_never_left_is_found(outbox: Path) -> None:
    (found,) = broken_outbox(outbox, {"run": 3})
    assert "2 answers to rounds of run left, and 3 rounds were made" in found


def test_a_changed_log_of_what_left_is_found(outbox: Path) -> None:
    outbox.write_bytes(outbox.read_bytes().replace(b'"bytes":3', b'"bytes":4', 1))
    assert len(broken_outbox(outbox, {})) == 1


def test_whole_files_pass(holder: Path, journal: Path) -> None:
    folder = journal.parent
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "card.json").write_text("{}")
    (folder / ".card.json.part").write_text("{")
    (folder / "unknown.bin").write_bytes(b"\0")
    assert torn_files(folder) == []
    assert drafts_in(folder) == [folder / ".card.json.part"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("card.json", b'{"a": 1'), ("outbox.jsonl", b'{"a": 1}\n{"b"'), ("outbox.jsonl", b'{"a": 1}\n{"b": 2}'),
        ("plan.toml", b"[run"), ("journal.sqlite", b"SQLite format 3\0" + b"\1" * 400),
        ("model.safetensors", b"\0" * 4), ("counts.parquet", b"PAR1"),
        ("ca.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n"), ("node.key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("ca.pem", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_torn_files_are_found(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (found,) = torn_files(tmp_path)
    assert found.startswith(str(tmp_path / name))


def test_models_that_differ_are_found(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("a", "b", "c", "d")}
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        folders[name].mkdir()
        (folders[name] / "model").write_bytes(content)
    c, d = other_files(folders, "model")
    assert c.startswith("c: model has SHA-256")
    assert d == "d: has no model"
    assert other_files({name: folders[name] for name in ("a", "b")}, "model") == []
