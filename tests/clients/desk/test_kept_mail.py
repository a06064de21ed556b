"""Mail that is kept: the same again after a crash, read again in order, nothing answered twice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clients.desk.kept_mail import KeptMail, KeptQuestions
from protocol.errors import LedgerError, ProtocolError, RefusedError, StorageError
from protocol.records import Header

HEADER = Header(run="run", plan_hash="0" * 64, stage="exchange")
PHASES = ("keys", "pushes")


class Letters:
    """Counts what it is asked for; no two letters are alike."""

    def __init__(self) -> None:
        self.written = 0
        self.inboxes: list[tuple[str, dict[str, bytes]]] = []

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        self.written += 1
        return {"east": os.urandom(16)}

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        if not inbox:
            raise ProtocolError("mail is missing")
        self.inboxes.append((phase, dict(inbox)))

    def tables(self) -> Any:
        return list(self.inboxes)


def test_a_holder_started_anew_sends_the_same_and_reads_it_all_again(tmp_path: Path) -> None:
    mail = KeptMail(Letters(), tmp_path / "mail", PHASES)
    sent = mail.write(HEADER, "keys")
    mail.read(HEADER, "keys", {"east": b"key"})
    mail.read(HEADER, "pushes", {"east": b"\x00\xff"})
    again = Letters()
    anew = KeptMail(again, tmp_path / "mail", PHASES)
    assert anew.write(HEADER, "keys") == sent
    assert again.written == 0
    assert anew.tables() == [("keys", {"east": b"key"}), ("pushes", {"east": b"\x00\xff"})]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "mail").iterdir())


def test_mail_of_another_stage_is_written_anew(tmp_path: Path) -> None:
    mail = KeptMail(Letters(), tmp_path / "mail", PHASES)
    other = Header(run="run", plan_hash="1" * 64, stage="exchange")
    assert mail.write(HEADER, "keys") != mail.write(other, "keys")


def test_nothing_is_trained_on_before_the_exchange_is_over(tmp_path: Path) -> None:
    mail = KeptMail(Letters(), tmp_path / "mail", PHASES)
    with pytest.raises(ProtocolError, match="phase 'keys'"):
        mail.tables()
    mail.read(HEADER, "keys", {"east": b"key"})
    with pytest.raises(ProtocolError, match="phase 'pushes'"):
        mail.tables()
    with pytest.raises(ProtocolError, match="missing"):
        mail.read(HEADER, "pushes", {})
    with pytest.raises(ProtocolError, match="phase 'pushes'"):
        KeptMail(Letters(), tmp_path / "mail", PHASES).tables()  # what was not taken in was not kept
    assert KeptMail(Letters(), tmp_path / "mail", PHASES, tables=lambda: "own rows").tables() == "own rows"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"header": {}, "mail": {}}', b'{"mail": {"east": "%%"}}'])
def test_damaged_mail_is_named(content: bytes, tmp_path: Path) -> None:
    KeptMail(Letters(), tmp_path / "mail", PHASES).read(HEADER, "keys", {"east": b"key"})
    (kept,) = (tmp_path / "mail").iterdir()
    kept.write_bytes(content)
    with pytest.raises(ProtocolError, match="damaged"):
        KeptMail(Letters(), tmp_path / "mail", PHASES)


def test_mail_that_cannot_be_kept_does_not_leave(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(b"a file in the way")
    with pytest.raises(StorageError, match="make room"):
        KeptMail(Letters(), tmp_path / "mail", PHASES).write(HEADER, "keys")


def test_questions_are_counted_over_runs_and_starts(tmp_path: Path) -> None:
    path = tmp_path / "ledgers" / "questions.json"
    KeptQuestions(path, period="2026", most=2).charge("east")
    book = KeptQuestions(path, period="2026", most=2)
    book.charge("east")
    book.charge("west")
    with pytest.raises(RefusedError, match="2 questions"):
        KeptQuestions(path, period="2026", most=2).charge("east")
    assert KeptQuestions(path, period="2027", most=2).asked == {}
    path.write_bytes(b'{"asked": {"east": "often"}, "period": "2026"}')
    with pytest.raises(LedgerError, match="damaged"):
        KeptQuestions(path, period="2026", most=2)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="nothing is answered"):
        KeptQuestions(path, period="2026", most=2).charge("east")
