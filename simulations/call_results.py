"""What a finished integration run leaves behind: written by the runner, read back by reports from the folder alone.

The runner makes one `IntegrationTables` and one `IntegrationFacts` and calls `write_integration`; see
`server.sealing` for what makes a folder a finished run::

    write_integration(folder, IntegrationTables(groups=..., ...), IntegrationFacts(run="demo-1", ...), card)
    run = IntegrationResult.read(folder)
    run.verdicts, run.facts.operators

Conventions a writer keeps (beyond the columns in `simulations.call_tables`):

* `groups`: persons of each group and week (0: at all), for each operator and, with operator "", all of them. Missing
  where it is not told; a report shows no number below `smallest_cell` unless the calls are made up.
* `prediction`: tasks "T1" (settled or local; settled is positive), "T1b", "T2" (three-way), "T3"; `split` "paper"
  (weeks 3 and 4 hold the training persons' later weeks) or "user-disjoint"; `weights` "none" or "balanced".
* `churn`: `definition` says who has left, the first one in the table is the headline; `at_risk` is 1 if only persons
  with a call after the window count, 0 if everybody does.
* `federation`: `setting` in the order of the table: "pooled", "silo" (with one row group per operator), "federated,
  no pushes", "federated, L0", …; `families` "exact at home", "all", or "" where a row is not of a model; `slice` is
  "all" or names a share of the rows; `metric` is "f1", "auc", "feature error: degree", "verdicts that agree", ….
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from integration.rules import City
from integration.weeks import CallCalendar
from privacy.card import PrivacyCard
from protocol.errors import RunFolderError
from server.run_folder import CARD_FILE, PLAN_FILE
from server.sealing import DAMAGED, check_seals, read_card, read_facts, require_files, seal
from simulations.call_tables import (
    AS_LOCAL,
    CHURN,
    FEDERATION,
    GROUP_TABLE,
    MAPS,
    PREDICTION,
    TRAJECTORIES,
    VERDICT_TABLE,
)
from simulations.run_tables import TableSpec, read_table, write_table

INTEGRATION_TASKS = ("integration", "integration-mlp")
"""Tasks whose run folders this module reads."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OperatorFacts(_Frozen):
    """One operator of the run.

    Args:
        name: Name of the holder.
        subscribers: People with attributes and calls.
        calls: Calls that were staged, a call between two subscribers once for each.
        dropped: Rows that were left out, by reason.
    """

    name: str = Field(min_length=1)
    subscribers: int = Field(ge=0)
    calls: int = Field(ge=0)
    dropped: dict[str, int] = {}


class SilenceFacts(_Frozen):
    """`integration.analysis.silence.Silence` and, where the data are made up, the truth it estimates."""

    asked: int = Field(ge=0)
    silent: int = Field(ge=0)
    share: float | None = Field(default=None, ge=0, le=1)
    low: float | None = Field(default=None, ge=0, le=1)
    high: float | None = Field(default=None, ge=0, le=1)
    new: int = Field(ge=0)
    expected: float | None = Field(default=None, ge=0)
    expected_by_placebo: float | None = Field(default=None, ge=0)
    truly_new: int | None = Field(default=None, ge=0, description="of the new, who arrived in week 2, if that is known")


class IntegrationFacts(_Frozen):
    """The content of `run.json`."""

    schema_version: Literal[1] = 1
    run: str
    plan_hash: str
    task: Literal["integration", "integration-mlp"]
    seconds: float = Field(ge=0)
    seeds: tuple[int, ...]
    versions: dict[str, str]
    command: str
    synthetic: bool = Field(description="whether the calls are nobody's; every caption says so then")
    calendar: CallCalendar = CallCalendar()
    city: City = City()
    cell_km: float = Field(default=3.0, gt=0, description="side of a square of the maps")
    draws: int = Field(default=1000, ge=1, description="bootstrap draws")
    smallest_cell: int = Field(default=50, ge=1)
    confounds: tuple[str, ...] = Field(default=(), description="`integration.analysis.confounds`")
    operators: tuple[OperatorFacts, ...] = Field(min_length=1)
    pushes: str = Field(default="none", description="what operators told each other in the headline setting")
    silence: SilenceFacts | None = None
    notes: tuple[str, ...] = ()
    files: dict[str, str] = {}


