"""What a coordinator sees at a glance: the SuperLink, its certificates, members and their nodes, runs and their rounds.

Reads only, and asks the SuperLink once. A run in progress is not disturbed: its journal is read beside its writer.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protocol.errors import LinkError, MigrafedError, RunFolderError
from protocol.plan import Plan, parse_config, read_toml
from protocol.stages import StageSpec, stages_of
from server.journal import done_key
from server.link import supervisor
from server.link.authority import Finding, check
from server.link.control import Control, NodeSeen
from server.link.supervisor import LinkState
from server.members import Members
from server.run_folder import FACTS_FILE, JOURNAL_FILE, LOCK_FILE, PLAN_FILE
from server.settings import RUNS, ServerPlace

RunState = Literal["running", "stopped", "finished", "damaged"]


@dataclass(frozen=True)
class MemberSeen:
    """A member, or somebody who was invited.

    Args:
        holder: Its name.
        state: ``online``, ``away``, ``waiting`` to be registered, ``unknown`` while the SuperLink is away, or
            ``invited``.
        fingerprint: Of its signing key; empty while it is only invited.
        node_id: Number of its node, once it is registered.
        last_seen: When its node was last heard of.
        expires: When its open invitation ends, seconds since 1970.
    """

    holder: str
    state: Literal["online", "away", "waiting", "unknown", "invited"]
    fingerprint: str = ""
    node_id: int | None = None
    last_seen: dt.datetime | None = None
    expires: int | None = None


@dataclass(frozen=True)
class StageSeen:
    """A stage of a run: rounds that are committed, of how many, and whether it is over."""

    name: str
    kind: str
    done: int
    total: int
    over: bool


@dataclass(frozen=True)
class RunSeen:
    """A run in the coordinator's folder.

    Args:
        name: Of the run, or of its folder.
        folder: Where it lies.
        state: Whether a process works on it, it can be resumed, it is finished, or cannot be read.
        plan_hash: Of its plan; empty if that cannot be read.
        holders: Who takes part.
        stages: How far each is.
        problem: Why it cannot be read; empty if it can.
    """

    name: str
    folder: Path
    state: RunState
    plan_hash: str = ""
    holders: tuple[str, ...] = ()
    stages: tuple[StageSeen, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Overview:
    """Everything at one moment.

    Args:
        link: The SuperLink.
        findings: About keys and certificates.
        problem: Why the SuperLink could not be asked; empty if it was, or if none is running.
        members: Members by name, then those who were invited only.
        strangers: Numbers of nodes that are registered and no member's.
        runs: Runs, the latest first.
    """

    link: LinkState
    findings: tuple[Finding, ...]
    problem: str
    members: tuple[MemberSeen, ...]
    strangers: tuple[int, ...]
    runs: tuple[RunSeen, ...]


def look(place: ServerPlace, *, now: dt.datetime | None = None) -> Overview:
    """Look at everything once.

    Raises:
        PlanError: the list of members is damaged.
    """
    link, problem, nodes = supervisor.state(place), "", None
    if link.running:
        try:
            with Control(place) as control:
                nodes = {node.node_id: node for node in control.nodes()}
        except LinkError as error:
            problem = str(error)
    members = tuple(_members(place, nodes))
    known = {member.node_id for member in members}
    return Overview(
        link=link,
        findings=tuple(check(place, now or dt.datetime.now(dt.UTC))),
        problem=problem,
        members=members,
        strangers=tuple(number for number in nodes or () if number not in known),
        runs=tuple(_runs(place.own(RUNS))),
    )


def _members(place: ServerPlace, nodes: Mapping[int, NodeSeen] | None) -> Iterator[MemberSeen]:
    book = Members(place).book
    for name, member in book.members.items():
        seen = None if nodes is None or member.node_id is None else nodes.get(member.node_id)
        state = "unknown"
        if seen is not None:
            state = "online" if seen.online else "away"
        elif nodes is not None or member.node_id is None:
            state = "waiting"
        waiting = book.invited.get(name)
        yield MemberSeen(
            name, state, member.fingerprint, member.node_id, None if seen is None else seen.last_seen,
            None if waiting is None else waiting.expires,
        )  # fmt: skip
    for name, invited in sorted(book.invited.items()):
        if name not in book.members:
            yield MemberSeen(name, "invited", expires=invited.expires)


def _runs(folder: Path) -> Iterator[RunSeen]:
    found = [path.parent for path in folder.glob(f"*/{PLAN_FILE}")]
    for path in sorted(found, key=lambda path: (-_begun(path), path.name)):
        try:
            yield _run(path)
        except (MigrafedError, OSError, sqlite3.Error) as error:
            yield RunSeen(path.name, path, "damaged", problem=" ".join(str(error).split()))


def _run(folder: Path) -> RunSeen:
    # Without the task's own checks, which were made when the plan was locked and take its libraries.
    plan = parse_config(Plan, read_toml(folder / PLAN_FILE, what="plan"), where=PLAN_FILE)
    facts, rounds, over = _journal(folder / JOURNAL_FILE)
    finished = (folder / FACTS_FILE).is_file()
    state: RunState = "finished" if finished else "running" if _is_worked_on(folder) else "stopped"
    stages = []
    for spec in stages_of(plan):
        ended = done_key(spec.name) in over
        done = rounds.get(spec.name, 0) if spec.kind == "rounds" else int(ended)
        stages.append(StageSeen(spec.name, spec.kind, done, _total(spec), ended))
    name, plan_hash = facts.get("run", folder.name), facts.get("plan_hash", "")
    return RunSeen(name, folder, state, plan_hash, tuple(plan.federation.holders), tuple(stages))


def _total(spec: StageSpec) -> int:
    return spec.plan.training.rounds if spec.kind == "rounds" else 1


def _journal(path: Path) -> tuple[dict[str, str], dict[str, int], set[str]]:
    """Name and plan of the run, the last committed round of each stage, and what is over; not the weights."""
    if not path.is_file():
        return {}, {}, set()
    beside_writer = path.with_name(f"{path.name}-wal").exists()
    address = f"{path.absolute().as_uri()}?mode=ro{'' if beside_writer else '&immutable=1'}"
    with closing(sqlite3.connect(address, uri=True, timeout=2)) as db:
        try:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
            if not tables >= {"run", "rounds", "results"}:  # it is just being made
                return {}, {}, set()
            facts = dict(db.execute("SELECT key, value FROM run").fetchall())
            rounds = dict(db.execute("SELECT stage, max(round) FROM rounds GROUP BY stage").fetchall())
            return facts, rounds, {stage for (stage,) in db.execute("SELECT stage FROM results")}
        except sqlite3.DatabaseError as error:
            raise RunFolderError(f"{path} is not a readable journal ({error}); restore it from a backup") from None


def _is_worked_on(folder: Path) -> bool:
    """Whether a process holds the run's lock; ours is shared and let go of at once."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _begun(folder: Path) -> float:
    try:
        return (folder / PLAN_FILE).stat().st_mtime
    except OSError:
        return 0.0


def as_json(overview: Overview) -> dict[str, object]:
    """The same for machines."""
    link = overview.link
    return {
        "link": {
            "running": link.running, "healthy": link.healthy, "process": link.process or None,
            "since": link.since or None, "starts": link.starts, "last_end": link.said or None,
            "problem": overview.problem or None,
        },
        "findings": [{"text": finding.text, "stops": finding.stops} for finding in overview.findings],
        "members": [
            {
                "holder": one.holder, "state": one.state, "online": one.state == "online",
                "fingerprint": one.fingerprint or None, "node_id": one.node_id,
                "last_seen": None if one.last_seen is None else one.last_seen.isoformat(timespec="seconds"),
                "invitation_expires": one.expires,
            }
            for one in overview.members
        ],
        "strangers": list(overview.strangers),
        "runs": [
            {
                "run": run.name, "folder": str(run.folder), "state": run.state, "plan_hash": run.plan_hash or None,
                "holders": list(run.holders), "problem": run.problem or None,
                "stages": [vars(stage) for stage in run.stages],
            }
            for run in overview.runs
        ],
    }  # fmt: skip
