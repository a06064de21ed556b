"""Flower's SuperLink in this process, with two listeners: ``python -m server.link.superlink FOLDER``.

Flower serves holders (Fleet), operators (Control) and run processes (Runtime) on one port. Here two gates stand before
it (`server.link.gates`): the port that holders reach answers to registered nodes only, the port on 127.0.0.1 only to
processes that may read ``keys/executor.secret``. Both speak TLS 1.3.

The program ends with TERM or Ctrl-C, or, with ``--until-stdin-closes``, when whoever started it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.http_logging import LOG_FORMAT, RoutineAccessFilter, UTCFormatter
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from starlette.types import ASGIApp

from protocol.errors import MigrafedError, StorageError
from server.link.authority import own_keys, read_own
from server.link.environment import flower_environment
from server.link.gates import ControlGate, PublicGate
from server.link.locks import sole
from server.link.ports import LOOPBACK, listeners
from server.link.timing import IDLE_SECONDS, TimedProtocol, allow_many_connections
from server.link.tls import server_context
from server.settings import (
    CA,
    FLOWER_HOME,
    LINK_DATABASE,
    LOGS,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    ServerPlace,
    load_server,
)

LOG_FILE, LOCK_FILE = "link.log", "superlink.lock"
_RUNNING = "another SuperLink works with this folder's database; end it with 'migrafed server down'"
_LOG_BYTES, _LOGS_KEPT = 10 * 1024 * 1024, 5
_SHUTDOWN_SECONDS = 2


class _Listener(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def flower_app(place: ServerPlace) -> tuple[ASGIApp, ASGIApp]:
    """Flower's app behind the public gate, and behind the control gate.

    Raises:
        PlanError: a key or certificate is missing.
    """
    keys = own_keys(place)
    names = {name: str(place.own(name)) for name in (CA, SERVER_CERTIFICATE, SERVER_KEY)}
    app = create_app(
        SuperLinkLifespanConfig(
            control_address=f"{LOOPBACK}:{place.config.server.control_port}",
            health_server_address=None,
            host=LOOPBACK,
            port=place.config.server.control_port,
            insecure=False,
            certificates=(keys.authority, read_own(place, SERVER_CERTIFICATE), read_own(place, SERVER_KEY)),
            superexec_auth_secret=keys.secret,
            authn_plugin=NoOpControlAuthnPlugin(),
            event_log_plugin=None,
            fleet_event_log_plugin=None,
            enable_event_log=False,
            artifact_provider=None,
            enable_supernode_auth=True,
            fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
            fleet_api_address=None,
            simulation=False,
            ssl_ca_certfile=names[CA],
            ssl_certfile=names[SERVER_CERTIFICATE],
            ssl_keyfile=names[SERVER_KEY],
            database=str(place.own(LINK_DATABASE)),
            isolation=ISOLATION_MODE_PROCESS,
            runtime_dependency_install=False,
        ),
        SuperLinkLifespan,
    )
    factory = app.state.linkstate_factory
    return (
        PublicGate(app, lambda key: factory.state().get_node_id_by_public_key(key) is not None),
        ControlGate(app, keys.secret),
    )


async def serve(place: ServerPlace, *, parent: int | None = None) -> None:
    """Serve until a signal comes, or until the pipe `parent` is closed at its other end.

    Raises:
        LinkError: a port is in use.
        PlanError: a key or certificate is missing, or cannot be used.
        StorageError: the database is damaged.
    """
    _check_database(place.own(LINK_DATABASE))
    public_socket, control_socket = listeners(place)
    with public_socket, control_socket:
        public_app, control_app = flower_app(place)
        control = _Listener(_configured(place, control_app, lifespan="on"))
        public = _Listener(_configured(place, public_app, lifespan="off"))

        def stop() -> None:
            public.should_exit = control.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        if parent is not None:
            loop.add_reader(parent, lambda: os.read(parent, 1) or (loop.remove_reader(parent), stop()))
        await asyncio.gather(control.serve([control_socket]), public.serve([public_socket]))


def _check_database(path: Path) -> None:
    """Flower would say it in a hundred lines."""
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        problem = str(error)
    if problem != "ok":
        raise StorageError(
            f"{path} cannot be used ({problem}); restore it from the backup, or put it aside: members are registered "
            "again at the next 'migrafed server up', but their nodes get other numbers"
        )


def _configured(place: ServerPlace, app: ASGIApp, *, lifespan: str) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        lifespan="on" if lifespan == "on" else "off",
        ws="none",
        http=TimedProtocol,
        timeout_keep_alive=IDLE_SECONDS,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ssl_certfile=place.own(SERVER_CERTIFICATE),
        ssl_keyfile=place.own(SERVER_KEY),
    )
    context = server_context(place)
    config.load()
    config.ssl = context
    return config


def log_to(path: Path) -> None:
    """Write what Flower and its server say to a file that is turned over when it is large."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    file = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8")
    file.setFormatter(UTCFormatter(LOG_FORMAT))
    for name in ("flwr", "uvicorn", "uvicorn.access", __package__):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [file], False
        logger.setLevel(logging.INFO)
    access = logging.getLogger("uvicorn.access")
    access.addFilter(RoutineAccessFilter())
    access.addFilter(_is_no_health_check)


def _is_no_health_check(record: logging.LogRecord) -> bool:
    """Flower leaves out what nodes ask all the time; `server.link.ports.healthy` asks all the time too."""
    match record.args:
        case (str(client), "GET", "/", *_):
            return not client.startswith(LOOPBACK)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run in the foreground; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.link.superlink", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where server.toml lies")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when whoever started this is gone")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    allow_many_connections()
    try:
        place = load_server(given.folder)
        wanted = flower_environment(place)
        if os.environ != wanted:  # Flower reads some of it when it is loaded: start again
            again = [sys.executable, "-P", "-m", "server.link.superlink", *sys.argv[1:]]
            os.execve(sys.executable, again, wanted)  # noqa: S606  ourselves
        log_to(place.own(LOGS) / LOG_FILE)
        with sole(place.own(FLOWER_HOME) / LOCK_FILE, _RUNNING):
            asyncio.run(serve(place, parent=sys.stdin.fileno() if given.until_stdin_closes else None))
    except MigrafedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
