"""How numbers, dates and pairs are written in the report: the same everywhere, in every locale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from simulations.results import pair_id

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MISSING = "–"


def number(value: float, *, digits: int = 4) -> str:
    """`value` with `digits` significant digits, thousands grouped, or a dash when there is none."""
    if math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if decimals > 8:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:,.{decimals}f}".replace("-", "−")


def signed(value: float, *, digits: int = 2) -> str:
    """`value` with its sign always shown."""
    return f"{'+' if value > 0 else ''}{number(value, digits=digits)}"


def percent(value: float, *, decimals: int = 1) -> str:
    """A share as per cent."""
    return MISSING if math.isnan(value) else f"{100 * value:.{decimals}f} %".replace("-", "−")


def compact(value: float, _position: object = None) -> str:
    """A tick label: 1,200,000 as 1.2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def day(when: pd.Timestamp) -> str:
    """An ISO date."""
    return when.strftime("%Y-%m-%d")


def short_day(when: pd.Timestamp, *, year: bool = False) -> str:
    """A tick label: "3 Feb", with the year where it helps."""
    return f"{when.day} {_MONTHS[when.month - 1]}{f' {when.year}' if year else ''}"


def shortened(text: str, most: int) -> str:
    """`text` with an ellipsis where it is too long for a drawing; tables show it whole."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def count_of(things: int, noun: str) -> str:
    """A number with its noun: 1 holder, 4 holders."""
    return f"{things:,} {noun}{'' if things == 1 else 's'}"


def pair_names(pairs: list[str], names: Mapping[str, str]) -> dict[str, str]:
    """Each `unique_id` with the regions' names in place of their codes, where both are known."""
    known = {}
    for pair in pairs:
        origin, _, destination = pair.partition(pair_id("", ""))
        both = origin in names and destination in names
        known[pair] = f"{names[origin]} → {names[destination]}" if both else pair
    return known
