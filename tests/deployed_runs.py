"""A deployed run without processes: real agents, the loop over attempts, and a grid that can break off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Message

from clients.app import relay
from clients.desk.counts import mechanism_of
from clients.state_store import StateStore
from dhgsil.task import TASK
from protocol.plan import Plan
from protocol.record_bytes import packed, records_from_bytes, records_to_bytes, unpacked
from server.deployed import DeployedRun, Federation, run_deployed
from server.journal import Journal
from server.rounds import Stage
from server.run_folder import run_name
from server.settings import PatienceSection
from simulations.grid import FIRST_NODE, NODE_NAME, InProcessGrid
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.identities import identities_of
from simulations.progress import SilentProgress
from simulations.protection import Protection, open_custodies, release_all
from simulations.records import records_of
from tests.plans import series_of

STAGE = Stage(name="federated, weights", share="weights")
PLAN = {
    "federation.shares": ["weights"],
    "federation.vectorise": "never",
    "training.rounds": 3,
    "compare": {"alone": False, "pooled": False, "baselines": []},
}
Fault = Callable[["Holders", Message], Message | None]


class Holders:
    """Agents of one plan, which can be started anew; their disks are folders, their ledgers may be a simulation's."""

    def __init__(self, plan: Plan, folder: Path, *, ledgers: Path | None = None) -> None:
        self.plan, self.folder, self.names = plan, folder, list(plan.federation.holders)
        self.identities, self.ledgers = identities_of(self.names, folder), ledgers or folder / "ledgers"
        self._open = ExitStack()
        self.start()

    def start(self) -> None:
        """New processes that remember what is on disk alone."""
        self._open.close()
        custodies = self._open.enter_context(open_custodies(self.plan, self.ledgers))
        parts, mechanism = self._rows(custodies)
        stores = {name: StateStore(self.folder / name / "states") for name in self.names}
        self.all = SimulatedHolders(
            parts, self.plan, TASK, STAGE, states=stores, identities=self.identities, custodies=custodies,
            mechanism=mechanism if self.plan.trains_privately else None,
        )  # fmt: skip
        for name, masking in self.all.masking.items():
            masking.remember_in(self.folder / name / "opened.jsonl")

    def close(self) -> None:
        """Let go of ledgers."""
        self._open.close()

    def _rows(self, custodies: Any) -> tuple[Any, Any]:
        """What each trains on: its rows, or what it released of them."""
        plan = self.plan
        if plan.privacy is None:
            return Holdings.split(series_of(plan), plan.federation.holders).parts, None
        records = records_of(plan, TASK, None)
        mechanism = mechanism_of(plan, TASK, records.grid)
        with Journal(self.folder / "releases.sqlite", run=run_name(plan), plan_hash=plan.digest()) as journal:
            protection = Protection(mechanism, custodies)
            held = release_all(plan, TASK, records, protection, journal, SilentProgress(), self.ledgers)
        return held.parts, mechanism


class FaultyGrid(InProcessGrid):
    """A grid that breaks off at the messages it is told to, counted over all runs."""

    def __init__(self, holders: Holders, faults: dict[int, Fault], sent: list[str]) -> None:
        super().__init__(relay(lambda context: holders.all.agents[str(context.node_config[NODE_NAME])]), holders.names)
        self.holders, self.faults, self.sent = holders, faults, sent

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            self.sent.append(message.metadata.message_type)
            fault = self.faults.pop(len(self.sent), None)
            instead = None if fault is None else fault(self.holders, message)
            if instead is not None:
                self._answers[key := f"instead {len(self.sent)}"] = instead
                instead.metadata.__dict__["_reply_to_message_id"] = key
                numbers.append(key)
            else:
                message.content = records_from_bytes(unpacked(message.content))
                numbers += super().push_messages([message])
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        answers = super().pull_messages(message_ids)
        for answer in answers:
            if answer.has_content():
                answer.content = packed(records_to_bytes(answer.content))
        return answers


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def federation_over(
    holders: Holders, *, faults: dict[int, Fault] | None = None, sent: list[str] | None = None, attempts: int = 3
) -> Federation:
    """What a run of these holders reaches; `faults` are used up, `sent` grows."""
    told, left = [] if sent is None else sent, {} if faults is None else faults

    @contextmanager
    def open_run() -> Iterator[InProcessGrid]:
        yield FaultyGrid(holders, left, told)

    roster = holders.all.roster
    assert roster is not None
    return Federation(
        open_run, {name: FIRST_NODE + place for place, name in enumerate(holders.names)}, roster,
        TASK.public(series_of(holders.plan)), PatienceSection(attempts=attempts),
    )  # fmt: skip


def carried_out(
    holders: Holders, folder: Path, *, faults: Mapping[int, Fault] | None = None, resume: Path | None = None,
    progress: Any = None, attempts: int = 3, sent: list[str] | None = None,
) -> DeployedRun:  # fmt: skip
    federation = federation_over(holders, faults=dict(faults or {}), sent=sent, attempts=attempts)
    return run_deployed(
        holders.plan, federation, runs=folder, resume=resume, progress=progress or SilentProgress()
    )  # fmt: skip
