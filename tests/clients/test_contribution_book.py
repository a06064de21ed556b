"""The memory behind a rolling bound: what it counts, what it survives, and what it refuses."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.contribution_book import KEPT, MANIFESTS, ContributionBook, Entry, used_in
from clients.private_files import new_secret
from protocol.errors import LedgerError

SECRET = b"s" * 32
DAY = dt.timedelta(days=1)
FIRST = dt.date(2026, 1, 1)


def kept(*persons: tuple[int, int]) -> pa.Table:
    """Rows (person, cells), all of bucket 0."""
    rows = [{"bucket": 0, "person": person, "kept": cells} for person, cells in persons]
    return pa.Table.from_pylist(rows, KEPT)


def opened(
    folder: Path,
    marks: dict[str, str] | None = None,
    *,
    ledger: str = "2026",
    secret: bytes = SECRET,
    buckets: int = 4,
) -> ContributionBook:
    """The book, with the marks that ledgers are bound to."""
    return ContributionBook.open(
        folder, secret, lambda name: (marks or {}).get(name, ""), ledger=ledger, buckets=buckets
    )


def day(number: int, ledger: str = "2026") -> Entry:
    return Entry(FIRST + number * DAY, FIRST + number * DAY, ledger)


def used(book: ContributionBook, number: int, *, window_days: int = 30, ledger: str = "2026") -> dict[int, int]:
    files = book.files(first=FIRST + number * DAY, window_days=window_days, ledger=ledger)
    return {row["person"]: row["used"] for row in used_in(files).to_pylist()}


def filled(folder: Path, steps: list[tuple[Entry, pa.Table]], window_days: int = 30) -> tuple[ContributionBook, str]:
    """A book with steps that were all released, and its mark."""
    book, mark = opened(folder), ""
    for entry, persons in steps:
        mark = book.record(entry, persons, window_days=window_days)
    return book, mark


def test_used_cells_add_up_over_the_window_and_no_further(tmp_path: Path) -> None:
    """With a window of 30 days, day 0 counts until day 29; unless both are paid for by one ledger."""
    book, _ = filled(tmp_path, [(day(0, "2025"), kept((7, 2), (8, 1))), (day(20, "2025"), kept((7, 3)))])
    assert used(book, 29) == {7: 5, 8: 1}
    assert used(book, 30) == {7: 3}
    assert used(book, 50) == {}
    assert used(book, 50, ledger="2025") == {7: 5, 8: 1}


def test_a_long_step_counts_by_its_last_day(tmp_path: Path) -> None:
    week = Entry(FIRST, FIRST + 6 * DAY, "2025")
    book, _ = filled(tmp_path, [(week, kept((7, 1)))])
    assert used(book, 35) == {7: 1}
    assert used(book, 36) == {}


def test_steps_out_of_reach_leave_the_disk(tmp_path: Path) -> None:
    book, mark = filled(tmp_path, [(day(0, "2025"), kept((7, 2))), (day(30), kept((8, 1)))])
    again = opened(tmp_path, {"2026": mark})
    assert used(again, 31) == used(book, 31) == {8: 1}
    mark = again.record(day(31), kept(), window_days=30)  # not before the release of day 30 is on the disk
    assert sorted(path.name[:10] for path in tmp_path.glob("*.parquet")) == ["2026-01-31", "2026-02-01"]
    assert used(opened(tmp_path, {"2026": mark}), 32) == {8: 1}


@settings(max_examples=10)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), unique_by=lambda x: x[0]), max_size=8))
def test_used_is_the_sum_of_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("book")
    book = opened(folder)
    for number, persons in enumerate(steps):
        expected: dict[int, int] = {}
        for earlier in steps[:number]:
            for person, cells in earlier:
                expected[person] = expected.get(person, 0) + cells
        assert used(book, number, ledger="2026") == expected
        book.record(day(number), kept(*persons), window_days=3)


def test_a_step_that_was_not_released_is_taken_back(tmp_path: Path) -> None:
    """A crash between book and ledger: the next try starts from the book that the ledger knows."""
    book, mark = filled(tmp_path, [(day(0), kept((7, 2)))])
    book.record(day(1), kept((7, 9)), window_days=30)
    again = opened(tmp_path, {"2026": mark})
    assert used(again, 1) == {7: 2}
    renewed = again.record(day(1), kept((7, 1)), window_days=30)
    assert used(opened(tmp_path, {"2026": renewed}), 2) == {7: 3}


def test_the_very_first_step_can_be_taken_back(tmp_path: Path) -> None:
    opened(tmp_path, {}).record(day(0), kept((7, 2)), window_days=30)
    assert used(opened(tmp_path, {}), 0) == {}


def test_the_first_step_of_a_new_ledger_can_be_taken_back(tmp_path: Path) -> None:
    book, mark = filled(tmp_path, [(day(-1, "2025"), kept((7, 2)))])
    book.record(day(0), kept((7, 1)), window_days=30)
    for ledger in ("2026", "2026-b"):  # the period may also be renamed after the crash
        again = opened(tmp_path, {"2025": mark}, ledger=ledger)
        assert used(again, 0) == {7: 2}


def test_the_last_step_of_an_old_ledger_can_be_taken_back(tmp_path: Path) -> None:
    book, mark = filled(tmp_path, [(day(-2, "2025"), kept((7, 2)))])
    book.record(day(-1, "2025"), kept((7, 1)), window_days=30)
    assert used(opened(tmp_path, {"2025": mark}), 0) == {7: 2}


@pytest.mark.parametrize("marks", [{"2026": "0" * 64}, {}, {"2025": "0" * 64, "2026": "1" * 64}])
def test_a_book_that_the_ledger_does_not_know_is_refused(tmp_path: Path, marks: dict[str, str]) -> None:
    """An older copy, a book of elsewhere, or a ledger that was put back."""
    filled(tmp_path, [(day(0), kept((7, 2))), (day(1), kept((7, 1)))])
    with pytest.raises(LedgerError, match="exchanged or lost; restore"):
        opened(tmp_path, marks)


def test_an_old_book_under_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    _, mark = filled(tmp_path, [(day(-1, "2025"), kept((7, 2)))])
    opened(tmp_path, {"2025": mark})
    with pytest.raises(LedgerError, match="older"):
        opened(tmp_path, {"2025": mark, "2026": "1" * 64})


def test_a_missing_book_is_refused_once_something_was_released(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is missing: older, changed, exchanged or lost"):
        opened(tmp_path / "gone", {"2026": "1" * 64})


def test_damage_is_refused_and_says_no_person(tmp_path: Path) -> None:
    _, mark = filled(tmp_path, [(day(0), kept((123456789, 2)))])
    marks = {"2026": mark}
    with pytest.raises(LedgerError, match="another secret"):
        opened(tmp_path, marks, secret=b"t" * 32)
    with pytest.raises(LedgerError, match="4 buckets, not 8"):
        opened(tmp_path, marks, buckets=8)
    (file,) = tmp_path.glob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(LedgerError, match="2026-01-01, or it was changed") as refused:
        opened(tmp_path, marks)
    assert "123456789" not in str(refused.value)
    file.unlink()
    with pytest.raises(LedgerError, match="lacks its file"):
        opened(tmp_path, marks)
    next(tmp_path.glob(MANIFESTS)).write_bytes(b"{}")
    with pytest.raises(LedgerError, match="exchanged or lost"):
        opened(tmp_path, marks)


@pytest.mark.parametrize("after_a_crash", [False, True])
def test_every_change_of_a_manifest_shows(tmp_path: Path, after_a_crash: bool) -> None:
    """One bit changed in any place; beside a book that no line names as well."""
    book, mark = filled(tmp_path, [(day(0), kept((7, 2))), (day(1), kept((8, 2)))])
    for path in sorted(tmp_path.glob(MANIFESTS)):
        if mark[:16] not in path.name:
            path.unlink()
    (manifest,) = tmp_path.glob(MANIFESTS)
    if after_a_crash:
        book.record(day(2), kept((9, 2)), window_days=30)
    content = manifest.read_bytes()
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 1
        manifest.write_bytes(bytes(changed))
        with pytest.raises(LedgerError):
            opened(tmp_path, {"2026": mark})
    manifest.write_bytes(content)
    assert used(opened(tmp_path, {"2026": mark}), 2) == {7: 2, 8: 2}


def test_going_back_to_an_older_ledger_is_refused(tmp_path: Path) -> None:
    """Its book does not know what was released for the newer one."""
    book, old = filled(tmp_path, [(day(-1, "2025"), kept((7, 2)))])
    new = book.record(day(0), kept((7, 1)), window_days=30)
    marks = {"2025": old, "2026": new}
    assert used(opened(tmp_path, marks), 1) == {7: 3}
    assert used(opened(tmp_path, marks, ledger="2026-b"), 1) == {7: 3}
    with pytest.raises(LedgerError, match="exchanged or lost"):
        opened(tmp_path, marks, ledger="2025")


def test_the_mark_of_an_empty_step_cannot_be_guessed(tmp_path: Path) -> None:
    """Ledgers are shown: without the secret nobody may test whether a day was empty."""
    marks = [
        opened(tmp_path / name, secret=secret).record(day(0), kept(), window_days=30)
        for name, secret in (("a", b"a" * 32), ("b", b"b" * 32))
    ]
    assert marks[0] != marks[1]


def test_files_are_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "book"
    filled(folder, [(day(0), kept((7, 2)))])
    secret = tmp_path / "store" / "key"
    assert new_secret(secret) == secret.read_bytes()
    assert len(secret.read_bytes()) == 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*folder.iterdir(), secret)} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "ssss" not in repr(opened(folder))


def test_a_full_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book, mark = filled(tmp_path, [(day(0), kept((7, 2)))])
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(LedgerError, match=r"No space left.*nothing was released"):
        book.record(day(1), kept((7, 1)), window_days=30)
    monkeypatch.undo()
    assert used(opened(tmp_path, {"2026": mark}), 1) == {7: 2}
