"""What is said about a finished integration run at the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from migrafed.reports.integration import groups_in_short, headline_of, score_in_short
from server.run_folder import CARD_FILE, LOG_FILE, MODEL_FILE
from simulations.call_results import SPECS, IntegrationResult


def integration_facts(result: IntegrationResult, report: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Paths of what a run left, and the lines of the closing block."""
    folder = result.folder
    files = {name: spec.file for name, spec in SPECS.items()} | {"card": CARD_FILE, "log": LOG_FILE}
    if MODEL_FILE in result.facts.files:
        files["model"] = MODEL_FILE
    paths = {"folder": str(folder)} | {name: str(folder / file) for name, file in files.items()}
    paths |= {"report": str(report)}
    sentence, detail = headline_of(result)
    facts = [
        ("result", sentence),
        ("", detail),
        ("prediction", score_in_short(result)),
        ("groups", groups_in_short(result)),
        ("operators", ", ".join(operator.name for operator in result.facts.operators)),
        ("data", "synthetic" if result.facts.synthetic else "call records"),
        ("privacy", result.card.headline),
    ]
    facts += [(name, paths[name]) for name in ("folder", "card", "log", "report")]
    return paths, facts


def integration_metrics(result: IntegrationResult) -> list[dict[str, Any]]:
    """Rows of three tables of the run, as `--json` prints them: scores, settings, shares called local. NaN is null."""
    tables = {"prediction": result.prediction, "federation": result.federation, "as_local": result.as_local}
    return [
        {"table": name} | {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for name, table in tables.items()
        for row in table.to_dict("records")
    ]
