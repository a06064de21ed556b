"""Whole trainings through sockets, gates and outbox logs: the same numbers as without them, and a line for each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clients.settings import OUTBOX
from dhgsil.task import TASK
from server.rounds import Coordinator
from tests.agent_services import grid_over_sockets, lines_of
from tests.federation import journal_in, largest_difference, make_holders, run_stage
from tests.plans import PLAIN, series_of, tiny_plan


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, PLAIN], ids=["secure", "plain"])
def test_training_behind_sockets_is_the_same_training(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = tiny_plan({"federation.vectorise": "never"} | changes)
    wanted = run_stage(plan, make_holders(plan))
    holders = make_holders(plan)
    with journal_in(tmp_path, plan) as journal, grid_over_sockets(tmp_path, holders.agents) as (grid, places):
        public = TASK.public(series_of(plan))
        found = Coordinator(
            grid, TASK, public, plan, run="test", journal=journal, roster=holders.roster, holder_states=holders
        ).run_stage(holders.stage)
    assert largest_difference(found.weights, wanted.weights) == 0
    for place in places.values():
        lines = lines_of(place)
        assert [line.number for line in lines] == list(range(1, len(lines) + 1))
        assert {line.plan_hash for line in lines} == {plan.digest()}
        kinds = Counter(line.kind for line in lines)
        assert "refusal" not in kinds
        assert (kinds["MaskedReply"] > 0, kinds["TrainReply"] > 0) == (plan.masks, not plan.masks)
        assert place.own(OUTBOX).stat().st_mode & 0o777 == 0o600
