"""What a run of this coordinator reaches: its SuperLink, the nodes and the roster of the holders, public inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from flwr.serverapp import Grid

from protocol.plan import Plan
from protocol.public_inputs import public_inputs
from server.deployed import Federation
from server.link.control import Control
from server.link.grid import taken_run
from server.members import Members
from server.settings import ServerPlace


def federation_of(place: ServerPlace, plan: Plan) -> Federation:
    """The federation that a plan is carried out over.

    Raises:
        PlanError: a holder of the plan has not joined, or the coordinator's files are not as they should be.
        DataError: the public inputs are missing or break a rule.
    """
    members, names = Members(place), tuple(plan.federation.holders)
    return Federation(
        open_run=_runs_of(place), nodes=members.nodes(names), roster=members.roster(names),
        public=public_inputs(plan, place.public), patience=place.config.patience,
    )  # fmt: skip


def _runs_of(place: ServerPlace) -> Callable[[], AbstractContextManager[Grid]]:
    @contextmanager
    def open_run() -> Iterator[Grid]:
        """A new Flower run, taken by this process.

        Raises:
            LinkError: the SuperLink is away, or refuses.
        """
        with Control(place) as control:
            run_id = control.start_run()
        with taken_run(place, run_id) as grid:
            yield grid

    return open_run
