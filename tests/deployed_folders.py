"""Results of deployed runs that tests make up, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from privacy.card import PrivacyCard
from server.deployed_facts import DeployedFacts, DeployedResult
from server.run_folder import CARD_FILE, MODEL_FILE, PLAN_FILE
from tests.plans import tiny_plan

HOSTILE = ("<script>console.error('owned')</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}")
PRIVATE = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-6, "privacy.score_against": "truth",
    "training.select": "last", "model.node_features": False, "federation.shares": ["weights"],
    "compare": {"alone": False, "pooled": False, "baselines": []},
}  # fmt: skip


def fabricated(
    *, card: PrivacyCard, aggregation: str = "secure", told: bool = True,
    holders: tuple[str, ...] = ("north", "east", "west"),
) -> DeployedResult:  # fmt: skip
    """A result of three stages; `told`: losses and errors of rounds are known."""
    rounds = [
        {"round": n, "loss": 2 / n if told else None, "error": 1.5 + 1 / n if told else None} for n in range(1, 13)
    ]
    opened = [
        {"stage": "", "over": {3: 1}, "without": {}},
        {"stage": "federated, weights", "over": {3: 22, 2: 2}, "without": {holders[-1]: 2}},
    ]
    values: dict[str, Any] = {
        "version": "0.0.0", "run": "fabricated-s0-00000000", "task": "dhgsil", "plan_hash": "6f1c" * 16,
        "aggregation": aggregation, "holders": holders, "roster": "ab" * 32,
        "ledgers": {holders[0]: {"length": 3, "head": "c" * 64}},
        "stages": [
            {"name": "exchange", "kind": "exchange", "gives_model": False, "masked_sums": 0, "chosen_round": None,
             "rounds": []},
            {"name": "federated, weights", "kind": "rounds", "gives_model": True, "masked_sums": 25,
             "chosen_round": 12, "rounds": rounds},
        ][:: -1],
        "opened": opened if aggregation == "secure" else [], "attempts": 5, "seconds": 123.4,
        "files": {name: digit * 64 for name, digit in ((MODEL_FILE, "1"), (CARD_FILE, "2"), (PLAN_FILE, "3"))},
    }  # fmt: skip
    plan = tiny_plan({} if told else PRIVATE)
    federation = plan.federation.model_copy(update={"aggregation": aggregation})
    plan = plan.model_copy(update={"federation": federation})
    return DeployedResult(Path(), plan, DeployedFacts.model_validate(values), card)
