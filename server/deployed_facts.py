"""What a deployed run leaves beside its model: ``card.json``, then ``run.json``, written last and with the SHA-256 of
every file, so that a folder with it is a finished run and one changed byte is noticed.

Forecasts and errors on the test span need rows, and rows stay with their holders. What the coordinator has are sums:
losses and validation errors of rounds where the plan lets them be told, and the model::

    result = DeployedResult.read(folder)              # refused where a file or the journal says something else
    result.facts.stages, result.card
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load

from privacy.card import PrivacyCard
from privacy.secure_aggregation.roster import Roster
from protocol.errors import RunFolderError
from protocol.plan import Plan
from protocol.stages import StageKind, StageSpec, stages_of
from server.cards.deployed import Known, deployed_card
from server.journal import Journal
from server.run_folder import CARD_FILE, ENVIRONMENT_FILE, JOURNAL_FILE, MODEL_FILE, PLAN_FILE, locked_plan, run_name
from server.sealing import DEPLOYED, check_seals, read_card, read_facts, require_files, seal

KIND = DEPLOYED
SEALED = (PLAN_FILE, MODEL_FILE, ENVIRONMENT_FILE, CARD_FILE)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LedgerSeen(_Frozen):
    """Where a holder's ledger stood when it last answered."""

    length: int
    head: str


class RoundFigures(_Frozen):
    """What a round came to; null: not told."""

    round: int
    loss: float | None
    error: float | None


class StageFigures(_Frozen):
    """What a stage came to."""

    name: str
    kind: StageKind
    gives_model: bool
    masked_sums: int = Field(ge=0)
    chosen_round: int | None = Field(description="the round that the stage's weights are of; null: it has none")
    rounds: tuple[RoundFigures, ...]


class Opened(_Frozen):
    """Over how many holders the sums of a stage were opened."""

    stage: str = Field(description="empty: statistics before training, which all stages share")
    over: dict[int, int] = Field(description="number of holders -> sums")
    without: dict[str, int] = Field(description="holder -> sums that were opened without it")


class DeployedFacts(_Frozen):
    """The content of ``run.json``."""

    schema_version: Literal[1] = 1
    kind: Literal["deployed"] = DEPLOYED
    version: str
    run: str
    task: str
    plan_hash: str
    aggregation: Literal["secure", "plain", "robust"]
    holders: tuple[str, ...]
    roster: str
    ledgers: dict[str, LedgerSeen]
    stages: tuple[StageFigures, ...]
    opened: tuple[Opened, ...]
    attempts: int = Field(ge=0, description="Flower runs that it took, in all processes that worked on it")
    seconds: float = Field(ge=0, description="that processes worked on it")
    files: dict[str, str] = {}


@dataclass(frozen=True)
class DeployedResult:
    """A finished run, read from its folder alone."""

    folder: Path
    plan: Plan
    facts: DeployedFacts
    card: PrivacyCard

    @classmethod
    def read(cls, folder: Path) -> DeployedResult:
        """Read a finished run, and compare what it says with its files and its journal.

        Raises:
            RunFolderError: not finished, a file was changed, or ``run.json`` says something else than the journal.
        """
        facts = read_facts(folder, DeployedFacts)
        check_seals(folder, SEALED, facts)
        plan = locked_plan(folder)
        with Journal(folder / JOURNAL_FILE, run=facts.run, plan_hash=plan.digest(), read_only=True) as journal:
            told = _figures(plan, journal)
        if changed := sorted(name for name, value in told.items() if getattr(facts, name) != value):
            raise RunFolderError(
                f"run.json in {folder} and the journal beside it differ in {', '.join(changed)}; copy the run folder "
                "again"
            )
        return cls(folder, plan, facts, read_card(folder))


def write_facts(
    folder: Path, plan: Plan, roster: Roster, public: Any, journal: Journal, *, attempts: int, seconds: float
) -> dict[str, Any]:
    """Write the card, then ``run.json``; what that says.

    Args:
        folder: Of the run, with its plan, its model and its environment.
        plan: The run plan.
        roster: The keys of its holders.
        public: What the task says everybody may know.
        journal: Of the run, with every stage done.
        attempts: Flower runs that it took.
        seconds: That processes worked on it.
    """
    require_files(folder, (PLAN_FILE, MODEL_FILE, ENVIRONMENT_FILE))
    numbers = sum(value.size for value in load((folder / MODEL_FILE).read_bytes()).values())
    card = deployed_card(Known(plan, public, journal.witnesses(), numbers))
    facts = DeployedFacts(
        version=importlib.metadata.version("migrafed"), task=plan.run.task, aggregation=plan.federation.aggregation,
        roster=roster.digest().hex(), attempts=attempts, seconds=round(seconds, 3), **_figures(plan, journal),
    )  # fmt: skip
    seal(folder, facts, card, SEALED)
    return read_facts(folder, DeployedFacts).model_dump(mode="json")


def _figures(plan: Plan, journal: Journal) -> dict[str, Any]:
    """What plan and journal say, and ``run.json`` must say too."""
    return {
        "run": run_name(plan),
        "plan_hash": plan.digest(),
        "holders": tuple(plan.federation.holders),
        "ledgers": {name: LedgerSeen(length=n, head=head) for name, (n, head) in journal.witnesses().items()},
        "stages": tuple(_stage(spec, journal) for spec in stages_of(plan)),
        "opened": tuple(_opened(plan, journal)),
    }


def _stage(spec: StageSpec, journal: Journal) -> StageFigures:
    checkpoint = journal.checkpoint(spec.name)
    records, chosen = (), None
    if checkpoint is not None:
        records = checkpoint.records
        chosen = checkpoint.best_round if spec.plan.training.select == "best" else records[-1].round
    return StageFigures(
        name=spec.name, kind=spec.kind, gives_model=spec.gives_model,
        masked_sums=len(journal.masked_sums(spec.name)), chosen_round=chosen,
        rounds=tuple(RoundFigures(round=each.round, loss=each.loss, error=each.error) for each in records),
    )  # fmt: skip


def _opened(plan: Plan, journal: Journal) -> Iterator[Opened]:
    stages: dict[str, list[tuple[str, ...]]] = {}
    for stage, _, holders in journal.closings():
        stages.setdefault(stage, []).append(holders)
    for stage, sums in stages.items():
        over = Counter(len(holders) for holders in sums)
        without = Counter(name for holders in sums for name in plan.federation.holders if name not in holders)
        yield Opened(stage=stage, over=dict(sorted(over.items())), without=dict(sorted(without.items())))
