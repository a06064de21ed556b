"""Findings of `migrafed audit`, made up for tests of the page."""

from __future__ import annotations

from typing import Any


def check(name: str, figure: float | None, *, passed: bool = True) -> dict[str, Any]:
    return {
        "name": name, "question": f"Is {name} right?", "figure": figure, "threshold": 0.0381, "passed": passed,
        "detail": "40000 draws", "seconds": 0.37,
    }  # fmt: skip


def result(name: str, *, bound: float | None, consistent: bool = True) -> dict[str, Any]:
    return {
        "name": name, "lower_bound": bound, "confidence": 0.99, "largest_provable": None if bound is None else 6.8125,
        "claimed_epsilon": None if bound is None else 1.9978, "delta": 1e-5, "consistent": consistent, "seconds": 0.7,
        "assumptions": ["the auditor sees every count"], "figures": {"tpr_at_1_percent": 0.28960},
    }  # fmt: skip


def fabricated_audit() -> dict[str, Any]:
    """As `migrafed audit --mutation --canaries --attacks` writes it."""
    caught = {
        "name": "no noise", "description": "steps without noise", "caught": True, "caught_by": ["noise of a step"],
        "evidence": check("noise of a step", None, passed=False), "asked": ["noise of a step"], "seconds": 1.4,
    }  # fmt: skip
    return {
        "schema_version": 1, "ok": True, "version": "0.1.0", "quick": False, "tried_on": ["dhgsil"], "level": 1e-7,
        "defects": 1, "caught": 1, "correct_runs": 100, "false_alarms": 0, "seconds": 41.86,
        "checks": [check("noise of a step", 0.00446), check("margins", 0.0)], "planted": [caught], "alarms": [],
        "canaries": [result("counts, white box", bound=0.6565)], "attacks": [result("gradient inversion", bound=None)],
    }  # fmt: skip
