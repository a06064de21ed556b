"""What a holder's side of masked sums watches over: the same thing is never summed over two sets of holders."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from clients.masking import Masking
from clients.policy import AggregationPolicy
from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import Opening
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from protocol.errors import AggregationRefusedError, PolicyRefusedError, ProtocolError
from protocol.masked_messages import MaskedRequest
from protocol.records import Header
from tests.masked_sums import PLAN, identity, names_of, roster_of

NAMES = names_of(4)
ROSTER = roster_of(NAMES)
CONTENT, OTHER_CONTENT = bytes(32), b"\1" * 32
VALUES = {name: {"value": np.array([1 << number], dtype=np.int64)} for number, name in enumerate(NAMES)}
LAYOUT = Layout.for_statistics(VALUES[NAMES[0]], holders=len(NAMES))


@dataclass
class Server:
    """A coordinator of four holders that chooses whom it says is there."""

    holders: dict[str, Masking] = field(
        default_factory=lambda: {name: Masking(identity(name), ROSTER, AggregationPolicy()) for name in NAMES}
    )
    sessions: int = 0

    def begin_session(self, stage: str) -> Enrolment:
        self.sessions += 1
        terms = SessionTerms(
            run="run", stage=stage, plan_hash=PLAN, roster_hash=ROSTER.digest(),
            session=self.sessions.to_bytes(16, "big"),
        )  # fmt: skip
        enrolment = Enrolment(terms, ROSTER)
        for name in NAMES:
            enrolment.add_advert(name, self.step(name, stage, "terms", {"terms": terms.to_bytes()}))
        for name in NAMES:
            enrolment.add_confirmation(name, self.step(name, stage, "adverts", enrolment.adverts))
        return enrolment

    def sum_over(
        self,
        enrolment: Enrolment,
        *,
        number: int,
        cohort: tuple[str, ...] = NAMES,
        late: tuple[str, ...] = (),
        label: str = "statistics phase",
        content: bytes = CONTENT,
        weight: int | None = None,
    ) -> int:
        """The sum of one statistic, without those who are said to be late."""
        stage = enrolment.terms.stage
        order = SumOrder(
            sequence=number, label=label, model_hash=content, weights=dict.fromkeys(cohort, weight or 1),
            confirmations=enrolment.confirmations,
        )  # fmt: skip
        masked = MaskedSum(enrolment.agreement, order, ROSTER)
        for name in (name for name in cohort if name not in late):
            holder = self.holders[name]
            holder.begin(header(stage), order.to_bytes(), label=label, content=content, weight=weight)
            masked.add_contribution(name, holder.contribute(header(stage), LAYOUT, VALUES[name]))
        if masked.needs_signatures:
            asked = {"survivors": masked.close().to_bytes()}
            for name in masked.close().left:
                masked.add_signature(name, self.step(name, stage, "survivors", asked))
        for name in masked.close().left:
            masked.add_reveal(name, self.step(name, stage, "unmasking", {"unmasking": masked.unmasking(name)}))
        return int(LAYOUT.decode(masked.total(), survivors=len(masked.close().left))["value"][0])

    def step(self, name: str, stage: str, step: str, parts: dict[str, bytes]) -> bytes:
        request = MaskedRequest(header=header(stage), step=step, parts=dict(parts))  # type: ignore[arg-type]
        return self.holders[name].answer(request, plan_hash=PLAN.hex()).part


def header(stage: str = "stage") -> Header:
    return Header(run="run", plan_hash=PLAN.hex(), stage=stage)


def test_the_same_sum_is_not_opened_with_one_holder_more() -> None:
    """15 - 14 would be the first holder's number: refused, in a new session and with other content too."""
    server = Server()
    enrolment = server.begin_session("stage")
    assert server.sum_over(enrolment, number=1, late=("h00",)) == 14
    for content in (CONTENT, OTHER_CONTENT):
        with pytest.raises(AggregationRefusedError, match="opened before over other holders"):
            server.sum_over(enrolment, number=2, content=content)
        with pytest.raises(AggregationRefusedError, match="opened before over other holders"):
            server.sum_over(server.begin_session("stage"), number=1, content=content)
        enrolment = server.begin_session("stage")


