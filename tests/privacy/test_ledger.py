"""The holder's ledger: what it admits, what it refuses, and that nothing is released which it did not record."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from privacy import ledger_file
from privacy.filters import ORDERS, UNBOUNDED, Cost
from privacy.ledger import Ledger, Terms, Witness, verify_ledger
from privacy.ledger_book import Campaign
from privacy.ledger_chain import Chain
from privacy.ledger_lines import (
    NO_LINE,
    Head,
    decode_head,
    decode_line,
    digest,
    encode_head,
    encode_line,
    from_text,
    public_hex,
    public_key_from_hex,
)
from protocol.errors import BudgetExceededError, LedgerError, PrivacyParameterError
from tests.ledgers import KEY, OTHER_KEY, START, TERMS, gaussian_cost, new_ledger, reopened, ticking

SMALL = gaussian_cost("1/1000", "1/10")


def never() -> bytes:
    raise AssertionError("this round must not be produced")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return new_ledger(tmp_path / "ledger")


@pytest.fixture
def folder(ledger: Ledger, tmp_path: Path) -> Path:
    """A ledger with one campaign and one served round."""
    ledger.reserve("spring", SMALL, request="plan", rounds=3)
    ledger.serve("spring", 1, request="first", produce=lambda: b"noisy")
    return tmp_path / "ledger"


# The acceptance rule


def test_first_campaign_may_use_the_whole_cap_by_the_exact_accountant(ledger: Ledger) -> None:
    """Its RDP may be far above the filter; then nothing else is ever admitted, and the refusal says what is left."""
    ledger.reserve("only", gaussian_cost(UNBOUNDED, TERMS.epsilon), request="plan", rounds=1)
    assert ledger.spent == TERMS.epsilon
    with pytest.raises(BudgetExceededError, match=r"nothing of epsilon 2: no further campaign") as refused:
        ledger.reserve("next", gaussian_cost("1/1000000", "1/1000000"), request="plan", rounds=1)
    assert refused.value.left == 0
    assert len(ledger.lines()) == 2


def test_first_campaign_above_the_cap_is_refused(ledger: Ledger) -> None:
    """However little its RDP is: the exact accountant decides, to the last digit."""
    with pytest.raises(BudgetExceededError, match="by the exact accountant") as refused:
        ledger.reserve("big", gaussian_cost("1/1000", TERMS.epsilon + Fraction(1, 10**9)), request="plan", rounds=1)
    assert (refused.value.requested, refused.value.left) == (pytest.approx(2), 2)
    assert "all of epsilon 2" in str(refused.value)
    assert len(ledger.lines()) == 1


def test_further_campaigns_go_through_the_filter(ledger: Ledger, tmp_path: Path) -> None:
    """The first counts too, its epsilon no longer: the filter's sums decide until nothing fits."""
    cost = gaussian_cost("1/200", "1/100")  # a tiny epsilon must not help
    with pytest.raises(BudgetExceededError, match="by the filter") as refused:  # noqa: PT012 -- which one is found out
        for number in range(1, 100):
            ledger.reserve(f"campaign {number}", cost, request="plan", rounds=1)
    assert refused.value.left == pytest.approx(float(ledger.left))
    admitted = len(ledger.lines()) - 1
    caps = ledger._chain.book.filter.caps
    fits = max(int(cap / (order * Fraction(1, 200))) for order, cap in zip(ORDERS, caps, strict=True))
    assert admitted == fits
    assert ledger.spent + ledger.left == TERMS.epsilon
    again = reopened(tmp_path / "ledger")
    assert (again.spent, again.left, again.left_in_words) == (ledger.spent, ledger.left, ledger.left_in_words)
    assert "by the filter" in ledger.left_in_words


