"""A holder's settings for call records: a ``holder.toml`` with ``[calls]`` instead of ``[job_queries]``::

    [calls] [cells] [subscribers]    # where the tables lie: `integration.records.source`
    [estates] [routing]              # public tables, optional
    [calendar] [city] [rules]        # public: the weeks, the city, which calls count; the study's by default
    [groups]                         # variants of who is local and who is new
    [privacy]                        # what the holder allows: `clients.policy.HolderPolicy`

Paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clients.policy import HolderPolicy
from integration.records.groups import GroupRules
from integration.records.source import HolderTables
from integration.rules import CallRules, City
from integration.weeks import CallCalendar
from protocol.errors import PlanError
from protocol.plan import parse_config, read_toml

WHAT = "holder's settings"


class CallHolderConfig(HolderTables):
    """The whole file."""

    calendar: CallCalendar = CallCalendar()
    city: City = City()
    rules: CallRules = CallRules()
    groups: GroupRules = GroupRules()
    privacy: HolderPolicy | None = None


@dataclass(frozen=True)
class CallHolderSettings:
    """A `CallHolderConfig` and the folder that its paths are relative to."""

    config: CallHolderConfig
    base: Path


def has_calls(path: Path) -> bool:
    """Whether a file is of call records.

    Raises:
        PlanError: no such file, not TOML, or it has job queries as well.
    """
    values = read_toml(path, what=WHAT)
    if {"calls", "job_queries"} <= set(values):
        raise PlanError(f"{path.name} has both [calls] and [job_queries]; write a file for each")
    return "calls" in values


def load_call_holder(path: Path) -> CallHolderSettings:
    """Read and check a ``holder.toml`` of call records.

    Raises:
        PlanError: no such file, not TOML, a missing section, an unknown key (the nearest valid one is named), or a
            value that breaks a rule.
    """
    return CallHolderSettings(parse_config(CallHolderConfig, read_toml(path, what=WHAT), where=path.name), path.parent)
