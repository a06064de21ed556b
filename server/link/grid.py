"""A Flower run in our own hands: its task taken, its grid, its heartbeats and its end.

Flower starts a process of its own for a run. Here the process that the user sees takes the run's task, so that its
progress, its interruption and its exit code are those of the run::

    run_id = control.start_run()
    with taken_run(place, run_id) as grid:        # at once: a run that nobody takes is ended by the next
        Coordinator(grid, ...)

A process that ends without a word lets go of its run's lock: the next one that takes a run ends such runs first. Many
processes may carry out runs at the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import httpx
from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from protocol.errors import LinkError
from server.link.arrivals import Arrival
from server.link.authority import Keys, own_keys
from server.link.control import TokenInterceptor, control_address, link_error
from server.link.environment import quieten
from server.link.ownership import owned, turn
from server.settings import ServerPlace

HEARTBEAT_SECONDS = 15.0
"""Flower gives a task up after 60 seconds of silence."""
AWAY_SECONDS = 75.0
"""A SuperLink that is away for longer has given the task up, so nothing is waited for any more."""
_FIRST_POLL, _LAST_POLL = 0.1, 1.0
_LONGEST_WAIT = 5
_PASSING = frozenset({502, 503, 504})
_LOG = logging.getLogger(__name__)


@contextmanager
def taken_run(place: ServerPlace, run_id: int) -> Iterator[Grid]:
    """Carry out a Flower run in this process: its grid, until the block ends; then the run is completed, or failed.

    Raises:
        LinkError: the SuperLink is away for longer than a minute (or ``patience.arrival``), or gave the run up.
        PlanError: keys are missing.
    """
    quieten(place)
    keys = own_keys(place)
    with owned(place, run_id):
        grid = LinkGrid(place, keys, _token_of(place, keys, run_id))
        outcome, details = SubStatus.FAILED, ""
        try:
            with grid.alive():
                grid.begin()
                yield grid
            outcome = SubStatus.COMPLETED
        except BaseException as error:
            details = type(error).__name__  # never more: what a holder said is no business of this log
            raise
        finally:
            grid.finish(outcome, details)


class LinkGrid(HttpGrid):
    """Flower's grid over the control port: waits for a SuperLink that starts again, and never interrupts the process.

    Flower's own retries have no end, and where the SuperLink refuses its task they send this process an interrupt, as
    if somebody had pressed Ctrl-C. Here both are a `LinkError`.

    Args:
        place: The coordinator's folder.
        keys: Of it.
        token: Of the run's task.
    """

    def __init__(self, place: ServerPlace, keys: Keys, token: str) -> None:
        super().__init__(control_address(place), False, keys.authority, token=token)
        self._place, self._keys = place, keys
        self._given_up = threading.Event()
        self._arriving: dict[str, Arrival] = {}
        self._patience = min(place.config.patience.arrival, AWAY_SECONDS)

    def begin(self) -> None:
        """Take the task's input: from here on the run is running."""
        with self._spoken():
            given = self._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        self.set_run(run_from_proto(given.run))

    def finish(self, outcome: str, details: str) -> None:
        """Say how the run ended, once, and hang up; a SuperLink that is away finds out by itself."""
        with suppress(httpx.HTTPError), self._new_client(None) as client:
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=details))
        self.close()

    def get_nodes(self) -> Iterable[NodeInfo]:
        with self._spoken():
            return super().get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        with self._spoken():
            try:
                return super().push_messages(messages)
            except ObjectPushError:
                # Its answer was lost on the way, and the SuperLink takes no object twice; or its session has ended.
                raise LinkError("the SuperLink did not take a message whole; resume the run") from None

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answers that are there whole; one that was only announced is left for a later call."""
        wanted = list(message_ids)
        with self._spoken():
            if new := [number for number in wanted if number not in self._arriving]:
                given = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=new))
                for message, tree in zip(given.messages_list, given.message_object_trees, strict=True):
                    parts = [part.object_id for part in iterate_object_tree(tree)]
                    self._arriving[message.metadata.reply_to_message_id] = Arrival(message, parts)
            taken = [self._taken(number) for number in wanted if number in self._arriving]
        return [answer for answer in taken if answer is not None]

    def _taken(self, number: str) -> Message | None:
        """The answer to a message, once it is whole."""
        client, run_id = self._runtime_client, self.run.run_id
        answer = self._arriving[number].take(
            make_pull_object_fn_protobuf(client.PullObject, self.node, run_id),
            lambda message_id: client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
            ),
        )
        if answer is not None:
            del self._arriving[number]
        return answer

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the answers; those that nobody can receive are not waited for."""
        ends = time.monotonic() + timeout if timeout is not None else None
        open_ids = {message_id for message_id in self.push_messages(messages) if message_id}
        answers: list[Message] = []
        rest = _FIRST_POLL
        while open_ids:
            pulled = list(self.pull_messages(open_ids))
            answers += pulled
            open_ids -= {answer.metadata.reply_to_message_id for answer in pulled}
            if not open_ids or (ends is not None and time.monotonic() >= ends):
                break
            rest = _FIRST_POLL if pulled else min(rest * 1.5, _LAST_POLL)
            time.sleep(rest if ends is None else max(0.0, min(rest, ends - time.monotonic())))
        return answers

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Send heartbeats from another thread."""
        stopped = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stopped,), name="task heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _beat(self, stopped: threading.Event) -> None:
        with self._new_client(None) as client:
            while not stopped.wait(HEARTBEAT_SECONDS):
                try:
                    kept = client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
                except httpx.HTTPStatusError as error:
                    kept = error.response.status_code in _PASSING
                except httpx.HTTPError:
                    continue  # away; the next one may reach it
                if not kept:
                    self._given_up.set()
                    return

    def _connect(self) -> None:
        self._client = self._new_client(
            RetryInvoker(
                lambda: exponential(max_delay=_LONGEST_WAIT),
                (httpx.TransportError, httpx.HTTPStatusError),
                max_tries=None,
                max_time=self._patience,
                on_backoff=lambda state: _LOG.info("the SuperLink is away, trying again (%s)", state.tries),
                should_giveup=self._hopeless,
                wait_function=self._rest,
            )
        )

    def _new_client(self, retries: RetryInvoker | None) -> RuntimeHttpClient:
        return _client(self._place, self._keys, [RuntimeTokenHttpInterceptor(self._token)], retries)

    def _rest(self, seconds: float) -> None:
        self._given_up.wait(seconds)

    def _hopeless(self, error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code not in _PASSING
        return self._given_up.is_set() or "certificate" in str(error).lower()

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Turns what goes wrong on the way into a `LinkError`."""
        if self._given_up.is_set():
            raise self._lost()
        try:
            yield
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (401, 403):
                raise self._lost() from None
            raise link_error(self._place, error) from None
        except httpx.HTTPError as error:
            raise link_error(self._place, error) from None

    def _lost(self) -> LinkError:
        run_id = TaskIdentity.run_id if self._run is not None else "of this process"
        return LinkError(
            f"the SuperLink gave up Flower run {run_id}: it was stopped, or not heard of for a minute; "
            "take it up again with 'migrafed server resume'"
        )


def _token_of(place: ServerPlace, keys: Keys, run_id: int) -> str:
    """Take the run's task; its token. Flower hands out the oldest that waits, so those before it must be gone."""
    method = "/flwr.proto.Runtime/AcquireTask"
    signing = SuperExecAuthHttpInterceptor(master_secret=keys.secret, protected_methods={method})
    try:
        with _client(place, keys, [signing], None) as client, turn(place, run_id):
            given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
    except httpx.HTTPError as error:
        raise link_error(place, error) from None
    if not given.token or given.task.run_id != run_id:
        raise LinkError(f"the SuperLink does not hand out Flower run {run_id}; start the run again")
    return given.token


def _client(
    place: ServerPlace, keys: Keys, more: list[ProtobufClientInterceptor], retries: RetryInvoker | None
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        control_address(place),
        False,
        keys.authority,
        [RuntimeVersionHttpInterceptor("flwr-serverapp"), TokenInterceptor(keys.secret), *more],
        retry_invoker=retries,
    )