def test_check_budget_changes_nothing(ledger: Ledger) -> None:
    ledger.check_budget("spring", SMALL)
    assert len(ledger.lines()) == 1
    with pytest.raises(BudgetExceededError):
        ledger.check_budget("spring", gaussian_cost("1/1000", 3))
    ledger.reserve("spring", gaussian_cost(UNBOUNDED, 2), request="plan", rounds=1)
    ledger.check_budget("spring", SMALL)  # reserved already, at more
    with pytest.raises(LedgerError, match="now costs more"):
        ledger.check_budget("spring", gaussian_cost(UNBOUNDED, 3))


# Reservations and rounds


def test_same_reservation_again_is_free_and_another_is_refused(folder: Path) -> None:
    again = reopened(folder)
    before = again.witness()
    again.reserve("spring", SMALL, request="plan", rounds=3)
    assert again.witness() == before
    with pytest.raises(LedgerError, match="never changed"):
        again.reserve("spring", SMALL, request="another plan", rounds=3)
    with pytest.raises(LedgerError, match="never changed"):
        again.reserve("spring", SMALL, request="plan", rounds=4)
    with pytest.raises(LedgerError, match="now costs more"):
        again.reserve("spring", gaussian_cost("1/999", "1/10"), request="plan", rounds=3)
    assert again.witness() == before


def test_a_round_is_produced_once(folder: Path) -> None:
    """A replay gives the stored bytes, in this process and in the next, and draws no noise."""
    again = reopened(folder)
    assert again.serve("spring", 1, request="first", produce=never) == b"noisy"
    with pytest.raises(LedgerError, match="was served for request first, not for second"):
        again.serve("spring", 1, request="second", produce=never)
    assert again.serve("spring", 2, request="second", produce=lambda: b"") == b""
    assert again.serve("spring", 2, request="second", produce=never) == b""


@pytest.mark.parametrize("number", [0, 4, -1, True, 1.0, "1"])
def test_rounds_outside_the_reservation_are_refused(folder: Path, number: Any) -> None:
    with pytest.raises(LedgerError, match="rounds 1 to 3 reserved"):
        reopened(folder).serve("spring", number, request="x", produce=never)


def test_nothing_is_served_without_reservation(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has no reservation"):
        ledger.serve("spring", 1, request="x", produce=never)


@pytest.mark.parametrize("rounds", [0, -1, 1.0, True, math.nan, 10**7])
def test_rounds_are_counted_in_whole_numbers(ledger: Ledger, rounds: Any) -> None:
    with pytest.raises(LedgerError, match="whole number"):
        ledger.reserve("spring", SMALL, request="plan", rounds=rounds)


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 201, None, ["a"]])
def test_names_can_be_printed(folder: Path, name: Any) -> None:
    again = reopened(folder)
    with pytest.raises(LedgerError, match="printable"):
        again.reserve(name, SMALL, request="plan", rounds=1)
    with pytest.raises(LedgerError, match="printable"):
        again.reserve("summer", SMALL, request=name, rounds=1)
    with pytest.raises(LedgerError, match="printable"):
        again.serve("spring", 2, request=name, produce=never)


