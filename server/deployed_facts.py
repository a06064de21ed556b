"""What a deployed run leaves beside its model: ``run.json``, written last, so that a folder with it is a finished run.

Forecasts, errors on the test span and reports need rows, and rows stay with their holders. What the coordinator has are
sums: losses and validation errors of rounds where the plan lets them be told, and the model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from privacy.secure_aggregation.roster import Roster
from protocol.files import write_whole
from protocol.plan import Plan
from protocol.stages import StageSpec, stages_of
from server.journal import Journal
from server.run_folder import ENVIRONMENT_FILE, FACTS_FILE, MODEL_FILE, PLAN_FILE, run_name

KIND = "deployed"


def write_facts(folder: Path, plan: Plan, roster: Roster, journal: Journal) -> dict[str, Any]:
    """Write ``run.json`` with the SHA-256 of plan, model and environment; what it says."""
    facts = {
        "schema_version": 1,
        "kind": KIND,
        "version": importlib.metadata.version("migrafed"),
        "run": run_name(plan),
        "task": plan.run.task,
        "plan_hash": plan.digest(),
        "aggregation": plan.federation.aggregation,
        "holders": list(plan.federation.holders),
        "roster": roster.digest().hex(),
        "ledgers": {name: {"length": n, "head": head} for name, (n, head) in journal.witnesses().items()},
        "stages": [_stage(spec, journal) for spec in stages_of(plan)],
        "files": {name: _digest(folder / name) for name in (PLAN_FILE, MODEL_FILE, ENVIRONMENT_FILE)},
    }
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(folder / FACTS_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return facts


def _stage(spec: StageSpec, journal: Journal) -> dict[str, Any]:
    checkpoint = journal.checkpoint(spec.name)
    records = () if checkpoint is None else checkpoint.records
    return {
        "name": spec.name,
        "kind": spec.kind,
        "gives_model": spec.gives_model,
        "masked_sums": len(journal.masked_sums(spec.name)),
        "rounds": [{"round": record.round, "loss": record.loss, "error": record.error} for record in records],
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
