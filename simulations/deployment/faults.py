"""What goes wrong with disks and clocks of a real machine, done to chosen folders and processes only.

    with small_disk(folder, megabytes=64):      # a file system of its own (needs root)
        with full(folder): ...                  # no byte is left on it: ENOSPC
    with no_room(handle): ...                   # no file of this process may grow: EFBIG; needs no rights
    with clock.moved(seconds=-3600): ...        # processes started with clock.environment live in another time

Every one of them ends with its block, and the machine is as before.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.errors import StorageError

_OFFSET = "MIGRAFED_CLOCK_OFFSET"
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static int64_t offset(void) {
    static const volatile int64_t *seconds;
    if (!seconds) {
        const char *path = getenv("MIGRAFED_CLOCK_OFFSET");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0) return 0;
        seconds = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
        if (seconds == MAP_FAILED) { seconds = 0; return 0; }
    }
    return *seconds;
}
int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, out);
    if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += offset();
    return code;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    int code = clock_gettime(CLOCK_REALTIME, &now);
    if (out) { out->tv_sec = now.tv_sec; out->tv_usec = now.tv_nsec / 1000; }
    return code;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The time of day that chosen processes see: the machine's, moved by seconds that can change at any time.

    What is measured by other clocks (pauses, timeouts of sockets) goes on undisturbed, as where a clock is set.

    Args:
        folder: For the shim, which is compiled here, and for the offset.

    Raises:
        StorageError: there is no C compiler; see `can_move_clocks`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._offset, shim, source = folder / "offset", folder / "clock.so", folder / "clock.c"
        if not can_move_clocks():
            raise StorageError("moving the clock of a process needs a C compiler (cc); install one or leave it out")
        source.write_text(_SHIM, encoding="ascii")
        subprocess.run(  # noqa: S603  the source above
            [str(shutil.which("cc")), "-O1", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True
        )
        self._offset.write_bytes(struct.pack("q", 0))
        self.environment = {"LD_PRELOAD": str(shim), _OFFSET: str(self._offset)}

    @contextmanager
    def moved(self, *, seconds: int) -> Iterator[None]:
        """Move the time of day forwards, or backwards if negative."""
        self._set(seconds)
        try:
            yield
        finally:
            self._set(0)

    def _set(self, seconds: int) -> None:
        with self._offset.open("r+b") as file:  # written in place: the processes have it mapped
            file.write(struct.pack("q", seconds))


def can_move_clocks() -> bool:
    """Whether the shim can be compiled here."""
    return shutil.which("cc") is not None


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """Put a file system of this size at an empty folder; what is on it is lost at the end.

    Raises:
        StorageError: the machine does not let this user do it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.geteuid() != 0:
        raise StorageError("a file system of its own needs root, mount and umount; use no_room instead")
    size = f"size={megabytes}m,mode=0700"
    done = subprocess.run(  # noqa: S603  a program found on the path, with arguments of our own
        [mount, "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StorageError(f"no file system could be put at {folder} ({done.stderr.strip()}); use no_room instead")
    try:
        yield
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)  # noqa: S603  see above


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder to its last byte; only for a small one of its own.

    Raises:
        StorageError: there is more room than a small disk has.
    """
    if (free := shutil.disk_usage(folder).free) > 1 << 30:
        raise StorageError(f"{folder} has {free >> 20} MiB free; only a small disk of its own is filled")
    ballast = folder / f".ballast-{secrets.token_hex(8)}"
    file = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        _fill(file)
        yield
    finally:
        os.close(file)
        ballast.unlink()


def _fill(file: int) -> None:
    piece = 1 << 20
    while piece:
        try:
            os.write(file, b"\0" * piece)
        except OSError:
            piece //= 2


@contextmanager
def no_room(pid: int) -> Iterator[None]:
    """Let no file of a process grow: every write to a file fails with EFBIG. Linux only; nothing if it has ended."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    except ProcessLookupError:
        yield
        return
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
