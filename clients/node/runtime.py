"""The SuperNode's Runtime API on 127.0.0.1, as the executor uses it: take a task, read its message, push an answer.

What Flower's own `flwr-clientapp` does with it once and in a fresh process, without installing or loading any bundle.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from google.protobuf.message import DecodeError

from protocol.errors import ProtocolError

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_EVERY_SECONDS = 10.0
"""Between signs of life of a task; the SuperNode gives it up after 60 s without one."""


class Runtime:
    """Takes tasks from a SuperNode.

    Args:
        address: host:port of the Runtime API.
        secret: Shared with the SuperNode; whoever knows it may take tasks.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        self._address = address
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,  # on 127.0.0.1, and signed
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flower-superexec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
            ],
        )

    def acquire(self) -> TaskLink | None:
        """The oldest task that waits; None if none does.

        Raises:
            httpx.HTTPError: the SuperNode is not there, or refuses.
        """
        # A task of another type is taken as well, and refused: nobody else answers it, and the SuperNode would wait.
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP, TaskType.AGENT_APP])
        answer = self._client.AcquireTask(request)
        if not answer.HasField("task") or not answer.token:
            return None
        return TaskLink(self._address, answer.token)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


@dataclass(frozen=True)
class TaskInput:
    """What a task is about.

    Args:
        run: Of the coordinator.
        bundle: SHA-256 of the bundle that the coordinator wants run.
    """

    run: int
    bundle: str


class TaskLink:
    """One task: its input and its message, signs of life while it lasts, and its answer.

    `lost` is set when the SuperNode knows the task no more: it has given it up, or was started again.

    Args:
        address: host:port of the Runtime API.
        token: Of the task.
    """

    def __init__(self, address: str, token: str) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
        )
        self.lost = threading.Event()
        self._over = threading.Event()
        self._life = threading.Thread(target=self._signs_of_life, daemon=True)
        self._node, self._run, self._tree = Node(), 0, ObjectTree()

    def __enter__(self) -> Self:
        """Begin with signs of life."""
        self._life.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End them and hang up."""
        self._over.set()
        self._life.join()
        self._client.close()

    def input(self) -> TaskInput:
        """What the task is about; the SuperNode then counts it as begun."""
        answer = self._client.PullTaskInput(PullTaskInputRequest())
        self._node, self._run = Node(node_id=answer.context.node_id), answer.run.run_id
        return TaskInput(answer.run.run_id, hashlib.sha256(answer.fab.content).hexdigest())

    def head(self) -> Message | None:
        """The message to answer, still without its content; None if the SuperNode does not have it yet."""
        answer = self._client.PullMessages(PullAppMessagesRequest())
        if not answer.messages_list:
            return None
        self._tree = answer.message_object_trees[0]
        return message_from_proto(answer.messages_list[0])

    def content(self, unwanted: Callable[[], bool]) -> RecordDict:
        """The content of the message whose `head` was read, waited for while the SuperNode receives it.

        Args:
            unwanted: Whether to wait no longer.

        Raises:
            ProtocolError: it is incomplete, or no records.
            httpx.HTTPStatusError: the SuperNode has given the task up.
        """
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, self._run)

        def wanted(object_id: str) -> bytes:
            if unwanted():
                raise ObjectPullError(object_id, "nobody waits for it any more")
            return pull(object_id)

        try:
            message = pull_and_inflate_object_from_tree(
                self._tree,
                wanted,
                make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, self._node, self._run),
                return_type=Message,
                max_time=None,
                max_tries_per_object=None,
                initial_backoff=0.1,
                backoff_cap=1.0,
            )
        except (ObjectPullError, UnexpectedObjectContentError, DecodeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(
                f"a message cannot be read ({type(error).__name__}); both sides must run the same version"
            ) from None
        if not message.has_content():
            raise ProtocolError("a message has no content; both sides must run the same version")
        return message.content

    def push(self, reply: Message) -> None:
        """Hand the answer to the SuperNode; done twice with the same reply, it counts once."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            answer = self._client.PushMessages(
                PushAppMessagesRequest(
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                )
            )
            push_objects(
                get_all_nested_objects(reply),
                make_push_object_fn_protobuf(
                    self._client.PushObject, self._node, run_id=self._run, session_id=answer.session_id
                ),
                object_ids_to_push=set(answer.objects_to_push),
            )

    def finish(self, *, failed: str | None = None) -> None:
        """End the task, with the reason if it failed."""
        status = SubStatus.COMPLETED if failed is None else SubStatus.FAILED
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=failed or ""))

    def _signs_of_life(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                if not self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                    self.lost.set()
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500:
                    self.lost.set()
            except (httpx.HTTPError, ValueError):
                continue  # away; the next one may reach it
