"""What Flower finds in the environment of the node's processes: nothing that phones home, and no home but ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clients.settings import HolderPlace

NODE = "node"
"""The only folder that the node writes to, inside the holder's."""
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_TELEMETRY_LOGGING": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TRACING_ENABLED": "0",
    "FLWR_OIDC_ENABLED": "0",
    "FLWR_ENABLE_EVENT_LOG": "0",
    "PYTHONUNBUFFERED": "1",
}
"""Switches of Flower 1.41: usage figures, update checks, package installs, tracing, other ways to log in."""


def flower_environment(place: HolderPlace) -> dict[str, str]:
    """The environment of the SuperNode; the system's proxies do not apply: the node connects to one address alone."""
    kept = {name: value for name, value in os.environ.items() if not _is_proxy(name)}
    return kept | _QUIET | {"FLWR_HOME": str(flower_home(place))}


def quieten(place: HolderPlace) -> None:
    """The same for this process, which may have loaded Flower already."""
    for name in [name for name in os.environ if _is_proxy(name)]:
        del os.environ[name]
    os.environ.update(_QUIET | {"FLWR_HOME": str(flower_home(place))})
    telemetry = sys.modules.get("flwr.supercore.telemetry")
    if telemetry is not None:
        vars(telemetry)["FLWR_TELEMETRY_ENABLED"] = "0"  # it was read when the module was loaded


def flower_home(place: HolderPlace) -> Path:
    """Where Flower keeps what it keeps."""
    return place.own(NODE) / "flower"


def _is_proxy(name: str) -> bool:
    return name.upper().endswith("_PROXY")
