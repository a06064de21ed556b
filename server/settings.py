"""The coordinator's settings in one file, ``server.toml``, in the folder that `migrafed server init` makes::

    [server]
    name = "labour-study"
    hosts = ["coordinator.example.org"]   # names and addresses that the certificate is for
    listen = "0.0.0.0"                    # where holders reach it
    port = 9443
    control_port = 9444                   # on 127.0.0.1 only: starting runs, registering nodes
    public = "public"                     # what everybody may know: lists of regions, no counts

    [patience]                            # with holders that are slow or away
    prepare = 3600                        # seconds to answer what may have a holder read its rows and release counts
    statistics = 900                      # and everything else, by what was asked
    exchange = 600
    masked = 120
    train = 900
    evaluate = 300
    arrival = 600                         # seconds to wait for holders before a run goes on or stops
    least_holders = 3                     # never fewer; a sum needs floor(2n/3) + 1 in any case
    absent = "wait"                       # or "go on" without, or "stop"
    attempts = 10                         # times that a run takes up again by itself what a crash broke off

Paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from protocol.frozen import FrozenConfig
from protocol.plan import parse_config, read_toml

SETTINGS_FILE = "server.toml"
KEY, CA_KEY, CA, SERVER_KEY, SERVER_CERTIFICATE, EXECUTOR_SECRET = (
    "keys/coordinator.key.pem", "keys/ca.key.pem", "keys/ca.pem", "keys/server.key.pem", "keys/server.pem",
    "keys/executor.secret",
)  # fmt: skip
"""Signs invitations and rosters (Ed25519); certificate authority; certificate; lets our process carry out runs."""
LINK_DATABASE, MEMBERS, ROSTER, RUNS, FLOWER_HOME, LOGS = (
    "link.sqlite", "members.json", "roster.json", "runs", "flower", "logs",
)  # fmt: skip


class ServerSection(FrozenConfig):
    """``[server]``: who this is and where it listens."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$", description="also stands in certificates")
    hosts: tuple[str, ...] = Field(min_length=1, description="names and addresses that the certificate is for")
    listen: str = "127.0.0.1"
    port: int = Field(default=9443, ge=1, le=65535)
    control_port: int = Field(default=9444, ge=1, le=65535, description="on 127.0.0.1 only")
    public: Path = Path("public")

    @model_validator(mode="after")
    def _two_ports(self) -> ServerSection:
        if self.port == self.control_port:
            raise ValueError(f"port and control_port are both {self.port}; the control port must be another one")
        return self


class PatienceSection(FrozenConfig):
    """``[patience]``: how long the coordinator waits, in seconds, and what it does without somebody."""

    prepare: float = Field(default=3600, gt=0, description="where a holder may have to read its rows first")
    statistics: float = Field(default=900, gt=0)
    exchange: float = Field(default=600, gt=0)
    masked: float = Field(default=120, gt=0)
    train: float = Field(default=900, gt=0)
    evaluate: float = Field(default=300, gt=0)
    arrival: float = Field(default=600, gt=0, description="for holders that are away")
    least_holders: int = Field(default=2, ge=2, description="never fewer")
    absent: Literal["wait", "go on", "stop"] = "wait"
    attempts: int = Field(default=10, ge=1, description="times a run takes up again what broke off")


class ServerFile(FrozenConfig):
    """The whole file."""

    server: ServerSection
    patience: PatienceSection = PatienceSection()


@dataclass(frozen=True)
class ServerPlace:
    """A `ServerFile` and the folder it lies in: every path of the coordinator comes from here."""

    config: ServerFile
    folder: Path

    @property
    def public(self) -> Path:
        """What everybody may know."""
        return self.folder / self.config.server.public

    def own(self, name: str) -> Path:
        """A file or folder, by its name in this module."""
        return self.folder / name


def load_server(folder: Path) -> ServerPlace:
    """Read and check the ``server.toml`` of a folder.

    Raises:
        PlanError: no such file, not TOML, an unknown key (the nearest valid one is named), or a value that breaks a
            rule.
    """
    way_out = "give the folder that 'migrafed server init' made with --server"
    values = read_toml(folder / SETTINGS_FILE, what="coordinator's settings", way_out=way_out)
    return ServerPlace(parse_config(ServerFile, values, where=SETTINGS_FILE), folder.absolute())
