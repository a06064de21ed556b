"""A verdict is reported as exposure where rarefying removes it, and as unspecific where placebo locals move alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from integration.analysis.conclusions import conclusions
from integration.analysis.panels import TEN
from integration.analysis.verdicts import verdicts

Maker = Callable[..., pd.DataFrame]


def judged(rows: pd.DataFrame, features: tuple[str, ...]) -> pd.DataFrame:
    asked = [verdicts(rows, features=features, newcomers=who, draws=200, seed=2) for who in ("new", "placebo")]  # pyright: ignore[reportArgumentType]
    return conclusions(pd.concat(asked, ignore_index=True)).set_index("feature")


def test_honest_effects_survive_and_are_specific(rows: pd.DataFrame, expected: Mapping[str, str]) -> None:
    table = judged(rows, TEN)
    assert table["verdict"].to_dict() == expected
    assert list(table.loc["avg_radius", ["survives", "specific"]]) == ["yes", "yes"]
    assert list(table.loc["degree", ["survives", "specific"]]) == ["", "yes"]
    assert list(table.loc["frac_townsmen", ["survives", "specific"]]) == ["", ""]
    assert "no rarefied companion; placebo locals do not show it" in str(table.loc["degree", "statement"])


def test_exposure_is_called_exposure(rows: pd.DataFrame) -> None:
    """A radius that only grows with the number of calls: its rarefied companion is flat."""
    grown = rows.assign(avg_radius_rarefied=np.where(rows["group"] == "new", 2.6, rows["avg_radius_rarefied"]))
    table = judged(grown, ("avg_radius",))
    assert list(table.loc["avg_radius", ["verdict", "rarefied", "survives"]]) == ["B", "none", "no"]
    assert "report it as exposure" in str(table.loc["avg_radius", "statement"])


def test_what_placebo_locals_do_too_is_not_specific(rows: pd.DataFrame) -> None:
    """Locals silent in week 1 who start as low as newcomers and rise as they do."""
    step = rows["week"].map({2: -3.0, 3: -1.5, 4: -0.5})
    moved = rows.assign(degree=rows["degree"] + np.where(rows["group"] == "placebo", step, 0.0))
    table = judged(moved, ("degree", "dur_mean"))
    assert table.loc["degree", "specific"] == "no"
    assert "placebo locals move alike" in str(table.loc["degree", "statement"])
    assert table.loc["dur_mean", "specific"] == "yes"


def test_without_placebo_nothing_is_claimed(rows: pd.DataFrame) -> None:
    table = conclusions(verdicts(rows, features=["degree"], draws=100, seed=1))
    assert table["specific"].tolist() == [""]
    assert "not asked, or are too few" in table["statement"].item()


def test_too_few_placebo_locals_are_no_evidence(make_rows: Maker) -> None:
    """Nothing is called specific because nobody was there to contradict it."""
    for size, told in ((49, ""), (55, "open")):
        rows = make_rows(sizes={"local": 2000, "settled": 2000, "new": 3000, "placebo": size}, noise=1.0)
        assert judged(rows, ("degree",)).loc["degree", "specific"] == told
