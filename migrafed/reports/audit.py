"""The readable page of `migrafed audit`: `audit.html`, made from `audit.json` alone.

::

    write_audit_page(folder, json.loads((folder / "audit.json").read_text()))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from migrafed.reports.forecast import page_environment, style_sheet
from migrafed.reports.svg import Table
from migrafed.reports.wording import MISSING, count_of, number, percent
from protocol.files import write_whole

AUDIT_PAGE = "audit.html"
Audit = Mapping[str, Any]


def write_audit_page(folder: Path, audit: Audit) -> Path:
    """Build `audit.html` in a folder and return its path.

    Args:
        folder: An existing folder.
        audit: What `migrafed audit` writes to `audit.json`.
    """
    path, page = folder / AUDIT_PAGE, render_audit(audit)
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8", newline="\n"))
    return path


def render_audit(audit: Audit) -> str:
    """The whole page; the same bytes for the same audit, every text of it escaped."""
    planted, canaries, attacks = (audit.get(name) for name in ("planted", "canaries", "attacks"))
    return page_environment().get_template("audit.html").render(
        css=style_sheet(),
        audit=audit,
        headline=_headline(audit),
        level=f"{audit['level']:.0e}",
        key_figures=list(_key_figures(audit)),
        checks=audit["checks"],
        planted=planted,
        blind=_blind(audit) if planted is not None else [],
        canaries=canaries,
        canary_table=None if canaries is None else _bounds(canaries),
        attacks=attacks,
        attack_table=None if attacks is None else _attacks(attacks),
    )  # fmt: skip


def _headline(audit: Audit) -> str:
    if audit["ok"]:
        return "Nothing was found that contradicts the promise."
    failed = [check["name"] for check in audit["checks"] if not check["passed"]]
    failed += [each["name"] for each in audit.get("planted") or () if not each["caught"]]
    failed += [
        each["name"] for part in ("canaries", "attacks") for each in audit.get(part) or () if not each["consistent"]
    ]
    failed += [f"{audit['false_alarms']} false alarms"] if audit.get("false_alarms") else []
    return f"Something is wrong: {', '.join(failed[:5])}{' and more' if len(failed) > 5 else ''}."


def _key_figures(audit: Audit) -> Iterator[tuple[str, str]]:
    passed = sum(check["passed"] for check in audit["checks"])
    yield "conformance checks passed", f"{passed} of {len(audit['checks'])}"
    if audit.get("defects") is not None:
        yield "planted defects caught", f"{audit['caught']} of {audit['defects']}"
        yield (
            "false alarms of the correct mechanisms",
            f"{audit['false_alarms']} in {count_of(audit['correct_runs'], 'run')}",
        )
    for name, words in (("canaries", "canary audits consistent"), ("attacks", "attacks consistent")):
        if audit.get(name) is not None:
            yield words, f"{sum(each['consistent'] for each in audit[name])} of {len(audit[name])}"


def _blind(audit: Audit) -> list[str]:
    """Checks that no planted defect made fail: they have not been shown to be able to."""
    seen = {name for each in audit["planted"] for name in each["caught_by"]}
    return [check["name"] for check in audit["checks"] if check["name"] not in seen]


def _bounds(results: list[Audit]) -> Table:
    """Lower bounds beside what was claimed and what could have been proven."""
    columns = ("Audit", "Proven: at least", "Could prove", "Claimed", "Finding", "delta", "Confidence", "Seconds")
    rows = tuple(
        (
            each["name"], _or_dash(each["lower_bound"]), _or_dash(each["largest_provable"]),
            _or_dash(each["claimed_epsilon"]), "consistent" if each["consistent"] else "CONTRADICTS THE CLAIM",
            f"{each['delta']:.3g}", percent(each["confidence"]), number(each["seconds"], digits=2),
        )
        for each in results
    )  # fmt: skip
    return Table(columns, rows)


def _attacks(results: list[Audit]) -> Table:
    columns = ("Attack", "What it reached", "Proven: at least", "Claimed", "Finding", "Seconds")
    rows = tuple(
        (
            each["name"],
            "; ".join(f"{name.replace('_', ' ')} {number(value, digits=3)}" for name, value in each["figures"].items()),
            _or_dash(each["lower_bound"]), _or_dash(each["claimed_epsilon"]),
            "as it should be" if each["consistent"] else "NOT AS IT SHOULD BE", number(each["seconds"], digits=2),
        )
        for each in results
    )  # fmt: skip
    return Table(columns, rows)


def _or_dash(value: float | None) -> str:
    return MISSING if value is None else number(value, digits=3)
