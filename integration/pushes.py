"""What an operator can tell others about their subscribers' contacts, from its own calls and nobody's question.

A call between two operators is in the records of both. So operator B knows, without being asked, every contact j of its
own of every person i at operator A, and can count for i and each week

* contacts, calls and milliseconds by birthplace of j; contacts by sex, and by birth year;
* the sum of the degrees of these j and their number; pairs (j, k) of them that are in contact themselves.

A adds these counts to its own before it divides (`integration.features.assembling.assemble`). With two operators every
feature but the rarefied entropy of birthplaces is then that of all calls together; with more, pairs of contacts at two
*different* other operators are missed too: nobody sees all three ties. A sends no question, so A tells nothing. **What
leaks goes from B to A**: where i has one contact at B, the histogram is that person's birthplace, sex and birth year.

`thresholded` suppresses small counts, `integration.push_histograms` makes the tables that noise can be added to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from integration.features import ego, friends
from integration.features.assembling import Pushed
from integration.features.contacts import pairs
from integration.features.counts import COLUMNS, hub_weeks
from integration.features.hubs import without
from integration.features.parts import PART_ROWS, parts
from integration.features.uploads import uploaded
from protocol.errors import DataError
from tables.engine import Engine

if TYPE_CHECKING:
    from integration.records.records import CallRecords

LONG = tuple(field.name for field in fields(Pushed))
CONTACTS = {"provinces": "contacts", "sexes": "contacts", "birth_years": "contacts", "structure": "degree_contacts"}
"""The column of each table that says of how many contacts a row is."""
UNIT = "one tie: all calls between one subscriber here and one number at another operator"


def push_aggregates(
    records: CallRecords,
    engine: Engine,
    *,
    own: str,
    weeks: Sequence[int] | None = None,
    hubs: pd.DataFrame | None = None,
    structure: bool = True,
    part_rows: int = PART_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Pushed]:
    """Counts for the subscribers of every other operator over their contacts here; `person` is their number's code.

    Args:
        records: This operator's; `records.operators` says where numbers belong.
        engine: Runs the expressions.
        own: This operator's name in the routing table.
        weeks: Numbers of weeks; all but the first by default.
        hubs: person, week: numbers that are left out as contacts, this operator's own and those others told of. None:
            nobody is, which is what a tie-level promise needs: one tie less may make a hub a person again, and with it
            change the counts of everybody the hub called.
        structure: Whether degrees and closed pairs are counted.
        part_rows: Staged rows that are taken at once.
        progress: Called with the weeks done and to do.

    Raises:
        DataError: there is no routing table, or `own` is not in it.
        EngineError: the engine failed.
    """
    routes = _routes(records, own)
    weeks = range(2, records.calendar.weeks + 1) if weeks is None else weeks
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in LONG}
    foreign = pa.table({"other": pa.array(routes["number"].to_numpy(np.int64), pa.int64())})
    with _uploaded(engine, foreign) as numbers, _uploaded(engine, _told(records.people)) as known:
        for done, week in enumerate(weeks, start=1):
            dropped = np.zeros(0, np.int64) if hubs is None else hubs.loc[hubs["week"] == week, "person"].to_numpy()
            codes = pa.table({"ego": pa.array(np.unique(dropped), pa.int64())})
            pieces = parts(engine, records.staged, [week], rows=part_rows)
            with _uploaded(engine, codes) as hub_codes:
                tables = _week(engine, pieces, numbers, known, hub_codes, structure=structure)
            for name, table in tables.items():
                table.insert(1, "week", np.int16(week))
                found[name].append(table)
            if progress is not None:
                progress(done, len(weeks))
    tables = {name: _columns(pd.concat(frames, ignore_index=True), name) for name, frames in found.items() if frames}
    return {str(operator): _only(tables, chosen["number"]) for operator, chosen in routes.groupby("operator")}


def hubs_for(records: CallRecords, engine: Engine, *, own: str, weeks: Sequence[int] | None = None) -> pd.DataFrame:
    """Hubs and couriers among the own numbers: person, week; what others need to leave them out as contacts too."""
    _routes(records, own)
    return hub_weeks(records, engine, weeks=weeks)[["person", "week"]]


def hubs_met(records: CallRecords, engine: Engine, hubs: pd.DataFrame, *, own: str) -> dict[str, pd.DataFrame]:
    """Of these own hubs, the user-weeks that each other operator has calls with in that week: person, week.

    The others' subscribers are in touch with no other hub from here, so they need to be told of none.

    Raises:
        DataError, EngineError: see `push_aggregates`.
    """
    routes = _routes(records, own)
    found = [pd.DataFrame({"person": np.zeros(0, np.int64), "other": np.zeros(0, np.int64), "week": np.zeros(0, int)})]
    for week, chosen in hubs.groupby("week"):
        codes = pa.table({"ego": pa.array(chosen["person"].to_numpy(np.int64), pa.int64())})
        with _uploaded(engine, codes) as busy:
            for piece in parts(engine, records.staged, [int(week)]):  # type: ignore[arg-type]
                met = piece.filter(_.service == 0).semi_join(busy, "ego").select(person=_.ego, other=_.other).distinct()
                found.append(_frame(engine, met).assign(week=week))
    met = pd.concat(found, ignore_index=True).merge(routes, left_on="other", right_on="number")
    each = met[["operator", "person", "week"]].drop_duplicates()
    return {
        str(name): each.loc[each["operator"] == name, ["person", "week"]].reset_index(drop=True)
        for name in sorted(set(routes["operator"]))
    }


def thresholded(pushed: Pushed, *, least: int = 5) -> Pushed:
    """Only counts over at least `least` known contacts; in each table, all rows of a person and week or none.

    It hides whom a person with few contacts here called. It is no promise: differences between weeks, or between two
    runs, may still tell of one contact.
    """
    return Pushed(**{name: _large(getattr(pushed, name), CONTACTS[name], least) for name in LONG})


def added(pushes: Iterable[Pushed]) -> Pushed:
    """Counts of several operators in one; sums are taken when rows are assembled."""
    each = list(pushes)
    return Pushed(
        **{name: pd.concat([getattr(one, name) for one in (Pushed(), *each)], ignore_index=True) for name in LONG}
    )


def _large(table: pd.DataFrame, column: str, least: int) -> pd.DataFrame:
    return table[table.groupby(["person", "week"])[column].transform("sum") >= least].reset_index(drop=True)


def _routes(records: CallRecords, own: str) -> pd.DataFrame:
    """number, operator of the numbers of all other operators."""
    if records.operators is None:
        raise DataError("there is no table of which operator a number belongs to", way_out="add the section [routing]")
    if own not in set(records.operators["operator"]):
        raise DataError(f"the routing table has no operator '{own}'", way_out="name this operator as it does")
    routes = records.operators[records.operators["operator"] != own]
    return routes.astype({"operator": str})


def _week(
    engine: Engine, pieces: Sequence[Table], foreign: Table, known: Table, dropped: Table, *, structure: bool
) -> dict[str, pd.DataFrame]:
    """The tables of one week, with the foreign numbers as persons."""
    counts: dict[str, list[pd.DataFrame]] = {name: [] for name in LONG}
    with ExitStack() as stack:
        ties: list[Table] = []
        for piece in pieces:
            met = piece.filter(_.service == 0).semi_join(foreign, "other")
            tied: Any = stack.enter_context(engine.cached(pairs(mirrored(without(met, dropped, "ego")))))
            ties.append(tied)
            by_province = friends.by_province(tied, known).rename(province="birthplace")
            counts["provinces"].append(_frame(engine, by_province))
            counts["sexes"].append(_frame(engine, friends.by_attribute(tied, known, "sex")))
            counts["birth_years"].append(_frame(engine, friends.by_attribute(tied, known, "birth_year")))
        if ties and structure:
            counts["structure"].append(_structure(engine, stack, pieces, ties, dropped))
    return {name: _summed(frames, name) for name, frames in counts.items()}


def mirrored(rows: Table) -> Table:
    """Staged rows from the side of the other party, who has no rows here."""
    return rows.select(ego=_.other, other=_.ego, outgoing=(1 - _.outgoing).cast("int8"), duration=_.duration)


def _structure(
    engine: Engine, stack: ExitStack, pieces: Sequence[Table], ties: Sequence[Table], dropped: Table
) -> pd.DataFrame:
    """Degrees of the contacts here, and pairs of them in contact; the union goes over all parts."""
    tied = _union([table.select("ego", "other") for table in ties])
    wanted = stack.enter_context(engine.cached(tied.select("other").distinct()))
    near = []
    for piece in pieces:
        meant = without(without(piece.filter(_.service == 0), dropped, "other"), dropped, "ego")
        near.append(stack.enter_context(engine.cached(ego.ties(meant, wanted))))
    known = _union(near)
    degrees = _frame(engine, ego.neighbour_degrees(tied, ego.degrees(known)))
    closed = _frame(engine, ego.closed_pairs(tied, ego.edges(known, wanted)))
    return degrees.merge(closed, on="ego", how="outer").fillna(0).astype(np.int64)


def _summed(frames: list[pd.DataFrame], name: str) -> pd.DataFrame:
    """Sums over parts, sorted by person: neither the engine nor the number of parts shows."""
    columns = [column for column in COLUMNS[name] if column != "week"]
    if not frames:
        return pd.DataFrame({column: np.zeros(0, np.int64) for column in columns})
    together = pd.concat(frames, ignore_index=True).rename(columns={"ego": "person"}).astype(np.int64)
    keys = ["person", *(column for column in columns if column in ("province", "sex", "birth_year"))]
    return together.groupby(keys, as_index=False).sum()[columns]


def _only(tables: dict[str, pd.DataFrame], numbers: pd.Series) -> Pushed:
    """The rows of these numbers."""
    wanted = pd.Index(numbers)
    return Pushed(**{
        name: table[table["person"].isin(wanted)].reset_index(drop=True) for name, table in tables.items()
    })  # fmt: skip


def _columns(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[list(COLUMNS[name])].astype(np.int64).astype({"week": np.int16})


def _told(people: pd.DataFrame) -> pa.Table:
    """Persons with an attribute: other, birthplace, sex, birth_year."""
    told = people[(people[["birthplace", "sex", "birth_year"]] >= 0).any(axis=1)]
    return pa.table({
        "other": pa.array(told["person"].to_numpy(np.int64)),
        "birthplace": pa.array(told["birthplace"].to_numpy(np.int8)),
        "sex": pa.array(told["sex"].to_numpy(np.int8)),
        "birth_year": pa.array(told["birth_year"].to_numpy(np.int16)),
    })  # fmt: skip


@contextmanager
def _uploaded(engine: Engine, table: pa.Table) -> Iterator[Table]:
    """The table on the engine; read once, since Spark does not look for tables of this process in what it caches."""
    with uploaded(engine, table) as there:
        if engine.name != "duckdb":
            engine.to_arrow(there.limit(0))
        yield there


def _frame(engine: Engine, expression: Table) -> pd.DataFrame:
    return engine.to_arrow(expression).to_pandas()


def _union(tables: Sequence[Table]) -> Any:
    return reduce(lambda one, two: one.union(two), tables)
