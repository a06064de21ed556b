"""The simulated holders of one stage: their agents, their states, and the grid that reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.agent import HolderAgent
from clients.app import relay
from clients.correspondence import Correspondence
from clients.custody import Custody
from clients.masking import Masking
from clients.policy import AggregationPolicy
from clients.state_store import StateStore
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.roster import Identity, Roster
from protocol.plan import Plan
from protocol.tasks import Task
from server.rounds import Stage
from simulations.grid import NODE_NAME, InProcessGrid
from simulations.identities import identities_of, roster_of
from simulations.vectorised import TogetherTrainer


class SimulatedHolders:
    """All holders of one stage in this process.

    Args:
        tables: The tables of each holder, by name.
        plan: The run plan.
        task: The plan's task.
        stage: The stage they take part in.
        custodies: Ledgers of the holders whose people are protected.
        mechanism: Noise of every training step, if the plan trains privately.
        identities: Signing keys of the holders, for a plan that masks; made for this stage and forgotten if not given.
        letters: What holders send to each other, by name, where the stage is an exchange.
        states: Where holders keep their training states themselves, by name; else the run keeps them.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        plan: Plan,
        task: Task,
        stage: Stage,
        *,
        custodies: Mapping[str, Custody] | None = None,
        mechanism: DPSGDPlan | None = None,
        identities: Mapping[str, Identity] | None = None,
        letters: Mapping[str, Correspondence] | None = None,
        states: Mapping[str, StateStore] | None = None,
    ) -> None:
        known, mail, kept = custodies or {}, letters or {}, states or {}
        accepted = AggregationPolicy(allow=(plan.federation.aggregation,))
        self.masking: dict[str, Masking] = {}
        self.roster: Roster | None = None
        if plan.masks:
            signing = identities or identities_of(tables)
            self.roster = roster_of({name: signing[name] for name in tables})
            self.masking = {name: Masking(signing[name], self.roster, accepted) for name in tables}
        self.plan, self.task, self.stage, self.tables = plan, task, stage, tables
        self.agents = {
            name: HolderAgent(
                name,
                own,
                plan,
                task,
                {stage.name: stage.share},
                custody=known.get(name),
                mechanism=mechanism,
                aggregation=accepted,
                masking=self.masking.get(name),
                letters=mail.get(name),
                states=kept.get(name),
            )
            for name, own in tables.items()
        }

    def grid(self) -> InProcessGrid:
        """A grid with one node per holder."""
        app = relay(lambda context: self.agents[str(context.node_config[NODE_NAME])])
        together = None
        if self.plan.federation.vectorise != "never" and not self.plan.trains_privately:
            together = TogetherTrainer(
                self.agents, self.plan, self.task, always=self.plan.federation.vectorise == "always"
            )
        return InProcessGrid(app, list(self.agents), together=together)

    def export(self, stage: str) -> dict[str, bytes]:
        """Training states of all holders, by name."""
        return {name: agent.export_state(stage) for name, agent in self.agents.items()}

    def restore(self, stage: str, states: Mapping[str, bytes]) -> None:
        """Continue from stored training states."""
        for name, blob in states.items():
            self.agents[name].import_state(stage, blob)
