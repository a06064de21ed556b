"""Rows for private training: who has one, in which group and with which values follows from that person's own records.

    rows = person_rows(records, engine, contacts=0, secret=secret)         # own features, one row per person and week

Ordinary rows (`integration.features.counts`) would break a promise to persons even with own features alone, in three
places that are closed here: groups, as a call *received* in week 1 makes somebody settled who is new by own calls;
hubs, as calls of others turn somebody into one who is dropped; and the presence of rows, as whoever is called has one.
Here groups and rows come from outgoing calls alone, and nobody is dropped.

*Unit*: a subscriber's own outgoing records, with its birthplace, sex and birth year; being called is not protected.
*Adjacency*: add or remove them. *Sensitivity*: the person's own row of each week; with K = `contacts` >= 1 also at most
K others of that week, see `integration.features.capped`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from integration import catalogue
from integration.features.capped import SUMS as LISTED_SUMS
from integration.features.capped import ListKey, capped_features, counts_of_listed, listed
from integration.features.contacts import pairs, totals
from integration.features.geography import moves, places
from integration.features.own import own_features
from integration.features.parts import PART_ROWS, parts
from integration.features.person import cell_table
from integration.features.uploads import uploaded
from integration.people import FOCAL
from integration.person_rows import CAP
from integration.records.groups import groups
from protocol.errors import PrivacyParameterError
from tables.engine import Engine

if TYPE_CHECKING:
    from integration.records.records import CallRecords

_TIE_SUMS = ("degree", "in_degree", "out_degree", "both", "calls", "outgoing", "duration", "squares", "logs")
_PLACE_SUMS = (
    "located", "lat_sum", "lon_sum", "priced", "prices", "price_squares", "radius", "farthest", "moved",
)  # fmt: skip


def person_rows(
    records: CallRecords,
    engine: Engine,
    *,
    contacts: int,
    secret: bytes,
    weeks: Sequence[int] | None = None,
    part_rows: int = PART_ROWS,
) -> pd.DataFrame:
    """One row for each person with an outgoing call in week 1 or 2 and one in the row's week, sorted.

    Args:
        records: Staged calls and subscribers of the holder.
        engine: Runs the expressions.
        contacts: K; 0 leaves the capped features out.
        secret: Chooses whose rows read whose records; of the holder, at least 16 bytes.
        weeks: All but the first by default.
        part_rows: Staged rows that are taken at once.

    Returns:
        person, week, group, the own features, the capped ones if there is a cap, and the cap (`CAP`).

    Raises:
        PrivacyParameterError: contacts below 0, or a secret that is too short.
        EngineError: the engine failed.
    """
    if contacts < 0:
        raise PrivacyParameterError(f"contacts must be 0 or more, got {contacts}; give the cap")
    key = ListKey.of(secret)
    weeks = range(2, records.calendar.weeks + 1) if weeks is None else weeks
    people = own_groups(records, engine, part_rows=part_rows)
    focal = people[people["group"].isin(FOCAL)]
    found = []
    cells = cell_table(records.cells.lat, records.cells.lon, None)
    with uploaded(engine, cells) as cell, uploaded(engine, _known(records.people)) as known:
        for week in weeks:
            pieces = parts(engine, records.staged, [week], rows=part_rows)
            rows = pd.concat([_own_rows(engine, piece, cell) for piece in pieces]) if pieces else _no_rows()
            if contacts:
                rows = rows.join(_capped_rows(engine, pieces, known, records, rows.index, contacts, key))
            found.append(rows.reset_index(names="person").assign(week=np.int16(week)))
    together = pd.concat(found, ignore_index=True).merge(focal[["person", "group"]], on="person")
    names = [*catalogue.own(), *(catalogue.capped() if contacts else ())]
    together[CAP] = np.int16(contacts)
    together = together[["person", "week", "group", *names, CAP]].astype({"person": np.int64, "week": np.int16})
    return together.sort_values(["person", "week"], ignore_index=True)


def own_groups(records: CallRecords, engine: Engine, *, part_rows: int = PART_ROWS) -> pd.DataFrame:
    """Person and group of all subscribers, by the weeks of their outgoing calls; none for who never called."""
    weeks: pd.Series = pd.Series(0, index=records.people["person"].to_numpy(np.int64), dtype=np.int64)
    for week in range(1, records.calendar.weeks + 1):
        for piece in parts(engine, records.staged, [week], rows=part_rows):
            callers: Any = piece.filter(_.outgoing == 1).select("ego").distinct()
            active = engine.to_arrow(callers)["ego"].to_numpy()
            weeks.loc[weeks.index.intersection(active)] |= 1 << (week - 1)
    group = groups(records.people["birthplace"].to_numpy(), weeks.to_numpy(), city=records.city)
    return pd.DataFrame({"person": weeks.index.to_numpy(), "group": group})


def _own_rows(engine: Engine, piece: Table, cells: Table) -> pd.DataFrame:
    """Own features of everybody in a part who called somebody, by person."""
    with engine.cached(piece.filter(_.outgoing == 1)) as called:
        meant = called.filter(called.service == 0)
        ties = _frame(engine, totals(pairs(meant)))[list(_TIE_SUMS)].sort_index()
        everywhere = _frame(engine, places(called, cells)).join(_frame(engine, moves(called, cells)))
    located = everywhere.reindex(ties.index)[list(_PLACE_SUMS)].fillna(0)
    return own_features(ties, located)


def _capped_rows(
    engine: Engine, pieces: Sequence[Table], known: Table, records: Any, persons: pd.Index, contacts: int, key: ListKey
) -> pd.DataFrame:
    """Capped features of these persons: callers are listed part by part, as each is whole in one."""
    with _kept(engine, [listed(piece, contacts=contacts, key=key) for piece in pieces]) as lists:
        if not lists:
            return pd.DataFrame(columns=list(catalogue.capped()), index=persons, dtype=np.float64)
        together: Any = reduce(lambda one, two: one.union(two), lists)
        sums = _frame(engine, counts_of_listed(together, known, records.rules, records.city))
    return capped_features(sums.reindex(persons, fill_value=0)[list(LISTED_SUMS)])


@contextmanager
def _kept(engine: Engine, expressions: Sequence[Table]) -> Iterator[list[Table]]:
    with ExitStack() as stack:
        yield [stack.enter_context(engine.cached(expression)) for expression in expressions]


def _known(people: pd.DataFrame) -> pa.Table:
    """Attributes of home persons, as `counts_of_listed` wants them."""
    return pa.table(
        {
            "other": pa.array(people["person"].to_numpy(np.int64), pa.int64()),
            "birthplace": pa.array(people["birthplace"].to_numpy(np.int8), pa.int8()),
            "sex": pa.array(people["sex"].to_numpy(np.int8), pa.int8()),
            "birth_year": pa.array(people["birth_year"].to_numpy(np.int16), pa.int16()),
        }
    )


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame(columns=list(catalogue.own()), index=pd.Index([], dtype=np.int64), dtype=np.float64)


def _frame(engine: Engine, expression: Any) -> pd.DataFrame:
    return engine.to_arrow(expression).to_pandas().set_index("ego")
