"""The outbox log: a line is on the disk or nothing leaves; whatever was changed shows, what a crash left does not."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.service import outbox as outbox_module
from clients.service.outbox import LONGEST_TEXT, Outbox, Sent, read_outbox
from protocol.errors import PlanError, StorageError

REPLY = Sent(
    message_type="train", kind="MaskedReply", run="r", stage="s", plan_hash="ab" * 32, bytes=7, sha256="cd" * 32
)  # fmt: skip
REFUSED = Sent(message_type="query", kind="refusal", code="RefusedError", text="because 5 < 7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


def written(path: Path, *lines: Sent) -> bytes:
    with Outbox(path) as outbox:
        for line in lines:
            outbox.write(line)
    return path.read_bytes()


def test_lines_are_read_as_they_were_written(path: Path) -> None:
    with Outbox(path) as outbox:
        assert [outbox.write(REPLY), outbox.write(REFUSED)] == [1, 2]
        assert outbox.length == 2
    with Outbox(path) as outbox:
        assert outbox.write(REPLY) == 3
    lines = read_outbox(path)
    assert [line.number for line in lines] == [1, 2, 3]
    assert (lines[0].kind, lines[0].bytes, lines[0].sha256, lines[0].plan_hash) == (
        "MaskedReply",
        7,
        "cd" * 32,
        "ab" * 32,
    )
    assert (lines[1].code, lines[1].text, lines[1].bytes) == ("RefusedError", "because 5 < 7", 0)
    assert path.stat().st_mode & 0o777 == 0o600


def test_there_are_no_lines_without_a_file(path: Path) -> None:
    assert read_outbox(path) == ()
    assert not path.exists()


@given(text=st.text(max_size=60), name=st.text(max_size=20))
def test_any_text_is_one_line(text: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Line breaks, quotes and halves of characters: nothing can look like a line of its own."""
    path = tmp_path_factory.mktemp("outbox") / "o.jsonl"
    content = written(path, Sent(message_type=name, kind="refusal", text=text), REPLY)
    assert content.count(b"\n") == 2
    first, _ = read_outbox(path)
    assert (first.message_type, first.text) == (name, text)


def test_long_texts_are_cut(path: Path) -> None:
    written(path, Sent(message_type="train", kind="refusal", text="x" * (LONGEST_TEXT + 1)))
    assert read_outbox(path)[0].text == "x" * LONGEST_TEXT


def test_an_incomplete_last_line_is_left_out_and_cut_off_by_the_next_agent(path: Path) -> None:
    """At every byte: the line was not finished, so what it is about did not leave."""
    whole = written(path, REPLY, REFUSED)
    end = whole.index(b"\n") + 1
    for cut in range(end, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(read_outbox(path)) == 1
        assert path.read_bytes() == whole[:cut], "reading changes nothing"
        with Outbox(path) as outbox:
            assert path.read_bytes() == whole[:end]
            assert outbox.write(REFUSED) == 2
        assert [line.kind for line in read_outbox(path)] == ["MaskedReply", "refusal"]


def test_a_changed_byte_shows_wherever_it_is(path: Path) -> None:
    whole = written(path, REPLY, REFUSED, REPLY)
    inner = len(whole) - 1
    for place in range(0, inner, 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(StorageError, match=r"line \d of .* is not what was written there"):
            read_outbox(path)
        with pytest.raises(StorageError, match="is not what was written there"), Outbox(path):
            pass
        assert path.read_bytes() == bytes(changed), "a damaged log is evidence"


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [b"", *lines],
        lambda lines: [b"[]", *lines],
        lambda lines: [b'{"body":[],"chain":""}', *lines],
        lambda lines: [b"[" * 100_000, *lines],
        lambda lines: [lines[0].replace(b'"bytes":7', b'"bytes": 7'), *lines[1:]],
    ],
)
def test_lines_left_out_or_put_in_show(edit: Callable[[list[bytes]], list[bytes]], path: Path) -> None:
    lines = written(path, REPLY, REFUSED, REPLY).splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in edit(lines)))
    with pytest.raises(StorageError, match="is not what was written there"):
        read_outbox(path)


@pytest.mark.parametrize(
    ("key", "value"), [("bytes", True), ("bytes", 7.0), ("text", None), ("more", 1), ("number", 2)]
)
def test_values_of_another_kind_are_no_line(key: str, value: Any, path: Path) -> None:
    """Even with a chain value that fits."""
    body = json.loads(written(path, REPLY))["body"] | {key: value}
    path.write_bytes(outbox_module._line_of(body, "0" * 64)[0])
    with pytest.raises(StorageError, match="line 1 of"):
        read_outbox(path)