def test_the_same_sum_is_not_opened_with_one_holder_less() -> None:
    """Neither by naming fewer nor by saying that one dropped out."""
    server = Server()
    enrolment = server.begin_session("stage")
    assert server.sum_over(enrolment, number=1) == 15
    with pytest.raises(AggregationRefusedError, match="opened before over other holders"):
        server.sum_over(enrolment, number=2, cohort=NAMES[1:])
    with pytest.raises(AggregationRefusedError, match="dropped out now"):
        server.sum_over(enrolment, number=3, late=("h00",))


def test_the_same_sum_is_opened_again_over_the_same_holders() -> None:
    """A run that was stopped before it kept the sum goes on: nothing new is told."""
    server = Server()
    assert server.sum_over(server.begin_session("stage"), number=1, late=("h00",)) == 14
    assert server.sum_over(server.begin_session("stage"), number=1, cohort=NAMES[1:]) == 14


def test_statistics_are_one_thing_in_all_stages_and_rounds_are_not() -> None:
    """Two stages ask for the same sums of the same rows; their rounds train different models."""
    server = Server()
    one, other = server.begin_session("one"), server.begin_session("other")
    assert server.sum_over(one, number=1, late=("h00",)) == 14
    with pytest.raises(AggregationRefusedError, match="opened before over other holders"):
        server.sum_over(other, number=1)
    assert server.sum_over(one, number=2, label="train 1", weight=2, late=("h00",)) == 14
    assert server.sum_over(other, number=2, label="train 1", weight=2) == 15


def test_two_sums_under_way_at_once_are_not_opened_over_different_holders() -> None:
    """A coordinator may begin both before it opens either: the holder looks again before it gives anything away."""
    server = Server()
    sums = {}
    for stage, late in (("all", ()), ("fewer", ("h00",))):
        enrolment = server.begin_session(stage)
        order = SumOrder(
            sequence=1, label="statistics phase", model_hash=CONTENT, weights=dict.fromkeys(NAMES, 1),
            confirmations=enrolment.confirmations,
        )  # fmt: skip
        sums[stage] = MaskedSum(enrolment.agreement, order, ROSTER)
        for name in (name for name in NAMES if name not in late):
            holder = server.holders[name]
            holder.begin(header(stage), order.to_bytes(), label=order.label, content=CONTENT, weight=None)
            sums[stage].add_contribution(name, holder.contribute(header(stage), LAYOUT, VALUES[name]))
    asked = {"survivors": sums["fewer"].close().to_bytes()}
    for name in NAMES[1:]:
        sums["fewer"].add_signature(name, server.step(name, "fewer", "survivors", asked))
    for name in NAMES:
        sums["all"].close()
        sums["all"].add_reveal(name, server.step(name, "all", "unmasking", {"unmasking": sums["all"].unmasking(name)}))
    assert sums["all"].total().size == LAYOUT.words
    for name in NAMES[1:]:
        with pytest.raises(AggregationRefusedError, match="while this one was under way"):
            server.step(name, "fewer", "unmasking", {"unmasking": sums["fewer"].unmasking(name)})


