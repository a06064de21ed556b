"""What is said about a finished integration run at the terminal."""

from __future__ import annotations

from pathlib import Path

from migrafed.reports.integration import groups_in_short, headline_of, score_in_short
from simulations.call_results import SPECS, IntegrationResult
from simulations.results import LOG_FILE, MODEL_FILE
from simulations.sealing import CARD_FILE


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
