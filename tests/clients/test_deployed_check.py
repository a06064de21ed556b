"""`clients.deployed_check`: every way in which a holder is unfit to take part is one finding with its way out."""

from __future__ import annotations

import email.utils
import http.server
import shutil
import ssl
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.approvals import Approvals
from clients.custody import Custody
from clients.deployed_check import check_deployed
from clients.holder_folder import join_coordinator
from clients.joining import take_invitation
from clients.settings import COORDINATOR, IDENTITY_KEY, LEDGERS, OUTBOX, ROSTER, HolderPlace, load_place
from protocol.plan import load_plan
from server.settings import CA, SERVER_CERTIFICATE, SERVER_KEY
from simulations.holder_folders import make_folders
from tables.checks import Finding
from tests.coordinator_places import coordinator_place
from tests.holder_places import Inviter, joined_holder, new_holder

PLANS = Path(__file__).resolve().parents[2] / "plans"
SMALL = {"data.world.queries": "3000", "data.world.num_steps": "40"}


def findings(place: HolderPlace) -> dict[str, Finding]:
    return {one.check.split(" ")[0]: one for one in check_deployed(load_place(place.file)).findings}


class Link:
    """Answers over TLS as the coordinator's public port does: 404 with a date, and a refusal of every node."""

    def __init__(self, folder: Path) -> None:
        self.place, self.ahead, self.node_status = coordinator_place(folder), 0.0, 403
        link = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(404)

            def do_POST(self) -> None:
                self.answer(link.node_status)

            def answer(self, status: int) -> None:
                self.send_response_only(status)
                self.send_header("Date", email.utils.formatdate(time.time() + link.ahead, usegmt=True))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.place.own(SERVER_CERTIFICATE), self.place.own(SERVER_KEY))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @property
    def address(self) -> str:
        return f"localhost:{self.server.server_address[1]}"


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    made = Link(tmp_path / "coordinator")
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def place(tmp_path: Path, link: Link) -> HolderPlace:
    """Joined to the link, nothing approved."""
    made, inviter = new_holder(tmp_path / "north", "north"), Inviter()
    invitation = inviter.invitation("north", address=link.address)
    invitation = invitation.model_copy(update={"ca": link.place.own(CA).read_text()})
    take_invitation(made, invitation)
    join_coordinator(made, invitation)
    return load_place(made.file)


def test_a_holder_that_is_well(place: HolderPlace, link: Link) -> None:
    link.node_status = 400  # as the SuperLink answers for a node that is logged in
    found = findings(place)
    assert {name for name, one in found.items() if one.status == "failed"} == set()
    assert {name for name, one in found.items() if one.status == "note"} == {"population", "approvals"}
    assert "more days" in found["connection"].found


@pytest.mark.parametrize(
    ("name", "mode"), [(".", 0o755), ("keys", 0o711), (IDENTITY_KEY, 0o640), ("holder.toml", 0o644), (LEDGERS, 0o750)]
)
def test_modes_that_let_others_in(place: HolderPlace, name: str, mode: int) -> None:
    (place.folder / name).chmod(mode)
    found = findings(place)["modes"]
    assert (found.status, f"{mode:04o}" in found.found) == ("failed", True)
    assert found.way_out.startswith("chmod ")


@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (-20, "failed"), (200, "ok"), (400, "failed")])
def test_the_clock_is_compared(place: HolderPlace, link: Link, ahead: float, status: str) -> None:
    """A node may be a few seconds ahead of the coordinator, and minutes behind."""
    link.ahead = ahead
    assert findings(place)["clock"].status == status


def test_a_node_that_was_not_admitted(place: HolderPlace) -> None:
    found = findings(place)["node"]
    assert (found.status, "migrafed server admit" in found.way_out) == ("failed", True)


def test_nobody_answers_or_somebody_else(place: HolderPlace, tmp_path: Path) -> None:
    text = place.file.read_text()
    address = place.coordinator.address
    place.file.write_text(text.replace(address, "localhost:1"))
    found = findings(place)["connection"]
    assert "cannot be reached" in found.found
    assert "ask its operator whether 'migrafed server up' runs" in found.way_out
    place.file.write_text(text)
    shutil.copy(coordinator_place(tmp_path / "other").own(CA), place.own(COORDINATOR) / "ca.pem")
    assert "another authority" in findings(place)["connection"].found


def test_before_joining(tmp_path: Path) -> None:
    found = findings(new_holder(tmp_path / "south", "south"))["coordinator"]
    assert (found.status, "migrafed holder join" in found.way_out) == ("note", True)


def test_a_full_disk(place: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 10**6))
    assert findings(place)["disk"].status == "failed"


def test_a_ledger_under_other_terms_or_damaged(place: HolderPlace) -> None:
    with Custody.at(place.own(LEDGERS) / "people", place.config.privacy):
        pass
    assert findings(place)["ledger"].status == "ok"
    text = place.file.read_text()
    place.file.write_text(text.replace("max_epsilon = 2.0", "max_epsilon = 3.0"))
    found = findings(place)["ledger"]
    assert (found.status, "put the policy back" in found.way_out) == ("failed", True)
    place.file.write_text(text)
    lines = place.own(LEDGERS) / "people" / "ledger" / "ledger.jsonl"
    lines.write_bytes(lines.read_bytes()[:-10] + b"x" * 9 + b"\n")
    assert findings(place)["ledger"].status == "failed"


def test_an_outbox_that_was_changed(place: HolderPlace) -> None:
    place.own(OUTBOX).write_text('{"body": {}}\n')
    place.own(OUTBOX).chmod(0o600)
    assert "line 1" in findings(place)["outbox"].found


def test_a_policy_for_another_name(place: HolderPlace) -> None:
    place.file.write_text(place.file.read_text().replace('holder = "north"', 'holder = "nord"'))
    found = findings(place)["policy"]
    assert (found.status, "'nord'" in found.found) == ("failed", True)


@pytest.mark.slow
def test_approved_plans_and_their_rows(tmp_path: Path) -> None:
    """The rows of an approved plan are opened as the agent will, and what is not there is said."""
    inviter = Inviter()
    made = make_folders(load_plan(PLANS / "three_regions.toml", overrides=SMALL), tmp_path / "data")
    places = [joined_holder(tmp_path / name, name, inviter) for name in ("north", "east", "south")]
    place = places[0]
    place.file.write_text(place.file.read_text().replace('"data"', f'"{made.holders["north"]}"'))
    Approvals(place).approve(made.plan, inviter.roster(*places))
    found = findings(place)
    assert (found["plan"].status, found["data"].status) == ("ok", "ok")
    assert "raw queries" in found["data"].found

    source = made.holders["north"] / "queries.toml"
    cases: list[Callable[[], object]] = [
        lambda: shutil.rmtree(made.holders["north"] / "queries"),
        lambda: source.write_text(source.read_text().replace("user", "person")),
        source.unlink,
        (made.holders["north"] / "cities.csv").unlink,
        lambda: shutil.rmtree(made.holders["north"]),
    ]
    for spoil in cases:
        spoil()
        assert findings(place)["data"].status == "failed"
    place.own(ROSTER).write_text("torn")
    assert findings(place)["plan"].status == "failed"
