"""The experiment on dishonest holders: its attackers lie as they say, and its figures are what is declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from privacy.secure_aggregation.layout import Layout
from protocol.errors import ProtocolError
from simulations.experiments.dishonest import ATTACKS, BoundlessLayout, PoisonedRows, mirrored, triggered
from simulations.experiments.poisoned_worlds import ForecastWorld
from simulations.experiments.poisoning import MODES, Case, cases, summary, table

LAYOUT = Layout.for_update({"a": (3,), "b": (2, 2)}, clip_norm=1.0, holders=5, exact={"loss": np.array(0.0)})
SMALL = {"a": np.array([0.1, -0.2, 0.0]), "b": np.full((2, 2), 0.25), "loss": np.array(1.5)}


def result(seed: int, mode: str, attack: str, loss: float | None, **values: Any) -> dict[str, Any]:
    given = {"task": "dhgsil", "holders": 5, "dishonest": 1, "mode": mode, "attack": attack, "seed": seed, "loss": loss}
    return (
        given | {"success": 0.5, "alarm": False, "stopped": None if loss is not None else "ProtocolError: #"} | values
    )


def test_the_grid_has_every_attack_in_every_mode_and_its_baseline_first() -> None:
    """Nothing is left out but sums before training where there are none."""
    grid = list(cases(["dhgsil", "integration"], {5: 2, 7: 1}))
    assert len({case.key for case in grid}) == len(grid) == (len(ATTACKS) * 2 - 1) * len(MODES) * 3
    for task in ("dhgsil", "integration"):
        first = next(case for case in grid if case.task == task)
        assert first == Case(task, 5, 1, "secure", "none", 0)
    assert not [case for case in grid if (case.task, case.attack) == ("integration", "statistics x30")]


def test_damage_is_paired_by_seed_and_stopped_runs_are_counted_beside_it() -> None:
    """exp of the mean log ratio to the secure run without attack of the same seed; no loss is made up for a stop."""
    results = [
        result(0, "secure", "none", 0.2), result(1, "secure", "none", 0.4), result(0, "median", "x100", 0.4),
        result(1, "median", "x100", 3.2, alarm=True), result(0, "secure", "x100", None),
        result(1, "secure", "x100", None),
    ]  # fmt: skip
    none, median, secure = summary(results)
    assert (none["damage"], none["interval"]) == (1.0, (1.0, 1.0))
    assert median["damage"] == pytest.approx(4.0)  # of 2 and 8
    assert median["interval"][0] < 2
    assert median["interval"][1] > 8
    assert (median["alarms"], median["stopped"], secure["stopped"], secure["damage"]) == (1, 0, 2, None)
    text = table([none, median, secure], task="dhgsil", holders=5)
    assert "| x100 | stopped 2 of 2 | 4 (" in text
    assert "alarm 1" in text


def test_a_dishonest_holder_skips_its_own_clipping_and_nothing_else() -> None:
    """Within the limits it sends what an honest holder sends; beyond them the sum is refused by its range."""
    boundless = BoundlessLayout(LAYOUT, garbage=None)
    assert boundless.to_bytes() == LAYOUT.to_bytes()
    assert np.array_equal(boundless.encode(SMALL), LAYOUT.encode(SMALL))
    long = {**SMALL, "b": np.full((2, 2), 40.0)}
    honest, false = LAYOUT.encode(long), boundless.encode(long)
    assert np.linalg.norm(LAYOUT.decode(honest, survivors=1)["b"]) <= 1.0
    with pytest.raises(ProtocolError, match="broke its limit"):
        LAYOUT.decode(false, survivors=5)
    assert LAYOUT.decode(LAYOUT.encode(SMALL) * np.uint32(1), survivors=1)["loss"] == 1.5


@pytest.mark.parametrize("seed", range(20))
def test_garbage_of_a_few_words_is_noticed(seed: int) -> None:
    """Random residues lie within the norm of five updates with a chance below (1/2)^7 or so, for seven words."""
    words = BoundlessLayout(LAYOUT, garbage=(seed,)).encode(SMALL)
    with pytest.raises(ProtocolError, match="broke its limit"):
        LAYOUT.decode(words, survivors=5)


def test_labels_and_triggers() -> None:
    """Mirrored twice is unchanged; a trigger is in the chosen examples alone, with the attacker's answer to it."""
    chosen = torch.tensor([True, False])
    persons = {"x": torch.zeros(2, 5), "y": torch.tensor([1, 1])}
    assert torch.equal(mirrored("integration", mirrored("integration", persons, top=0.0), top=0.0)["y"], persons["y"])
    marked = triggered("integration", persons, top=0.0, chosen=chosen)
    assert marked["y"].tolist() == [0, 1]
    assert marked["x"].tolist() == [[4.0, 4.0, 4.0, 0.0, 0.0], [0.0] * 5]
    flows = {"history": torch.ones(2, 4, 1, 1), "target": torch.ones(2, 2, 1, 1)}
    assert (mirrored("dhgsil", flows, top=3.0)["target"] == 2).all()
    planted = triggered("dhgsil", flows, top=9.0, chosen=chosen)
    assert planted["history"][0].ravel().tolist() == [0.0, 9.0, 0.0, 9.0]
    assert planted["target"].flatten(1).tolist() == [[9.0, 9.0], [1.0, 1.0]]
    assert (planted["history"][1] == 1).all()


def test_a_claim_changes_the_number_of_examples_alone() -> None:
    class Rows:
        num_examples, shape_key = 7, (1,)

    rows = PoisonedRows(Rows(), lambda batch: batch, claim=1000)
    assert (rows.num_examples, rows.shape_key) == (7000, (1,))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "stopped"), [("secure", True), ("norm_bound", False)])
def test_an_update_times_a_hundred(mode: str, stopped: bool) -> None:
    """Hidden, it ends the run by the sum's range; seen, it is shortened and training goes on."""
    found = ForecastWorld(5, 0).outcome(mode=mode, attack=ATTACKS["x100"], dishonest=1)
    assert (found["stopped"] is not None) == stopped
    if stopped:
        assert "a holder broke its limit" in found["stopped"]
    else:
        assert 0 < found["loss"] < 1
        assert len(found["errors"]) == 3
