"""Over whom sums were opened outlives the process, and a file that was cut short or damaged is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.opened_sums import OpenedSums
from protocol.errors import LedgerError

KEY, OTHER = ("run", "federated", "train 1"), ("run", "federated", "train 2")


def test_what_was_opened_is_known_after_a_new_start(tmp_path: Path) -> None:
    path = tmp_path / "opened.jsonl"
    first = OpenedSums(path)
    assert first.over(KEY) is None
    first.note(KEY, ("a", "b"))
    first.note(KEY, ("a", "b"))
    assert path.read_bytes().count(b"\n") == 1
    assert path.stat().st_mode & 0o077 == 0
    again = OpenedSums(path)
    assert (again.over(KEY), again.over(OTHER)) == (("a", "b"), None)
    again.note(OTHER, ("b",))
    assert OpenedSums(path).over(OTHER) == ("b",)


def test_a_line_that_was_cut_short_was_never_acted_on(tmp_path: Path) -> None:
    """It is taken away, so that the next line does not hang on to it."""
    path = tmp_path / "opened.jsonl"
    OpenedSums(path).note(KEY, ("a", "b"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'["run", "federated", "tr')
    book = OpenedSums(path)
    assert path.read_bytes() == whole
    book.note(OTHER, ("a",))
    assert OpenedSums(path).over(OTHER) == ("a",)


@pytest.mark.parametrize("damage", [b"{\n", b'["run", "stage"]\n', b'["run", "stage", "label", 3]\n'])
def test_damage_is_refused(tmp_path: Path, damage: bytes) -> None:
    """A holder that cannot know what it opened opens nothing more."""
    path = tmp_path / "opened.jsonl"
    path.write_bytes(damage)
    with pytest.raises(LedgerError, match="tells over whom sums were opened, is damaged"):
        OpenedSums(path)


def test_memory_alone_forgets(tmp_path: Path) -> None:
    book = OpenedSums()
    book.note(KEY, ("a",))
    assert book.over(KEY) == ("a",)
    assert OpenedSums().over(KEY) is None
