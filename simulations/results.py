"""What a finished run leaves behind: written by the runner, read back by reports from the folder alone.

The runner makes one `RunTables` and one `RunFacts` and calls `write_run`, which writes every table whole and
`run.json` last, with the SHA-256 of each file. So a folder with a valid `run.json` is a finished run, and one
changed byte is noticed::

    write_run(folder, RunTables(metrics=..., ...), RunFacts(run="demo-1", ...), card)
    run = RunResult.read(folder)
    run.metrics, run.facts.holders

Conventions a writer keeps (beyond the columns in `simulations.run_tables`):

* `metrics`: the model of this toolkit is called "DHG-SIL" in every scope. `slice` is "all", "h=1"..,
  "decile=1".."decile=10" (of pair volume), "before 2020-03-01", "after 2020-03-01"; `horizon` is the number in "h=…"
  and 0 elsewhere. Scope "alone" has one row group for each holder (errors on that holder's own rows) and may have one
  with holder "" (all holders' own rows together, comparable with the other scopes).
* `comparisons`: `model_a` and `model_b` are labels made by `model_label`; `difference` is error of a minus error of b,
  so negative means that a is better; `[lo, hi]` is its paired block-bootstrap interval at `level`.
* `homophily`: graph name ("geography", "mobility out", "mobility in", ...) -> h and, for mobility, h of the
  strength-matched null.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from privacy.card import PrivacyCard
from protocol.errors import RunFolderError
from server.run_folder import CARD_FILE, FACTS_FILE, MODEL_FILE, PLAN_FILE
from server.sealing import DAMAGED, check_seals, read_card, read_facts, require_files, seal
from simulations.run_tables import (
    ATTRACTION,
    FLOWS,
    FORECASTS,
    METRICS,
    MODEL,
    PARTS_TABLE,
    REGIONS,
    TableSpec,
    read_table,
    write_table,
)

SCHEMA_VERSION = 1
_ARROW = "→"


def model_label(model: str, scope: str, share: str = "", holder: str = "") -> str:
    """The one name of a row of the skill table, say "DHG-SIL, federated (weights)" or "copy last week"."""
    if scope == "baseline":
        return model
    detail = share if scope == "federated" else holder
    return f"{model}, {scope}{f' ({detail})' if detail else ''}"


def pair_id(origin: str, destination: str) -> str:
    """The `unique_id` of a pair in the forecasters' long form, "origin→destination"."""
    return f"{origin}{_ARROW}{destination}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HolderFacts(_Frozen):
    """One data holder of the run and the codes of the regions whose rows it holds."""

    name: str
    regions: tuple[str, ...]


class GraphHomophily(_Frozen):
    """h of one graph (below 1: linked cities are alike; above 1: they differ) and of its strength-matched null."""

    h: float = Field(ge=0)
    null: float | None = Field(default=None, gt=0)

    @property
    def ratio(self) -> float | None:
        """h over h of the null: below 1 means more alike than the strength of the cities alone predicts."""
        return None if self.null is None else self.h / self.null


class Comparison(_Frozen):
    """Error of a minus error of b, with its paired block-bootstrap interval."""

    model_a: str
    model_b: str
    metric: Literal["rmse", "mae"]
    scale: Literal["log1p", "raw", "share"]
    difference: float
    lo: float
    hi: float
    level: float = Field(default=0.95, gt=0, lt=1)


class RunFacts(_Frozen):
    """The content of `run.json`."""

    schema_version: Literal[1] = 1
    run: str
    plan_hash: str
    task: str
    seconds: float = Field(ge=0)
    seeds: tuple[int, ...]
    versions: dict[str, str]
    measure: str
    command: str
    shares: tuple[str, ...]
    holders: tuple[HolderFacts, ...]
    homophily: dict[str, GraphHomophily] = {}
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    primary_metric: Literal["rmse", "mae"] = "rmse"
    primary_scale: Literal["log1p", "raw", "share"] = "log1p"
    files: dict[str, str] = {}


@dataclass(frozen=True)
class RunTables:
    """The tables of one run; see `simulations.run_tables` for their columns."""

    metrics: pd.DataFrame
    forecasts: pd.DataFrame
    parts: pd.DataFrame
    attraction: pd.DataFrame
    regions: pd.DataFrame
    flows: pd.DataFrame


_SPECS: dict[str, TableSpec] = {
    "metrics": METRICS,
    "forecasts": FORECASTS,
    "parts": PARTS_TABLE,
    "attraction": ATTRACTION,
    "regions": REGIONS,
    "flows": FLOWS,
}
_SEALED = (*(spec.file for spec in _SPECS.values()), PLAN_FILE, MODEL_FILE, CARD_FILE)


def write_run(folder: Path, tables: RunTables, facts: RunFacts, card: PrivacyCard) -> None:
    """Write every table, then `run.json` with the digest of each file; nothing without `run.json` counts as finished.

    Raises:
        RunFolderError: a table breaks its rules, or plan or model are not in the folder yet.
    """
    require_files(folder, (PLAN_FILE, MODEL_FILE))
    for name, spec in _SPECS.items():
        write_table(folder, getattr(tables, name), spec)
    seal(folder, facts, card, _SEALED)


@dataclass(frozen=True)
class RunResult(RunTables):
    """A finished run, read back from its folder."""

    folder: Path
    facts: RunFacts
    card: PrivacyCard
    plan_text: str

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """Read and check a run folder.

        Raises:
            RunFolderError: the folder is missing, unfinished, damaged, or its tables contradict each other.
        """
        facts = read_facts(folder, RunFacts)
        check_seals(folder, _SEALED, facts)
        tables = {name: read_table(folder, spec) for name, spec in _SPECS.items()}
        card, plan_text = read_card(folder), (folder / PLAN_FILE).read_text(encoding="utf-8")
        run = cls(**tables, folder=folder, facts=facts, card=card, plan_text=plan_text)
        _check_agreement(run)
        return run

    @property
    def tables(self) -> RunTables:
        """The tables alone."""
        return RunTables(**{item.name: getattr(self, item.name) for item in fields(RunTables)})


def _check_agreement(run: RunResult) -> None:
    """Regions, holders and pairs that one table names exist in the others."""
    regions = set(run.regions["id"])
    used = {
        "attraction.parquet": set(run.attraction["region"]),
        "flows.csv": set(run.flows["origin"]) | set(run.flows["dest"]),
        FACTS_FILE: {code for holder in run.facts.holders for code in holder.regions},
    }
    for file, codes in used.items():
        if unknown := codes - regions:
            raise RunFolderError(f"{file} names {len(unknown)} region(s) that regions.csv lacks; {DAMAGED}")
    holders = {holder.name for holder in run.facts.holders} | {""}
    if unknown := set(run.metrics["holder"]) - holders:
        raise RunFolderError(f"metrics.parquet names {len(unknown)} holder(s) that run.json lacks; {DAMAGED}")
    if not set(run.parts["unique_id"]) <= set(run.forecasts["unique_id"]):
        raise RunFolderError(f"parts.parquet holds pairs that forecasts.csv lacks; {DAMAGED}")
    low, high = run.forecasts[f"{MODEL}-lo-90"], run.forecasts[f"{MODEL}-hi-90"]
    if not (low <= high).all():
        raise RunFolderError(f"forecasts.csv has an interval whose lower end is above its upper end; {DAMAGED}")
