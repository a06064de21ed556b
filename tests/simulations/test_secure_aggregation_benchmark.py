"""The benchmark of masked sums times ours and Flower's, whose results it compares with the plain sum itself."""

from __future__ import annotations

import pytest

from simulations.benchmarks import secure_aggregation
from simulations.benchmarks.masked_costs import Scenario, masked_cost
from simulations.benchmarks.secure_aggregation import AT_ONCE, IN_CACHE, costs, main, rates, rows

SMALL = (Scenario(3, 0), Scenario(4, 1))


def test_scenarios_spread_their_dropouts_and_ask_for_two_thirds_and_one() -> None:
    assert Scenario(10, 2).late == ("holder 00", "holder 05")
    assert Scenario(3, 0).late == ()
    assert [Scenario(size, 0).threshold for size in (3, 10, 50)] == [3, 7, 34]


def test_ours_and_flowers_sums_are_timed_in_turns() -> None:
    """Both raise if a sum is wrong. Flower sends 8 bytes a word, we send 4 and what opens the sum."""
    found = costs(SMALL, words=3_000, repeats=1, flower_repeats=1)
    assert list(found) == list(SMALL)
    for ours, theirs in found.values():
        assert theirs is not None
        assert min(ours.holder, ours.server, ours.setup, theirs.holder, theirs.server) > 0
        assert 1 < ours.sent < 1.4
        assert 2 < theirs.sent < 2.6
        assert 0 < ours.received < 0.5
    assert [row[0] for row in rows(found)] == [
        "3/0 ours", "3/0 SecAgg+", "  as a multiple", "4/1 ours", "4/1 SecAgg+", "  as a multiple",
    ]  # fmt: skip


def test_flower_may_be_left_out() -> None:
    found = costs(SMALL[:1], words=100, repeats=2, flower_repeats=0)
    assert found[SMALL[0]][1] is None
    assert [row[0] for row in rows(found)] == ["3/0 ours"]


def test_bytes_do_not_depend_on_chance() -> None:
    first, second = (masked_cost(Scenario(4, 1), 100) for _ in range(2))
    assert (first.sent, first.received) == (second.sent, second.received)


def test_the_rate_of_masks_is_compared_with_the_bare_cipher() -> None:
    found = rates(words=1_000, repeats=1, masks=(1, 3))
    assert [rate.case for rate in found] == [IN_CACHE, AT_ONCE, "1 masks of one vector", "3 masks of one vector"]
    assert found[0].share == 1
    assert all(rate.gigabytes > 0 for rate in found)


def test_the_command_prints_both_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(secure_aggregation, "SCENARIOS", SMALL[:1])
    monkeypatch.setattr("sys.argv", ["secure_aggregation", "--words", "200", "--repeats", "1", "--flower-repeats", "0"])
    main()
    printed = capsys.readouterr().out
    assert "Masks of 200 words" in printed
    assert "3/0 ours" in printed
