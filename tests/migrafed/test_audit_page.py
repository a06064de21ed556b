"""The audit page: the same bytes for the same audit, every figure on it, nothing hidden, every text escaped."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from migrafed.reports.audit import render_audit, write_audit_page
from tests.audits import fabricated_audit

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def audit() -> dict[str, Any]:
    return fabricated_audit()


def test_every_figure_is_on_the_page(audit: dict[str, Any]) -> None:
    page = render_audit(audit)
    for words in (
        "Nothing was found that contradicts the promise", "does not prove the promise", "2 of 2", "1 of 1",
        "0 in 100 runs", "0.00446", "0.0381", "noise of a step", "steps without noise", "0.656", "6.81", "2.00",
        "consistent", "99.0 %", "1e-07", "41.9 s", "0.290", "the auditor sees every count",
    ):  # fmt: skip
        assert words in page
    assert "tpr at 1 percent" in page
    assert re.search(r"No planted defect made these checks fail[^.]*: margins\.", page)


def test_what_was_not_asked_for_is_said(audit: dict[str, Any]) -> None:
    less = dict.fromkeys(
        ("defects", "caught", "correct_runs", "false_alarms", "planted", "alarms", "canaries", "attacks")
    )
    page = render_audit(audit | less)
    assert page.count("Not asked for") == 3
    assert "planted defects caught" not in page


@pytest.mark.parametrize("part", ["checks", "planted", "canaries", "attacks", "false alarms"])
def test_a_finding_is_the_headline(audit: dict[str, Any], part: str) -> None:
    """Whatever failed is named at the top, and in the table where it stands."""
    broken: dict[str, Any] = copy.deepcopy(audit) | {"ok": False}
    words = "FAILED"
    if part == "checks":
        broken["checks"][0]["passed"] = False
    elif part == "planted":
        broken["planted"][0] |= {"caught": False, "caught_by": [], "evidence": None}
        words = "NOTHING"
    elif part == "false alarms":
        broken["false_alarms"] = 3
        words = "3 false alarms"
    else:
        broken[part][0]["consistent"] = False
        words = "CONTRADICTS THE CLAIM" if part == "canaries" else "NOT AS IT SHOULD BE"
    page = render_audit(broken)
    headline = re.search(r"<h1>(.*?)</h1>", page)
    assert headline is not None
    assert "Something is wrong" in headline.group(1)
    name = {"checks": "noise of a step", "planted": "no noise", "false alarms": "3 false alarms"}
    assert name.get(part, broken[part][0]["name"] if part in broken else "") in headline.group(1)
    assert words in page


def test_texts_are_escaped_and_nothing_leaves_the_page(audit: dict[str, Any], tmp_path: Path) -> None:
    hostile = copy.deepcopy(audit)
    hostile["checks"][0] |= {"name": HOSTILE, "question": HOSTILE, "detail": HOSTILE}
    hostile["planted"][0] |= {"name": HOSTILE, "description": HOSTILE, "caught_by": [HOSTILE]}
    hostile["canaries"][0] |= {"name": HOSTILE, "assumptions": [HOSTILE], "figures": {HOSTILE: 1.0}}
    hostile |= {"tried_on": [HOSTILE], "version": HOSTILE}
    path = write_audit_page(tmp_path, hostile)
    page = path.read_text(encoding="utf-8")
    assert path.name == "audit.html"
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8
    assert not re.findall(r"https?://", page)
    assert "default-src 'none'" in page
    assert write_audit_page(tmp_path, hostile).read_text(encoding="utf-8") == page
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit.html"]
