"""Companions made of a person's own outgoing calls alone: nobody else's record, attribute or behaviour changes them.

No hub is dropped here, since who is a hub depends on others; numbers of services are told by their digits.
"""

from __future__ import annotations

import pandas as pd

from integration.features.contacts import contact_features
from integration.features.geography import place_features

OF_CONTACTS = {
    "degree": "own_degree",
    "n_calls": "own_calls",
    "contact_diversity": "own_diversity",
    "dur_mean": "own_dur_mean",
    "dur_sd": "own_dur_sd",
}
OF_PLACES = {name: f"own_{name}" for name in ("lat", "lon", "avg_radius", "max_radius", "move_total", "move_avg")}


def own_features(contacts: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """The companions, from the same sums as the features, taken over outgoing calls."""
    ties = contact_features(contacts)[list(OF_CONTACTS)].rename(columns=OF_CONTACTS)
    return ties.join(place_features(places)[list(OF_PLACES)].rename(columns=OF_PLACES))
