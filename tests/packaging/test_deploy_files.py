"""deploy/: units, image and compose file keep the walls that docs/deployment.md promises."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from migrafed.arguments import parse

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
FILES = [path for path in DEPLOY.rglob("*") if path.is_file()]


def unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(path.read_text(encoding="utf-8"))
    return read


def service(name: str) -> configparser.SectionProxy:
    return unit(DEPLOY / "systemd" / f"migrafed-{name}.service")["Service"]


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and what follows them, lines joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def test_there_is_a_unit_for_each_part() -> None:
    assert [path.stem for path in UNITS] == ["migrafed-agent", "migrafed-coordinator", "migrafed-node"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    """With a program where the installation would be; no word of systemd is misspelt or misplaced."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    program = tmp_path / "migrafed"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    own = tmp_path / path.name
    for other in UNITS:
        text = other.read_text(encoding="utf-8").replace("/opt/migrafed/bin/migrafed", str(program))
        (tmp_path / other.name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(own)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    own.write_text(own.read_text().replace("ProtectSystem=strict", "ProtectSystemm=strict"))
    spoilt = subprocess.run(["systemd-analyze", "verify", str(own)], capture_output=True, text=True, check=False)
    assert "ProtectSystemm" in spoilt.stderr  # it can fail


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_start_commands_that_exist_as_users_of_their_own(path: Path) -> None:
    section = unit(path)["Service"]
    program, *words = shlex.split(section["ExecStart"])
    assert program == "/opt/migrafed/bin/migrafed"
    parse(words, "0")
    assert section["User"] == section["Group"] == path.stem
    hardened = {
        "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "CapabilityBoundingSet": "", "LimitCORE": "0", "RestrictSUIDSGID": "yes", "ProtectProc": "invisible",
    }  # fmt: skip
    assert {key: section[key] for key in hardened} == hardened
    assert len(section["ReadWritePaths"].split()) == 1
    assert "4" in section["SuccessExitStatus"].split()


def test_the_agent_has_no_network_and_the_node_no_rows() -> None:
    agent, node = service("agent"), service("node")
    assert (agent["PrivateNetwork"], agent["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert agent["PrivateUsers"] == "no"  # or peer credentials are nobody's
    assert "migrafed-node" in agent["SupplementaryGroups"]
    assert node["InaccessiblePaths"].lstrip("-") == agent["ReadOnlyPaths"].lstrip("-")
    assert node["ReadWritePaths"] == f"{agent['ReadWritePaths']}/node"
    assert int(node["RestartSec"]) > 60
    assert "SupplementaryGroups" not in node


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    found = instructions()
    bases = [rest for word, rest in found if word == "FROM"]
    (python,) = [rest.partition("=")[2] for word, rest in found if word == "ARG" and rest.startswith("PYTHON=")]
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", python)
    assert all(base.startswith("python:${PYTHON} AS ") for base in bases)
    users = [rest for word, rest in found if word == "USER"]
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)
    last_stage = found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]
    assert ("USER", users[-1]) in last_stage
    assert not {word for word, _ in found} & {"ADD", "VOLUME"}


def test_the_image_holds_the_packages_and_no_secret() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = [rest.split() for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    assert {words[0] for words in copied if len(words) == 2} == {*packages, "plans"}
    assert not re.search(r"(?i)(secret|password|token|\.key|\.pem)", "\n".join(rest for _, rest in instructions()))
    for switch in ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "INSTALLATION=1"):
        assert switch in DOCKERFILE
    assert f"migrafed:{project['project']['version']}" in DOCKERFILE
    assert "useradd" in DOCKERFILE


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_containers_are_confined(name: str) -> None:
    found = SERVICES[name]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", found["user"])
    assert f"--uid {found['user'].split(':')[0]} " in DOCKERFILE
    assert found["image"].rpartition(":")[2] not in ("", "latest")
    assert not {"privileged", "environment", "env_file", "pid", "userns_mode"} & found.keys()
    parse(found["command"], "0")
    if "healthcheck" in found:
        kind, program, *words = found["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "migrafed")
        parse(words, "0")


def test_containers_keep_rows_and_network_apart() -> None:
    agent, node = SERVICES["agent"], SERVICES["node"]
    assert agent["network_mode"] == "none"
    assert "ports" not in agent
    assert "ports" not in node
    assert agent["user"] != node["user"]
    shown = {mount["target"]: mount.get("read_only", False) for mount in node["volumes"]}
    assert {path for path, read_only in shown.items() if not read_only} == {"/holder/node"}
    assert not [path for path in shown if re.search("data|ledger|approv|identity|outbox|runs", path)]
    rows = next(mount for mount in agent["volumes"] if mount["target"] == "/data")
    assert rows["read_only"] is True
    assert "9444" not in str(SERVICES["coordinator"]["ports"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_key_lies_here(path: Path) -> None:
    assert "PRIVATE KEY" not in path.read_text(encoding="utf-8")