def test_a_failed_production_releases_and_records_nothing(folder: Path) -> None:
    again = reopened(folder)
    before = again.witness(), sorted((folder / "served").iterdir())
    with pytest.raises(ZeroDivisionError):
        again.serve("spring", 2, request="x", produce=lambda: bytes(1 // 0))
    with pytest.raises(LedgerError, match="releases bytes, not str"):
        again.serve("spring", 2, request="x", produce=lambda: "text")  # pyright: ignore[reportArgumentType]
    assert (again.witness(), sorted((folder / "served").iterdir())) == before
    assert again.serve("spring", 2, request="x", produce=lambda: b"now") == b"now"


def test_production_cannot_use_the_ledger(folder: Path) -> None:
    again = reopened(folder)
    with pytest.raises(LedgerError, match="must not use its own ledger"):
        again.serve(
            "spring", 2, request="x", produce=lambda: again.serve("spring", 1, request="first", produce=never)
        )  # fmt: skip
    assert again.serve("spring", 2, request="x", produce=lambda: b"now") == b"now"


def test_a_changed_or_missing_release_is_not_served_anew(folder: Path) -> None:
    (blob,) = (folder / "served").iterdir()
    blob.write_bytes(b"noisz")
    with pytest.raises(LedgerError, match="was changed after round 1"):
        reopened(folder).serve("spring", 1, request="first", produce=never)
    with pytest.raises(LedgerError, match="was changed after round 1"):
        verify_ledger(folder)
    blob.unlink()
    with pytest.raises(LedgerError, match="cannot read"):
        reopened(folder).serve("spring", 1, request="first", produce=never)
    assert verify_ledger(folder).blobs_missing == 1


# The file


def test_files_are_for_their_owner_only(folder: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes.pop("ledger") == modes.pop("served") == 0o700
    assert set(modes) == {"ledger.jsonl", "ledger.head", "ledger.lock"}
    assert {*modes.values(), *(stat.S_IMODE(path.stat().st_mode) for path in (folder / "served").iterdir())} == {0o600}


def test_lines_are_canonical_and_hold_no_float(folder: Path) -> None:
    """Another program can check the chain with a SHA-256 and an Ed25519 alone."""

    def no_float(text: str) -> None:
        raise AssertionError(f"a float in the ledger: {text}")

    previous = "0" * 64
    for seq, text in enumerate((folder / "ledger.jsonl").read_bytes().splitlines(), start=1):
        values = json.loads(text, parse_float=no_float)
        assert (values["seq"], values["previous"]) == (seq, previous)
        assert json.dumps(values, sort_keys=True, separators=(",", ":")).encode() == text
        signature = bytes.fromhex(values.pop("signature"))
        unsigned = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        KEY.public_key().verify(signature, b"migrafed ledger line 1\n" + unsigned)
        previous = digest(text)


def test_opening_line_carries_terms_orders_and_key(folder: Path) -> None:
    body = verify_ledger(folder).lines[0].body
    assert (body["epsilon"], body["delta"]) == ("2/1", "1/10000000")
    assert (body["holder"], body["population"], body["period"]) == ("north", "subscribers", "2026")
    assert body["orders"] == list(ORDERS)
    assert body["public_key"] == public_hex(KEY.public_key())


def test_a_ledger_is_created_whole_and_once(folder: Path) -> None:
    with pytest.raises(LedgerError, match="cannot create"):
        new_ledger(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["ledger"]
    assert len(verify_ledger(folder).lines) == 3


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot create"):
        new_ledger(tmp_path / "file" / "ledger")


@pytest.mark.parametrize(
    "wrong",
    [
        {"holder": ""},
        {"population": " x"},
        {"period": "a\tb"},
        {"holder": 3},
        {"epsilon": Fraction(0)},
        {"delta": 1e-7},
    ],
)
def test_terms_are_checked_at_the_door(wrong: dict[str, Any]) -> None:
    good = {"holder": "h", "population": "p", "period": "t", "epsilon": Fraction(2), "delta": Fraction(1, 9)}
    with pytest.raises(PrivacyParameterError):
        Terms(**(good | wrong))


def test_another_key_and_another_holder_are_refused(folder: Path) -> None:
    with pytest.raises(LedgerError, match="belongs to somebody else"):
        Ledger.open(folder, key=OTHER_KEY)
    with pytest.raises(LedgerError, match="belongs to somebody else"):
        verify_ledger(folder, public_key=OTHER_KEY.public_key())
    with pytest.raises(LedgerError, match="ledger of 'north', not of 'south'"):
        Ledger.open(folder, key=KEY, holder="south")
    assert Ledger.open(folder, key=KEY, holder="north").terms == TERMS


def test_a_ledger_resigned_by_another_key_shows_to_who_knows_the_key(folder: Path, tmp_path: Path) -> None:
    """Consistent in itself: only the public key got in another way tells."""
    forged = tmp_path / "forged"
    Ledger.create(forged, TERMS, OTHER_KEY)
    verify_ledger(forged)
    with pytest.raises(LedgerError, match="belongs to somebody else"):
        verify_ledger(forged, public_key=KEY.public_key())


def test_no_ledger_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot read"):
        reopened(tmp_path)
    with pytest.raises(LedgerError, match="cannot read"):
        verify_ledger(tmp_path)


@pytest.mark.parametrize("name", ["ledger.head", "ledger.lock"])
def test_a_missing_part_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(LedgerError, match="cannot"):
        reopened(folder)


def test_a_closed_ledger_does_nothing(folder: Path) -> None:
    with reopened(folder) as again:
        assert again.spent == Fraction(1, 10)
    with pytest.raises(LedgerError, match="is closed"):
        again.serve("spring", 1, request="first", produce=never)


# What a crash leaves


def test_a_torn_tail_is_cut_off(folder: Path) -> None:
    """An incomplete line beyond the acknowledged ones: reported by a reader, cut off by the next writer."""
    lines = folder / "ledger.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole + b'{"body":{"campaign"')
    assert verify_ledger(folder).torn == 19
    again = reopened(folder)
    assert lines.read_bytes() == whole
    again.reserve("summer", SMALL, request="plan", rounds=1)
    assert verify_ledger(folder).torn == 0


def test_one_line_more_than_the_head_is_kept(folder: Path) -> None:
    """A crash between line and head: the spend counts, and the next writer moves the head on."""
    head = (folder / "ledger.head").read_bytes()
    reopened(folder).reserve("summer", SMALL, request="plan", rounds=1)
    (folder / "ledger.head").write_bytes(head)
    facts = verify_ledger(folder)
    assert (facts.acknowledged, facts.witness.length) == (3, 4)
    again = reopened(folder)
    assert verify_ledger(folder).acknowledged == 4
    again.reserve("summer", SMALL, request="plan", rounds=1)
    assert len(again.lines()) == 4


def test_a_line_found_is_on_the_disk_before_the_head_counts_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it ended before its fsync, perhaps; a power cut must not take it once the head counts it."""
    head = (folder / "ledger.head").read_bytes()
    reopened(folder).reserve("summer", SMALL, request="plan", rounds=1)
    (folder / "ledger.head").write_bytes(head)
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def noted_sync(file: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)  # noqa: PTH115 -- a number, not a path
        sync(file)

    def noted_replace(source: Path, target: Path) -> None:
        steps.append(f"replace {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    reopened(folder)
    assert steps == ["ledger.jsonl", ".ledger.head.new", "replace ledger.head", "ledger"]


def test_two_lines_more_than_the_head_are_not_from_a_crash(folder: Path) -> None:
    head = (folder / "ledger.head").read_bytes()
    again = reopened(folder)
    again.reserve("summer", SMALL, request="plan", rounds=1)
    again.reserve("autumn", SMALL, request="plan", rounds=1)
    (folder / "ledger.head").write_bytes(head)
    with pytest.raises(LedgerError, match="a crash leaves no more than one"):
        reopened(folder)
    with pytest.raises(LedgerError, match="a crash leaves no more than one"):
        verify_ledger(folder)
    with pytest.raises(LedgerError, match="a crash leaves no more than one"):
        again.check_witness(again.witness())


def test_a_line_more_and_a_part_of_another_are_not_from_a_crash(folder: Path) -> None:
    head = (folder / "ledger.head").read_bytes()
    reopened(folder).reserve("summer", SMALL, request="plan", rounds=1)
    (folder / "ledger.head").write_bytes(head)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b"{")
    with pytest.raises(LedgerError, match="and part of another"):
        reopened(folder)


# Rollback and fork


def test_removed_lines_show_without_any_witness(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    for read in (reopened, verify_ledger):
        with pytest.raises(LedgerError, match="3 lines of the ledger were acknowledged and 2 are there"):
            read(folder)


def test_a_rollback_with_its_head_shows_to_a_witness(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("ledger.*")}
    ledger = reopened(folder)
    ledger.reserve("summer", SMALL, request="plan", rounds=1)
    seen = ledger.witness()
    for name, content in before.items():
        (folder / name).write_bytes(content)
    with pytest.raises(LedgerError, match="was put back"):
        reopened(folder).check_witness(seen)
    with pytest.raises(LedgerError, match="was put back"):
        verify_ledger(folder, witness=seen)
    with pytest.raises(LedgerError):  # a process that had it open knows without any witness
        ledger.reserve("autumn", SMALL, request="plan", rounds=1)
    other = Ledger.open(folder, key=KEY, clock=ticking(START + 2 * 86_400 * 10**9))
    other.reserve("winter", SMALL, request="plan", rounds=1)
    with pytest.raises(LedgerError, match="a fork"):
        other.check_witness(seen)
    with pytest.raises(LedgerError, match="changed or put back"):
        ledger.reserve("autumn", SMALL, request="plan", rounds=1)


def test_a_head_put_back_by_one_shows_to_a_process_that_knew(folder: Path) -> None:
    head = (folder / "ledger.head").read_bytes()
    again = reopened(folder)
    again.reserve("summer", SMALL, request="plan", rounds=1)
    (folder / "ledger.head").write_bytes(head)
    with pytest.raises(LedgerError, match="put back from 4 lines to 3"):
        again.reserve("autumn", SMALL, request="plan", rounds=1)


def test_a_head_over_another_line_is_a_fork(folder: Path) -> None:
    (folder / "ledger.head").write_bytes(encode_head(KEY, Head(3, "0" * 64)))
    with pytest.raises(LedgerError, match="is not the one that was acknowledged"):
        reopened(folder)


def test_witnesses_that_agree(folder: Path) -> None:
    ledger = reopened(folder)
    early = ledger.witness()
    ledger.reserve("summer", SMALL, request="plan", rounds=1)
    ledger.check_witness(early)
    ledger.check_witness(ledger.witness())
    assert Witness.parse(str(early)) == early
    with pytest.raises(LedgerError, match="a fork"):
        ledger.check_witness(Witness(0, early.head))


@pytest.mark.parametrize("text", ["", "3", "0:" + "a" * 64, "3:" + "A" * 64, "-1:" + "a" * 64, "²:" + "a" * 64])
def test_a_witness_has_one_form(text: str) -> None:
    with pytest.raises(LedgerError, match="LENGTH:HASH"):
        Witness.parse(text)


# The clock


def test_a_clock_that_went_back_is_refused_with_both_times(folder: Path) -> None:
    """Before the round is produced, not after; reading and replays need no clock."""
    back = Ledger.open(folder, key=KEY, clock=lambda: START - 3600 * 10**9)
    with pytest.raises(LedgerError, match=r"says 2025-12-31 23:00:00 UTC.*written at 2026-01-01 00:00:"):
        back.serve("spring", 2, request="x", produce=never)
    with pytest.raises(LedgerError, match="clock"):
        back.reserve("summer", SMALL, request="plan", rounds=1)
    assert back.serve("spring", 1, request="first", produce=never) == b"noisy"
    assert len(verify_ledger(folder).lines) == 3


def test_a_small_step_back_is_tolerated_and_lines_stay_in_order(folder: Path) -> None:
    last = verify_ledger(folder).lines[-1].time
    near = Ledger.open(folder, key=KEY, clock=lambda: last - 10**9)
    near.reserve("summer", SMALL, request="plan", rounds=1)
    assert verify_ledger(folder).lines[-1].time == last


# A disk that fails


@pytest.mark.parametrize("name", ["write", "fsync"])
@pytest.mark.parametrize("failing_call", range(1, 9))
def test_a_full_disk_releases_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, failing_call: int
) -> None:
    """Whichever write or fsync of a release fails: an error, nothing returned, and the ledger goes on afterwards."""
    again = reopened(folder)
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def failing(file: int, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < failing_call:
            return real(file, *given)
        if name == "write" and calls == failing_call:
            return real(file, bytes(given[0])[:7])  # part of it still fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    answers: list[bytes] = []
    refusals: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing)
        try:
            answers.append(again.serve("spring", 2, request="x", produce=lambda: b"lost"))
        except LedgerError as error:
            refusals.append(str(error))
    for said in refusals:
        assert "No space left" in said
        assert "nothing was released" in said
    answers.append(again.serve("spring", 2, request="x", produce=lambda: b"fresh"))
    assert answers[0] == answers[-1]
    assert calls >= failing_call or not refusals
    assert reopened(folder).serve("spring", 2, request="x", produce=never) == answers[0]
    again.reserve("summer", SMALL, request="plan", rounds=1)
    assert verify_ledger(folder).torn == 0


def test_a_line_that_may_not_be_on_the_disk_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed fsync leaves nobody knowing; the spend is refused, and the file is as it was."""
    again, before = reopened(folder), (folder / "ledger.jsonl").read_bytes()

    def failing(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(LedgerError, match="cannot write the line"):
            again.reserve("summer", SMALL, request="plan", rounds=1)
    assert (folder / "ledger.jsonl").read_bytes() == before
    assert again.spent == reopened(folder).spent == Fraction(1, 10)


def test_a_line_that_cannot_be_taken_back_is_repaired_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = reopened(folder)
    real = os.write

    def half(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(file, bytes(data)[:20])

    def full(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        monkeypatch.setattr(os, "write", half)
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(LedgerError, match="cannot write the line"):
            again.reserve("summer", SMALL, request="plan", rounds=1)
        monkeypatch.setattr(os, "write", real)
        assert verify_ledger(folder).torn == 20
        with pytest.raises(LedgerError, match="cannot repair"):
            again.reserve("summer", SMALL, request="plan", rounds=1)
    again.reserve("summer", SMALL, request="plan", rounds=1)
    assert verify_ledger(folder).torn == 0


# Several writers


def test_two_processes_see_each_others_lines(folder: Path) -> None:
    one, two = reopened(folder), reopened(folder)
    one.reserve("summer", SMALL, request="plan", rounds=1)
    two.reserve("autumn", SMALL, request="plan", rounds=1)
    two.serve("summer", 1, request="x", produce=lambda: b"by two")
    assert one.serve("summer", 1, request="x", produce=never) == b"by two"
    assert one.lines() == two.lines()


@pytest.mark.parametrize("held", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_writer_that_waits_too_long_is_refused(folder: Path, held: int) -> None:
    """A writer is alone: it waits for whoever holds the lock in any way."""
    with (folder / "ledger.lock").open("r+b") as lock:
        fcntl.flock(lock, held)
        with pytest.raises(LedgerError, match="another process has been writing"):
            Ledger.open(folder, key=KEY, patience=0.05)
        assert len(verify_ledger(folder).lines) == 3  # readers do not wait


def test_a_lock_that_cannot_be_taken_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_lock: int, operation: int) -> None:
        if operation != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(LedgerError, match="No locks available"):
        reopened(folder)


def test_threads_take_turns(folder: Path) -> None:
    ledger = Ledger.open(folder, key=KEY)
    produced: list[int] = []

    def ask(number: int) -> None:
        ledger.serve("spring", 2, request="x", produce=lambda: bytes([produced.append(number) or number]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(produced) == 1
    assert len(ledger.lines()) == 4


def test_a_forked_child_does_not_share_the_lock(folder: Path) -> None:
    """A child that is forked while a round is produced, and lives on, holds nobody up."""
    ledger, children = reopened(folder), []

    def produce() -> bytes:
        if not (child := os.fork()):
            time.sleep(30)
            os._exit(0)
        children.append(child)
        return b"x"

    try:
        ledger.serve("spring", 2, request="x", produce=produce)
        Ledger.open(folder, key=KEY, patience=0.5)
    finally:
        os.kill(children[0], 9)
        os.waitpid(children[0], 0)


def test_readers_see_one_state_while_others_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that moves between two looks is looked at again, not taken for missing lines."""
    ledger = reopened(folder)
    read, calls = ledger_file.LedgerFolder.lines_from, 0

    def racing(self: ledger_file.LedgerFolder, offset: int) -> bytes:
        nonlocal calls
        data = read(self, offset)
        calls += 1
        if calls == 1:
            monkeypatch.setattr(ledger_file.LedgerFolder, "lines_from", read)
            ledger.reserve("summer", SMALL, request="plan", rounds=1)
        return data

    monkeypatch.setattr(ledger_file.LedgerFolder, "lines_from", racing)
    assert len(verify_ledger(folder).lines) == 4

    heads = iter(range(10_000))
    monkeypatch.setattr(ledger_file.LedgerFolder, "_head_bytes", lambda _self: b"%d" % next(heads))
    monkeypatch.setattr(ledger_file, "_POLL", 0)
    with pytest.raises(LedgerError, match="written to all the time"):
        verify_ledger(folder)


# Lines that this program would not write, though the signature is right


def signed_chain(*entries: tuple[str, dict[str, Any]], times: tuple[int, ...] = ()) -> list[bytes]:
    lines, previous = [], NO_LINE
    for position, (kind, body) in enumerate(entries):
        moment = times[position] if times else START
        line = encode_line(KEY, seq=position + 1, previous=previous, time=moment, kind=kind, body=body)
        lines.append(line)
        previous = digest(line[:-1])
    return lines


def opening(**changes: Any) -> tuple[str, dict[str, Any]]:
    body = {
        "version": 1, "holder": "north", "population": "p", "period": "t", "epsilon": "2/1", "delta": "1/10000000",
        "orders": list(ORDERS), "public_key": public_hex(KEY.public_key()),
    }  # fmt: skip
    return "open", {name: value for name, value in (body | changes).items() if value is not None}


def reserved(**changes: Any) -> tuple[str, dict[str, Any]]:
    body = {"campaign": "c", "request": "r", "rounds": 2, "epsilon": "1/10", "rdp": ["1/1000"] * len(ORDERS)}
    return "reserved", body | changes


def served(**changes: Any) -> tuple[str, dict[str, Any]]:
    return "served", {"campaign": "c", "round_number": 1, "request": "q", "blob": "a" * 64} | changes


@pytest.mark.parametrize(
    "entries",
    [
        (reserved(),),
        (opening(version=2),),
        (opening(orders=[2, 3]),),
        (opening(epsilon="0/1"),),
        (opening(epsilon="4/2"),),
        (opening(delta="0.1"),),
        (opening(delta=None),),
        (opening(holder=3),),
        (opening(public_key=public_hex(OTHER_KEY.public_key())),),
        (opening(), opening()),
        (opening(), reserved(epsilon="3/1")),
        (opening(), reserved(epsilon="-1/10")),
        (opening(), reserved(rdp=["1/1000"])),
        (opening(), reserved(rdp="1/1000")),
        (opening(), reserved(rounds=0)),
        (opening(), reserved(extra=1)),
        (opening(), reserved(campaign=["c"])),
        (opening(), reserved(), reserved()),
        (opening(), reserved(), reserved(campaign="d", rdp=["2/1"] * len(ORDERS))),
        (opening(), served()),
        (opening(), reserved(), served(round_number=3)),
        (opening(), reserved(), served(blob="b")),
        (opening(), reserved(), served(), served()),
        (opening(), ("refund", {"campaign": "c"})),
    ],
)
def test_lines_that_break_a_rule_are_refused(entries: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    """The key's owner cannot write an overspend, a refund or a second opening that a verifier would take."""
    with pytest.raises(LedgerError):
        Chain(KEY.public_key()).extend(b"".join(signed_chain(*entries)))


def test_good_lines_are_taken() -> None:
    """The counterpart of the test above: what is refused there is refused for its defect."""
    chain = Chain(KEY.public_key())
    assert chain.extend(b"".join(signed_chain(opening(), reserved(), served()))) == 0
    assert chain.book.campaigns["c"] == Campaign(
        "r", Cost(Fraction(1, 10), (Fraction(1, 1000),) * 16), 2, {1: ("q", "a" * 64)}
    )


def test_lines_stay_in_order_of_time() -> None:
    with pytest.raises(LedgerError, match="older than the line before"):
        Chain(KEY.public_key()).extend(b"".join(signed_chain(opening(), reserved(), times=(START, START - 1))))


def test_an_empty_file_is_no_ledger(folder: Path) -> None:
    assert Chain(KEY.public_key()).witness == Witness(0, NO_LINE)
    with pytest.raises(LedgerError, match="no complete line"):
        _ = Chain(KEY.public_key()).book
    (folder / "ledger.jsonl").write_bytes(b"")
    for read in (reopened, verify_ledger):
        with pytest.raises(LedgerError):
            read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values | {"time": 1.5},
        lambda values: values | {"time": -1},
        lambda values: values | {"time": 2**63},
        lambda values: values | {"kind": None},
        lambda values: values | {"body": []},
        lambda values: values | {"seq": 2},
        lambda values: values | {"previous": "1" * 64},
    ],
)
def test_a_line_has_fixed_types_and_its_place(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    values = {"seq": 1, "previous": NO_LINE, "time": START, "kind": "open", "body": {}}
    line = encode_line(KEY, **change(values))[:-1]
    with pytest.raises(LedgerError):
        decode_line(line, seq=1, previous=NO_LINE, public_key=KEY.public_key())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_line_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerError):
        decode_line(data, seq=1, previous=NO_LINE, public_key=KEY.public_key())


def test_numbers_outside_json_are_refused() -> None:
    """Python's reader takes NaN; the canonical form does not."""
    line = encode_line(KEY, seq=1, previous=NO_LINE, time=START, kind="open", body={"x": 0})[:-1]
    with pytest.raises(LedgerError, match="canonical"):
        decode_line(line.replace(b'"x":0', b'"x":NaN'), seq=1, previous=NO_LINE, public_key=KEY.public_key())


@pytest.mark.parametrize("signature", [7, "zz", "", "0" * 128, "A" * 128, " " + "0" * 127])
def test_a_signature_is_a_signature(signature: Any) -> None:
    text = encode_line(KEY, seq=1, previous=NO_LINE, time=START, kind="open", body={})[:-1]
    values = json.loads(text) | {"signature": signature}
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(LedgerError, match="signature"):
        decode_line(data, seq=1, previous=NO_LINE, public_key=KEY.public_key())


def test_a_head_is_not_a_line_and_not_cut_off() -> None:
    """The prefixes keep signatures apart, and every field has its form."""
    head = encode_head(KEY, Head(1, "0" * 64))
    assert decode_head(head, public_key=KEY.public_key()) == Head(1, "0" * 64)
    for wrong in (
        head[:-1],
        head + b"\n",
        encode_head(KEY, Head(0, "0" * 64)),
        encode_head(KEY, Head(True, "0" * 64)),
        encode_head(KEY, Head(1, "0")),
        encode_head(OTHER_KEY, Head(1, "0" * 64)),
    ):
        with pytest.raises(LedgerError):
            decode_head(wrong, public_key=KEY.public_key())


@pytest.mark.parametrize("text", ["1", "2/4", "1/0", "-0/1", "1/-2", " 1/2", "1/2\n", "1/" + "9" * 600, 0.5, None])
def test_rationals_have_one_form(text: Any) -> None:
    with pytest.raises(LedgerError, match="lowest terms"):
        from_text(text)


@pytest.mark.parametrize("text", ["", "A" * 64, "0" * 63, None])
def test_public_keys_have_one_form(text: Any) -> None:
    with pytest.raises(LedgerError, match="64 hexadecimal digits"):
        public_key_from_hex(text)


def test_ledger_is_light_to_import() -> None:
    """A holder's small tools and the crash tests start fast: no array library, no accountant."""
    program = "import sys, privacy.ledger; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["numpy", "torch", "scipy", "pydantic", "dp_accounting", "opacus"]
    done = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
