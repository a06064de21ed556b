"""Features that read others' records under a cap: each subscriber's calls enter at most K rows besides its own.

A cap on how many contacts a row reads bounds nothing: one caller can be in everybody's row. So the *caller* is capped.
Every caller lists at most K of the numbers it called, chosen by a keyed hash of (caller, number) from its own outgoing
calls alone, and only the rows of listed numbers read its records::

    lists = listed(calls, contacts=5, key=ListKey.of(secret))          # caller, target, calls
    counts_of_listed(lists, known, rules)                              # ego, what its listing callers are

*Unit*: a subscriber's own outgoing records, with its birthplace, sex and birth year. *Adjacency*: add or remove them.
*Sensitivity*: one row of its own, and at most K rows of others, in each week. Proof. The list of v is a function of v's
own calls and the key; no other list changes when v comes or goes, whether or not v is a subscriber, as numbers are
listed and not subscribers. A row i reads the records of j only if i is in j's list. So without v exactly the rows in
v's list, K at most, lose what v put into them. Triangles and contacts of contacts reach further and are not there.

What a target learns about its callers is not more than features of callers who list it. Several weeks of one person are
several rows: train on one week, or count K in each.

Source: priority by a random linear function modulo 2^31 - 1, Carter and Wegman 1979 (universal hashing).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import ibis
import numpy as np
import pandas as pd
from ibis import _
from ibis.expr.types import Table

from integration.features.contacts import entropy, ratio, surprise
from integration.rules import CallRules, City
from protocol.errors import PrivacyParameterError

_PRIME = 2**31 - 1
LEAST_SECRET_BYTES = 16
SUMS = (
    "callers", "calls", "known", "local", "sex_known", "same_sex", "year_known", "same_age", "provinces", "logs",
)  # fmt: skip


@dataclass(frozen=True)
class ListKey:
    """Coefficients of the hash that chooses targets; a secret of the holder, the same for all weeks of a study."""

    coefficients: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> ListKey:
        """The key that a secret gives.

        Raises:
            PrivacyParameterError: the secret is shorter than 16 bytes.
        """
        if len(secret) < LEAST_SECRET_BYTES:
            raise PrivacyParameterError(
                f"the secret that targets are chosen by has {len(secret)} bytes; draw {LEAST_SECRET_BYTES} or more "
                "with secrets.token_bytes and keep them"
            )
        digest = hashlib.blake2b(secret, digest_size=40, person=b"lists of targets").digest()
        words = np.frombuffer(digest, "<u8")
        return cls(tuple(1 + int(word) % (_PRIME - 1) for word in words))


def listed(calls: Table, *, contacts: int, key: ListKey) -> Any:
    """At most `contacts` targets of each caller, those of the smallest hash: caller, target, calls.

    Args:
        calls: Staged calls of one period; all rows of a caller are in the table.
        contacts: K.
        key: Secret of the holder.
    """
    own = calls.filter((_.outgoing == 1) & (_.service == 0)).group_by(["ego", "other"]).agg(calls=_.count())
    ranked = own.mutate(priority=_priority(own.ego, own.other, key))
    order = ibis.window(group_by="ego", order_by=["priority", "other"])
    ranked = ranked.mutate(place=ibis.row_number().over(order))
    chosen: Any = ranked.filter(_.place < contacts)
    return chosen.select(caller=chosen.ego, target=chosen.other, calls=chosen.calls)


def counts_of_listed(lists: Any, known: Any, rules: CallRules, city: City) -> Table:
    """What the callers who list a person are, as integers: ego, and `SUMS`.

    Args:
        lists: Of all callers, from `listed`.
        known: Home persons with an attribute: other, birthplace, sex, birth_year; -1 unknown.
        rules: How many years apart count as the same age.
        city: Which birthplace is local.
    """
    callers = known.select(caller=_.other, birthplace=_.birthplace, sex=_.sex, birth_year=_.birth_year)
    mine = known.select(target=_.other, own_sex=_.sex, own_year=_.birth_year)
    told = lists.left_join(callers, "caller").drop("caller_right").left_join(mine, "target").drop("target_right")
    born, sex, year = (told[name].fill_null(-1) for name in ("birthplace", "sex", "birth_year"))
    own_sex, own_year = told.own_sex.fill_null(-1), told.own_year.fill_null(-1)
    both_sexes, both_years = (sex >= 0) & (own_sex >= 0), (year >= 0) & (own_year >= 0)
    near = (year.cast("int64") - own_year.cast("int64")).abs() <= rules.age_years
    told = told.select(
        ego=told.target,
        calls=told.calls,
        born=born,
        known=_one(born >= 0),
        local=_one(born == city.birthplace),
        sex_known=_one(both_sexes),
        same_sex=_one(both_sexes & (sex == own_sex)),
        year_known=_one(both_years),
        same_age=_one(both_years & near),
    )
    whole = told.group_by("ego").agg(
        callers=_.count(),
        calls=_.calls.sum(),
        **{name: told[name].sum() for name in SUMS[2:-2]},
    )
    spread = told.filter(_.born >= 0).group_by(["ego", "born"]).agg(persons=_.count()).group_by("ego")
    provinces: Any = spread.agg(provinces=_.count(), logs=surprise(_.persons).sum())
    joined = whole.left_join(provinces, "ego").drop("ego_right")
    return joined.mutate(provinces=_.provinces.fill_null(0), logs=_.logs.fill_null(0))


def capped_features(sums: pd.DataFrame) -> pd.DataFrame:
    """The features from `SUMS`, one row for each person; zeros where nobody lists the person, NaN where none is known.

    Columns: those of `integration.catalogue.CAPPED`.
    """
    known, local, logs, provinces = (sums[name].to_numpy() for name in ("known", "local", "logs", "provinces"))
    return pd.DataFrame(
        {
            "capped_in_degree": sums["callers"].to_numpy(np.float64),
            "capped_in_calls": sums["calls"].to_numpy(np.float64),
            "capped_frac_local": ratio(local, known),
            "capped_same_sex": ratio(sums["same_sex"].to_numpy(), sums["sex_known"].to_numpy()),
            "capped_same_age": ratio(sums["same_age"].to_numpy(), sums["year_known"].to_numpy()),
            "capped_province_entropy": entropy(logs, known, provinces),
        },
        index=sums.index,
    )


def _priority(caller: Any, target: Any, key: ListKey) -> Any:
    """A keyed number in [0, 2^31 - 1) of a pair: all products stay below 2^62, so every engine has the same one."""
    *factors, shift = key.coefficients
    limbs = [*_limbs(caller), *_limbs(target)]
    total: Any = ibis.literal(shift, "int64")
    for factor, limb in zip(factors, limbs, strict=True):
        total = total + (limb * ibis.literal(factor, "int64")) % _PRIME
    return total % _PRIME


def _limbs(code: Any) -> tuple[Any, Any]:
    """The low 31 bits and what is above them, each modulo the prime; codes may be negative."""
    low: Any = code & ibis.literal(_PRIME, "int64")
    high = ((code - low) // ibis.literal(2**31, "int64")).cast("int64")
    return low % _PRIME, (high % _PRIME + _PRIME) % _PRIME


def _one(condition: Any) -> Any:
    return ibis.ifelse(condition, 1, 0).cast("int64")
