"""Keeps a SuperLink running: started as a child, started again when it ends, ended when asked to.

One process watches over one folder, in front (``up(place)``) or behind (``up(place, detach=True)``). It leaves
``link.json``, what it is doing, and holds ``link.lock`` while it lives, so that nobody has to believe a process number
that is on a disk: a process is ended only while it provably is the one that holds the lock. When the watching process
is killed, its SuperLink ends by itself, for it watches a pipe.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from protocol.errors import LinkError, MigrafedError, PlanError, StorageError
from protocol.files import write_whole
from server.link.authority import check
from server.link.environment import flower_environment
from server.link.locks import is_held, sole
from server.link.ports import healthy, listeners
from server.settings import FLOWER_HOME, LOGS, ServerPlace, load_server

LOCK_FILE, STATE_FILE, ERRORS_FILE, WATCH_FILE = "link.lock", "link.json", "link.err", "supervisor.log"
START_SECONDS, STOP_SECONDS = 90.0, 15.0
_BACK_OFF, _LONGEST_BACK_OFF, _WELL_AFTER = 1.0, 30.0, 60.0
_LOOK_SECONDS, _MISSED_LOOKS = 10.0, 6
"""A SuperLink that did not answer for a minute is started again."""
_TICK = 0.2
_SAID_BYTES = 1500
LEAST_FREE = 32_000_000
"""Bytes of disk without which nothing is started."""
Say = Callable[[str], object]


@dataclass(frozen=True)
class LinkState:
    """What is known of a folder's SuperLink.

    Args:
        running: Whether a process watches over it.
        healthy: Whether both of its ports answer.
        process: Number of the watching process; 0 if there is none.
        since: When it was started, ISO 8601; empty if never.
        starts: How often the SuperLink was started since then; above 1 it has ended before.
        said: Why it ended the last time; empty if it did not.
    """

    running: bool
    healthy: bool
    process: int = 0
    since: str = ""
    starts: int = 0
    said: str = ""


def up(
    place: ServerPlace,
    *,
    detach: bool = False,
    say: Say = lambda text: None,
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Start the SuperLink and watch over it until TERM or Ctrl-C; detached: return as soon as it answers.

    Args:
        place: The coordinator's folder.
        detach: Leave a process behind that watches over it.
        say: Told in one line each what happens.
        ready: Called whenever the SuperLink has come up; detached: once, before this returns.

    Raises:
        PlanError: keys or certificates are missing, expired, open to others, or do not fit; nothing was started.
        LinkError: a port is in use, a SuperLink of this folder is running, or it does not come up.
        StorageError: the folder cannot be written.
    """
    _look_over(place, say)
    if is_held(place.own(LOCK_FILE)):
        raise LinkError(_running_already(place))
    _wait_until_gone(place)  # one whose watching process was killed is about to end
    _check_room(place)
    for port in listeners(place):
        port.close()
    try:
        place.own(LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {place.own(LOGS)} ({error.strerror}); nothing was started") from None
    if detach:
        _leave_behind(place)
        say(f"the SuperLink answers at port {place.config.server.port}")
        ready()
        return
    with sole(place.own(LOCK_FILE), _running_already(place)), _told_to_stop() as stopped:
        _Watch(place, stopped, say, ready).run()


def down(place: ServerPlace) -> bool:
    """End the SuperLink and what watches over it; false if none was running.

    Raises:
        LinkError: it cannot be ended by this user.
    """
    if not is_held(place.own(LOCK_FILE)):
        return False
    process = _noted(place).process
    try:
        handle = os.pidfd_open(process)
    except (ProcessLookupError, OverflowError):
        handle = None
    except OSError as error:
        raise LinkError(f"cannot reach process {process} ({error.strerror}); see {place.own(STATE_FILE)}") from None
    if handle is not None:
        try:  # the handle is of the process that holds the lock, if the lock is held and noted for it even now
            if is_held(place.own(LOCK_FILE)) and _noted(place).process == process:
                _end(handle, process)
        finally:
            os.close(handle)
    _wait_until_gone(place)
    return True


def state(place: ServerPlace) -> LinkState:
    """What is known of the SuperLink now; both ports are asked."""
    running = is_held(place.own(LOCK_FILE))
    noted = _noted(place)
    well = running and _answers(place)
    return LinkState(running, well, noted.process if running else 0, noted.since, noted.starts, noted.said)


class _Watch:
    """Starts the SuperLink, again and again."""

    def __init__(self, place: ServerPlace, stopped: Callable[[], bool], say: Say, ready: Callable[[], object]) -> None:
        self._place, self._stopped, self._say, self._ready = place, stopped, say, ready
        self._state = LinkState(True, False, os.getpid(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    def run(self) -> None:
        """Until told to stop.

        Raises:
            LinkError: it does not come up the first time.
        """
        rest = _BACK_OFF
        while not self._stopped():
            self._note(starts=self._state.starts + 1, healthy=False)
            began = time.monotonic()
            with self._child() as child:
                came_up = self._comes_up(child)
                if came_up:
                    self._say("the SuperLink is up")
                    self._note(healthy=True)
                    self._ready()
                    self._until_it_fails(child)
            if self._stopped():
                break
            said = self._why(child)
            if not came_up and self._state.starts == 1:
                raise LinkError(said)
            rest = _BACK_OFF if time.monotonic() - began > _WELL_AFTER else rest
            self._say(f"{said}; starting it again in {rest:.0f} s")
            self._note(healthy=False, said=said)
            self._pause(rest)
            rest = min(2 * rest, _LONGEST_BACK_OFF)

    @contextmanager
    def _child(self) -> Iterator[subprocess.Popen[bytes]]:
        errors = self._place.own(LOGS) / ERRORS_FILE
        command = [sys.executable, "-P", "-m", "server.link.superlink", str(self._place.folder), "--until-stdin-closes"]
        with errors.open("wb") as log:
            child = subprocess.Popen(  # noqa: S603  our own module
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=flower_environment(self._place),
                start_new_session=True,  # Ctrl-C at a terminal is for us; we tell the child
            )  # fmt: skip
        try:
            yield child
        finally:
            if child.stdin is not None:
                child.stdin.close()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _comes_up(self, child: subprocess.Popen[bytes]) -> bool:
        ends = time.monotonic() + START_SECONDS
        while child.poll() is None and not self._stopped() and time.monotonic() < ends:
            if _answers(self._place):
                return child.poll() is None
            time.sleep(_TICK)
        return False

    def _until_it_fails(self, child: subprocess.Popen[bytes]) -> None:
        looked, missed = time.monotonic(), 0
        while child.poll() is None and not self._stopped() and missed < _MISSED_LOOKS:
            time.sleep(_TICK)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                missed = 0 if _answers(self._place) else missed + 1
                looked = time.monotonic()
        if missed == _MISSED_LOOKS:
            child.kill()  # it may be stopped, and then no word reaches it

    def _why(self, child: subprocess.Popen[bytes]) -> str:
        with (self._place.own(LOGS) / ERRORS_FILE).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _SAID_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        return f"the SuperLink ended ({how}){': ' + lines[-1] if lines else ''}; see logs/link.log"

    def _pause(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self._stopped():
            time.sleep(_TICK)

    def _note(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        text = json.dumps(asdict(self._state), indent=1)
        with suppress(OSError):  # a full disk is no reason to end a SuperLink that works
            write_whole(self._place.own(STATE_FILE), lambda path: path.write_text(text, encoding="utf-8"))


def _look_over(place: ServerPlace, say: Say) -> None:
    findings = check(place, dt.datetime.now(dt.UTC))
    for finding in findings:
        if not finding.stops:
            say(finding.text)
    if stopping := [finding.text for finding in findings if finding.stops]:
        raise PlanError("; ".join(stopping))


def _check_room(place: ServerPlace) -> None:
    """A SuperLink that cannot write its database ends without being able to say why."""
    free = shutil.disk_usage(place.folder).free
    if free < LEAST_FREE:
        raise StorageError(
            f"{free / 1e6:.1f} MB are free at {place.folder}, and a SuperLink needs {LEAST_FREE / 1e6:.0f} for its "
            "database and log; make room, nothing was started"
        )
    if not os.access(place.folder, os.W_OK):
        raise StorageError(f"{place.folder} cannot be written to, so nothing was started; see its mode and its disk")


def _leave_behind(place: ServerPlace) -> None:
    """Start a process that watches, and wait until the SuperLink answers."""
    path = place.own(LOGS) / WATCH_FILE
    with path.open("wb") as log, Path(os.devnull).open("rb") as nothing:
        streams = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 0)]
        streams += [(os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2)]
        command = [sys.executable, "-P", "-m", "server.link.supervisor", str(place.folder)]
        # Not a Popen: this process does not wait for it, and may be gone long before it.
        process = os.posix_spawn(sys.executable, command, os.environ, file_actions=streams, setsid=True)
    ends = time.monotonic() + START_SECONDS
    while not (gone := os.waitpid(process, os.WNOHANG)[0]) and time.monotonic() < ends:
        if _noted(place).process == process and _noted(place).healthy:
            return
        time.sleep(_TICK)
    if not gone:
        os.kill(process, signal.SIGTERM)  # our own child, not waited for yet: the number is still its own
        os.waitpid(process, 0)
    said = path.read_text("utf-8", "replace").strip().splitlines()
    raise LinkError(said[-1] if said else f"the SuperLink did not answer within {START_SECONDS:.0f} s; see logs/")


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    told: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda got, frame: told.append(got))
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(handle: int, process: int) -> None:
    """TERM, and KILL to one that does not listen; by its handle."""
    try:
        for number, seconds in ((signal.SIGTERM, 2 * STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:
                return
    except ProcessLookupError:
        return
    except PermissionError:
        raise LinkError(f"process {process} belongs to another user; end it as that user") from None


def _wait_until_gone(place: ServerPlace) -> None:
    locks = (place.own(LOCK_FILE), place.own(FLOWER_HOME) / "superlink.lock")
    ends = time.monotonic() + STOP_SECONDS
    while any(map(is_held, locks)):
        if time.monotonic() > ends:
            raise LinkError(f"a SuperLink still works in {place.folder}; see {place.own(STATE_FILE)}")
        time.sleep(_TICK)


def _answers(place: ServerPlace) -> bool:
    try:
        return healthy(place)
    except PlanError:
        return False


def _noted(place: ServerPlace) -> LinkState:
    try:
        return LinkState(**json.loads(place.own(STATE_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return LinkState(running=False, healthy=False)


def _running_already(place: ServerPlace) -> str:
    return f"a SuperLink of {place.folder} is running already; end it with 'migrafed server down'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch in the foreground; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.link.supervisor", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where server.toml lies")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        up(load_server(given.folder), say=lambda text: sys.stderr.write(f"{text}\n"))
    except MigrafedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
