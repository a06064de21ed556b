"""What is said about a finished run at the terminal and in `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from migrafed.reports.skill import METRIC_WORDS, SCALE_WORDS, headline_of, skill_of
from migrafed.reports.wording import MISSING
from privacy.card import PrivacyCard
from server.run_folder import CARD_FILE, LOG_FILE, MODEL_FILE
from simulations.results import RunResult
from simulations.run_tables import FORECASTS, METRICS


def result_facts(result: RunResult, report: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Paths of what a run left, and the lines of the closing block."""
    headline = headline_of(result, skill_of(result))
    folder = result.folder
    names = {
        "model": MODEL_FILE, "metrics": METRICS.file, "forecasts": FORECASTS.file, "card": CARD_FILE, "log": LOG_FILE,
    }  # fmt: skip
    paths = (
        {"folder": str(folder)} | {name: str(folder / file) for name, file in names.items()} | {"report": str(report)}
    )
    facts = [("result", headline.sentence), ("", headline.detail)]
    facts.append(("holders", ", ".join(holder.name for holder in result.facts.holders)))
    facts.append(("privacy", result.card.headline))
    facts += [("a person", line) for line in person_lines(result)]
    facts += [("budget", line) for line in budget_lines(result)]
    facts += [(name, paths[name]) for name in ("model", "metrics", "forecasts", "card", "log", "report")]
    return paths, facts


def person_lines(result: RunResult) -> list[str]:
    """What a promise to something that is no person is worth to somebody who is in several of them."""
    said: dict[str, None] = {}
    for promise in (promise for holder in result.card.holders for promise in holder.promises):
        for count, owned in sorted(promise.person_epsilon.items()):
            changed = _epsilon(promise.changed_epsilon.get(count))
            words = f"epsilon {_epsilon(owned)} if they came and went, up to {changed} as they stay"
            said[f"who is in {count} windows: {words}"] = None
    return list(said)


def _epsilon(value: float | None) -> str:
    return "without bound" if value is None else f"{value:.3g}"


def budget_lines(result: RunResult) -> list[str]:
    """What each holder's ledger says, holders with the same words together."""
    said: dict[str, list[str]] = {}
    for holder in result.card.holders:
        if holder.spent_epsilon is None or holder.budget_epsilon is None:
            continue
        words = f"epsilon {holder.spent_epsilon:.4g} of {holder.budget_epsilon:g} spent; left: {holder.left}"
        said.setdefault(words, []).append(holder.holder)
    return [f"{', '.join(names)}: {words}" for words, names in said.items()]


def privacy_facts(card: PrivacyCard) -> dict[str, Any]:
    """The card in short, as `--json` prints it."""
    return {
        "flavour": card.flavour,
        "headline": card.headline,
        "holders": [
            {
                "holder": holder.holder,
                "epsilon": holder.joint_epsilon,
                "delta": holder.joint_delta,
                "unit": [promise.unit for promise in holder.promises],
                "budget": holder.budget_epsilon,
                "spent": holder.spent_epsilon,
                "left": holder.left,
            }
            for holder in card.holders
        ],
    }


def metric_rows(result: RunResult) -> list[dict[str, Any]]:
    """Errors of every model over all horizons ("all") and for each step ahead, as `--json` prints them."""
    wanted = result.metrics[(result.metrics["slice"] == "all") | (result.metrics["horizon"] > 0)]
    columns = ["model", "scope", "share", "holder", "scale", "horizon", "rmse", "mae", "seed"]
    rows: list[dict[str, Any]] = [{str(key): row[key] for key in row} for row in wanted[columns].to_dict("records")]
    return [row | {"horizon": row["horizon"] or "all"} for row in rows]


def skill_lines(result: RunResult) -> list[str]:
    """The skill table for the terminal: primary errors of every comparable model, best first."""
    skill = skill_of(result)
    scale, metric = skill.primary
    columns = [(scale, metric), (scale, "mae" if metric == "rmse" else "rmse")]
    if scale != "raw":
        columns.append(("raw", metric))
    heads = [f"{METRIC_WORDS[kind]} {SCALE_WORDS[on]}" for on, kind in columns]
    rows = sorted((row for row in skill.rows if row.comparable), key=skill.primary_of)
    body = [[str(row.errors.get(key, MISSING)) for key in columns] for row in rows]
    label = max((len(row.label) for row in rows), default=5)
    widths = [max(len(head), *(len(cells[i]) for cells in body), 0) for i, head in enumerate(heads)]
    lines = [[("model".ljust(label)), *(head.rjust(width) for head, width in zip(heads, widths, strict=True))]]
    for row, cells in zip(rows, body, strict=True):
        lines.append([row.label.ljust(label), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
    return ["", *("  ".join(line) for line in lines)]
