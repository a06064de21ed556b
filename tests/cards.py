"""Privacy cards for run folders that tests make up."""

from __future__ import annotations

from typing import Any

from privacy.card import (
    AuditFinding,
    HolderCard,
    Party,
    PrivacyCard,
    Promise,
    Question,
    RegistryEntry,
    ReleasedObject,
    ShownValues,
)

NOTHING = "Nothing in this run is differentially private."


def card(**values: Any) -> PrivacyCard:
    """The card of a run in which nothing was protected, with what a test wants in place of it."""
    registry = RegistryEntry(
        tier=None, product="forecasts", description="a run", flavour="none", privacy_loss="none", unit="none",
        model="no noise", accounting="none", implementation="none", data_domain="counts", unprotected="everything",
    )  # fmt: skip
    plain: dict[str, Any] = {
        "version": "0.0.0",
        "run": "fabricated",
        "plan_hash": "0" * 64,
        "mode": "none",
        "flavour": "none",
        "trust_model": "no noise",
        "headline": NOTHING,
        "registry": registry,
        "across_holders": "Nothing is promised to anybody.",
        "shown": ShownValues(origin="raw data", scored="raw data"),
        "released": (
            ReleasedObject(
                name="model weights", origin="raw data", place="leaves a holder", numbers=1836, size_bytes=7344,
                times=30, goes_to="the coordinator",
            ),
            ReleasedObject(name="final model", origin="raw data", place="run folder", goes_to="readers of the run"),
        ),
        "parties": (Party(party="coordinator", trusted_with="everything", otherwise="it may infer much"),),
        "not_promised": ("No noise was added.",),
        "questions": (Question(layer="guarantee", question="How large is epsilon?", answer="There is none."),),
    }  # fmt: skip
    return PrivacyCard(**(plain | values))


def plain_card() -> PrivacyCard:
    """The card of a run in which nothing was protected."""
    return card()


def count_promise(**values: Any) -> Promise:
    """A promise to persons, for counts that were released once."""
    given: dict[str, Any] = {
        "task": "dhgsil",
        "mechanism": "discrete Gaussian noise on every cell",
        "mechanism_digest": "a" * 64,
        "unit": "one person: one account at this holder",
        "is_person": True,
        "contributions": 4,
        "contribution_rules": ("cells: in at most 4 cells", "inflow: once per (destination, step)"),
        "contributions_enforced": False,
        "epsilon": 1.99834,
        "delta": 1e-6,
        "event_epsilon": 0.9421,
        "accountant": "privacy loss distributions",
        "noise_stddev": {"cells": 6.3137, "inflow": 8.9287, "outflow": 8.9287},
        "noise_multiplier": 3.1569,
    }
    return Promise(**(given | values))


def window_promise(**values: Any) -> Promise:
    """A promise to windows, for noise in every training step."""
    given: dict[str, Any] = {
        "task": "dhgsil",
        "mechanism": "DP-SGD",
        "mechanism_digest": "b" * 64,
        "unit": "one window of all rows a holder sees; not a person",
        "is_person": False,
        "epsilon": 1.9964,
        "delta": 1e-6,
        "accountant": "privacy loss distributions",
        "noise_multiplier": 2.0376,
        "clip_norm": 1.0,
        "sampling_rate": 0.2162,
        "expected_batch": 8.0,
        "steps": 10,
        "person_epsilon": {2: 4.3257, 6: 15.7496, 18: None},
        "changed_epsilon": {2: 11.3267, 6: 74.489, 18: None},
    }
    return Promise(**(given | values))


def holder_card(name: str, promise: Promise) -> HolderCard:
    """What one holder promises."""
    return HolderCard(
        holder=name, population=f"people of {name}", period="2026", promises=(promise,), joint_epsilon=promise.epsilon,
        joint_delta=promise.delta, budget_epsilon=3.0, spent_epsilon=1.99834, left="epsilon 0.6007 of epsilon 3",
        ledger_length=3, ledger_head="c" * 64,
    )  # fmt: skip


def private_card(**values: Any) -> PrivacyCard:
    """The card of a run on released counts, with what a test wants in place of it."""
    given: dict[str, Any] = {
        "mode": "counts",
        "flavour": "approximate",
        "trust_model": "noise at each holder",
        "headline": "Each holder protects each person: epsilon 2, delta 1e-06.",
        "holders": tuple(holder_card(name, count_promise()) for name in ("north", "south")),
        "across_holders": "Somebody known to j holders is promised the sum.",
        "shown": ShownValues(origin="post-processing", scored="post-processing", noise_stddev=6.3137),
        "audits": (
            AuditFinding(
                name="noise of a step", question="Has the noise its stddev?", figure=0.0011, threshold=0.0381,
                passed=True, detail="2000 draws", seconds=0.1,
            ),
        ),
    }  # fmt: skip
    return card(**(given | values))


def window_card(**values: Any) -> PrivacyCard:
    """The card of a run whose training steps were noised."""
    given: dict[str, Any] = {
        "mode": "window-dpsgd",
        "headline": "Each holder protects the presence of each window, which is not a person: epsilon 2.",
        "holders": tuple(holder_card(name, window_promise()) for name in ("north", "south")),
        "shown": ShownValues(origin="raw data", scored="raw data"),
    }
    return private_card(**(given | values))
