"""The node as another system user than the agent: code in its place gets what the protocol gives, and nothing else.

Needs root, to start processes as other users.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients.holder_folder import make_holder
from clients.service import door
from clients.service.outbox import read_outbox
from clients.settings import HolderFile
from protocol.errors import PlanError
from protocol.frames import MAGIC
from tests.agent_processes import ASKED, Account, accounts, agent_process, request_of
from tests.agent_services import POLICY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or len(accounts(4)) < 4, reason="needs root and four system users to act as"
    ),
]  # fmt: skip
CANARY = "canary 5f1c"
"""Stands in the data, in ledgers and states, and in the agent's memory."""


@pytest.fixture
def users() -> tuple[Account, Account, Account, Account]:
    """Agent, node, one in the node's group, and a stranger."""
    agent, node, friend, stranger = accounts(4)
    return agent, node, replace(friend, groups=(node.group,)), stranger


@pytest.fixture
def home(users: tuple[Account, ...]) -> Iterator[Path]:
    """A folder of the agent's user, on the way to which nobody is stopped."""
    top = Path(tempfile.mkdtemp(prefix="two-users-"))
    top.chmod(0o755)
    folder = top / "north"
    folder.mkdir()
    os.chown(folder, users[0].user, users[0].group)
    yield folder
    shutil.rmtree(top)


def made(home: Path, users: tuple[Account, ...], *, shared: bool = True) -> None:
    """The holder's files as `migrafed holder init` makes them, with data, given to the agent's user."""
    agent, node = users[0], users[1]
    values = {
        "holder": {"name": "north", "node_user": node.name if shared else None}, "data": {"folder": "data"},
        "privacy": POLICY,
    }  # fmt: skip
    place = make_holder(home, HolderFile.model_validate(values))
    place.data.mkdir(mode=0o700)
    for file in (
        place.data / "rows.csv", place.own("ledgers") / "ledger.jsonl", place.own("runs") / "model.state",
        place.own("approvals") / "plan.json",
    ):  # fmt: skip
        file.write_text(CANARY)
        file.chmod(0o600)
    for path in (home, *home.rglob("*")):
        os.chown(path, agent.user, node.group if path.stat().st_gid == node.group else agent.group)


def frame_of(head: dict[str, Any], body: bytes = b"") -> str:
    told = json.dumps(head).encode()
    whole = MAGIC + len(told).to_bytes(4, "big") + len(body).to_bytes(8, "big") + told + body
    return base64.b64encode(whole).decode()


