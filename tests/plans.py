"""A plan so small that a whole run takes seconds, and what tests need to work with it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clients.policy import AggregationPolicy
from dhgsil.series import ODSeries
from dhgsil.task import TASK
from protocol.plan import Plan, parse_plan
from simulations.records import held_rows, load_series

TINY: dict[str, dict[str, Any]] = {
    "run": {"name": "tiny", "task": "dhgsil", "seed": 3},
    "data": {
        "source": "synthetic",
        "index": "raw",
        "input_steps": 4,
        "horizon": 2,
        "label_steps": 2,
        "world": {"num_regions": 8, "num_steps": 60, "cross_city_queries": 4000, "shocks": 0},
    },
    "model": {"channels": 8, "context_channels": 8, "region_embedding": 4, "projection_channels": 4, "layers": 1},
    "training": {"rounds": 2, "batch_size": 8},
    "federation": {
        "shares": ["weights+margins"],
        "holders": {"north": ["C001", "C002", "C003"], "east": ["C004", "C005"], "west": ["C006", "C007", "C008"]},
    },
    "compare": {"baselines": ["last_value"]},
    "report": {"pairs": 3, "bootstrap_block": 2},
}
PLAIN: dict[str, Any] = {"federation.aggregation": "plain"}
"""Changes for tests that look at what single holders send, or hand the coordinator answers of their own making."""
PLAIN_POLICY = AggregationPolicy(allow=("plain",))
FILES = ("model.safetensors", "metrics.parquet", "forecasts.csv", "parts.parquet", "attraction.parquet", "flows.csv")
"""Files of a run folder that two runs of one plan share byte for byte."""


def tiny_values(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tiny plan as nested mappings, with `{"section.key": value}` put in."""
    values = copy.deepcopy(TINY)
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        target: dict[str, Any] = values
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return values


def tiny_plan(changes: dict[str, Any] | None = None) -> Plan:
    """The tiny plan, checked."""
    return parse_plan(tiny_values(changes))


def series_of(plan: Plan) -> ODSeries:
    """The rows that the plan's holders hold."""
    return held_rows(load_series(plan, TASK, None), plan)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that must not depend on how often a run was interrupted."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


class RecordingProgress:
    """Keeps what it is told; `at` may raise at any finished round."""

    def __init__(self, at: Callable[[str, int], None] = lambda name, done: None) -> None:
        self.rounds: list[tuple[str, int]] = []
        self.notes: list[str] = []
        self._at = at

    def run_opened(self, folder: Path, holders: Sequence[str]) -> None: ...

    def stage_started(self, name: str, total: int) -> None: ...

    def advanced(self, name: str, done: int, message: str = "") -> None:
        self.rounds.append((name, done))
        self._at(name, done)

    def stage_ended(self, name: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
