"""Every feature by name: its family, its scale, and what it may be used for. One place, so that no model takes a leak.

A feature is computed for a person and a week (or another window) from the calls of that window alone; formulas are in
`integration.features`. Families carry the names of the study; membership and formulas are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["friends", "ego", "call", "geo", "price"]


@dataclass(frozen=True)
class Feature:
    """One feature.

    Args:
        name: Column of the table of features.
        family: One of the four families of the study, or prices of housing.
        log: Whether log(1 + x) is taken before it is standardised.
        unit: Unit of the raw value.
        leaks: It is made of the focal person's own birthplace, which is the label.
        rarefied: Name of the companion made of a fixed number of calls, if there is one.
        own_name: Name of the companion made of the person's own outgoing calls alone, if there is one.
    """

    name: str
    family: Family
    log: bool = False
    unit: str = ""
    leaks: bool = False
    rarefied: str | None = None
    own_name: str | None = None


FEATURES = (
    Feature("frac_local", "friends", unit="share of contacts"),
    Feature("frac_townsmen", "friends", unit="share of contacts", leaks=True),
    Feature("province_entropy", "friends", unit="nats", rarefied="province_entropy_rarefied"),
    Feature("frac_same_sex", "friends", unit="share of contacts"),
    Feature("frac_same_age", "friends", unit="share of contacts"),
    Feature("degree", "ego", log=True, unit="contacts"),
    Feature("in_degree", "ego", log=True, unit="contacts"),
    Feature("out_degree", "ego", log=True, unit="contacts", own_name="own_degree"),
    Feature("n_calls", "ego", log=True, unit="calls", own_name="own_calls"),
    Feature("contact_diversity", "ego", rarefied="contact_diversity_rarefied", own_name="own_diversity"),
    Feature("clustering", "ego", unit="share of pairs"),
    Feature("neighbor_degree", "ego", log=True, unit="contacts"),
    Feature("dur_mean", "call", log=True, unit="s", own_name="own_dur_mean"),
    Feature("dur_sd", "call", log=True, unit="s", own_name="own_dur_sd"),
    Feature("frac_outgoing", "call", unit="share of calls"),
    Feature("reciprocal", "call", unit="share of contacts"),
    Feature("dur_local", "call", log=True, unit="s"),
    Feature("dur_townsmen", "call", log=True, unit="s", leaks=True),
    Feature("lat", "geo", unit="degrees", own_name="own_lat"),
    Feature("lon", "geo", unit="degrees", own_name="own_lon"),
    Feature("avg_radius", "geo", log=True, unit="km", rarefied="avg_radius_rarefied", own_name="own_avg_radius"),
    Feature("max_radius", "geo", log=True, unit="km", rarefied="max_radius_rarefied", own_name="own_max_radius"),
    Feature("move_total", "geo", log=True, unit="km", own_name="own_move_total"),
    Feature("move_avg", "geo", log=True, unit="km", own_name="own_move_avg"),
    Feature("price_center", "price", log=True, unit="yuan/m²"),
    Feature("price_mean", "price", log=True, unit="yuan/m²"),
    Feature("price_sd", "price", log=True, unit="yuan/m²"),
)
CAPPED = (
    Feature("capped_in_degree", "ego", log=True, unit="contacts"),
    Feature("capped_in_calls", "ego", log=True, unit="calls"),
    Feature("capped_frac_local", "friends", unit="share of contacts"),
    Feature("capped_same_sex", "friends", unit="share of contacts"),
    Feature("capped_same_age", "friends", unit="share of contacts"),
    Feature("capped_province_entropy", "friends", unit="nats"),
)
"""Made of calls by those who list the person among their at most K targets: for private training with a cap on
contacts, and no columns of ordinary rows."""
BY_NAME = {feature.name: feature for feature in FEATURES}
FAMILIES: tuple[Family, ...] = ("friends", "ego", "call", "geo")
KEYS = ("person", "week")
"""What a row of features is of; `week` is the number of the window where windows are no weeks."""
DIAGNOSTICS = (
    "entropy", "province_entropy_normalised", "known_share", "strong_contacts", "located_calls", "active_days",
    "centre_km",
)  # fmt: skip
"""Columns beside the features: never in a model, because they tell of the collection of data or of exposure.

entropy: of the contacts, in nats; known_share: contacts of known birthplace; strong_contacts: both called;
located_calls, active_days: exposure; centre_km: from the person's centre to the city's.
"""


def primary(families: tuple[Family, ...] = FAMILIES) -> tuple[str, ...]:
    """Features of these families that a classifier may take: none that is made of the label."""
    return tuple(feature.name for feature in FEATURES if feature.family in families and not feature.leaks)


def own() -> tuple[str, ...]:
    """Companions that are functions of one person's own outgoing calls and own cells."""
    return tuple(feature.own_name for feature in FEATURES if feature.own_name)


def capped() -> tuple[str, ...]:
    """Features that read others' records under a cap, see `CAPPED`."""
    return tuple(feature.name for feature in CAPPED)


def rarefied() -> dict[str, str]:
    """Feature → its companion of a fixed number of calls."""
    return {feature.name: feature.rarefied for feature in FEATURES if feature.rarefied}


def takes_log(column: str) -> bool:
    """Whether a column, companion or not, is standardised on the scale log(1 + x)."""
    for feature in (*FEATURES, *CAPPED):
        if column in (feature.name, feature.rarefied, feature.own_name):
            return feature.log
    return False
