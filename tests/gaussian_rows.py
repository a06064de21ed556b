"""Rows of features without any calls: Gaussian persons around chosen means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from integration.catalogue import rarefied

# Targets that a generator of calls was given: local; settled in week 2 and 4; new in weeks 2, 3, 4; standard deviation.
TARGETS = {
    "frac_local": (0.72, (0.36, 0.38), (0.10, 0.19, 0.27), 0.24),
    "frac_townsmen": (0.0, (0.22, 0.215), (0.38, 0.34, 0.31), 0.2),
    "province_entropy": (0.85, (1.38, 1.39), (1.14, 1.18, 1.21), 0.60),
    "contact_diversity": (0.86, (0.905, 0.90), (0.82, 0.84, 0.85), 0.10),
    "degree": (12, (14, 13.8), (9, 10.2, 11), 9.0),
    "clustering": (0.10, (0.07, 0.072), (0.125, 0.115, 0.108), 0.05),
    "neighbor_degree": (24, (28, 27.5), (34, 31.5, 30), 11.0),
    "dur_mean": (85, (108, 105), (150, 128, 115), 40.0),
    "avg_radius": (3.2, (3.9, 3.86), (2.6, 2.85, 3.0), 2.0),
    "move_avg": (2.6, (3.1, 3.06), (2.1, 2.3, 2.42), 1.5),
}
EXPECTED = dict(zip(TARGETS, ("A", "none", "C", "B", "B", "B", "A", "A", "B", "B"), strict=True))
SIZES = {"local": 8000, "settled": 8000, "new": 4000, "placebo": 2000}


def gaussian_rows(
    targets: Mapping[str, tuple] = TARGETS, sizes: Mapping[str, int] = SIZES, *, seed: int = 1, noise: float = 0.3
) -> pd.DataFrame:
    """Rows of weeks 2 to 4: a person keeps its own level, and each week adds `noise` times the spread of persons.

    Placebo newcomers are locals who stay where locals are. Rarefied companions follow the same means.
    """
    rng = np.random.default_rng(seed)
    tables, start = [], 0
    for group, size in sizes.items():
        own = {name: rng.normal(size=size) for name in targets}
        for index, week in enumerate((2, 3, 4)):
            table: dict[str, object] = {"person": start + np.arange(size), "week": np.int16(week), "group": group}
            table |= {"lat": 31.2 + 0.1 * own["degree"] if "degree" in own else 31.2, "lon": 121.4, "first_day": 0}
            for name, target in targets.items():
                mean, sd = _mean(group, target, index), target[3]
                if name == "frac_townsmen" and group in ("local", "placebo"):
                    table[name] = np.zeros(size)
                    continue
                for column in (name, rarefied().get(name)):
                    if column is not None:
                        table[column] = mean + sd * (own[name] + noise * rng.normal(size=size))
            tables.append(pd.DataFrame(table))
        start += size
    return pd.concat(tables, ignore_index=True)


def _mean(group: str, target: tuple, index: int) -> float:
    local, (first, last), new, _ = target
    if group == "settled":
        return float((first, (first + last) / 2, last)[index])
    return float(new[index]) if group == "new" else float(local)
