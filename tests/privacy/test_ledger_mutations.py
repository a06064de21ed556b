"""Every change of a ledger's files is noticed: counted, over more than ten thousand of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from privacy.ledger import Ledger, Witness, verify_ledger
from protocol.errors import LedgerError
from tests.ledgers import KEY, TERMS, gaussian_cost, new_ledger, reopened

COST = gaussian_cost("1/1000", "1/10")
ALIKE = ("0123456789", "abcdef", "ghijklmnopqrstuvwxyz", '{}[]",:/')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six lines: two campaigns and three rounds."""
    ledger = new_ledger(tmp_path / "ledger")
    for campaign in ("spring", "summer"):
        ledger.reserve(campaign, COST, request="plan", rounds=2)
        ledger.serve(campaign, 1, request="first", produce=lambda: b"noisy")
    ledger.serve("spring", 2, request="second", produce=lambda: b"more")
    return tmp_path / "ledger"


def noticed(folder: Path, *, witness: Witness | None = None) -> bool:
    try:
        verify_ledger(folder, public_key=KEY.public_key(), witness=witness)
    except LedgerError:
        return True
    return False


def changed_bytes(data: bytes, choose: random.Random) -> Iterator[tuple[str, bytes]]:
    """At every position a flipped bit, a letter of the same class, any other byte; at some a byte more or less."""
    for position, byte in enumerate(data):
        alike = next((letters for letters in ALIKE if chr(byte) in letters), chr(byte ^ 32))
        near = ord(choose.choice([letter for letter in alike if ord(letter) != byte]))
        news = [("bit", byte ^ 1 << choose.randrange(8)), ("near", near), ("any", (byte + 77) % 256)]
        for kind, new in news[: 2 + (position % 3 == 0)]:
            yield f"byte: {kind}", data[:position] + bytes([new]) + data[position + 1 :]
    for position in choose.sample(range(len(data)), 500):
        yield "byte removed", data[:position] + data[position + 1 :]
        yield "byte repeated", data[:position] + data[position : position + 1] + data[position:]
        yield "blank added", data[:position] + b" " + data[position:]


def changed_lines(data: bytes, foreign: bytes) -> Iterator[tuple[str, bytes]]:
    """Lines removed, swapped, repeated, taken from another ledger of the same holder, and the end cut off anywhere."""
    lines, others = data.splitlines(keepends=True), foreign.splitlines(keepends=True)
    for some in range(1, len(lines)):
        for kept in combinations(lines, some):
            yield "lines removed", b"".join(kept)
    for one, two in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[one], swapped[two] = lines[two], lines[one]
        yield "lines swapped", b"".join(swapped)
    for one in range(len(lines)):
        for place in range(len(lines) + 1):
            yield "line repeated", b"".join([*lines[:place], lines[one], *lines[place:]])
        yield "line replaced", b"".join([*lines[:one], others[one], *lines[one + 1 :]])
    for end in range(len(data)):
        yield "end cut off", data[:end]


@pytest.mark.slow
def test_every_change_of_the_lines_is_noticed(folder: Path, tmp_path: Path) -> None:
    """100 % of more than ten thousand."""
    foreign = Ledger.create(tmp_path / "foreign", TERMS, KEY)
    for number in range(5):
        foreign.reserve(f"campaign {number}", COST, request="plan", rounds=2)
    data, choose = (folder / "ledger.jsonl").read_bytes(), random.Random(20263)
    tried, missed = Counter[str](), Counter[str]()
    others = changed_lines(data, (tmp_path / "foreign" / "ledger.jsonl").read_bytes())
    for source in (changed_bytes(data, choose), others):
        for kind, changed in source:
            (folder / "ledger.jsonl").write_bytes(changed)
            tried[kind] += 1
            missed[kind] += not noticed(folder)
    print(dict(tried), "total", tried.total())  # noqa: T201 -- the evidence, shown with `pytest -s`
    assert not +missed
    assert tried.total() >= 10_000
    (folder / "ledger.jsonl").write_bytes(data)
    assert not noticed(folder)


@pytest.mark.slow
def test_every_change_of_the_head_is_noticed(folder: Path) -> None:
    head, choose = (folder / "ledger.head").read_bytes(), random.Random(20264)
    for position, byte in enumerate(head):
        for new in (byte ^ 32, byte ^ 1 << choose.randrange(8), (byte + 77) % 256):
            (folder / "ledger.head").write_bytes(head[:position] + bytes([new]) + head[position + 1 :])
            assert noticed(folder), position
        (folder / "ledger.head").write_bytes(head[:position])
        assert noticed(folder), position


def test_every_change_of_a_release_is_noticed(folder: Path) -> None:
    """Stored releases are as recorded, and not each other's."""
    for blob in (folder / "served").iterdir():
        content = blob.read_bytes()
        changes = [content[:-1], content + b"\0", b"", *(content[:at] + b"\0" + content[at + 1 :] for at in range(4))]
        for changed in changes:
            blob.write_bytes(changed)
            assert noticed(folder)
        blob.write_bytes(content)
    assert not noticed(folder)


def test_every_rollback_is_noticed(folder: Path, tmp_path: Path) -> None:
    """To every earlier state: without the head by the head, with the head by any witness of a later state."""
    states, seen = [], []
    growing = tmp_path / "growing"
    ledger = new_ledger(growing)
    for number in range(12):
        states.append({name: (growing / name).read_bytes() for name in ("ledger.jsonl", "ledger.head")})
        seen.append(ledger.witness())
        ledger.reserve(f"campaign {number}", gaussian_cost("1/100000", "1/10"), request="plan", rounds=1)
    whole = {name: (growing / name).read_bytes() for name in ("ledger.jsonl", "ledger.head")}
    for earlier, state in enumerate(states):
        restore(growing, whole | {"ledger.jsonl": state["ledger.jsonl"]})
        assert noticed(growing), "lines without the head"
        restore(growing, whole | {"ledger.head": state["ledger.head"]})
        # One line more than the head says is what a crash leaves; nothing of it is lost, and the head is moved on.
        assert noticed(growing) == (earlier < len(states) - 1), "head without the lines"
        restore(growing, state)
        assert not noticed(growing), "a whole earlier state is valid in itself"
        assert all(noticed(growing, witness=later) for later in (*seen[earlier + 1 :], ledger.witness()))
        assert not any(noticed(growing, witness=before) for before in seen[: earlier + 1])


def restore(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.slow
def test_an_unacknowledged_end_may_be_cut_anywhere(folder: Path, tmp_path: Path) -> None:
    """It was never acknowledged, so it is repaired and not refused; but a *changed* complete line is refused."""
    head = (folder / "ledger.head").read_bytes()
    before = (folder / "ledger.jsonl").read_bytes()
    reopened(folder).reserve("autumn", COST, request="plan", rounds=1)
    after = (folder / "ledger.jsonl").read_bytes()
    copy = tmp_path / "copy"
    for end in range(len(before), len(after)):
        restore(folder, {"ledger.jsonl": after[:end], "ledger.head": head})
        assert verify_ledger(folder).torn == end - len(before)
        if end % 50 == 0:
            shutil.copytree(folder, copy)
            assert reopened(copy).lines()[-1].seq == 6
            assert (copy / "ledger.jsonl").read_bytes() == before
            shutil.rmtree(copy)
    for position in range(len(before), len(after) - 1):
        changed = after[:position] + bytes([after[position] ^ 1]) + after[position + 1 :]
        restore(folder, {"ledger.jsonl": changed, "ledger.head": head})
        assert noticed(folder)
