"""People on the wire between holders and coordinator: refused, and logged where the coordinator can notice them."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node as NodeNumber
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode.fleet_http_client import FleetHttpClient

from simulations.deployment.proxy import Proxy, flipping
from tests.deployment.link_processes import Link, Node, ca_of, insides, running_link, server_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    with running_link(tmp_path_factory.mktemp("wire") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def node(link: Link) -> tuple[Node, int]:
    """A registered node and its number."""
    one = Node()
    return one, one.register(link)


def asked(client: FleetHttpClient, number: int) -> bool:
    """Whether the coordinator hears and answers a question of the node: here, about a run that it never had."""
    try:
        client.GetRun(GetRunRequest(node=NodeNumber(node_id=number), run_id=1))
    except httpx.HTTPStatusError as error:
        return error.response.status_code != httpx.codes.UNAUTHORIZED
    return True


def broken_tls(link: Link) -> int:
    """How often the coordinator noted that a connection broke, or did not come about."""
    return link.log.count("TLS: a connection")


def eventually(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


def said(address: tuple[str, int], content: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What the other side answers to raw bytes."""
    plain = socket.create_connection(address, timeout=2)
    with (
        closing(plain),
        closing(context.wrap_socket(plain, server_hostname="localhost") if context else plain) as connection,
    ):
        connection.sendall(content)
        answer = b""
        with suppress(TimeoutError, ConnectionError, ssl.SSLError):
            while part := connection.recv(1 << 16):
                answer += part
        return answer


def test_a_registered_node_is_answered_through_a_proxy_that_changes_nothing(link: Link, node: tuple[Node, int]) -> None:
    """Without this, none of the refusals below would mean anything."""
    own, number = node
    with Proxy(link.address) as proxy, own.client(proxy.port, ca_of(link.place)) as client:
        client.ActivateNode(ActivateNodeRequest(public_key=own.public, heartbeat_interval=30))
        before = link.requests()
        assert asked(client, number)
        assert link.requests() > before


def test_plain_text_is_not_answered(link: Link) -> None:
    before = link.requests()
    request = b"POST /v1/fleet/activate-node HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
    lines = broken_tls(link)
    assert not said(link.address, request).startswith(b"HTTP")
    assert link.requests() == before
    assert eventually(lambda: broken_tls(link) > lines)


def test_an_old_tls_is_not_spoken(link: Link) -> None:
    context = ssl.create_default_context(cadata=ca_of(link.place).decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        said(link.address, b"", context)


def test_a_node_refuses_a_coordinator_of_another_authority(link: Link, node: tuple[Node, int], tmp_path) -> None:
    """The one in the middle shows a certificate for the right name, of an authority that nobody invited with."""
    own, number = node
    impostor = server_folder(tmp_path / "impostor")
    before = link.requests()
    with (
        Proxy(link.address, insides=insides(impostor, ca_of(link.place))) as proxy,
        own.client(proxy.port, ca_of(link.place)) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        asked(client, number)
    assert link.requests() == before


def test_a_node_refuses_a_certificate_that_ended(link: Link, node: tuple[Node, int], tmp_path) -> None:
    own, number = node
    late = server_folder(tmp_path / "late", days=-2)
    with (
        Proxy(link.address, insides=insides(late, ca_of(link.place))) as proxy,
        own.client(proxy.port, ca_of(late)) as client,
        pytest.raises(httpx.ConnectError, match="expired"),
    ):
        asked(client, number)


def test_a_node_that_is_not_registered_is_refused_and_logged(link: Link) -> None:
    stranger = Node()
    with (
        stranger.client(link.address[1], ca_of(link.place)) as client,
        pytest.raises(httpx.HTTPStatusError) as refused,
    ):
        client.ActivateNode(ActivateNodeRequest(public_key=stranger.public, heartbeat_interval=30))
    assert refused.value.response.status_code == httpx.codes.FORBIDDEN
    assert 'POST /v1/fleet/activate-node HTTP/1.1" 403' in link.log


def test_a_node_cannot_speak_for_another(link: Link, node: tuple[Node, int]) -> None:
    """A registered node with a key of its own asks for another node's messages."""
    other = Node()
    other.register(link)
    with other.client(link.address[1], ca_of(link.place)) as client, pytest.raises(httpx.HTTPStatusError) as refused:
        client.PullMessages(PullMessagesRequest(node=NodeNumber(node_id=node[1])))
    assert refused.value.response.status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("way", ["up", "down"])
def test_changed_bytes_end_the_connection_and_reach_nobody(link: Link, node: tuple[Node, int], way) -> None:
    own, number = node
    before = link.requests()
    with Proxy(link.address) as proxy:
        with (
            own.client(proxy.port, ca_of(link.place)) as client,
            proxy.changed(flipping(97, way=way)),
            pytest.raises(httpx.TransportError),
        ):
            asked(client, number)
        assert link.requests() == before
        with own.client(proxy.port, ca_of(link.place)) as client:
            assert asked(client, number)


def test_changed_bytes_in_the_middle_of_a_conversation_too(link: Link, node: tuple[Node, int]) -> None:
    own, number = node
    with Proxy(link.address) as proxy, own.client(proxy.port, ca_of(link.place)) as client:
        assert asked(client, number)
        before, lines = link.requests(), broken_tls(link)
        with proxy.changed(flipping(50, way="up")), pytest.raises(httpx.TransportError):
            asked(client, number)
        assert link.requests() == before
        assert eventually(lambda: broken_tls(link) > lines)
        assert asked(client, number)


def test_repeated_bytes_are_no_request(link: Link, node: tuple[Node, int]) -> None:
    """All that a node ever sent, once more over a new connection."""
    own, number = node
    with Proxy(link.address, keep=True) as proxy, own.client(proxy.port, ca_of(link.place)) as client:
        assert asked(client, number)
    sent = bytes(proxy.conversations[0].up)
    assert len(sent) > 500
    before = link.requests()
    assert b"HTTP" not in said(link.address, sent)
    assert link.requests() == before


def test_whoever_holds_the_servers_key_reads_and_repeats(link: Link, node: tuple[Node, int]) -> None:
    """What TLS and node keys do not promise: Flower signs the time, not the request. So the server's key is guarded.

    What a holder then still has is its agent: masked sums are signed from holder to holder, whoever passes them on.
    """
    own, number = node
    contexts = insides(link.place, ca_of(link.place))
    seen = list[bytes]()

    def kept(way: str, data: bytes) -> bytes:
        if way == "up":
            seen.append(data)
        return data

    with (
        Proxy(link.address, insides=contexts) as proxy,
        proxy.changed(kept),
        own.client(proxy.port, ca_of(link.place)) as client,
    ):
        assert asked(client, number)
    answer = said(link.address, b"".join(seen), contexts.client)
    assert answer.startswith(b"HTTP/1.1 ")
    assert b" 401 " not in answer.splitlines()[0]


def test_only_what_a_node_needs_is_there(link: Link) -> None:
    """Starting runs and registering nodes are not offered on the port that holders reach."""
    with httpx.Client(verify=ssl.create_default_context(cadata=ca_of(link.place).decode())) as client:
        for path in ("/", "/health", "/v1/control/start-run", "/v1/fleet/register-node", "/v1/runtime/acquire-task"):
            assert client.post(f"https://localhost:{link.address[1]}{path}").status_code == httpx.codes.NOT_FOUND
