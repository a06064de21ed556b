"""docs/deployment.md: every command in it can be given as it stands, and the one for one machine works as printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migrafed.arguments import parse
from tests.coordinator_places import free_ports

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
INLINE = sorted(set(re.findall(r"`(migrafed [^`]+)`", TEXT)))


BEFORE = r"^\s*|/bin/|exec agent |migrafed:0\.1\.0 "
"""What stands before a command: nothing, a path, a container."""
COMMAND = re.compile(rf"(?:{BEFORE})((?:migrafed )?(?:holder|server|data|simulate) .*)$")


def typed(text: str) -> list[str]:
    """The `migrafed` commands of a block, without comments, redirections and what starts them."""
    starts = [found for line in text.splitlines() if (found := COMMAND.search(line))]
    return [re.split(r"\s+#|\s+>|\s+&$", found.group(1))[0].removeprefix("migrafed ").strip() for found in starts]


COMMANDS = [command for block in BLOCKS for command in typed(block)]


def test_the_document_shows_every_step() -> None:
    """Nobody has to look elsewhere for a command between an empty folder and an ended federation."""
    subjects = {tuple(command.split()[:2]) for command in COMMANDS}
    assert {
        ("holder", word) for word in ("init", "join", "approve", "check", "agent", "node", "status", "outbox")
    } <= subjects
    assert {
        ("server", word) for word in ("init", "up", "invite", "admit", "roster", "run", "status", "verify", "down")
    } <= subjects


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_those_of_the_command_line(command: str) -> None:
    """Subject, options and arguments: an option that is renamed fails here."""
    parse(shlex.split(command.replace("$port", "9094")), "0")


@pytest.mark.parametrize("command", INLINE)
def test_commands_in_the_text_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    while words and words[-1].isupper():
        words.pop()
    with pytest.raises(SystemExit) as left:
        parse([*words[:2], "--help"], "0")
    assert left.value.code == 0


def test_every_section_of_the_contents_is_there() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


@pytest.mark.slow
def test_one_machine_works_as_printed(tmp_path: Path) -> None:
    """A coordinator and three holders, each of two processes, from nothing to a rechecked run, and all of it ended."""
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    ports = dict(zip(("9443", "9444"), free_ports(2), strict=True))
    script = BLOCKS[0]
    for printed, free in ports.items():
        script = script.replace(printed, str(free))
    script = script.replace("port=9094", f"port={max(free_ports(6))}")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": programs},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            said, _ = shell.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGTERM)
            said, _ = shell.communicate(timeout=60)
        finally:  # the SuperLink is on its own, and ends with nobody
            down = [sys.executable, "-m", "migrafed", "server", "down", "--server", "trial/coordinator"]
            subprocess.run(down, cwd=tmp_path, capture_output=True, check=False)
    assert shell.returncode == 0, said
    assert "every sum holds" in said
    for name in ("north", "east", "south"):
        for half in ("agent", "node"):
            assert "stopped on request" in (tmp_path / "trial" / f"{name}-{half}.txt").read_text(), name
    assert not list((tmp_path / "trial").glob("*/run/agent.sock"))
