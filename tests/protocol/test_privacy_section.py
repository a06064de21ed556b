"""The plan's [privacy] section: every bad value is refused with its rule and the value, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import PlanError
from protocol.plan import Plan
from tests.plans import tiny_plan

COUNTS = {"privacy.epsilon": 2.0, "privacy.delta": 1e-6}
WINDOWS: dict[str, Any] = COUNTS | {
    "privacy.mode": "window-dpsgd",
    "privacy.score_against": "truth",
    "federation.shares": ["weights"],
    "compare.alone": False,
    "compare.pooled": False,
    "training.select": "last",
    "model.node_features": False,
}


def test_without_the_section_nothing_is_private() -> None:
    assert tiny_plan().privacy is None
    assert not tiny_plan().trains_privately


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epsilon", 0.0, "got 0.0"),
        ("epsilon", -1.0, "greater than 0"),
        ("epsilon", float("nan"), "finite number, got nan"),
        ("epsilon", float("inf"), "finite number, got inf"),
        ("delta", 1.0, "less than 1, got 1.0"),
        ("delta", 0.0, "greater than 0"),
        ("contributions", 0, "greater than or equal to 1, got 0"),
        ("margin_share", 1.0, "less than 1"),
        ("clip_norm", 0.0, "greater than 0"),
        ("budget", -2.0, "greater than 0"),
        ("epsilo", 1.0, "did you mean 'epsilon'"),
    ],
)
def test_bad_values_are_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        tiny_plan(COUNTS | {f"privacy.{key}": value})


@pytest.mark.parametrize("missing", ["epsilon", "delta"])
def test_a_promise_has_epsilon_and_delta(missing: str) -> None:
    values = {key: value for key, value in COUNTS.items() if not key.endswith(missing)}
    with pytest.raises(PlanError, match="add it"):
        tiny_plan(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"federation.shares": ["weights+margins"]}, "federation.shares"),
        ({"compare.pooled": True}, "compare.pooled = false"),
        ({"compare.alone": True}, "compare.alone = false"),
        ({"training.select": "best"}, "training.select"),
        ({"training.fit_on": "train+validation"}, "training.fit_on"),
        ({"training.patience": 3}, "training.patience = 0"),
        ({"training.batch_size": 0}, "training.batch_size >= 1"),
        ({"privacy.score_against": "released"}, "releases no values"),
    ],
)
def test_private_training_is_charged_once(change: dict[str, Any], said: str) -> None:
    """Whatever would be a second training, or a choice on held-out data, is refused: nobody would pay for it."""
    assert tiny_plan(WINDOWS).trains_privately
    with pytest.raises(PlanError, match=said):
        tiny_plan(WINDOWS | change)


def test_the_section_is_part_of_the_plan_hash() -> None:
    one, other = tiny_plan(COUNTS), tiny_plan(COUNTS | {"privacy.epsilon": 1.0})
    assert isinstance(one, Plan)
    assert len({one.digest(), other.digest(), tiny_plan().digest()}) == 3