def test_an_order_of_something_else_is_refused() -> None:
    """Another label or other content than came with it, no order, another weight than is public."""
    server = Server()
    enrolment = server.begin_session("stage")
    holder = server.holders["h00"]

    def order(weights: dict[str, int]) -> bytes:
        return SumOrder(
            sequence=1, label="train 1", model_hash=CONTENT, weights=weights, confirmations=enrolment.confirmations
        ).to_bytes()

    right = dict.fromkeys(NAMES, 2)
    for label, content in (("train 2", CONTENT), ("train 1", OTHER_CONTENT)):
        with pytest.raises(AggregationRefusedError, match="other weights or sums than came with it"):
            holder.begin(header(), order(right), label=label, content=content, weight=2)
    with pytest.raises(AggregationRefusedError, match=r"weights of \['h00'\] are not those"):
        holder.begin(header(), order(right | {"h00": 3}), label="train 1", content=CONTENT, weight=2)
    with pytest.raises(AggregationRefusedError, match="everybody counts once"):
        holder.begin(header(), order(right), label="train 1", content=CONTENT, weight=None)
    with pytest.raises(ProtocolError, match="without the order"):
        holder.begin(header(), b"", label="train 1", content=CONTENT, weight=2)
    holder.begin(header(), order(right), label="train 1", content=CONTENT, weight=2)


def test_weights_stay_as_they_were_first_shown() -> None:
    """A coordinator that gives one holder all the weight in a later round is refused."""
    server = Server()
    enrolment = server.begin_session("stage")
    server.sum_over(enrolment, number=1, label="train 1", weight=2)
    changed = SumOrder(
        sequence=2, label="train 2", model_hash=CONTENT, weights=dict.fromkeys(NAMES, 2) | {"h03": 1_000},
        confirmations={},
    )  # fmt: skip
    with pytest.raises(AggregationRefusedError, match=r"weights of \['h03'\] are not those"):
        server.holders["h00"].begin(header(), changed.to_bytes(), label="train 2", content=CONTENT, weight=2)


def test_nothing_is_asked_of_a_stage_without_a_session_or_of_another_plan() -> None:
    """A session is of the run, stage and plan that the message says."""
    server = Server()
    with pytest.raises(AggregationRefusedError, match="no session of stage 'stage'"):
        server.holders["h00"].answer(
            MaskedRequest(header=header(), step="survivors", parts={"survivors": b""}), plan_hash=PLAN.hex()
        )
    terms = SessionTerms(run="run", stage="other", plan_hash=PLAN, roster_hash=ROSTER.digest(), session=bytes(16))
    request = MaskedRequest(header=header(), step="terms", parts={"terms": terms.to_bytes()})
    with pytest.raises(AggregationRefusedError, match="another run, stage or plan"):
        server.holders["h00"].answer(request, plan_hash=PLAN.hex())
    with pytest.raises(ProtocolError, match="needs the part 'terms'"):
        server.holders["h00"].answer(
            MaskedRequest(header=header(), step="terms", parts={"order": b""}), plan_hash=PLAN.hex()
        )


def test_openings_and_rosters_are_the_policys() -> None:
    """Nothing is shown in a dispute, and nothing done under another roster, without the operator's word."""
    server = Server()
    server.sum_over(server.begin_session("stage"), number=1)
    ours = server.holders["h00"]
    context = Opening.from_bytes(ours._session("stage").open()).context
    request = MaskedRequest(header=header(), step="opening", parts={"opening": context})
    with pytest.raises(PolicyRefusedError, match="does not show what it put into a sum"):
        server.holders["h00"].answer(request, plan_hash=PLAN.hex())
    ours.policy = AggregationPolicy(openings=True)
    assert Opening.from_bytes(ours.answer(request, plan_hash=PLAN.hex()).part).context == context
    with pytest.raises(AggregationRefusedError, match="another sum than the last"):
        ours.answer(MaskedRequest(header=header(), step="opening", parts={"opening": bytes(32)}), plan_hash=PLAN.hex())
    with pytest.raises(ProtocolError, match="needs the part 'opening'"):
        ours.answer(MaskedRequest(header=header(), step="opening", parts={}), plan_hash=PLAN.hex())
    with pytest.raises(PolicyRefusedError, match="compare its members"):
        Masking(identity("h00"), ROSTER, AggregationPolicy(roster="0" * 64))
