"""From features to columns of a model, fitted on training rows alone and made of sums, so that holders can share it::

    totals = preparation_sums(rows, names, MEDIANS)                    # each holder; add up
    totals |= preparation_sums(rows, names, MOMENTS, totals)           # each holder; add up
    x = preparation_from(names, totals).transform(rows)

log(1 + x) where the catalogue says so → missing values become the training median, with a 0/1 flag → minus mean, over
standard deviation → clipped at ±5. Several holders get what one would get who had all rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from integration import catalogue
from integration.prediction.grids import BINS, grid_of, public_scale
from integration.rules import City
from protocol.errors import DataError, PlanError

Phase = Literal["medians", "moments"]
MEDIANS: Phase = "medians"
MOMENTS: Phase = "moments"
PHASES: tuple[Phase, ...] = (MEDIANS, MOMENTS)
CLIP = 5.0
"""Standard deviations beyond which a value is taken for the bound."""
_IMPUTED = {"contact_diversity": 0.0, "own_diversity": 0.0}
"""Features that are undefined for a single contact, where they mean no diversity at all."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Preparation:
    """How rows of features become rows of a model.

    Args:
        names: Columns of features, in the order of the model.
        medians: What missing values become, on the scale of the classifier.
        means: Means of the training rows after that.
        sds: Standard deviations; 1 for a column that does not vary.
        flagged: Columns that had missing values in training: each gets a 0/1 column behind the features.
    """

    names: tuple[str, ...]
    medians: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    flagged: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the model's columns."""
        return self.names + tuple(f"{name} missing" for name in self.flagged)

    def positions(self, names: tuple[str, ...], *, flags: bool = True) -> np.ndarray:
        """Where the model's columns of some of the features are: the same preparation serves every choice of them."""
        wanted = [*names, *(f"{name} missing" for name in names if flags and name in self.flagged)]
        return np.array([self.columns.index(column) for column in wanted], dtype=np.int64)

    def transform(self, rows: pd.DataFrame) -> np.ndarray:
        """Columns of the model.

        Shapes: n rows -> (n, features + flags) float64, all finite.

        Raises:
            DataError: a column is missing, or a value is infinite.
        """
        values = scaled(rows, self.names)
        missing = np.isnan(values)
        filled = np.where(missing, self.medians, values)
        standard = np.clip((filled - self.means) / np.array(self.sds), -CLIP, CLIP)
        flags = missing[:, [self.names.index(name) for name in self.flagged]]
        return np.hstack([standard, flags.astype(np.float64)])

    def to_json(self) -> str:
        """All numbers, exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preparation:
        """What `to_json` wrote."""
        return cls(**{key: tuple(value) for key, value in json.loads(text).items()})


def scaled(rows: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Features on the scale of the classifier, NaN where missing.

    Shapes: n rows -> (n, features) float64.

    Raises:
        DataError: a column is missing, a value is infinite, or a value that a logarithm is taken of is negative.
    """
    if absent := [name for name in names if name not in rows.columns]:
        raise DataError(f"rows have no column '{absent[0]}'", way_out="make rows with integration.features.assemble")
    values = rows[list(names)].to_numpy(np.float64, copy=True)
    for position, name in enumerate(names):
        column = values[:, position]
        if np.isinf(column).any():
            raise DataError("a feature is infinite", way_out="features are finite or missing", column=name)
        if catalogue.takes_log(name):
            if np.nanmin(column, initial=0.0) < 0:
                raise DataError("a feature is negative", way_out="it counts something; correct it", column=name)
            values[:, position] = np.log1p(column)
    return values


def preparation_sums(
    rows: pd.DataFrame, names: tuple[str, ...], phase: str, totals: Arrays | None = None, *, city: City | None = None
) -> dict[str, np.ndarray]:
    """What a holder's training rows add to a phase.

    medians: histograms on public grids and numbers of missing values; moments: number of rows, sums and sums of squares
    of filled values about the medians.

    Shapes: histogram (F, BINS), missing (F,); rows (1,), sum (F,), square (F,); all float64.

    Raises:
        PlanError: no such phase, or the medians' totals are not there.
        DataError: as `scaled`.
    """
    values = scaled(rows, names)
    if phase == MEDIANS:
        return _histograms(values, names, city or City())
    if phase != MOMENTS or totals is None:
        raise PlanError(f"phase '{phase}' cannot be added up here; use 'medians', then 'moments' with the totals")
    medians = np.array(_medians(names, totals, city or City()))
    about = np.where(np.isnan(values), 0.0, values - medians)
    return {"rows": np.array([float(len(rows))]), "sum": about.sum(axis=0), "square": (about**2).sum(axis=0)}


def preparation_from(names: tuple[str, ...], totals: Arrays, *, city: City | None = None) -> Preparation:
    """The preparation that the totals of both phases give.

    Raises:
        PlanError: the totals are of other features.
        DataError: there is no training row.
    """
    if totals["missing"].shape != (len(names),):
        raise PlanError(f"totals are of {len(totals['missing'])} features, not {len(names)}; use the plan's features")
    count = float(totals["rows"][0])
    if not count > 0:
        raise DataError("there is no training row", way_out="check groups and weeks of the rows")
    medians = np.array(_medians(names, totals, city or City()))
    away = totals["sum"] / count
    variance = np.maximum(totals["square"] / count - away**2, 0.0)
    sds = np.where(variance > 1e-18, np.sqrt(variance), 1.0)
    flagged = tuple(name for name, missing in zip(names, totals["missing"], strict=True) if missing)
    return Preparation(names, _plain(medians), _plain(medians + away), _plain(sds), flagged)


def fit_preparation(rows: pd.DataFrame, names: tuple[str, ...], *, city: City | None = None) -> Preparation:
    """The preparation of one holder who has all training rows."""
    totals = preparation_sums(rows, names, MEDIANS, city=city)
    totals |= preparation_sums(rows, names, MOMENTS, totals, city=city)
    return preparation_from(names, totals, city=city)


def public_preparation(names: tuple[str, ...], *, city: City | None = None) -> Preparation:
    """A preparation that no row had a say in, for training that must not look at the data unprotected."""
    means, sds = zip(*(public_scale(name, city or City()) for name in names), strict=True)
    medians = dict(zip(names, means, strict=True)) | {name: _IMPUTED[name] for name in names if name in _IMPUTED}
    return Preparation(names, tuple(medians[name] for name in names), means, sds, names)


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _histograms(values: np.ndarray, names: tuple[str, ...], city: City) -> dict[str, np.ndarray]:
    counts = np.zeros((len(names), BINS))
    for position, name in enumerate(names):
        present = values[~np.isnan(values[:, position]), position]
        counts[position] = np.bincount(grid_of(name, city).positions(present), minlength=BINS)
    return {"histogram": counts, "missing": np.isnan(values).sum(axis=0).astype(np.float64)}


def _medians(names: tuple[str, ...], totals: Arrays, city: City) -> list[float]:
    """The middle of the bin in which half of the present values are reached; the fixed value where there is one."""
    found = []
    for name, histogram in zip(names, totals["histogram"], strict=True):
        reached = np.cumsum(histogram)
        middle = int(np.searchsorted(reached, reached[-1] / 2)) if reached[-1] else 0
        found.append(_IMPUTED[name] if name in _IMPUTED else grid_of(name, city).midpoint(min(middle, BINS - 1)))
    return found
