"""Which persons a model is trained on: a keyed hash of each person decides, not the order or number of rows.

Two ways. *Halves by threshold*: a person is in training if its hash is below one half; any holder can tell without
asking another, and a person with two numbers falls on one side where tokens of identity are there. *Stratified halves*:
in each class the half of the persons with the smallest hashes; needs all persons of a class at one place.

The key comes from the seed, which is public: that somebody is in one half or the other is no secret.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from integration.people import GROUPS
from integration.prediction.problems import LEARNT_WEEK
from tables.keyed_hash import KeyedHash

IDENTITY = "identity"
"""Optional column: a token of the person behind one or several numbers."""
_HALF = 2**62


def hashes(rows: pd.DataFrame, seed: int, purpose: str) -> np.ndarray:
    """A pseudo-random number in [0, 2^63) of the person of each row: of the identity where one is known.

    Shapes: n rows -> (n,) int64.
    """
    secret = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=32).digest()
    names = rows["person"].astype("int64").astype(str)
    if IDENTITY in rows.columns:
        known = rows[IDENTITY].notna()
        names = names.where(~known, "identity " + rows[IDENTITY].astype(str))
    person, _ = KeyedHash(secret).persons(names.tolist())
    return person & np.int64(2**63 - 1)


def in_training(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Whether the person of each row is in the training half, decided person by person.

    Shapes: n rows -> (n,) bool.
    """
    return hashes(rows, seed, "training half") < _HALF


def stratified_half(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Whether the person of each row is in the training half, which has half of the persons of each group in week 2.

    Later weeks have no say, and who has no row in week 2 is in no training half. Numbers of one identity stay together;
    they count for the first of their groups in the order of `GROUPS`.

    Shapes: n rows (any weeks) -> (n,) bool.
    """
    order = {group: position for position, group in enumerate(GROUPS)}
    person = hashes(rows, seed, "training half")
    learnt = (rows["week"] == LEARNT_WEEK).to_numpy()
    group = rows["group"].map(order).to_numpy(np.int64)
    strata = pd.Series(group[learnt]).groupby(person[learnt]).min()  # in the order of hashes
    ranks = strata.groupby(strata).cumcount()
    sizes = strata.map(strata.value_counts())
    return np.isin(person, strata.index[ranks < sizes // 2])


def folds(rows: pd.DataFrame, seed: int, *, count: int = 5) -> np.ndarray:
    """The fold of the person of each row, for choices inside the training half. Shapes: n rows -> (n,) int64."""
    return hashes(rows, seed, "fold") % count
