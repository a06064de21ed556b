"""The same plan on Flower's Ray engine: each holder's work runs in a Ray actor, in a process of its own.

Actors come and go and any of them may answer for any holder. So what a holder must remember lies beside its data, in a
folder of its own, as with a real holder: its tables, the totals its session was opened with, and its training state
after each round. An actor keeps opened holders in memory and reads the state again before it acts.

Masked sums are sums of integers, so results are those of the in-process engine. Without masks they agree to rounding
only (about 1e-5 in the weights): Flower draws node numbers anew for each run, so sums are taken in another order.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from safetensors.numpy import load, save

from clients.agent import HolderAgent, Session
from clients.app import relay
from clients.masking import Masking
from clients.policy import AggregationPolicy
from privacy.randomness import SecureStream
from privacy.secure_aggregation.alone import Alone
from privacy.secure_aggregation.holder import MaskingHolder
from protocol.errors import MigrafedError, PlanError, RunInterruptedError
from protocol.masked_messages import MaskedAnswer, MaskedReply, MaskedRequest
from protocol.messages import READY, EvaluateReply, RoundRequest, StatisticsReply, StatisticsRequest, TrainReply
from protocol.plan import Plan
from protocol.tasks import task_named
from server.rounds import Stage, StageOutcome

PARTITION = "partition-id"
"""Key of a node's configuration with which Flower's simulation numbers its nodes."""
_POLL_SECONDS = 0.02
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by default; without it, it warns
}


def check_ray() -> None:
    """Refuse the engine where its extra is missing.

    Raises:
        PlanError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise PlanError(
            'engine "ray" needs Ray, which is not installed; run pip install "migrafed[ray]", or use --engine inprocess'
        )


class StoredAgent(HolderAgent):
    """An agent whose sessions outlive its process: totals and training state lie in the holder's folder."""

    def __init__(self, folder: Path, name: str, tables: Any, plan: Plan, stage: Stage, masking: Masking | None) -> None:
        accepted = AggregationPolicy(allow=(plan.federation.aggregation,))
        super().__init__(
            name, tables, plan, task_named(plan.run.task), {stage.name: stage.share}, aggregation=accepted,
            masking=masking,
        )  # fmt: skip
        self._folder, self._stage = folder, stage

    def masked(self, request: MaskedRequest) -> MaskedAnswer:
        """As the agent does, from where the masked sums stand and with that stored again."""
        with self._masks():
            return super().masked(request)

    def evaluate(self, request: RoundRequest) -> EvaluateReply | MaskedReply:
        """As the agent does, from where the masked sums stand and with that stored again."""
        with self._masks():
            return super().evaluate(request)

    def statistics(self, request: StatisticsRequest) -> StatisticsReply | MaskedReply:
        """As the agent does; the totals that open a session are stored."""
        with self._masks():
            reply = super().statistics(request)
        if request.phase == READY:
            (self._folder / "state").unlink(missing_ok=True)
            _write(self._folder / "totals", save(dict(request.totals)))
        return reply

    def receive(self, request: RoundRequest, *, what: Literal["train", "evaluate"] = "train") -> Session:
        """As the agent does, from the stored session and state."""
        self.share_of(request.header)
        if request.header.stage not in self._sessions and (self._folder / "totals").is_file():
            self._open(request.header.stage, self._stage.share, load((self._folder / "totals").read_bytes()))
        if request.header.stage in self._sessions and (self._folder / "state").is_file():
            self.import_state(request.header.stage, (self._folder / "state").read_bytes())
        return super().receive(request, what=what)

    def train(self, request: RoundRequest) -> TrainReply | MaskedReply:
        """As the agent does; the state after the round is stored before the answer leaves."""
        with self._masks():
            reply = super().train(request)
        _write(self._folder / "state", self.export_state(request.header.stage))
        return reply

    @contextmanager
    def _masks(self) -> Iterator[None]:
        """Masked sums as the last actor left them; another one may come next."""
        place = self._folder / "masking"
        if self._masking is not None and place.is_file():
            self._masking = pickle.loads(place.read_bytes())  # noqa: S301 -- written below
        yield
        if self._masking is not None:
            _write(place, pickled(self._masking))


