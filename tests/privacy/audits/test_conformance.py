"""The conformance battery: the production mechanisms pass, a failure stops a private run, chance does not."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from privacy.audits.check import Check, CheckResult, Measurement, asks, violations
from privacy.audits.conformance import CHECKS, conformance, false_alarms, require_conformance
from privacy.audits.subject import Subject, production
from privacy.randomness import SecureStream
from protocol.errors import ConformanceError, PrivacyUnitError

RUNS = 10


@pytest.fixture(scope="module")
def subject() -> Subject:
    return production()


class Recorder:
    """A subject that remembers which of its pieces were asked for."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self.asked = subject, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(self._subject, name)


@pytest.mark.slow
@pytest.mark.statistical
def test_correct_mechanisms_raise_no_alarm(subject: Subject) -> None:
    """Of the questions that chance has a part in; the others have the same answer every time."""
    counted: list[int] = []
    by_chance = [check for check in CHECKS if "stream" in check.uses]
    assert false_alarms(subject, runs=RUNS, checks=by_chance, done=counted.append) == [[] for _ in range(RUNS)]
    assert counted == list(range(1, RUNS + 1))


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_production_passes_each_check(check: Check, subject: Subject) -> None:
    """Fresh secure noise: by chance one of all of them fails in fewer than 1 of 200,000 runs.

    A planted defect is shown only to the checks that name its piece, so what they name must be all they use.
    """
    seen = Recorder(subject)
    assert check.run(seen).passed  # type: ignore[arg-type]
    assert seen.asked == check.uses


def test_checks_are_told_apart() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    pieces = {field.name for field in dataclasses.fields(Subject)}
    assert {piece for check in CHECKS for piece in check.uses} == pieces, "every piece has a check, and no others"
    assert all(check.question.endswith("?") for check in CHECKS)


@pytest.mark.slow
def test_a_broken_piece_stops_the_run(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names each failed check with its figure; nothing else is said about anything."""
    few = [check for check in CHECKS if "check_delta" in check.uses]
    monkeypatch.setattr("privacy.audits.conformance.conformance", lambda subject: conformance(subject, checks=few))
    assert len(require_conformance(subject)) == len(few)
    broken = dataclasses.replace(subject, check_delta=lambda delta, *, population: None)
    with pytest.raises(ConformanceError, match=r"'size of delta' \(7 > 0: delta 1e-06"):
        require_conformance(broken)


def test_a_mechanism_that_stops_has_not_passed(subject: Subject) -> None:
    @asks("Does it run?", of="stream")
    def it_runs(subject: Subject) -> Measurement:
        raise PrivacyUnitError("it does not")

    result = it_runs.run(subject)
    assert not result.passed
    assert result.detail == "stopped with PrivacyUnitError: it does not"
    assert result.to_json()["figure"] is None
    json.dumps(result.to_json(), allow_nan=False)


def test_a_fault_of_the_audit_is_not_a_finding(subject: Subject) -> None:
    @asks("Does the audit work?", of="stream")
    def it_works(subject: Subject) -> Measurement:
        raise AssertionError("the audit itself is wrong")

    with pytest.raises(AssertionError, match="audit itself"):
        it_works.run(subject)


@pytest.mark.parametrize(("figure", "passed"), [(0.0, True), (1.0, True), (1.1, False), (math.nan, False)])
def test_a_check_passes_up_to_its_threshold(figure: float, passed: bool) -> None:
    result = CheckResult("a", "b?", figure, 1.0, "", 0.0)
    assert result.passed is passed
    assert result.to_json()["passed"] is passed


def test_violations_are_listed_and_none_is_allowed() -> None:
    assert violations([], asked=3).detail == "3 cases, none broken"
    assert violations(["a", "b"], asked=3).figure == (2.0, 0.0)


@pytest.mark.slow
def test_a_battery_leaves_the_random_state_of_a_run_alone(subject: Subject) -> None:
    """It runs before a private run, whose models must not depend on whether it did."""
    torch.manual_seed(3)
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    cheap = [check for check in CHECKS if not check.uses & {"epsilon", "charge", "count_plan"}]
    conformance(subject, checks=cheap)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index] # noqa: NPY002


def test_production_is_the_production_code(subject: Subject) -> None:
    """The audit must not have grown a mechanism of its own."""
    pieces = [subject.stream, subject.dpsgd, subject.bound, subject.release, subject.ledger, subject.epsilon]
    assert all(not getattr(piece, "__module__", "").startswith("privacy.audits") for piece in pieces)
    assert subject.stream is SecureStream
