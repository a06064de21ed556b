"""Which features a row may have so that a promise to a person is one, and what may enter it.

A row of features protects a person only if it is a function of that person's records. Degree, incoming calls, who one's
contacts are, clustering: all of these are made of what *others* did, and taking a person away changes the rows of
everybody who knew it. So there are two kinds of columns for private training:

own features      of the person's own outgoing calls and own places alone; `catalogue.own()`; K = 0
capped features   of calls by others who list the person among their at most K targets; `catalogue.capped()`; K >= 1

With K = `contacts` >= 1 a person's records enter its own row and at most K others, and the noise pays for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from integration import catalogue
from protocol.errors import DataError, PlanError

CAP = "contact_cap"
"""Column of rows that were made for private training: the K they were made with."""


def own_features(contacts: int) -> tuple[str, ...]:
    """Columns that a model may take when a person's records enter at most `contacts` rows of others."""
    return catalogue.own() + (catalogue.capped() if contacts else ())


def check_person_features(names: Iterable[str], *, contacts: int) -> None:
    """Refuse columns that read records the promise does not cover, and noise that nothing is bought with.

    Raises:
        PlanError: names the columns, and what to set.
    """
    names = tuple(names)
    own, capped = set(catalogue.own()), set(catalogue.capped())
    if others := [name for name in names if name not in own | capped]:
        raise PlanError(
            f"'{others[0]}'{f' and {len(others) - 1} other feature(s)' if others[1:] else ''} read(s) what others did, "
            'so noise for one row would not protect them; set model.features = "own", or "own+capped" with '
            "privacy.contacts of 1 or more"
        )
    if not contacts and (found := sorted(capped & set(names))):
        raise PlanError(
            f"'{found[0]}' lets a person's records into rows of others, and privacy.contacts is 0; set it to the cap, "
            'or model.features = "own"'
        )
    if contacts and not capped & set(names):
        raise PlanError(
            f"privacy.contacts is {contacts}, but no feature reads a contact's records: that is noise for nothing; set "
            'it to 0, or model.features = "own+capped"'
        )
    if not own & set(names):
        raise PlanError("no own feature is used; capped features stand beside them, not alone")


def check_person_rows(rows: pd.DataFrame, *, contacts: int) -> pd.DataFrame:
    """The rows, if groups and presence of each follow from its own person's records, and the cap is the plan's.

    Raises:
        DataError: the rows were made for other purposes, or with a larger cap.
    """
    if CAP not in rows.columns:
        raise DataError(
            "rows for private training must be made so: who has a row, and in which group, is decided by outgoing "
            "calls alone",
            way_out="make them with integration.features.private_rows.person_rows",
        )
    if len(rows) and int(rows[CAP].max()) > contacts:
        raise DataError(
            f"rows were made with a cap of {int(rows[CAP].max())} contacts, and the plan pays for {contacts}",
            way_out="set privacy.contacts to the cap, or make the rows again",
        )
    return rows