@dataclass(frozen=True)
class StoredHolders:
    """The holders of one stage, each in its own folder below `folder`."""

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def store(
        cls, folder: Path, tables: Mapping[str, Any], plan: Plan, stage: Stage, masking: Mapping[str, Masking]
    ) -> StoredHolders:
        """Write what the actors need: every holder's tables, keys and the plan, seen by this user only."""
        for position, (name, own) in enumerate(tables.items()):
            place = folder / str(position)
            place.mkdir(mode=0o700)
            _write(place / "holder", pickled((name, own, plan, stage, masking.get(name))))
        return cls(folder, tuple(tables))

    def export(self, stage: str) -> dict[str, bytes]:
        """Training states of all holders, by name."""
        return {name: (self.folder / str(i) / "state").read_bytes() for i, name in enumerate(self.names)}

    def restore(self, stage: str, states: Mapping[str, bytes]) -> None:
        """Continue from stored training states."""
        for name, blob in states.items():
            _write(self.folder / str(self.names.index(name)) / "state", blob)

    def app(self) -> ClientApp:
        """The ClientApp of every node; it carries the folder's path, no data."""
        folder = self.folder
        return relay(lambda context: _agent(folder / str(context.node_config[PARTITION])))


@functools.lru_cache(maxsize=256)
def _agent(folder: Path) -> StoredAgent:
    """The agent of the holder in `folder`; one for each process that asks."""
    name, tables, plan, stage, masking = pickle.loads((folder / "holder").read_bytes())  # noqa: S301 -- by `store`
    return StoredAgent(folder, name, tables, plan, stage, masking)


class _WithKeys(pickle.Pickler):
    """Pickles keys by their secret bytes, and a secure stream as a fresh one: only into a holder's own folder.

    A masking holder refuses copies, for two of it could open two sums. Here it moves: the actor that wrote it does not
    answer again before it has read what the next one wrote.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Ed25519PrivateKey):
            return Ed25519PrivateKey.from_private_bytes, (value.private_bytes_raw(),)
        if isinstance(value, X25519PrivateKey):
            return X25519PrivateKey.from_private_bytes, (value.private_bytes_raw(),)
        if isinstance(value, SecureStream):
            return SecureStream, ()
        if isinstance(value, MaskingHolder):
            return _moved, ({name: part for name, part in vars(value).items() if name not in vars(Alone())},)
        return NotImplemented


def _moved(parts: dict[str, Any]) -> MaskingHolder:
    """A masking holder in another process, which is now the only one."""
    holder = MaskingHolder.__new__(MaskingHolder)
    Alone.__init__(holder)
    vars(holder).update(parts)
    return holder


def pickled(value: Any) -> bytes:
    """A value with the keys in it."""
    written = io.BytesIO()
    _WithKeys(written).dump(value)
    return written.getvalue()


@dataclass
class _Work:
    """What goes on in Flower's ServerApp thread, seen from the thread that started it."""

    outcome: StageOutcome | None = None
    error: MigrafedError | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


def run_on_ray(holders: StoredHolders, run_stage: Callable[[Grid], StageOutcome]) -> StageOutcome:
    """Start Flower's Ray engine with one node per holder and let `run_stage` work on its grid.

    Raises:
        KeyboardInterrupt: Ctrl-C; `run_stage` has ended by then.
        MigrafedError: whatever `run_stage` raised.
    """
    os.environ.update(_QUIET)
    from flwr.simulation import run_simulation  # noqa: PLC0415 -- reads its switches when it is imported

    work, server = _Work(), ServerApp()

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        try:
            work.outcome = run_stage(StoppableGrid(grid, len(holders.names), work.stop))
        except MigrafedError as error:
            work.error = error
        finally:
            work.ended.set()

    try:
        run_simulation(server, holders.app(), len(holders.names), backend_config=_backend_config())
    except KeyboardInterrupt:
        work.stop.set()
        work.ended.wait()
        raise
    if work.error is not None:
        raise work.error
    if work.outcome is None:
        raise MigrafedError("Flower's Ray engine ended without a result; see run.log, or use --engine inprocess")
    return work.outcome


class StoppableGrid(Grid):
    """Flower's grid, asked for answers often, and left at once when the run is stopped."""

    def __init__(self, grid: Grid, nodes: int, stop: threading.Event) -> None:
        self._grid, self._nodes, self._stop = grid, nodes, stop

    @property
    def run(self) -> Run:
        return self._grid.run

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    def get_node_ids(self) -> list[int]:
        """All nodes; the engine registers them while the server already works, so wait for them."""
        while len(found := list(self._grid.get_node_ids())) < self._nodes:
            self._pause()
        return sorted(found)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Deliver all messages and wait for all replies."""
        waiting, replies = set(self.push_messages(messages)), []
        while waiting:
            found = list(self.pull_messages(waiting))
            replies += found
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if waiting:
                self._pause()
        return replies

    def _pause(self) -> None:
        if self._stop.wait(_POLL_SECONDS):
            raise RunInterruptedError("stopped while waiting for holders; continue the run with --resume")


def _backend_config() -> dict[str, Any]:
    """One core for each actor, as many actors as cores; no dashboard, nothing on the terminal."""
    init = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    return {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": init}


def _write(path: Path, blob: bytes) -> None:
    """Whole or not at all: an actor may be stopped at any moment."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(blob)
    part.replace(path)
