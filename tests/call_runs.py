"""A run folder of an integration run, made up for the tests: small, complete, seeded. Nothing in it is a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from integration.analysis.confounds import confounds
from integration.analysis.maps import log_odds_maps
from integration.analysis.panels import TEN
from integration.analysis.trajectories import trajectories, whole_windows
from integration.analysis.verdicts import verdicts
from integration.rules import City
from integration.weeks import CallCalendar
from privacy.card import PrivacyCard
from simulations.call_results import IntegrationFacts, IntegrationTables, OperatorFacts, SilenceFacts, write_integration
from tests.cards import plain_card
from tests.gaussian_rows import TARGETS, gaussian_rows

OPERATORS = ("north", "south", "west")
SIZES = {"local": 3000, "settled": 2200, "new": 700, "placebo": 300}
CITY = City()
_SETTINGS = ("pooled", "silo", "federated, no pushes", "federated, L0", "federated, L1", "federated, L2 eps 2")


def fabricated_tables(rows: pd.DataFrame | None = None) -> IntegrationTables:
    """Tables of Gaussian persons, and predictions that are mere formulas."""
    rows = gaussian_rows(TARGETS, SIZES, seed=4) if rows is None else rows
    drawn: dict[str, Any] = {"features": TEN, "draws": 60, "seed": 1}
    windows = whole_windows(rows.assign(week=rows["week"] - 1, first_day=7), days=28)
    return IntegrationTables(
        groups=_groups(rows),
        trajectories=pd.concat(
            [
                trajectories(rows, **drawn),
                trajectories(rows, panel="unbalanced", **drawn),
                trajectories(windows, axis="days since arrival", **drawn),
            ],
            ignore_index=True,
        ),
        verdicts=pd.concat([verdicts(rows, **drawn), verdicts(rows, newcomers="placebo", **drawn)], ignore_index=True),
        maps=log_odds_maps(_homes(), city=CITY, cell_km=4.0, least=20),
        prediction=_prediction(),
        as_local=pd.DataFrame(
            [(group, week, share, share - 0.02, share + 0.02)
             for group, shares in (
                 ("settled", (0.21, 0.23, 0.24)), ("new", (0.09, 0.15, 0.23)), ("placebo", (0.9,) * 3)
             )
             for week, share in zip((2, 3, 4), shares, strict=True)],
            columns=["group", "week", "fraction", "lo", "hi"],
        ),
        churn=_churn(),
        federation=_federation(),
    )  # fmt: skip


def fabricated_facts(**values: Any) -> IntegrationFacts:
    given: dict[str, Any] = {
        "run": "fabricated-calls-0001",
        "plan_hash": "3ab9" * 16,
        "task": "integration",
        "seconds": 312.4,
        "seeds": (0, 1, 2),
        "versions": {"python": "3.11.9", "migrafed": "0.1.0"},
        "command": "migrafed simulate plans/integration.toml",
        "synthetic": True,
        "cell_km": 4.0,
        "confounds": confounds(CallCalendar()),
        "operators": tuple(
            OperatorFacts(name=name, subscribers=2000 + 300 * place, calls=150_000, dropped={"a call to oneself": 12})
            for place, name in enumerate(OPERATORS)
        ),
        "pushes": "L1",
        "silence": SilenceFacts(
            asked=2100, silent=31, share=0.0148, low=0.0104, high=0.0209, new=700, expected=32.0,
            expected_by_placebo=29.3, truly_new=662,
        ),
        "notes": ("Pushes of fewer than five known contacts were held back.",),
    }  # fmt: skip
    return IntegrationFacts(**(given | values))


def write_fabricated(
    folder: Path, tables: IntegrationTables | None = None, card: PrivacyCard | None = None, **facts: Any
) -> Path:
    """A finished run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.lock.toml").write_text('[run]\nname = "fabricated"\ntask = "integration"\n', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"no weights in a made-up run")
    write_integration(
        folder,
        tables or fabricated_tables(),
        fabricated_facts(**facts),
        card or plain_card(),
        also=("model.safetensors",),
    )
    return folder


