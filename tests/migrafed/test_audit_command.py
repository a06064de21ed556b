"""`migrafed audit`: one object, a table, a report file, and an exit code that tells good from bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrafed.__main__ import main
from migrafed.commands import audit
from privacy.audits.check import CheckResult
from privacy.audits.defect import Defect
from privacy.audits.defects import Hunt
from privacy.audits.results import AuditResult

GOOD = CheckResult("noise of a step", "Is it there?", 0.01, 0.04, "noise stddev 1.0 of the stated", 0.1)
BAD = CheckResult("size of delta", "Is it small?", 3.0, 0.0, "delta 0.2 was accepted", 0.1)
KEYS = {
    "schema_version", "ok", "version", "quick", "tried_on", "level", "defects", "caught", "correct_runs",
    "false_alarms", "seconds", "checks", "planted", "alarms", "canaries", "attacks",
}  # fmt: skip


def finding(*, consistent: bool) -> AuditResult:
    return AuditResult(
        name="white box", lower_bound=0.7, confidence=0.95, largest_provable=4.7, claimed_epsilon=1.0, delta=1e-5,
        consistent=consistent, seconds=1.0, assumptions=("made up",),
    )  # fmt: skip


def found(*results: CheckResult) -> Hunt:
    return Hunt(Defect("no noise", "nothing is added", lambda subject: subject), results)


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts made-up findings in the place of the audits."""

    def install(**findings: Any) -> None:
        def told(results: list[Any], done: Callable[[Any], None]) -> list[Any]:
            for result in results:
                done(result)
            return results

        checks, hunts = findings.get("checks", [GOOD]), findings.get("hunts", [found(BAD)])
        alarms = findings.get("alarms", [[], []])
        monkeypatch.setattr(audit, "conformance", lambda subject, *, done: told(checks, done))
        monkeypatch.setattr(audit, "hunt_all", lambda subject, *, done: told(hunts, done))
        monkeypatch.setattr(audit, "false_alarms", lambda subject, *, runs, done: told(alarms, done))
        for name in ("canary_audits", "attack_audits"):
            good = findings.get(name, True)
            monkeypatch.setattr(audit, name, lambda *, quick, good=good: [finding(consistent=good)])

    return install


def test_answers_with_one_object(audits: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    audits()
    assert main(["audit", "--quick", "--mutation", "--canaries", "--attacks", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == KEYS
    assert (answer["defects"], answer["caught"], answer["correct_runs"], answer["false_alarms"]) == (1, 1, 2, 0)
    assert answer["checks"][0] == GOOD.to_json()
    assert answer["planted"][0]["caught_by"] == ["size of delta"]
    assert answer["planted"][0]["evidence"] == BAD.to_json()
    assert answer["canaries"] == [finding(consistent=True).to_json()]


def test_what_was_not_asked_for_is_null(audits: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    audits()
    assert main(["audit", "--quick", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == KEYS
    assert all(answer[name] is None for name in ("defects", "caught", "false_alarms", "planted", "canaries"))


@pytest.mark.parametrize(
    ("options", "findings", "said"),
    [
        ([], {"checks": [GOOD, BAD]}, "FAILED 1 of 2 checks passed"),
        (["--mutation"], {"hunts": [found(GOOD)]}, "0 of 1 planted defects caught"),
        (["--mutation"], {"alarms": [[], [BAD]]}, "1 false alarms in 2 runs"),
        (["--canaries"], {"canary_audits": False}, "0 of 1 canaries consistent with the claim"),
        (["--attacks"], {"attack_audits": False}, "0 of 1 attacks consistent with the claim"),
    ],
    ids=["check", "missed", "alarm", "canaries", "attacks"],
)
def test_every_finding_is_a_failure(
    options: list[str], findings: dict[str, Any], said: str, audits: Callable[..., None], capsys: Any
) -> None:
    audits(**findings)
    assert main(["audit", "--quick", *options]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert said in printed


def test_table_and_closing_block(audits: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    audits()
    assert main(["audit", "--quick", "--mutation", "--canaries"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok    noise of a step") and "0.01 <= 0.04" in line for line in lines)
    assert any(line.startswith("ok    no noise") and line.endswith("size of delta") for line in lines)
    assert any("0.700    4.700    1.000  white box" in line for line in lines)
    assert any(line.startswith("SUCCESS 1 of 1 checks passed, 1 of 1 planted defects caught") for line in lines)


def test_report_is_what_was_printed(audits: Callable[..., None], tmp_path: Path, capsys: Any) -> None:
    audits()
    folder = tmp_path / "audits" / "first"
    assert main(["audit", "--quick", "--mutation", "--json", "--out", str(folder)]) == 0
    assert json.loads((folder / "audit.json").read_text(encoding="utf-8")) == json.loads(capsys.readouterr().out)


def test_a_report_is_never_overwritten(audits: Callable[..., None], tmp_path: Path, capsys: Any) -> None:
    """Refused before anything is computed."""
    audits(checks=None)
    (tmp_path / "audit.json").write_text("{}", encoding="utf-8")
    assert main(["audit", "--out", str(tmp_path)]) == 2
    assert "audit.json is there already" in capsys.readouterr().err
    assert (tmp_path / "audit.json").read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_of_runs_is_a_number(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--mutation", f"--runs={number}"]) == 2
    assert f"'{number}' is not a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "runs"), [([], 10), (["--quick"], 3), (["--runs", "7"], 7)])
def test_how_often_the_correct_mechanisms_run(
    given: list[str], runs: int, audits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    audits()
    asked: list[int] = []
    monkeypatch.setattr(audit, "false_alarms", lambda subject, *, runs, done: asked.append(runs) or [[]] * runs)
    monkeypatch.setattr(audit, "ForecasterTraining", lambda: None)
    monkeypatch.setattr(audit, "ForecasterCounting", lambda: None)
    assert main(["audit", "--mutation", *given]) == 0
    assert asked == [runs]


@pytest.mark.slow
@pytest.mark.statistical
def test_production_passes_on_the_real_forecaster(capsys: pytest.CaptureFixture[str]) -> None:
    """The checks as a run has them, on the registered task's loss, loop and way from released counts on."""
    assert main(["audit", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert all(check["passed"] for check in answer["checks"])
    assert answer["tried_on"][0].startswith("DHG-SIL")
