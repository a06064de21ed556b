"""What is said about a finished deployed run at the terminal and in `--json`."""

from __future__ import annotations

from pathlib import Path

from server.deployed_facts import DeployedResult
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, LOG_FILE, MODEL_FILE, REPORT_FILE

_FILES = {
    "model": MODEL_FILE, "journal": JOURNAL_FILE, "facts": FACTS_FILE, "log": LOG_FILE, "card": CARD_FILE,
    "report": REPORT_FILE,
}  # fmt: skip


def deployed_paths(folder: Path) -> dict[str, str]:
    """Paths of what a coordinator is left with."""
    return {"folder": str(folder)} | {name: str(folder / file) for name, file in _FILES.items()}


def deployed_facts(result: DeployedResult, report: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Paths of what a run left, and the lines of the closing block."""
    paths = deployed_paths(result.folder) | {"report": str(report)}
    facts = [
        ("result", "a model and its rounds; errors and forecasts are made where the rows are"),
        ("holders", ", ".join(result.facts.holders)),
        ("privacy", result.card.headline),
    ]
    facts += [(name, path) for name, path in paths.items() if name != "folder"]
    return paths, facts