def test_a_second_agent_is_refused(path: Path) -> None:
    with Outbox(path) as outbox:
        with pytest.raises(PlanError, match=r"another agent writes to .*; one holder has one agent"):
            Outbox(path)
        assert outbox.write(REPLY) == 1
        assert len(read_outbox(path)) == 1


@pytest.mark.parametrize("fails", ["write", "fsync", "ftruncate"])
def test_what_cannot_be_written_leaves_no_trace(fails: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or failing disk, in each call: nothing is counted, the half line is gone, and later it goes on."""
    with Outbox(path) as outbox:
        outbox.write(REPLY)
        before = path.read_bytes()
        half = os.write
        calls = {"write": half, "fsync": os.fsync, "ftruncate": os.ftruncate}

        def full(file: int, content: Any = b"") -> int:
            if len(content) > 20:
                return half(file, content[:20])  # some of it fits
            raise OSError(errno.ENOSPC, "No space left on device")

        def failing(*args: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(outbox_module.os, "write", full if fails != "fsync" else calls["write"])
            if fails != "write":
                patch.setattr(outbox_module.os, fails, failing)
            for _ in range(3):
                with pytest.raises(StorageError, match=r"cannot be written .*so nothing leaves; make room"):
                    outbox.write(REFUSED)
            assert len(read_outbox(path)) <= 2
            assert outbox.length == 1
            if fails != "ftruncate":
                assert path.read_bytes() == before
        assert outbox.write(REPLY) == 2
    assert [line.kind for line in read_outbox(path)] == ["MaskedReply", "MaskedReply"]


def test_a_real_limit_of_the_file_system_is_the_same(path: Path) -> None:
    """A process that may not write files beyond 1000 bytes: the kernel itself refuses, in the middle of a line."""
    code = f"""
import resource
from pathlib import Path
from clients.service.outbox import Outbox, Sent
from protocol.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with Outbox(Path({str(path)!r})) as outbox:
    done = 0
    try:
        while True:
            done = outbox.write(Sent(message_type="train", kind="TrainReply"))
    except StorageError as error:
        print(done, outbox.length, Path({str(path)!r}).stat().st_size % 1000 != 0, "File too large" in str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    print(outbox.write(Sent(message_type="train", kind="EvaluateReply")))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    done = int(shown[0])
    assert shown == [str(done), str(done), "True", "True", str(done + 1)]
    assert [line.kind for line in read_outbox(path)] == ["TrainReply"] * done + ["EvaluateReply"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("change", ["moved", "deleted", "longer", "shorter"])
def test_a_file_that_was_changed_meanwhile_takes_no_line(change: str, path: Path) -> None:
    """A line in a file that nobody will look at is no line."""
    with Outbox(path) as outbox:
        outbox.write(REPLY)
        content = path.read_bytes()
        if change == "moved":
            path.rename(path.with_suffix(".old"))
            path.write_bytes(content)
        elif change == "deleted":
            path.unlink()
        else:
            path.write_bytes(content + b"more\n" if change == "longer" else content[:-5])
        with pytest.raises(StorageError, match="so nothing leaves"):
            outbox.write(REPLY)
        assert outbox.length == 1


def test_a_clock_that_is_put_back_changes_no_order(path: Path) -> None:
    """Numbers are the order; times are what the clock said."""
    told = iter([dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC), dt.datetime(2026, 4, 1, 12, tzinfo=dt.UTC)])
    with Outbox(path, now=lambda: next(told)) as outbox:
        assert (outbox.write(REPLY), outbox.write(REPLY)) == (1, 2)
    assert [(line.number, line.time[:10]) for line in read_outbox(path)] == [(1, "2026-05-01"), (2, "2026-04-01")]


def test_the_clock_is_that_of_the_machine_in_utc(path: Path) -> None:
    written(path, REPLY)
    told = dt.datetime.fromisoformat(read_outbox(path)[0].time)
    assert abs((dt.datetime.now(dt.UTC) - told).total_seconds()) < 60
    assert told.utcoffset() == dt.timedelta(0)


def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no-folder"):
        Outbox(tmp_path / "no-folder" / "outbox.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        read_outbox(tmp_path)


@pytest.mark.parametrize("fails", ["ftruncate", "fsync"])
def test_a_log_that_cannot_be_taken_over_is_named(
    fails: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    written(path, REPLY)

    def failing(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_module.os, fails, failing)
        with pytest.raises(StorageError, match="Input/output error"):
            Outbox(path)
    with Outbox(path) as outbox:
        assert outbox.write(REPLY) == 2
