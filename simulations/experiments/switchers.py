"""How right "new" and "left" are once operators have matched persons: a change of operator is no arrival.

Each operator asks every other which of its new persons had calls there in week 1, and which of those that are silent in
the last week have calls there then (`privacy.matching`); it learns a bit for each. The truth is the made-up city's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa

from integration.people import NEW
from integration.records.numbers import coded
from integration.weeks import DAYS_PER_WEEK
from privacy.matching import Answerer, Asker, MatchRules
from simulations.call_data import CallData


def matched_elsewhere(
    people: dict[str, pd.DataFrame],
    *,
    asks: Callable[[pd.DataFrame], pd.Series],
    has: Callable[[pd.DataFrame], pd.Series],
    run: str,
) -> dict[str, np.ndarray]:
    """For each operator, which of its persons who are asked about are in the set of another one.

    Args:
        people: Of each operator, with identities.
        asks: Whom an operator asks about.
        has: Whom an operator answers about.
        run: Names the question; keys are fresh for each.

    Returns:
        bool, (n,) for the n persons of each operator; False where nothing was asked.
    """
    found = {name: np.zeros(len(own), bool) for name, own in people.items()}
    for name, own in people.items():
        where = np.flatnonzero((asks(own) & own["identity"].notna()).to_numpy())
        names = own["identity"].to_numpy()[where]
        first = pd.Series(where).groupby(names).first()
        for other, theirs in people.items():
            if other == name:
                continue
            there = sorted(set(theirs.loc[has(theirs), "identity"].dropna()))
            rules = MatchRules(question_size=_padded(len(first)), answer_size=_padded(len(there)))
            label = f"{run}, {name} asks {other}".encode()
            asker = Asker([str(one).encode() for one in first.index], run=label, rules=rules)
            answerer = Answerer([str(one).encode() for one in there], run=label, rules=rules)
            bits = asker.matches(answerer.answer(asker.question(), reveal="bits"))
            hits = set(first.index[bits])
            found[name][where] |= np.isin(names, list(hits))
    return found


def matching_table(city: CallData, seed: int) -> pd.DataFrame:
    """Precision of "new" and of "left" before and after matching: what, operator, persons, right, precision, kept.

    kept: share of those who are rightly called so that are still called so after matching.
    """
    people = {name: one.records.people for name, one in city.operators.items()}
    truth = _truth(city)
    last = city.study.calendar.weeks

    def week(table: pd.DataFrame, number: int) -> pd.Series:
        return pd.Series((table["weeks"].to_numpy() >> (number - 1) & 1).astype(bool), table.index)

    def new(table: pd.DataFrame) -> pd.Series:
        return table["group"] == NEW

    def left(table: pd.DataFrame) -> pd.Series:
        return new(table) & ~week(table, last)

    lines = []
    for what, asks, has, right in (
        ("new", new, lambda table: week(table, 1), truth["arrived"]),
        ("left", left, lambda table: week(table, last), truth["gone"]),
    ):
        elsewhere = matched_elsewhere(people, asks=asks, has=has, run=f"{what}, {seed}")
        for stage in ("before", "after"):
            said = pd.concat([
                own.loc[asks(own) & ~(elsewhere[name] & (stage == "after")), "person"] for name, own in people.items()
            ])  # fmt: skip
            hits = int(said.isin(right).sum())
            lines.append((what, stage, len(said), hits, hits / max(len(said), 1)))
    table = pd.DataFrame(lines, columns=["what", "matching", "persons", "right", "precision"])
    table["kept"] = table["right"] / table.groupby("what")["right"].transform("first")
    return table


def _truth(city: CallData) -> dict[str, np.ndarray]:
    """Codes of numbers whose person arrived in week 2, and of those whose person is gone before the last week."""
    table = pd.read_parquet(city.folder / "truth" / "people.parquet")
    code = coded(pa.array(table["number"].astype(str).tolist(), pa.string()))[0]
    arrived = (table["kind"] == "newcomer") & (table["arrival"] >= DAYS_PER_WEEK)
    gone = arrived & table["leaves"]
    return {"arrived": code[arrived.to_numpy()], "gone": code[gone.to_numpy()]}


def _padded(size: int) -> int:
    """The next power of two: a public size that tells little."""
    return 1 << max(size - 1, 15).bit_length()
