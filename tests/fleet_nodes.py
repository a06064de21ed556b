"""A node in a thread: Flower's own Fleet client, with a registered key, that answers every message."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects, push_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from server.link.control import Control
from server.settings import CA, ServerPlace
from tests.server_links import pem

Answer = Callable[[RecordDict], RecordDict]


@contextmanager
def fleet_node(
    place: ServerPlace, answer: Answer = lambda content: content, before_upload: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """A registered node that answers while the block runs; its number.

    Args:
        place: Whose node.
        answer: Gives an answer's content.
        before_upload: Called when an answer is announced and nothing of it is uploaded.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    with Control(place) as control:
        control.register(pem(key))
    stopped, number = threading.Event(), queue.Queue[int]()
    thread = threading.Thread(target=_take_part, args=(place, key, answer, before_upload, number, stopped), daemon=True)
    thread.start()
    try:
        yield number.get(timeout=30)
    finally:
        stopped.set()
        thread.join(30)


def _take_part(
    place: ServerPlace,
    key: ec.EllipticCurvePrivateKey,
    answer: Answer,
    before_upload: Callable[[], object],
    number: queue.Queue[int],
    stopped: threading.Event,
) -> None:
    """Flower's connection swallows what is raised inside it, so no test may be inside it."""
    address, authority = f"localhost:{place.config.server.port}", place.own(CA).read_bytes()
    with http_request_response(address, False, authority, (key, key.public_key())) as connection:
        number.put(connection[0])
        while not stopped.wait(0.05):
            try:
                received = connection[1]()
                if received is not None:
                    _answer(connection, answer, before_upload, *received)
            except RunNotRunningException:
                continue  # it answered too late
            except Exception:  # a node goes on whatever happens
                logging.getLogger(__name__).exception("not answered")


def _answer(
    connection: tuple, answer: Answer, before_upload: Callable[[], object], message: Message, tree: ObjectTree
) -> None:
    _, _, send, _, _, pull_object, push_object, confirm = connection
    run_id, asked = message.metadata.run_id, message.metadata.message_id
    ids = [part.object_id for part in iterate_object_tree(tree)]
    contents = pull_objects(ids, pull_object_fn=lambda name: pull_object(run_id, name))
    confirm(run_id, asked)
    whole = cast("Message", inflate_object_from_contents(asked, contents))
    whole.metadata.__dict__["_message_id"] = asked
    reply = Message(answer(whole.content), reply_to=whole)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        assert reply.metadata.dst_node_id == SUPERLINK_NODE_ID
        objects = get_all_nested_objects(reply)
        wanted, session = send(reply, get_object_tree(reply), 0.0)
        before_upload()
        push_objects(
            objects,
            push_object_fn=lambda name, content: push_object(run_id, session, name, content),
            object_ids_to_push=wanted,
        )
