"""What Flower finds in the environment of our processes: nothing that phones home, and no home but ours."""

from __future__ import annotations

import logging
import os
import sys

from server.settings import FLOWER_HOME, ServerPlace

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_TELEMETRY_LOGGING": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TRACING_ENABLED": "0",
    "FLWR_OIDC_ENABLED": "0",
    "FLWR_ENABLE_EVENT_LOG": "0",
    "FLWR_INTERNAL_GRPC_CONTROL_API": "0",
    "FLWR_INTERNAL_GRPC_FLEET_API": "0",
}
"""Switches of Flower 1.41: usage figures, update checks, package installs, tracing, other ways to log in, old ports."""


def flower_environment(place: ServerPlace) -> dict[str, str]:
    """The environment of a Flower process of this folder; proxies of the system do not apply to it."""
    kept = {name: value for name, value in os.environ.items() if not _is_proxy(name)}
    return kept | QUIET | {"FLWR_HOME": str(place.own(FLOWER_HOME))}


def quieten(place: ServerPlace) -> None:
    """The same for this process, which may have loaded Flower already; several requests a second are no news either."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in filter(_is_proxy, tuple(os.environ)):
        del os.environ[name]
    os.environ.update(QUIET | {"FLWR_HOME": str(place.own(FLOWER_HOME))})
    telemetry = sys.modules.get("flwr.supercore.telemetry")
    if telemetry is not None:
        vars(telemetry)["FLWR_TELEMETRY_ENABLED"] = "0"  # it was read when the module was loaded


def _is_proxy(name: str) -> bool:
    return name.upper().endswith("_PROXY")
