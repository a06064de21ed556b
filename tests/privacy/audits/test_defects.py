"""Planted defects: every one is caught, by a check that uses the broken piece, and none is left out."""

from __future__ import annotations

import json

import pytest

from privacy.audits.conformance import CHECKS
from privacy.audits.defect import Defect, changed_pieces
from privacy.audits.defects import DEFECTS, Hunt, hunt, hunt_all
from privacy.audits.subject import Subject, production

PROMISED = (
    "no noise", "noise / 2", "5 % too little noise", "noise / 4", "no clipping", "clip x 4", "clip of the batch mean",
    "reused noise", "seeded noise", "non-Poisson batches", "skipped empty batches", "divide by actual batch size",
    "in-batch contrast", "noise on non-zero cells only", "k enforced per day instead of per period",
    "margins without their own rule", "ledger that refunds", "accounting of fewer rounds", "delta of the wrong size",
    "city list taken from raw counts", "scaler taken from raw counts", "best-seed selection uncharged",
    "per-holder noise taken as the total's", "constant nonce", "self mask used again", "no self mask",
    "unsigned adverts", "confirmations not checked", "threshold from the server", "secrets from random",
    "secrets from numpy", "both shares given", "second unmasking answered", "survivors not signed",
    "same sign for both of a pair", "context without the model", "context without the plan",
    "context without the weights", "key chain that does not move", "seeds not wiped", "commitment without salt",
    "shares not bound to their sender", "polynomials of too low degree", "self mask of 32 bits", "range check off",
)  # fmt: skip


@pytest.fixture(scope="module")
def subject() -> Subject:
    return production()


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_every_defect_is_caught(defect: Defect, subject: Subject) -> None:
    """One piece is broken, and a check that uses it fails; a miss by chance has probability below 1e-9 each."""
    broken = defect.plant(subject)
    changed = changed_pieces(subject, broken)
    assert len(changed) == 1, "a defect is one mistake"
    asked = (check for check in CHECKS if check.uses & changed)
    assert next((check.name for check in asked if not check.run(broken).passed), None) is not None


def test_the_registry_holds_what_was_promised() -> None:
    names = [defect.name for defect in DEFECTS]
    assert len(set(names)) == len(names)
    assert set(PROMISED) <= set(names)
    assert all(defect.description for defect in DEFECTS)


@pytest.mark.slow
def test_a_hunt_tells_who_was_asked_and_who_caught_it(subject: Subject) -> None:
    chosen = [defect for defect in DEFECTS if defect.name in ("delta of the wrong size", "replay draws new noise")]
    told: list[Hunt] = []
    hunts = hunt_all(subject, defects=chosen, done=told.append)
    assert told == hunts
    caught = {each.defect.name: each.caught_by for each in hunts}
    assert caught["delta of the wrong size"] == ("size of delta",)
    assert caught["replay draws new noise"] == ("rounds are served once",)
    report = hunts[1].to_json()
    assert report["caught"] is False or report["evidence"]["passed"] is False
    json.dumps(report, allow_nan=False)


def test_a_defect_that_breaks_nothing_is_not_caught(subject: Subject) -> None:
    """A hunt can fail: without a mistake there is nothing to find, and nothing is asked."""
    found = hunt(Defect("none", "nothing is wrong", lambda subject: subject), subject)
    assert found.caught_by == ()
    assert found.to_json() == {
        "name": "none", "description": "nothing is wrong", "caught": False, "caught_by": [], "evidence": None,
        "asked": [], "seconds": 0,
    }  # fmt: skip
