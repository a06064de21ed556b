"""Agents behind their sockets in threads of the test's process, with desks that hold agents of a simulation."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.agent import HolderAgent
from clients.node.client import AgentClient, Refusal
from clients.service.outbox import OutboxLine, read_outbox
from clients.service.service import AgentService
from clients.settings import OUTBOX, HolderFile, HolderPlace
from protocol.errors import NotApprovedError
from protocol.record_bytes import records_from_bytes, records_to_bytes
from simulations.grid import NODE_NAME, InProcessGrid

POLICY: dict[str, Any] = {
    "holder": "north", "population": "p", "period": "2026", "max_epsilon": 2.0, "delta": 1e-7, "contributions": 3,
    "least_noise_multiplier": 0.5, "clip_norm": 1.0,
}  # fmt: skip


@dataclass
class FakeDesk:
    """Gives one agent to whoever asks under its plan."""

    given: HolderAgent | None
    closed: bool = False
    told: dict[str, Any] = field(default_factory=lambda: {"approved": 1})

    def agent(self, run: str, plan_hash: str, stage: str) -> HolderAgent:
        if self.given is None or self.given.plan.digest() != plan_hash:
            raise NotApprovedError(f"plan {plan_hash[:12]} is not approved; approve it")
        return self.given

    def status(self) -> Mapping[str, Any]:
        return self.told

    def close(self) -> None:
        self.closed = True


def place_in(folder: Path, name: str = "north", **holder: Any) -> HolderPlace:
    """A holder whose files lie in `folder`."""
    values = {
        "holder": {"name": name, **holder}, "data": {"folder": "data"}, "privacy": POLICY | {"holder": name},
    }  # fmt: skip
    return HolderPlace(HolderFile.model_validate(values), folder / "holder.toml")


@contextmanager
def serving(place: HolderPlace, desk: Any) -> Iterator[AgentService]:
    """An agent that answers until the block ends; its errors are raised here."""
    service, ready, failed = AgentService(place, desk), threading.Event(), list[Exception]()

    def serve() -> None:
        try:
            service.serve(ready=ready.set)
        except Exception as error:  # noqa: BLE001 -- raised again in the test's own thread
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        if failed:
            raise failed[0]
        yield service
    finally:
        service.stop()
        thread.join(60)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def lines_of(place: HolderPlace) -> tuple[OutboxLine, ...]:
    return read_outbox(place.own(OUTBOX))


@contextmanager
def grid_over_sockets(folder: Path, agents: Mapping[str, HolderAgent]) -> Iterator[tuple[InProcessGrid, Any]]:
    """A grid whose every message goes through the socket of its holder's agent, and the holders' places."""
    with ExitStack() as stack:
        places = {}
        for number, (name, agent) in enumerate(agents.items()):
            home = folder / f"h{number}"
            home.mkdir()
            places[name] = place_in(home, name)
            stack.enter_context(serving(places[name], FakeDesk(agent)))
        app = ClientApp()

        def relay(message: Message, context: Context) -> Message:
            client = AgentClient(places[str(context.node_config[NODE_NAME])].socket, patience=60)
            answer = client.ask(message.metadata.message_type, "1", records_to_bytes(message.content))
            if isinstance(answer, Refusal):
                return Message(Error(code=2, reason=f"{answer.code} {answer.number}"), reply_to=message)
            return Message(content=records_from_bytes(answer), reply_to=message)

        for route in (app.query(), app.query("exchange"), app.query("masked"), app.train(), app.evaluate()):
            route(relay)
        yield InProcessGrid(app, list(agents)), places
