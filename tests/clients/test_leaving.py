"""`clients.leaving`: a whole run sends what was shown before, no more of it and nothing larger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.agent import HolderAgent
from clients.leaving import Leaving, leaving
from protocol.plan import Plan, load_plan, parse_plan, read_toml
from protocol.public_inputs import public_inputs
from protocol.record_bytes import records_to_bytes
from protocol.stages import stages_of
from simulations.holder_folders import make_folders
from tests.desks import Deployment

PLANS = Path(__file__).resolve().parents[2] / "plans"
SMALL = {
    "three_regions": {"data.world.queries": "3000", "data.world.num_steps": "40", "training.rounds": "2"},
    "three_operators": {"data.pushes": "none"},
}
SETTING_UP = "keys, signatures and shares that set up and open masked sums"
NUMBERS = "number of examples, and where the ledger stands"
Sent = dict[tuple[str, str, str], list[int]]


def what_of(method: str, request: Any) -> str:
    """The kind of message, as the page calls it."""
    if method == "statistics":
        return NUMBERS if request.phase in ("ready", "finished") else f"statistics '{request.phase}'"
    return {"masked": SETTING_UP, "train": "update of the model's weights"}.get(
        method, "validation error of the model, one number"
    )


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Sizes of all that agents answer, by holder, stage and kind."""
    found: Sent = defaultdict(list)

    def watched(method: str, answer: Callable[[HolderAgent, Any], Any]) -> Callable[[HolderAgent, Any], Any]:
        def asked(agent: HolderAgent, request: Any) -> Any:
            reply = answer(agent, request)
            key = (agent.name, request.header.stage, what_of(method, request))
            found[key].append(len(records_to_bytes(reply.to_records())))
            return reply

        return asked

    for method in ("statistics", "masked", "train", "evaluate"):
        monkeypatch.setattr(HolderAgent, method, watched(method, getattr(HolderAgent, method)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("aggregation", ["secure", "plain"])
def test_a_run_sends_no_more_than_was_shown(name: str, aggregation: str, tmp_path: Path, sent: Sent) -> None:
    changes = SMALL[name] | {"federation.aggregation": aggregation}
    made = make_folders(load_plan(PLANS / f"{name}.toml", overrides=changes), tmp_path / "data")
    deployment = Deployment(made, tmp_path / "deployed")
    try:
        with deployment.journal() as journal:
            for spec in stages_of(made.plan):
                deployment.stage(spec, journal)
    finally:
        deployment.close()
    shown = {(item.stage, item.what): item for item in page(made.plan, made.holders["north"])}
    assert sent
    for (_, stage, what), sizes in sent.items():
        item = shown[stage, what]
        assert len(sizes) <= item.times, item
        assert item.bytes is not None
        assert max(sizes) <= item.bytes, item
    unused = shown.keys() - {(stage, what) for _, stage, what in sent}
    assert not unused  # what never leaves would hide what does


def page(plan: Plan, folder: Path) -> tuple[Leaving, ...]:
    return leaving(plan, public_inputs(plan, folder))


def test_private_training_sends_no_error_and_no_statistics() -> None:
    """Where every step is noised, nothing is measured on raw rows, and the page says that updates are noised."""
    values = read_toml(PLANS / "three_operators.toml", what="plan")
    values["data"] |= {"pushes": "none", "training_rows": 200}
    values["compare"] |= {"alone": False}
    values["privacy"] = {"mode": "person-dpsgd", "epsilon": 4.0, "delta": 1e-4, "score_against": "truth"}
    plan = parse_plan(values)
    whats = {item.what for item in leaving(plan, None)}
    assert whats == {SETTING_UP, NUMBERS, "noised update of the model's weights"}