@dataclass(frozen=True)
class IntegrationTables:
    """The tables of one run; see `simulations.call_tables` for their columns. An empty table says: not done."""

    groups: pd.DataFrame
    trajectories: pd.DataFrame
    verdicts: pd.DataFrame
    maps: pd.DataFrame
    prediction: pd.DataFrame
    as_local: pd.DataFrame
    churn: pd.DataFrame
    federation: pd.DataFrame


SPECS: Mapping[str, TableSpec] = {
    "groups": GROUP_TABLE,
    "trajectories": TRAJECTORIES,
    "verdicts": VERDICT_TABLE,
    "maps": MAPS,
    "prediction": PREDICTION,
    "as_local": AS_LOCAL,
    "churn": CHURN,
    "federation": FEDERATION,
}
_SEALED = (*(spec.file for spec in SPECS.values()), PLAN_FILE, CARD_FILE)


def empty_table(name: str) -> pd.DataFrame:
    """A table without rows: the run did not do this part."""
    return pd.DataFrame({column: pd.Series(dtype=object) for column in SPECS[name].columns})


def write_integration(
    folder: Path, tables: IntegrationTables, facts: IntegrationFacts, card: PrivacyCard, *, also: Sequence[str] = ()
) -> None:
    """Write every table, then `run.json` with the digest of each file.

    Args:
        folder: The run folder, with the plan in it.
        tables: The tables.
        facts: The facts, without digests.
        card: The privacy card.
        also: More files of the folder that belong to the run, say "model.safetensors".

    Raises:
        RunFolderError: a table breaks its rules, or the plan or a file of `also` is not in the folder yet.
    """
    require_files(folder, (PLAN_FILE, *also))
    for name, spec in SPECS.items():
        write_table(folder, getattr(tables, name), spec)
    seal(folder, facts, card, (*_SEALED, *also))


@dataclass(frozen=True)
class IntegrationResult(IntegrationTables):
    """A finished integration run, read back from its folder."""

    folder: Path
    facts: IntegrationFacts
    card: PrivacyCard
    plan_text: str

    @classmethod
    def read(cls, folder: Path) -> IntegrationResult:
        """Read and check a run folder.

        Raises:
            RunFolderError: the folder is missing, unfinished, damaged, or its tables contradict each other.
        """
        facts = read_facts(folder, IntegrationFacts)
        check_seals(folder, (*_SEALED, *sorted(facts.files.keys() - set(_SEALED))), facts)
        tables = {name: read_table(folder, spec) for name, spec in SPECS.items()}
        plan_text = (folder / PLAN_FILE).read_text(encoding="utf-8")
        run = cls(**tables, folder=folder, facts=facts, card=read_card(folder), plan_text=plan_text)
        _check_agreement(run)
        return run

    @property
    def tables(self) -> IntegrationTables:
        """The tables alone."""
        return IntegrationTables(**{item.name: getattr(self, item.name) for item in fields(IntegrationTables)})


def _check_agreement(run: IntegrationResult) -> None:
    """Operators and features that one table names exist in the others, and intervals are the right way round."""
    operators = {operator.name for operator in run.facts.operators} | {""}
    for name in ("groups", "federation"):
        if unknown := set(getattr(run, name)["operator"]) - operators:
            raise RunFolderError(f"{SPECS[name].file} names {len(unknown)} operator(s) that run.json lacks; {DAMAGED}")
    if unknown := set(run.verdicts["feature"]) - set(run.trajectories["feature"]):
        raise RunFolderError(f"verdicts.parquet names {len(unknown)} feature(s) without trajectory; {DAMAGED}")
    for name, low, high in (
        ("trajectories", "lo", "hi"),
        ("as_local", "lo", "hi"),
        *(("verdicts", f"{d}_lo", f"{d}_hi") for d in ("d_ns", "d_nl", "d_sl")),
    ):
        table = getattr(run, name)
        if (table[low] > table[high]).any():
            raise RunFolderError(
                f"{SPECS[name].file} has an interval whose lower end is above its upper end; {DAMAGED}"
            )
    if (run.churn["leavers"] > run.churn["persons"]).any():
        raise RunFolderError(f"churn.parquet has more leavers than persons; {DAMAGED}")
