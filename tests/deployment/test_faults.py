"""Faults hit whom they are meant for, and end with their block."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protocol.errors import StorageError
from simulations.deployment.faults import Clock, can_move_clocks, full, no_room, small_disk

CLOCKS = """
import datetime, json, ssl, sys, time
for _ in sys.stdin:
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    print(json.dumps([time.time(), time.time_ns() / 1e9, now, time.monotonic()]), flush=True)
"""
WRITER = """
import sys
for path in sys.stdin:
    try:
        with open(path.strip(), "ab", buffering=0) as file:
            file.write(b"x")
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a file system")


def talking(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def asked(process: subprocess.Popen[str], line: str = "") -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


@pytest.mark.skipif(not can_move_clocks(), reason="needs a C compiler")
@pytest.mark.parametrize("seconds", [-3600, 86_400])
def test_a_clock_moves_for_its_processes_alone_and_back(tmp_path: Path, seconds: int) -> None:
    clock = Clock(tmp_path / "clock")
    with talking(CLOCKS, **clock.environment) as process:
        before = json.loads(asked(process))
        with clock.moved(seconds=seconds):
            during = json.loads(asked(process))
            here = dt.datetime.now(dt.UTC).timestamp()
        after = json.loads(asked(process))
        assert process.stdin
        process.stdin.close()
    assert [value - before[0] for value in during[:3]] == pytest.approx([seconds] * 3, abs=5)
    assert [value - before[0] for value in after[:3]] == pytest.approx([0] * 3, abs=5)
    assert during[3] - before[3] == pytest.approx(0, abs=5)
    assert here == pytest.approx(time.time(), abs=5)


def test_no_file_of_the_process_grows_until_the_end(tmp_path: Path) -> None:
    place = str(tmp_path / "file")
    with talking(WRITER) as process:
        assert asked(process, place) == "0\n"
        with no_room(process.pid):
            assert asked(process, place) == f"{errno.EFBIG}\n"
            (tmp_path / "other").write_text("others may write")
        assert asked(process, place) == "0\n"
        assert process.stdin
        process.stdin.close()
    assert (tmp_path / "file").stat().st_size == 2


def test_no_room_for_a_process_that_ended_is_no_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with no_room(done.pid):
        pass


@root
def test_a_small_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    try:
        with small_disk(folder, megabytes=2):
            (folder / "before").write_bytes(b"x" * 1000)
            with full(folder):
                with pytest.raises(OSError, match="No space left"):
                    (folder / "more").write_bytes(b"x" * 100_000)
                assert (folder / "before").read_bytes() == b"x" * 1000
            (folder / "more").write_bytes(b"x" * 100_000)
    except StorageError as error:
        pytest.skip(str(error))
    assert not list(folder.iterdir())


def test_a_large_disk_is_never_filled(tmp_path: Path) -> None:
    if os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize <= 1 << 30:
        pytest.skip("this disk is small itself")
    with pytest.raises(StorageError, match="only a small disk"), full(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
