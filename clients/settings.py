"""A holder's own settings for taking part in runs, in one file, ``holder.toml``::

    [holder]
    name = "north"                   # in the roster and in plans
    folder = "."                     # keys, ledgers, approvals, runs and logs; only this user may read it
    socket = "agent.sock"            # where the node finds the agent
    node_user = "migrafed-node"      # the system user that the node runs as; by default the agent's own

    [coordinator]                    # written by `migrafed holder join`
    address = "coordinator.example.org:9443"
    ca = "coordinator/ca.pem"        # the private certificate authority of its certificate
    key = "5c1f…"                    # its Ed25519 public key, compared by the operators

    [node]
    port = 9094                      # on 127.0.0.1, between the SuperNode and the node's executor

    [data]
    folder = "data"                  # what the plan's source expects there

    [privacy]                        # what the holder allows: `clients.policy.HolderPolicy`

Paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from clients.policy import HolderPolicy
from protocol.errors import PlanError
from protocol.frozen import FrozenConfig
from protocol.plan import parse_config, read_toml

IDENTITY_KEY, NODE_KEY = "keys/identity.key.pem", "keys/node.key"
"""Signs for the holder in masked sums (Ed25519); signs the node's requests (EC P-384, OpenSSH form)."""
LEDGERS, APPROVALS, RUNS, OUTBOX = "ledgers", "approvals", "runs", "outbox.jsonl"
COORDINATOR, ROSTER = "coordinator", "coordinator/roster.json"
"""What was received from the coordinator and compared by the operator."""
_WAY_OUT = "give the folder that 'migrafed holder init' made, or the holder.toml in it"


class HolderSection(FrozenConfig):
    """``[holder]``: who this is and where its files lie."""

    name: str = Field(min_length=1, max_length=64)
    folder: Path = Path()
    socket: Path = Path("agent.sock")
    node_user: str | None = Field(default=None, description="system user of the node; the agent's own if not given")

    @field_validator("name")
    @classmethod
    def _can_be_printed(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip() or "/" in name or name.startswith("."):
            raise ValueError(
                f"{name!r} must be printable, without '/', not begin with '.' and not be blank at its ends"
            )
        return name


class CoordinatorSection(FrozenConfig):
    """``[coordinator]``: whom this holder connects to."""

    address: str = Field(pattern=r"^[^\s:]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$", description="host:port")
    ca: Path
    key: str = Field(pattern="^[0-9a-f]{64}$", description="Ed25519 public key, hexadecimal")


class NodeSection(FrozenConfig):
    """``[node]``: how the node runs."""

    port: int = Field(default=9094, ge=1, le=65535, description="on 127.0.0.1")
    back_off_seconds: float = Field(default=65.0, ge=0, description="longest rest after crashes of the SuperNode")
    poll_seconds: float = Field(default=0.5, ge=0.1, le=3, description="between looks while a run is on; Flower's is 3")


class DataFolder(FrozenConfig):
    """``[data]``: where this holder's rows lie."""

    folder: Path


class HolderFile(FrozenConfig):
    """The whole file."""

    holder: HolderSection
    coordinator: CoordinatorSection | None = None
    node: NodeSection = NodeSection()
    data: DataFolder
    privacy: HolderPolicy


@dataclass(frozen=True)
class HolderPlace:
    """A `HolderFile` and where it lies: every path of a holder comes from here."""

    config: HolderFile
    file: Path

    @property
    def name(self) -> str:
        """The holder's name."""
        return self.config.holder.name

    @property
    def folder(self) -> Path:
        """The holder's private folder."""
        return self._at(self.config.holder.folder)

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return self._at(self.config.holder.socket)

    @property
    def data(self) -> Path:
        """Where the rows lie."""
        return self._at(self.config.data.folder)

    @property
    def coordinator(self) -> CoordinatorSection:
        """Whom to connect to.

        Raises:
            PlanError: the holder has not joined a federation.
        """
        if self.config.coordinator is None:
            raise PlanError(
                f"{self.file} has no [coordinator]; take the coordinator's invitation with 'migrafed holder join'"
            )
        return self.config.coordinator

    @property
    def ca(self) -> Path:
        """The certificate authority of the coordinator's certificate."""
        return self._at(self.coordinator.ca)

    def own(self, name: str) -> Path:
        """A file or folder of the private folder, by its name in this module."""
        return self.folder / name

    def _at(self, path: Path) -> Path:
        return (self.file.parent / path).absolute()


def load_place(path: Path) -> HolderPlace:
    """Read and check a ``holder.toml``.

    Raises:
        PlanError: no such file, not TOML, a missing section, an unknown key (the nearest valid one is named), or a
            value that breaks a rule.
    """
    values = read_toml(path, what="holder's settings", way_out=_WAY_OUT)
    return HolderPlace(parse_config(HolderFile, values, where=path.name), path)
