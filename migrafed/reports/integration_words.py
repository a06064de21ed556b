"""Words and colours of the report of an integration run: the same in every figure, caption and table."""

from __future__ import annotations

from types import MappingProxyType

from integration.catalogue import BY_NAME
from migrafed.reports.wording import number, signed
from simulations.call_results import IntegrationFacts

GROUP_WORDS = MappingProxyType(
    {"local": "locals", "settled": "settled migrants", "new": "new migrants", "placebo": "placebo locals",
     "none": "in no group", "all": "everybody"}
)  # fmt: skip
GROUP_INK = MappingProxyType({"local": "pooled", "settled": "federated", "new": "alone", "placebo": "baseline"})
GROUP_MARKERS = MappingProxyType({"local": "s", "settled": "o", "new": "D", "placebo": "^"})
FEATURE_WORDS = MappingProxyType(
    {
        "frac_local": "Contacts who are locals",
        "frac_townsmen": "Contacts who are townsmen",
        "province_entropy": "Diversity of contacts' provinces",
        "frac_same_sex": "Contacts of the same sex",
        "frac_same_age": "Contacts of the same age",
        "degree": "Number of contacts",
        "in_degree": "Callers",
        "out_degree": "People called",
        "n_calls": "Number of calls",
        "contact_diversity": "Diversity of contacts",
        "clustering": "Contacts who know each other",
        "neighbor_degree": "Contacts of a contact",
        "dur_mean": "Mean duration of a call",
        "dur_sd": "Spread of durations",
        "frac_outgoing": "Outgoing calls",
        "reciprocal": "Contacts who call back",
        "dur_local": "Mean duration with locals",
        "dur_townsmen": "Mean duration with townsmen",
        "lat": "Latitude",
        "lon": "Longitude",
        "avg_radius": "Mean radius of movement",
        "max_radius": "Largest radius of movement",
        "move_total": "Distance travelled",
        "move_avg": "Distance between two calls",
        "price_center": "Housing price at the centre",
        "price_mean": "Mean housing price",
        "price_sd": "Spread of housing prices",
    }
)
VERDICT_WORDS = MappingProxyType(
    {
        "A": "A: newcomers approach settled migrants, and both approach locals",
        "B": "B: like locals at first, and likely to pass them by",
        "C": "C: newcomers approach settled migrants, away from locals",
        "none": "no verdict",
    }
)


def said(facts: IntegrationFacts, caption: str) -> str:
    """A caption that says first whether the data are made up."""
    return f"Synthetic data. {caption}" if facts.synthetic else caption


def feature_words(feature: str) -> str:
    """A feature in words with its unit."""
    unit = BY_NAME[feature].unit
    return f"{FEATURE_WORDS[feature]}{f', {unit}' if unit else ''}"


def around(value: float, low: float, high: float) -> str:
    """A signed difference with its interval."""
    return f"{signed(value, digits=3)} [{signed(low, digits=2)}, {signed(high, digits=2)}]"


def with_interval(value: float, low: float, high: float, *, digits: int = 3) -> str:
    """A mean with its interval."""
    return f"{number(value, digits=digits)} [{number(low, digits=digits)}, {number(high, digits=digits)}]"
