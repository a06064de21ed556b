"""A holder with a share of the noise: it refuses every way in which its part could be seen, and makes it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.agent import HolderAgent
from clients.custody import Custody
from clients.masking import Masking
from clients.policy import AggregationPolicy
from clients.shared_noise import check_shared_noise
from dhgsil.task import TASK
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.terms import SumOrder
from protocol.errors import LedgerError, PlanError, PolicyRefusedError, PrivacyParameterError
from protocol.masked_messages import MaskedReply
from protocol.messages import READY, RoundRequest, StatisticsRequest
from protocol.plan import Plan
from protocol.records import Header
from simulations.identities import identities_of, roster_of
from simulations.protection import open_custodies
from tests.plans import series_of, tiny_plan

SHARED: dict[str, Any] = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-5, "privacy.score_against": "truth",
    "privacy.noise": "distributed", "federation.shares": ["weights"], "compare.pooled": False, "compare.alone": False,
    "training.select": "last", "training.optimizer": "sgd", "model.node_features": False, "model.pair": "embedding",
}  # fmt: skip
PLAN = tiny_plan(SHARED)
NAMES = tuple(PLAN.federation.holders)
MECHANISM = DPSGDPlan(
    unit=TASK.unit, clip_norm=1.0, noise_multiplier=3.0, sampling_rate=0.25, expected_batch=24.0,
    steps=PLAN.training.rounds, honest=3,
)  # fmt: skip


def masking(name: str = "north", **policy: Any) -> Masking:
    identities = identities_of(NAMES)
    return Masking(identities[name], roster_of(identities), AggregationPolicy(**policy))


@pytest.mark.parametrize(
    ("plan", "mechanism", "masks", "reason"),
    [
        (PLAN, MECHANISM.model_copy(update={"honest": 0}), masking(), "noise is shared and the mechanism counts on 0"),
        (tiny_plan(SHARED | {"privacy.noise": "local"}), MECHANISM, masking(), "noise is local .* counts on 3"),
        (PLAN, MECHANISM, None, "seen in a sum over one holder alone"),
        (PLAN, MECHANISM.model_copy(update={"honest": 4}), masking(), "seen in a sum over 3 holders"),
        (PLAN, MECHANISM, masking(openings=True), "shows under dispute what it put into a sum"),
    ],
)
def test_a_share_of_noise_outside_a_large_enough_masked_sum_is_refused(
    plan: Plan, mechanism: DPSGDPlan, masks: Masking | None, reason: str
) -> None:
    with pytest.raises((PolicyRefusedError, PrivacyParameterError), match=reason):
        check_shared_noise("north", plan, mechanism, masks)


def test_masked_sums_of_enough_holders_and_local_noise_are_accepted() -> None:
    check_shared_noise("north", PLAN, MECHANISM, masking())
    local = tiny_plan(SHARED | {"privacy.noise": "local"})
    check_shared_noise("north", local, MECHANISM.model_copy(update={"honest": 0}), None)


def test_a_holder_without_a_place_to_remember_sums_is_refused(tmp_path: Path) -> None:
    """It would forget over whom its sums were opened, and could be asked for them over others."""
    with open_custodies(PLAN, tmp_path) as custodies:
        custody = Custody(custodies["north"].policy, custodies["north"].ledger)
        tables = TASK.held_by(series_of(PLAN), PLAN.federation.holders["north"])
        with pytest.raises(PlanError, match="no folder to remember opened sums in"):
            HolderAgent(
                "north", tables, PLAN, TASK, {"stage": "weights"}, custody=custody, mechanism=MECHANISM,
                masking=masking(),
            )  # fmt: skip


class Recorded(Masking):
    """Masking whose sums begin without a session; it keeps what was put into them."""

    def __init__(self) -> None:
        super().__init__(identities_of(NAMES)["north"], ROSTER, AggregationPolicy())
        self.given: list[tuple[Layout, dict[str, np.ndarray]]] = []

    def begin(self, *_: Any, **__: Any) -> Any:
        """Nothing is checked here."""
        return SumOrder(
            sequence=1, label="train 1", model_hash=bytes(32), weights=dict.fromkeys(NAMES, 1), confirmations={}
        )  # fmt: skip

    def contribute(self, header: Header, layout: Layout, arrays: Any) -> bytes:
        self.given.append((layout, dict(arrays)))
        return b"masked"


IDENTITIES = identities_of(NAMES)
ROSTER = roster_of(IDENTITIES)
HEADER = Header(run="tiny", plan_hash=PLAN.digest(), stage="stage")


@dataclass
class Opened:
    """A holder that is ready for its first round, and what it puts into sums."""

    agent: HolderAgent
    masking: Recorded

    def train(self, number: int = 1, *, moved: float = 0.0) -> dict[str, np.ndarray]:
        session = self.agent.session("stage")
        made = TASK.build_model(TASK.public(series_of(PLAN)), PLAN, "weights", {})
        weights = {k: v.detach().numpy() + moved for k, v in made.named_parameters() if k not in session.personal}
        reply = self.agent.train(RoundRequest(header=HEADER, round=number, weights=weights))
        assert isinstance(reply, MaskedReply)
        assert reply.contribution == b"masked"
        return self.masking.given[-1][1]


@contextmanager
def opened(folder: Path) -> Iterator[Opened]:
    tables, masks = TASK.held_by(series_of(PLAN), PLAN.federation.holders["north"]), Recorded()
    with open_custodies(PLAN, folder) as custodies:
        agent = HolderAgent(
            "north", tables, PLAN, TASK, {"stage": "weights"}, custody=custodies["north"], mechanism=MECHANISM,
            masking=masks,
        )  # fmt: skip
        agent.statistics(StatisticsRequest(header=HEADER, phase=READY))
        yield Opened(agent, masks)


def test_a_part_is_made_once_and_charged_before(tmp_path: Path) -> None:
    """Asked again, also after a new start, it is the same integers; for other weights it is refused; all in range."""
    with opened(tmp_path) as holder:
        first = holder.train()
        again = holder.train()
        layout = holder.masking.given[0][0]
        state = holder.agent.export_state("stage")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert {value.dtype for value in first.values()} == {np.dtype(np.int64)}
    assert all(array.form == "scaled" for array in layout.arrays)
    assert layout.encode(first).dtype == np.uint32
    with opened(tmp_path) as holder:
        assert all(np.array_equal(first[name], value) for name, value in holder.train().items())
        assert holder.agent.export_state("stage") == state
        with pytest.raises(LedgerError, match="was served for request"):
            holder.train(moved=1.0)
        assert any((first[name] != value).any() for name, value in holder.train(2).items())
        with pytest.raises(LedgerError, match="rounds 1 to 2 reserved"):
            holder.train(3)
    lines = next((tmp_path / "north").rglob("ledger.jsonl")).read_text(encoding="utf-8")
    assert "noise shared by at least 3 honest holders of a masked sum" in lines


def test_personal_parameters_stay_as_they_began(tmp_path: Path) -> None:
    """No step of theirs would be noised; so there is none, and none of them is in a part."""
    with opened(tmp_path) as holder:
        session = holder.agent.session("stage")
        before = {name: session.model.get_parameter(name).detach().clone() for name in session.personal}
        part = holder.train()
        assert before
        assert not part.keys() & before.keys()
        assert all((session.model.get_parameter(name) == value).all() for name, value in before.items())
        kept = session.state.kept[1]
        assert all((kept[name] == value).all() for name, value in before.items())
