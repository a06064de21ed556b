"""Where the agent of a message comes from: approved plan, own rows, ledgers, masks and training states put together.

    desk = Desk(place, Approvals(place))
    desk.agent(run, plan_hash, stage).train(request)      # the same agent for every message of a run and plan

Rows are read once for each plan and stay in memory. What the holder's operator may change at any moment is read again
for every message: settings and policy from their file, approvals by `approvals`. After a change everything is built
anew from the ledgers and the states on disk, as after a crash, and nothing is charged twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clients.agent import HolderAgent
from clients.correspondence import Correspondence
from clients.desk.calls import OperatorRows
from clients.desk.counts import ForecasterRows
from clients.desk.own_rows import Ledgers, OwnRows, Premises, check_named
from clients.joining import identity_of
from clients.masking import Masking
from clients.opened_sums import OPENED_FILE
from clients.private_files import make_private_folder, write_private
from clients.settings import LEDGERS, RUNS, HolderPlace, load_place
from clients.state_store import StateStore
from privacy.audits.conformance import require_conformance
from privacy.audits.subject import production
from privacy.secure_aggregation.roster import Roster
from protocol.errors import NotApprovedError, PlanError, ProtocolError, StorageError
from protocol.plan import Plan, Share
from protocol.stages import StageSpec, stages_of
from protocol.tasks import task_named

WORK, STATES, PLAN_MARK = "work", "states", "plan"
_RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_PLANS_KEPT, _RUNS_KEPT = 2, 4


class Approved(Protocol):
    """A plan that the operator approved; `clients.approvals.ApprovedPlan` is one."""

    @property
    def plan(self) -> Plan: ...

    @property
    def roster(self) -> Roster: ...


class ApprovedPlans(Protocol):
    """What the operator approved, as it stands now; `clients.approvals.Approvals` is one."""

    def plan(self, plan_hash: str) -> Approved:
        """The approved plan of this hash, or whose stages are carried out under a plan of this hash; see `Desk.agent`.

        Raises:
            NotApprovedError: there is none.
        """
        ...


@dataclass
class RunDesk:
    """What belongs to one run of one plan.

    Args:
        plan_hash: Of the approved plan.
        roster: As it was approved.
        folder: The run's own, private.
        masking: The holder's part in masked sums, for a plan that masks.
        letters: Its part in the exchange, for a plan with one.
        agents: By the digest of the plan that stages are carried out under.
    """

    plan_hash: str
    roster: Roster
    folder: Path
    masking: Masking | None
    letters: Correspondence | None
    agents: dict[str, HolderAgent] = field(default_factory=dict)


class Desk:
    """One holder's desk; for one thread at a time, but `status` may be asked from any.

    Args:
        place: The holder's settings; their file is read again for every message.
        approvals: What its operator approved.
        conformance: Checks the mechanisms of this installation, and raises if one fails; asked once, before the first
            private run.
    """

    def __init__(
        self,
        place: HolderPlace,
        approvals: ApprovedPlans,
        *,
        conformance: Callable[[], object] = lambda: require_conformance(production()),
    ) -> None:
        self._place, self._approvals, self._conformance = place, approvals, conformance
        self._conforms = False
        self._ledgers = Ledgers(place.own(LEDGERS), place.config.privacy)
        self._rows: dict[str, OwnRows] = {}
        self._runs: dict[str, RunDesk] = {}

    def agent(self, run: str, plan_hash: str, stage: str) -> HolderAgent:
        """The agent that answers messages of a run, plan and stage.

        Args:
            run: Identity of the run, as its messages have it.
            plan_hash: Of the plan that the stage is carried out under: an approved one, or one that the stages of an
                approved one derive from it.
            stage: Its name.

        Raises:
            NotApprovedError: the plan is not approved, or no longer, or is not for this holder.
            RefusedError: policy, budget or ledger.
            InputError: the settings, the data or the plan break a rule.
            ConformanceError: the plan promises privacy, and a mechanism of this installation failed its check.
            ProtocolError: a stage that the plan has not, or a run's name that was another plan's.
        """
        self._read_again()
        approved = self._approvals.plan(plan_hash)
        check_named(approved.plan, self._place.name)
        spec = _spec(approved.plan, plan_hash, stage)
        opened = self._run(run, approved)
        if plan_hash not in opened.agents:
            opened.agents[plan_hash] = self._new_agent(opened, approved.plan, spec)
        return opened.agents[plan_hash]

    def status(self) -> dict[str, Any]:
        """What is open, for the operator: names, hashes and what ledgers say; no row and no weight."""
        ledgers = {
            unit: {
                "spent": float(custody.ledger.spent), "left": float(custody.ledger.left),
                "length": custody.head().length,
            }
            for unit, custody in self._ledgers.opened().items()
        }  # fmt: skip
        runs = {
            name: {"plan": run.plan_hash, "masked": run.masking is not None, "agents": len(run.agents)}
            for name, run in tuple(self._runs.items())
        }
        return {"holder": self._place.name, "plans": sorted(self._rows), "runs": runs, "ledgers": ledgers}

    def close(self) -> None:
        """Let go of rows, engines and ledgers; what was paid for and trained is on the disk."""
        self._runs = {}
        for rows in self._rows.values():
            rows.close()
        self._rows = {}
        self._ledgers.close()

    def _read_again(self) -> None:
        """Take in changed settings; while they cannot be read nothing is answered and nothing is lost."""
        place = load_place(self._place.file)
        if place.config.privacy.holder != place.name:
            raise PlanError(
                f"[privacy] holder is '{place.config.privacy.holder}' and [holder] name is '{place.name}'; give both "
                "the same name"
            )
        if place.config != self._place.config:
            self.close()
            self._place = place
            self._ledgers = Ledgers(place.own(LEDGERS), place.config.privacy)

    def _run(self, run: str, approved: Approved) -> RunDesk:
        plan_hash = approved.plan.digest()
        opened = self._runs.get(run)
        if opened is not None and (opened.plan_hash, opened.roster) == (plan_hash, approved.roster):
            return opened
        opened = self._new_run(run, plan_hash, approved)
        self._runs.pop(run, None)
        self._runs[run] = opened
        while len(self._runs) > _RUNS_KEPT:
            self._runs.pop(next(iter(self._runs)))
        return opened

    def _new_run(self, run: str, plan_hash: str, approved: Approved) -> RunDesk:
        if approved.plan.privacy is not None and not self._conforms:
            self._conformance()
            self._conforms = True
        folder = self._run_folder(run, plan_hash)
        rows, identity = self._rows_of(approved.plan), identity_of(self._place)
        masking = None
        if approved.plan.masks:
            masking = Masking(identity, approved.roster, self._place.config.privacy.aggregation)
            masking.remember_in(folder / OPENED_FILE)
        letters = rows.letters(folder, approved.roster, identity)
        return RunDesk(plan_hash, approved.roster, folder, masking, letters)

    def _new_agent(self, run: RunDesk, plan: Plan, spec: StageSpec) -> HolderAgent:
        rows, digest = self._rows_of(plan), spec.plan.digest()
        shares: dict[str, Share] = {one.name: one.share for one in stages_of(plan) if one.plan.digest() == digest}
        return HolderAgent(
            self._place.name,
            rows.tables(spec) if run.letters is None else None,
            spec.plan,
            task_named(spec.plan.run.task),
            shares,
            custody=rows.custody,
            mechanism=rows.mechanism,
            aggregation=self._place.config.privacy.aggregation,
            masking=run.masking,
            letters=run.letters,
            states=StateStore(run.folder / STATES),
        )

    def _rows_of(self, plan: Plan) -> OwnRows:
        """The holder's rows of an approved plan, read on first use."""
        digest = plan.digest()
        if digest not in self._rows:
            while len(self._rows) >= _PLANS_KEPT:
                oldest = next(iter(self._rows))
                self._rows.pop(oldest).close()
                self._runs = {name: run for name, run in self._runs.items() if run.plan_hash != oldest}
            kind = ForecasterRows if plan.run.task == "dhgsil" else OperatorRows
            self._rows[digest] = kind(plan, self._premises())
        return self._rows[digest]

    def _premises(self) -> Premises:
        return Premises(self._place.name, self._place.data, self._place.own(WORK), self._ledgers)

    def _run_folder(self, run: str, plan_hash: str) -> Path:
        """The private folder of a run, which belongs to one plan for ever."""
        if not _RUN_NAME.fullmatch(run):
            raise ProtocolError(f"'{run[:70]}' is no name of a run; use letters, digits, '.', '-' and '_', 128 at most")
        folder = self._place.own(RUNS) / run
        mark = folder / PLAN_MARK
        try:
            make_private_folder(folder)
            if not mark.exists():
                write_private(mark, plan_hash.encode())
            known = mark.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"the run's folder {folder} cannot be used ({error}); make room or set its mode"
            ) from None
        if known != plan_hash:
            raise ProtocolError(
                f"run '{run}' was one of plan {known[:12]} here, and is asked for with plan {plan_hash[:12]}; the "
                "coordinator must give another plan's run a name of its own"
            )
        return folder


def _spec(plan: Plan, plan_hash: str, stage: str) -> StageSpec:
    """The stage of a plan, by its name and by the plan that it is carried out under."""
    specs = stages_of(plan)
    for spec in specs:
        if spec.name == stage and spec.plan.digest() == plan_hash:
            return spec
    known = ", ".join(f"'{spec.name}'" for spec in specs)
    if any(spec.name == stage for spec in specs):
        raise NotApprovedError(
            f"stage '{stage[:100]}' of the approved plan is carried out under another plan than {plan_hash[:12]}; both "
            "sides must run one version"
        )
    raise ProtocolError(f"plan '{plan.run.name}' has no stage '{stage[:100]}'; it has {known}")
