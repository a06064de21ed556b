"""The tables of the run folder of an integration run: aggregates only, no row of a person.

All are Parquet. `operator` "" stands for all operators together, `week` 0 for the whole study. A mean or share that is
not told, because too few persons are behind it, is missing.
"""

from __future__ import annotations

import numpy as np

from integration.analysis.panels import Axis, Panel
from integration.analysis.trajectories import TRAJECTORY_COLUMNS
from integration.analysis.verdicts import VERDICT_COLUMNS, VERDICTS
from integration.catalogue import BY_NAME
from integration.people import FOCAL, GROUPS
from simulations.run_tables import Kind, TableSpec

PANELS: tuple[Panel, ...] = ("balanced", "unbalanced")
AXES: tuple[Axis, ...] = ("week", "days since arrival")
VARIANTS = ("plain", "rarefied")
_NOT_NEGATIVE = (0.0, np.inf)
_SHARE = (0.0, 1.0)
_FEATURES = tuple(BY_NAME)

GROUP_TABLE = TableSpec(
    "groups.parquet",
    {"operator": "text", "group": "text", "week": "int", "persons": "float?"},
    ranges={"persons": _NOT_NEGATIVE, "week": _NOT_NEGATIVE},
    allowed={"group": GROUPS},
    key=("operator", "group", "week"),
)
TRAJECTORIES = TableSpec(
    "trajectories.parquet",
    {name: "float?" if name in ("mean", "lo", "hi") else "int" if name in ("period", "persons") else "text"
     for name in TRAJECTORY_COLUMNS},
    ranges={"persons": _NOT_NEGATIVE, "period": _NOT_NEGATIVE},
    allowed={"feature": _FEATURES, "variant": VARIANTS, "panel": PANELS, "axis": AXES, "group": FOCAL},
    key=("feature", "variant", "panel", "axis", "group", "period"),
)  # fmt: skip
VERDICT_TABLE = TableSpec(
    "verdicts.parquet",
    {name: "float?" if name.startswith("d_") else "text" for name in VERDICT_COLUMNS},
    allowed={"feature": _FEATURES, "variant": VARIANTS, "newcomers": ("new", "placebo"), "verdict": VERDICTS},
    key=("feature", "variant", "newcomers"),
)
MAPS = TableSpec(
    "maps.parquet",
    {
        "group": "text", "row": "int", "column": "int", "lat": "float", "lon": "float", "persons": "float?",
        "squares": "int", "log_odds": "float?",
    },
    ranges={"lat": (-90, 90), "lon": (-180, 180), "persons": _NOT_NEGATIVE, "squares": (1, np.inf),
            "row": _NOT_NEGATIVE, "column": _NOT_NEGATIVE},
    allowed={"group": ("all", *FOCAL)},
    key=("group", "row", "column"),
)  # fmt: skip
PREDICTION = TableSpec(
    "prediction.parquet",
    {
        "task": "text", "model": "text", "families": "text", "weights": "text", "split": "text", "week": "int",
        "metric": "text", "mean": "float?", "sd": "float?", "seeds": "int",
    },
    ranges={"week": _NOT_NEGATIVE, "sd": _NOT_NEGATIVE, "seeds": (1, np.inf)},
    key=("task", "model", "families", "weights", "split", "week", "metric"),
)  # fmt: skip
AS_LOCAL = TableSpec(
    "as_local.parquet",
    {"group": "text", "week": "int", "fraction": "float?", "lo": "float?", "hi": "float?"},
    ranges={"week": (1, np.inf), "fraction": _SHARE, "lo": _SHARE, "hi": _SHARE},
    allowed={"group": FOCAL},
    key=("group", "week"),
)
_CHURN: dict[str, Kind] = {
    "definition": "text", "model": "text", "families": "text", "train_days": "int", "test_days": "int",
    "at_risk": "int", "metric": "text", "mean": "float?", "sd": "float?", "persons": "int", "leavers": "int",
}  # fmt: skip
CHURN = TableSpec(
    "churn.parquet",
    _CHURN,
    ranges={"train_days": (1, np.inf), "test_days": (1, np.inf), "at_risk": _SHARE, "sd": _NOT_NEGATIVE,
            "persons": _NOT_NEGATIVE, "leavers": _NOT_NEGATIVE},
    key=("definition", "model", "families", "train_days", "test_days", "at_risk", "metric"),
)  # fmt: skip
FEDERATION = TableSpec(
    "federation.parquet",
    {
        "setting": "text", "operator": "text", "families": "text", "slice": "text", "week": "int", "metric": "text",
        "mean": "float?", "sd": "float?", "seeds": "int",
    },
    ranges={"week": _NOT_NEGATIVE, "sd": _NOT_NEGATIVE, "seeds": (1, np.inf)},
    key=("setting", "operator", "families", "slice", "week", "metric"),
)  # fmt: skip