FRAMES = {
    "a shell": frame_of({"kind": "shell", "run": "cat data/rows.csv"}),
    "a file": frame_of(ASKED | {"message_type": "query.file"}, b"data/rows.csv"),
    "rows": frame_of(ASKED | {"message_type": "query"}, b""),
    "a path as a run": frame_of(ASKED, request_of(run="../data/rows.csv")),
    "another plan": frame_of(ASKED, request_of(plan_hash="00" * 32)),
    "an unknown phase": frame_of(ASKED, request_of("rows")),
    "a pickle": frame_of(ASKED, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
    "a status": frame_of({"kind": "status"}),
    "what is allowed": frame_of(ASKED, request_of()),
}


def tries(home: Path, account: Account, process: int, *parts: str) -> dict[str, str]:
    """What came of everything that hostile code tried as this user."""
    told = {
        "folder": str(home), "process": process, "socket": str(home / "agent.sock"), "parts": parts, "frames": FRAMES,
        "user": account.user, "group": account.group, "groups": account.groups,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.hostile_node", json.dumps(told)]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    return json.loads(shown.stdout)


@pytest.mark.parametrize("in_group", [True, False], ids=["by its group", "by an access list"])
def test_code_in_the_place_of_the_node_gets_nothing_but_answers(
    in_group: bool, home: Path, users: tuple[Account, ...]
) -> None:
    """The agent's user is in the node's group, or is not and gives access to the socket alone."""
    agent, node = users[0], users[1]
    made(home, users)
    with agent_process(home, replace(agent, groups=(node.group,)) if in_group else agent) as process:
        assert stat.S_IMODE((home / "agent.sock").stat().st_mode) == 0o660
        before = tree(home)
        got = tries(home, node, process.pid, "files", "memory", "questions")
        assert process.process.is_alive()
        assert tree(home) == before
    check_nothing(got)
    answer = json.loads(got["ask for what is allowed"].removeprefix("got "))
    assert answer[0] == {"kind": "reply"}
    lines = read_outbox(home / "outbox.jsonl")
    assert [line.kind for line in lines] == ["refusal"] * 6 + ["ExchangeReply"]
    assert lines[-1].bytes == answer[1] == answer[2]


def tree(home: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, mode and size of everything, but of the logs."""
    return {
        str(path.relative_to(home)): (path.lstat().st_uid, path.lstat().st_mode, path.lstat().st_ino)
        for path in sorted(home.rglob("*"))
    }


def check_nothing(got: dict[str, str]) -> None:
    """Of all that was tried, only questions of the protocol got an answer."""
    assert CANARY not in json.dumps(got)
    assert len(got) > 60
    for what, result in got.items():
        if what.startswith(("ask for ", "send ", "pass ")):
            continue
        assert result in ("refused EACCES", "refused EPERM"), f"{what}: {result}"
    for what in ("a shell", "a file", "rows", "a path as a run", "another plan", "an unknown phase", "a pickle"):
        result = got[f"ask for {what}"]
        assert result == "got nothing" or json.loads(result.removeprefix("got "))[0].keys() == {
            "kind",
            "code",
            "number",
        }
    told = json.loads(got["ask for a status"].removeprefix("got "))[0]
    assert told.keys() == {"kind", "version", "holder", "state", "busy_seconds"}
    assert {got["send what is no frame"], got["send half a frame"], got["pass a file"]} == {"got nothing"}


def test_the_same_code_as_the_agents_own_user_gets_the_files(home: Path, users: tuple[Account, ...]) -> None:
    """So the attempts are real: it is the user that makes the difference. The agent's memory is closed even then."""
    made(home, users, shared=False)
    with agent_process(home, users[0]) as process:
        memory = tries(home, users[0], process.pid, "memory")
        files = tries(home, users[0], process.pid, "files")
    assert CANARY in files["read data/rows.csv"]
    assert "PRIVATE KEY" in files["read keys/identity.key.pem"]
    assert files["list ledgers"].startswith("got")
    for what in ("/proc mem", "/proc maps", "/proc environ", "/proc fd", "ptrace", "process_vm_readv"):
        assert memory[what] in ("refused EACCES", "refused EPERM"), what
    assert memory["kill"] == "got None"


def test_third_users_are_not_heard(home: Path, users: tuple[Account, ...]) -> None:
    """Not even one in the node's group, whom modes of files let through to the socket: the kernel tells who it is."""
    agent, node, friend, stranger = users
    made(home, users)
    with agent_process(home, replace(agent, groups=(node.group,))) as process:
        of_stranger = tries(home, stranger, process.pid, "questions", "files")
        assert asked_in(of_stranger) == {"refused EACCES"}
        of_friend = tries(home, friend, process.pid, "questions", "files")
        assert asked_in(of_friend) <= {"got nothing", "refused EPIPE", "refused ECONNRESET"}
        os.kill(process.pid, signal.SIGTERM)
        assert process.ended() == 0
    assert (home / "logs" / "agent.log").read_text().count("which is not the node's or the agent's user") >= 9
    assert CANARY not in json.dumps([of_stranger, of_friend])
    assert read_outbox(home / "outbox.jsonl") == ()
    assert not (home / "agent.sock").exists()


def asked_in(got: dict[str, str]) -> set[str]:
    return {result for what, result in got.items() if what.startswith(("ask for ", "send ", "pass "))}


def test_a_user_of_the_node_that_cannot_be_let_in_is_named(home: Path, users: tuple[Account, ...]) -> None:
    """Neither its group nor an access list: on a file system without them the agent says so and does not start."""

    def without(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    def unsupported(*args: Any) -> None:
        raise OSError(95, "Operation not supported")

    path = home / "agent.sock"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door.os, "chown", without)
        patch.setattr(door.os, "setxattr", unsupported)
        with pytest.raises(PlanError, match=r"cannot be let in to .* \(Operation not supported\); make"):
            door._let_in(path, users[1].name)
