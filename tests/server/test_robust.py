"""Robust rules: what they combine to, by an oracle of their own, and how little dishonest holders can move it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocol.errors import PlanError
from protocol.messages import RoundRequest, TrainReply
from protocol.plan import Plan
from server.robust import norm_bounded_mean, shortened
from server.strategies import make_strategy
from tests.federation import coordinator, journal_in, make_holders
from tests.plans import tiny_plan

ROBUST: dict[str, Any] = {
    "federation.aggregation": "robust",
    "federation.vectorise": "never",
    "federation.trim": 0.34,
    "privacy.epsilon": 2.0,
    "privacy.delta": 1e-6,
    "training.rounds": 1,
}
RULES = ("median", "trimmed_mean", "norm_bound")
vectors = hnp.arrays(np.float32, 6, elements=st.floats(-100, 100, width=32))


def robust_plan(rule: str, **changes: Any) -> Plan:
    return tiny_plan(ROBUST | {"federation.robust_rule": rule} | changes)


def one_round(plan: Plan, tmp_path: Any, spoil: Any = lambda name, reply: reply) -> tuple[Any, list[Any], Any]:
    """What was sent, what holders answered and what came out, through the real coordinator and ClientApp."""
    holders, sent, answers = make_holders(plan), [], []
    for name, agent in holders.agents.items():

        def train(request: RoundRequest, name: str = name, honest: Any = agent.train) -> TrainReply:
            reply = spoil(name, honest(request))
            sent.append({key: value.copy() for key, value in request.weights.items()})
            answers.append({key: value.copy() for key, value in reply.weights.items()})
            return reply

        agent.train = train  # type: ignore[method-assign]
    with journal_in(tmp_path, plan) as journal:
        outcome = coordinator(plan, holders, journal).run_stage(holders.stage)
    return sent[0], answers, outcome


def oracle(rule: str, sent: Any, answers: list[Any], norm: float) -> dict[str, np.ndarray]:
    """The rules once more, number by number, with sorting and flat vectors."""
    found = {}
    for name, start in sent.items():
        rows = np.sort(np.stack([answer[name].astype(np.float64).ravel() for answer in answers]), axis=0)
        if rule != "norm_bound":
            found[name] = rows[len(rows) // 2].reshape(start.shape)  # of three, the middle one is both
    if rule == "norm_bound":
        flat = {name: value.size for name, value in sent.items()}
        w = np.concatenate([sent[name].astype(np.float64).ravel() for name in flat])
        moved = []
        for answer in answers:
            u = np.concatenate([answer[name].astype(np.float64).ravel() for name in flat]) - w
            moved.append(u * min(1.0, norm / np.linalg.norm(u)))
        pieces = np.split(w + np.mean(moved, axis=0), np.cumsum(list(flat.values()))[:-1])
        found = {name: piece.reshape(sent[name].shape) for name, piece in zip(flat, pieces, strict=True)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_round_combines_by_the_rule(rule: str, tmp_path: Any) -> None:
    """The weights after a round are the oracle's, in the types that were sent, and are not FedAvg's."""
    norm = 0.05
    sent, answers, outcome = one_round(robust_plan(rule, **{"federation.update_norm": norm}), tmp_path)
    wanted = oracle(rule, sent, answers, norm)
    assert outcome.weights.keys() == wanted.keys()
    for name, value in outcome.weights.items():
        assert value.dtype == sent[name].dtype
        np.testing.assert_allclose(value, wanted[name], rtol=1e-6, atol=1e-7)
    mean = {name: np.mean([answer[name] for answer in answers], axis=0) for name in sent}
    assert max(float(np.abs(mean[name] - wanted[name]).max()) for name in sent) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_one_of_three_cannot_move_the_result_far(rule: str, tmp_path: Any) -> None:
    """Numbers of the largest size, a huge claim of examples and a false loss: bounded by the rule, whatever is sent."""

    def spoil(name: str, reply: TrainReply) -> TrainReply:
        if name != "east":
            return reply
        garbage = {key: np.full_like(value, 3e38) for key, value in reply.weights.items()}
        return TrainReply(weights=garbage, num_examples=10**15, loss=-1e9, ledger=reply.ledger)

    norm = 0.05
    sent, answers, outcome = one_round(robust_plan(rule, **{"federation.update_norm": norm}), tmp_path, spoil)
    honest = [answer for answer in answers if max(np.abs(v).max(initial=0) for v in answer.values()) < 1e30]
    assert len(honest) == 2
    for name, value in outcome.weights.items():
        stack = np.stack([answer[name] for answer in honest]).astype(np.float64)
        slack = norm if rule == "norm_bound" else 1e-6
        low = np.minimum(stack.min(axis=0), sent[name]) - slack
        high = np.maximum(stack.max(axis=0), sent[name]) + slack
        assert ((value >= low) & (value <= high)).all()
    assert outcome.records[0].loss is not None
    assert outcome.records[0].loss > 0  # a median, which a single false loss does not choose


@given(updates=st.lists(vectors, min_size=1, max_size=6), start=vectors, norm=st.floats(1e-3, 1e3))
def test_norm_bound_is_the_oracle(updates: list[np.ndarray], start: np.ndarray, norm: float) -> None:
    """w + mean of u · min(1, C / |u|), over all arrays of an answer together."""
    sent = {"a": start[:2], "b": start[2:].reshape(2, 2)}
    answers = [{"a": (start + u)[:2], "b": (start + u)[2:].reshape(2, 2)} for u in updates]
    total = np.zeros(6)
    for u in updates:
        moved = (start + u).astype(np.float64) - start
        length = np.sqrt(sum(x * x for x in moved))
        total += moved if length <= norm else moved / length * norm
    found = norm_bounded_mean(answers, sent, norm)
    joined = np.concatenate([found["a"], found["b"].ravel()])
    np.testing.assert_allclose(joined, start + total / len(updates), rtol=2e-6, atol=2e-5)


@given(
    update=hnp.arrays(np.float64, 4, elements=st.floats(allow_nan=False, allow_infinity=False)),
    norm=st.floats(1e-6, 1e6),
)
def test_no_finite_update_is_too_long_to_shorten(update: np.ndarray, norm: float) -> None:
    """Whatever numbers come, subnormal and largest ones too, the length is at most the norm."""
    short = shortened({"a": update}, norm)["a"]
    assert np.isfinite(short).all()
    assert float(np.linalg.norm(short)) <= norm * (1 + 1e-9)
    if 1e-100 < float(np.abs(update).max(initial=0)) < norm / 2:
        np.testing.assert_allclose(short, update, rtol=1e-12)


def test_opposite_ends_of_float64_do_not_overflow() -> None:
    """The difference between the largest and the smallest number is no number; the update is shortened all the same."""
    top = np.finfo(np.float64).max
    found = norm_bounded_mean([{"a": np.array([top])}], {"a": np.array([-top])}, 1.0)
    assert found["a"] == [-top]
    assert norm_bounded_mean([{"a": np.array([top])}], {"a": np.array([0.0])}, 1.0)["a"] == [1.0]


def test_only_a_robust_plan_has_a_robust_strategy() -> None:
    """Secure and plain plans combine by a mean: what a rule would need, single updates, is hidden or not asked for."""
    kinds = {rule: type(make_strategy(robust_plan(rule).federation, holders=3)).__name__ for rule in RULES}
    assert kinds == {"median": "FedMedian", "trimmed_mean": "FedTrimmedAvg", "norm_bound": "NormBound"}
    for mode in ("secure", "plain"):
        plan = robust_plan("median", **{"federation.aggregation": mode})
        assert type(make_strategy(plan.federation, holders=3)).__name__ == "FedAvg"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"federation.strategy": "fedadam"}, 'set strategy = "fedavg"'),
        ({"federation.strategy": "fedprox"}, 'set strategy = "fedavg"'),
        ({"federation.robust_rule": "trimmed_mean", "federation.trim": 0.2}, "cuts off nobody of 3 holders"),
        ({"federation.holders": {"north": ["C001"], "east": ["C004"]}}, "so 3 or more, and there are 2"),
    ],
)
def test_plans_that_defend_against_nobody_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        tiny_plan(ROBUST | changes)


def test_robust_plans_noise_what_is_seen() -> None:
    """Without [privacy] the coordinator would see bare updates: neither promise would hold."""
    with pytest.raises(PlanError, match="updates must be noised before"):
        tiny_plan({"federation.aggregation": "robust"})