def _groups(rows: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for group, part in rows.groupby("group"):
        weeks = {0: part["person"].nunique()} | part.groupby("week")["person"].nunique().to_dict()
        for week, persons in weeks.items():
            cut = [persons // 2, persons // 3, persons - persons // 2 - persons // 3]
            cells = dict(zip(OPERATORS, cut, strict=True)) | {"": persons}
            if group == "placebo":
                cells |= {"north": persons - persons // 3 - 31, "west": 31}
            lines += [(operator, group, week, number) for operator, number in cells.items()]
    return pd.DataFrame(lines, columns=["operator", "group", "week", "persons"])


def _homes() -> pd.DataFrame:
    """Locals around the centre, migrants in it, some newcomers at one place in the south-west."""
    rng, lines = np.random.default_rng(9), []
    for group, size, far in (("local", 3000, 0.26), ("settled", 2200, 0.12), ("new", 700, 0.11)):
        where = rng.normal((31.23, 121.47), (far, far * 1.1), size=(size, 2))
        if group == "new":
            where[: size // 8] = rng.normal((31.05, 121.21), 0.012, size=(size // 8, 2))
        lines.append(pd.DataFrame(where, columns=["lat", "lon"]).assign(group=group, week=2))
    table = pd.concat(lines, ignore_index=True)
    return table.assign(person=np.arange(len(table)))


def _prediction() -> pd.DataFrame:
    lines = []
    families = {"friends": 0.78, "ego": 0.62, "call": 0.58, "geo": 0.6, "all": 0.815, "all+townsmen (leaky)": 0.97,
                "all-rarefied": 0.8, "n_calls": 0.5}  # fmt: skip
    for weights in ("none", "balanced"):
        for split in ("paper", "user-disjoint"):
            for week in (2, 3, 4):
                at = (weights, split, week)
                for name, level in families.items():
                    for metric, shift in (
                        ("f1", 0),
                        ("precision", 0.02),
                        ("recall", -0.02),
                        ("auc", 0.1),
                        ("ap", 0.05),
                    ):
                        mean = min(0.995, level + shift - 0.005 * week - 0.004 * (split != "paper"))
                        lines.append(("T1", "logistic regression", name, *at, metric, mean, 0.006, 10))
                lines.append(("T1", "MLP", "all", *at, "f1", 0.82, 0.007, 10))
                for metric, mean in (("macro f1", 0.58), ("f1 local", 0.86), ("f1 settled", 0.8), ("f1 new", 0.08),
                                     ("precision new", 0.2), ("recall new", 0.05)):  # fmt: skip
                    lines.append(("T2", "logistic regression", "all", *at, metric, mean, 0.01, 10))
                for place, name in enumerate(("local", "settled", "new")):
                    for other in ("local", "settled", "new"):
                        said = 1000.0 / (1 + place) if name == other else 90.0
                        lines.append(("T2", "logistic regression", "all", *at, f"{name} called {other}", said, 3, 10))
                lines.append(("T3", "logistic regression", "all", *at, "f1", 0.11, 0.02, 10))
                lines.append(("T3 migrants", "logistic regression", "all", *at, "f1", 0.21, 0.02, 10))
                if weights == "none":
                    lines.append(("T1", "always settled", "none", *at, "f1", 0.541, 0.0, 10))
                    lines.append(("T2", "always local", "none", *at, "macro f1", 0.256, 0.0, 10))
                    lines.append(("T3", "always new", "none", *at, "f1", 0.016, 0.0, 10))
    columns = ["task", "model", "families", "weights", "split", "week", "metric", "mean", "sd", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def _churn() -> pd.DataFrame:
    lines, days = [], (1, 2, 3, 4, 5, 6, 7, 10, 14)
    for at_risk in (1, 0):
        for model, gain in (("logistic regression", 0.0), ("random forest", 0.03), ("gradient boosting", 0.02)):
            for train in days:
                for test in days:
                    off = 0.004 * abs(np.log2(train / test))
                    auc = 0.56 + 0.03 * np.log2(test) - off + gain + 0.1 * (1 - at_risk)
                    who = (0.02, 640 - 9 * test, 110 - test)
                    cell = ("silent in the last week", model, "all", train, test, at_risk)
                    lines += [(*cell, name, auc - less, *who) for name, less in (("auc", 0), ("ap", 0.3), ("f1", 0.25))]
        for train in days:
            for definition in ("silent in the last week", "silent from day 10"):
                for model, families in (("logistic regression", "n_calls"), ("constant", "none")):
                    lines.append((definition, model, families, train, train, at_risk, "auc", 0.5, 0.0, 600, 100))
    columns = ["definition", "model", "families", "train_days", "test_days", "at_risk", "metric", "mean", "sd"]
    columns += ["persons", "leavers"]
    return pd.DataFrame(lines, columns=columns)


def _federation() -> pd.DataFrame:
    lines = []
    for place, setting in enumerate(_SETTINGS):
        loss = (0.0, 0.09, 0.06, 0.0, 0.02, 0.05)[place]
        for operator in OPERATORS if setting == "silo" else ("",):
            for week in (2, 3, 4):
                for families, level in (("exact at home", 0.7), ("all", 0.815 - loss)):
                    for metric, shift in (("f1", 0.0), ("auc", 0.1)):
                        lines.append((setting, operator, families, "all", week, metric, level + shift, 0.01, 10))
        if setting != "pooled":
            for part, factor in (("0–20 %", 0.3), ("20–50 %", 1.0), ("50–100 %", 2.4)):
                for feature in ("frac_local", "province_entropy", "clustering", "neighbor_degree"):
                    error = loss * factor
                    lines.append((setting, "", "", f"calls to other operators {part}", 0, f"feature error: {feature}",
                                  error, np.nan, 1))  # fmt: skip
            lines.append((setting, "", "", "all", 0, "verdicts that agree", 1 - 2 * loss, np.nan, 1))
    for setting, value in (("without matching", 0.91), ("with matching", 0.98)):
        lines.append((setting, "", "", "all", 0, 'precision of "new"', value, np.nan, 1))
    columns = ["setting", "operator", "families", "slice", "week", "metric", "mean", "sd", "seeds"]
    return pd.DataFrame(lines, columns=columns)
