"""The verdict algorithm: exact on curves without noise, right on Gaussian persons, silent where chance could do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest

from integration.analysis.panels import TEN
from integration.analysis.verdicts import VERDICT_COLUMNS, Means, verdict_of_means, verdicts
from protocol.errors import DataError

Maker = Callable[..., pd.DataFrame]


def means(newcomers: tuple, settled: tuple, local: float) -> Means:
    return Means(np.array(newcomers), np.array(settled), np.array(float(np.mean(settled))), np.array(float(local)))


@pytest.mark.parametrize(
    ("curve", "letter"),
    [
        (((0.10, 0.19, 0.27), (0.36, 0.37, 0.38), 0.72), "A"),
        (((150, 128, 115), (108, 106.5, 105), 85), "A"),  # the same from above
        (((0.82, 0.84, 0.85), (0.905, 0.9, 0.9), 0.86), "B"),
        (((0.125, 0.115, 0.108), (0.07, 0.071, 0.072), 0.10), "B"),
        (((1.14, 1.18, 1.21), (1.38, 1.385, 1.39), 0.85), "C"),
        (((5.0, 5.0, 5.0), (5.0, 5.0, 5.0), 5.0), "none"),
        (((3.0, 3.0, 3.0), (5.0, 5.0, 5.0), 8.0), "none"),  # apart, and nobody moves
        (((0.10, 0.19, 0.27), (0.38, 0.37, 0.36), 0.72), "none"),  # as A, but settled migrants drift away
        (((0.3, 0.2, 0.1), (0.36, 0.37, 0.38), 0.72), "none"),  # newcomers move away from both
        (((0.84, 0.83, 0.82), (0.905, 0.9, 0.9), 0.86), "none"),  # as B, but away from locals
        (((5.0, 6.0, 7.0), (6.0, 6.0, 6.0), 5.0), "none"),  # they start at locals: L is not strictly between
    ],
)
def test_noise_free_curves(curve: tuple, letter: str) -> None:
    """Each kind has its verdict, from below and from above, and what is nearly one of them has none."""
    assert verdict_of_means(means(*curve)) == letter


@pytest.mark.parametrize(("scale", "shift"), [(-1.0, 0.0), (1000.0, -7.0), (0.001, 3.0)])
def test_verdicts_do_not_depend_on_the_unit(scale: float, shift: float) -> None:
    """Another unit, another zero or the opposite sign of a feature changes no verdict."""
    for curve, letter in (
        (((0.10, 0.19, 0.27), (0.36, 0.37, 0.38), 0.72), "A"),
        (((0.82, 0.84, 0.85), (0.905, 0.9, 0.9), 0.86), "B"),
        (((1.14, 1.18, 1.21), (1.38, 1.385, 1.39), 0.85), "C"),
    ):
        new, settled, local = (np.array(part) * scale + shift for part in curve)
        assert verdict_of_means(means(tuple(new), tuple(settled), float(local))) == letter


def test_gaussian_persons_get_the_verdicts_of_their_means(rows: pd.DataFrame, expected: Mapping[str, str]) -> None:
    """With thousands of persons the intervals exclude 0, plain and rarefied, and townsmen get a sentence, no letter."""
    table = verdicts(rows, features=TEN, draws=200, seed=3)
    assert tuple(table.columns) == VERDICT_COLUMNS
    plain = table[table["variant"] == "plain"].set_index("feature")
    assert plain["verdict"].to_dict() == expected
    companions = table[table["variant"] == "rarefied"].set_index("feature")["verdict"]
    assert companions.to_dict() == {
        name: expected[name] for name in ("province_entropy", "contact_diversity", "avg_radius")
    }
    assert "approach them" in str(plain.loc["frac_townsmen", "reason"])


def test_placebo_locals_show_nothing(rows: pd.DataFrame) -> None:
    """Locals who only look new stay where locals are."""
    table = verdicts(rows, features=TEN, newcomers="placebo", draws=200, seed=3)
    assert set(table["verdict"]) == {"none"}


def test_no_verdict_where_chance_could_do_it(make_rows: Maker) -> None:
    """Sixty newcomers show no small effect, and the reason says so; below the smallest cell nothing is said."""
    few = make_rows(sizes={"local": 400, "settled": 400, "new": 60}, noise=3.0)
    table = verdicts(few, features=["degree", "move_avg"], draws=300, seed=1)
    assert set(table["verdict"]) == {"none"}
    fewer = make_rows(sizes={"local": 400, "settled": 400, "new": 49})
    assert (
        verdicts(fewer, features=["frac_local"], draws=50, seed=1)["reason"].item().startswith("fewer than 50 persons")
    )
    with pytest.raises(DataError, match="nobody of group placebo"):
        verdicts(few, features=["degree"], newcomers="placebo", draws=50, seed=1)
