"""A deployment without processes: a desk for each holder of folders that were written, behind an in-process grid."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.desk.desk import Desk
from clients.joining import identity_of, make_keys
from clients.settings import IDENTITY_KEY, LEDGERS, HolderPlace, load_place
from integration.exchange import exchange_phases
from integration.task import study_section
from privacy.secure_aggregation.roster import Roster
from protocol.errors import NotApprovedError
from protocol.masked_messages import MASKED, MaskedRequest
from protocol.messages import EXCHANGE, ExchangeRequest, RoundRequest, StatisticsRequest
from protocol.plan import Plan
from protocol.public_inputs import public_inputs
from protocol.stages import StageSpec, stages_of
from protocol.tasks import task_named
from server.journal import Journal
from server.rounds import Coordinator, Stage
from server.run_folder import run_name
from server.stages import carry_out
from simulations.grid import NODE_NAME, InProcessGrid
from simulations.holder_folders import HolderFolders
from simulations.identities import IDENTITY_FILE, roster_of

POLICY: dict[str, Any] = {
    "population": "people", "period": "this series", "max_epsilon": 20.0, "delta": 1e-6, "contributions": 1000,
    "least_noise_multiplier": 0.01, "clip_norm": 10.0, "aggregation": {"allow": ["secure", "plain"]},
    "pushes": {"allow": "threshold", "made_up": True, "matching": "bits"},
}  # fmt: skip


@dataclass
class Approving:
    """Approves what it is told to; stands in for `clients.approvals.Approvals`."""

    plan_: Plan
    roster: Roster
    revoked: bool = False

    def plan(self, plan_hash: str) -> Any:
        @dataclass(frozen=True)
        class Approved:
            plan: Plan
            roster: Roster

        known = {self.plan_.digest(), *(spec.plan.digest() for spec in stages_of(self.plan_))}
        if self.revoked or plan_hash not in known:
            raise NotApprovedError(f"plan {plan_hash[:12]} is not approved here")
        return Approved(self.plan_, self.roster)


def write_place(folder: Path, name: str, data: Path, **policy: Any) -> HolderPlace:
    """A holder's settings and keys; `policy` changes `POLICY`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "holder": {"name": name, "folder": "."}, "data": {"folder": str(data)},
        "privacy": {"holder": name, **POLICY, **policy},
    }  # fmt: skip
    (folder / "holder.toml").write_text(tomli_w.dumps(values), encoding="utf-8")
    place = load_place(folder / "holder.toml")
    make_keys(place)
    return place


def desk_app(desks: Mapping[str, Desk]) -> ClientApp:
    """A ClientApp that asks the desk of its node for the agent of every message, as the agent's process does."""
    app = ClientApp()

    def agent(context: Context, header: Any) -> Any:
        return desks[str(context.node_config[NODE_NAME])].agent(header.run, header.plan_hash, header.stage)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        request = StatisticsRequest.from_records(message.content)
        return Message(agent(context, request.header).statistics(request).to_records(), reply_to=message)

    @app.query(EXCHANGE)
    def exchange(message: Message, context: Context) -> Message:
        request = ExchangeRequest.from_records(message.content)
        return Message(agent(context, request.header).exchange(request).to_records(), reply_to=message)

    @app.query(MASKED)
    def masked(message: Message, context: Context) -> Message:
        request = MaskedRequest.from_records(message.content)
        return Message(agent(context, request.header).masked(request).to_records(), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request = RoundRequest.from_records(message.content)
        return Message(agent(context, request.header).train(request).to_records(), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        request = RoundRequest.from_records(message.content)
        return Message(agent(context, request.header).evaluate(request).to_records(), reply_to=message)

    return app


class Deployment:
    """Holders with desks, and a coordinator, of one plan.

    Args:
        made: The folders.
        folder: Where holders and the journal have theirs.
        ledgers: Ledgers and keys of a simulation to begin with, a folder for each holder.
    """

    def __init__(self, made: HolderFolders, folder: Path, *, ledgers: Path | None = None, **policy: Any) -> None:
        self.made, self.plan, self.folder = made, made.plan, folder
        self.places = {
            name: write_place(folder / name, name, data, **_own(policy, name)) for name, data in made.holders.items()
        }
        if ledgers is not None:
            for name, place in self.places.items():
                shutil.copytree(ledgers / name, place.own(LEDGERS), dirs_exist_ok=True)
                if (ledgers / name / IDENTITY_FILE).exists():
                    shutil.copy(ledgers / name / IDENTITY_FILE, place.own(IDENTITY_KEY))
        self.roster = roster_of({name: identity_of(place) for name, place in self.places.items()})
        self.approving = {name: Approving(self.plan, self.roster) for name in self.places}
        self.desks = {name: Desk(place, self.approving[name], conformance=list) for name, place in self.places.items()}

    def restart(self, name: str) -> None:
        """The agent's process ended and was started again."""
        self.desks[name].close()
        self.desks[name] = Desk(load_place(self.places[name].file), self.approving[name], conformance=list)

    def close(self) -> None:
        for desk in self.desks.values():
            desk.close()

    def stage(self, spec: StageSpec, journal: Journal, **given: Any) -> Mapping[str, np.ndarray]:
        """Carry out one stage through the coordinator's own way."""
        grid = InProcessGrid(desk_app(self.desks), list(self.desks))
        coordinator = Coordinator(
            grid, task_named(spec.plan.run.task), public_inputs(spec.plan, self.made.public), spec.plan,
            run=run_name(self.plan), journal=journal, roster=self.roster if spec.plan.masks else None, **given,
        )  # fmt: skip
        if spec.kind == "exchange":
            coordinator.exchange(Stage(name=spec.name, share=spec.share), exchange_phases(study_section(spec.plan)))
            return {}
        return carry_out(coordinator, spec).weights

    def journal(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Journal(self.folder / "journal.sqlite", run=run_name(self.plan), plan_hash=self.plan.digest())

    def model(self) -> Mapping[str, np.ndarray]:
        """All stages in order; the weights of the one that gives the model."""
        found: Mapping[str, np.ndarray] = {}
        with self.journal() as journal:
            for spec in stages_of(self.plan):
                weights = self.stage(spec, journal)
                found = weights if spec.gives_model else found
        return found


def _own(policy: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Values of one holder: {} in a text stands for its name."""
    return {key: value.format(name) if isinstance(value, str) else value for key, value in policy.items()}
