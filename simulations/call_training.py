"""Classifiers trained by a run's operators through messages: Newton steps from sums, and rounds of local steps.

Both are the real thing in one process: agents that hold their own rows, a coordinator that adds up what they send, and
the journal between them::

    newton_fit(plan, task, tables, run=run, journal=journal).probabilities(rows)      # what a pool would fit
    rounds_fit(plan, task, tables, run=run, journal=journal, name="fedavg")           # FedAvg
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from clients.custody import Custody
from integration.prediction.preparing import Preparation
from integration.stages import GROUPS_STAGE, NEWTON_STAGE, SHARE
from integration.task import GROUPS, CallTables, IntegrationTask
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.roster import Identity
from protocol.plan import Plan
from server.journal import Journal, RoundRecord
from server.rounds import Coordinator, Stage
from server.stages import newton_steps
from simulations.holders import SimulatedHolders

OnRound = Callable[[Stage, RoundRecord], None]
Identities = Mapping[str, Identity]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier that operators trained together.

    Args:
        preparation: How features come to scale: by sums over all operators, or by public numbers.
        scores: Linear scores of prepared rows. Shapes: (n, columns) -> (n, scores).
        weights: What a model file holds.
        asked: How often all operators were asked: sums of Newton steps, or rounds.
    """

    preparation: Preparation
    scores: Callable[[np.ndarray], np.ndarray]
    weights: Mapping[str, np.ndarray]
    asked: int

    def probabilities(self, rows: pd.DataFrame) -> np.ndarray:
        """Shapes: n rows -> (n, classes)."""
        scores = self.scores(self.preparation.transform(rows))
        both = np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores
        return softmax(both, axis=1)


def newton_fit(
    plan: Plan, task: IntegrationTask, tables: Mapping[str, CallTables], *, run: str, journal: Journal,
    identities: Identities | None = None,
) -> Fitted:  # fmt: skip
    """Fit the plan's logistic regression: each step is one sum of gradients, Hessians and losses over all operators.

    Raises:
        TrainingError: an operator failed, or there is no minimum within the steps allowed.
    """
    stage = Stage(name=NEWTON_STAGE, share=SHARE)
    holders = SimulatedHolders(tables, plan, task, stage, identities=identities)
    fit = newton_steps(_coordinator(holders, plan, task, tables, run=run, journal=journal), stage, plan, task)
    return Fitted(fit.preparation, fit.model.scores, fit.weights, fit.asked)


def summed_groups(
    plan: Plan, task: IntegrationTask, tables: Mapping[str, CallTables], *, run: str, journal: Journal,
    identities: Identities | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Sums of features by group and week over all operators, see `integration.analysis.sums`."""
    stage = Stage(name=GROUPS_STAGE, share=SHARE)
    holders = SimulatedHolders(tables, plan, task, stage, identities=identities)
    return _coordinator(holders, plan, task, tables, run=run, journal=journal).sums(stage, GROUPS, {})


def rounds_fit(
    plan: Plan,
    task: IntegrationTask,
    tables: Mapping[str, CallTables],
    *,
    run: str,
    journal: Journal,
    name: str,
    on_round: OnRound = lambda stage, record: None,
    custodies: Mapping[str, Custody] | None = None,
    mechanism: DPSGDPlan | None = None,
    identities: Identities | None = None,
) -> Fitted:
    """Train the plan's model in rounds; from its last committed round if it has one.

    Args:
        plan: Its training section says how long.
        task: The plan's task.
        tables: Rows of each operator.
        run: Identity of the run.
        journal: Where rounds are committed.
        name: Of the stage.
        on_round: Called after each committed round.
        custodies: Ledgers of the operators, for private training.
        mechanism: Noise of every step, for private training.
        identities: Signing keys of the operators; made for this training and forgotten if not given.

    Raises:
        TrainingError: an operator failed, or the loss is not finite.
        RefusedError: an operator's policy or ledger does not allow the training.
    """
    stage = Stage(name=name, share=SHARE)
    holders = SimulatedHolders(
        tables, plan, task, stage, custodies=custodies, mechanism=mechanism, identities=identities
    )
    outcome = _coordinator(holders, plan, task, tables, run=run, journal=journal, on_round=on_round).run_stage(stage)
    model = task.build_model(task.public(next(iter(tables.values()))), plan, SHARE, outcome.totals).eval()
    model.load_state_dict({key: torch.as_tensor(np.array(value)) for key, value in outcome.weights.items()})

    def scores(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.as_tensor(x, dtype=torch.float32)).double().numpy()

    return Fitted(task.preparation(plan, outcome.totals), scores, outcome.weights, len(outcome.records))


def _coordinator(
    holders: SimulatedHolders,
    plan: Plan,
    task: IntegrationTask,
    tables: Mapping[str, CallTables],
    *,
    run: str,
    journal: Journal,
    on_round: OnRound = lambda stage, record: None,
) -> Coordinator:
    public = task.public(next(iter(tables.values())))
    return Coordinator(
        holders.grid(), task, public, plan, run=run, journal=journal, roster=holders.roster, holder_states=holders,
        on_round=on_round,
    )  # fmt: skip
