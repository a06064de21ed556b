"""An answer that was announced to the SuperLink and is still on its way there.

A node first says which answer it has, then uploads it object by object. Flower's grid waits for the upload inside one
call, for as long as the upload's session lasts (three minutes), so a node that was killed in between would stop every
deadline. Here whoever asks is told "not yet" and asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)


class Arrival:
    """One announced answer.

    Args:
        announced: As the SuperLink told it, without its content.
        object_ids: Of all the parts it is made of.
    """

    def __init__(self, announced: ProtoMessage, object_ids: Iterable[str]) -> None:
        self._announced, self._missing = announced, list(object_ids)
        self._contents: dict[str, bytes] = {}

    def take(self, pull: Callable[[str], bytes], confirm: Callable[[str], object]) -> Message | None:
        """Fetch what has come since the last call; the answer once it is whole, None before.

        An answer that can no longer be uploaded comes as a message with an error.

        Args:
            pull: Gives an object, or raises what Flower's own function for it raises.
            confirm: Told the number of an answer that is whole, so that the SuperLink may forget it.
        """
        message_id = self._announced.metadata.message_id
        try:
            while self._missing:
                self._contents[self._missing[-1]] = pull(self._missing[-1])
                self._missing.pop()
        except ObjectUnavailableError:
            return None
        except ObjectPullError:
            reason = "the answer was announced and not uploaded before its session ended"
            lost = Error(ErrorCode.MESSAGE_UNAVAILABLE, reason)
            return make_message(metadata_from_proto(self._announced.metadata), error=lost)
        confirm(message_id)
        whole = cast("Message", inflate_object_from_contents(message_id, self._contents))
        whole.metadata.__dict__["_message_id"] = message_id  # as Flower's grid does: it is not part of the content
        return whole
