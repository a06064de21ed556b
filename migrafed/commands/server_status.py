"""`migrafed server status`: the SuperLink, members and runs, once or again and again."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError
from protocol.membership import utc
from server.overview import MemberSeen, Overview, RunSeen, StageSeen, as_json, look
from server.settings import ServerPlace, load_server

SECONDS = 2.0
"""Between two looks of --watch."""
_STYLES = {"online": "green", "running": "green", "finished": "green", "away": "red", "damaged": "red"}


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Look once; with --watch until Ctrl-C, and then say how it was last."""
    place = load_server(options.server)
    if options.watch:
        if options.json:
            raise InputError("--watch is for people and --json for machines; give one of them")
        overview = _watched(place)
    else:
        overview = look(place)
    well = overview.link.healthy and not overview.problem
    above = [] if options.json or options.watch else list(_lines(overview))
    title = "SUCCESS the SuperLink is up" if well else "FAILED the SuperLink is not up"
    return Outcome(as_json(overview), title, list(_facts(place, overview)), above=above, exit_code=0 if well else 1)


def _watched(place: ServerPlace) -> Overview:
    overview = look(place)
    console = Console(file=sys.stderr)  # stdout is for what libraries print, which goes to the log
    live = Live(_table(overview), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with live, suppress(KeyboardInterrupt):
        while True:
            live.update(_table(overview), refresh=True)
            time.sleep(SECONDS)
            overview = look(place)
    return overview


def _lines(overview: Overview) -> list[str]:
    """The tables as text of the terminal's width."""
    console = Console(file=sys.stderr)
    with console.capture() as shown:
        console.print(_table(overview))
    return [line.rstrip() for line in Text.from_ansi(shown.get()).plain.splitlines()]


def _table(overview: Overview) -> RenderableType:
    members = Table("holder", "node", "heard of", "fingerprint of its key", box=None, title=None)
    for one in overview.members:
        members.add_row(Text(one.holder), Text(one.state, _STYLES.get(one.state, "")), _heard(one), one.fingerprint)
    runs = Table("run", "state", "stage", "done", box=None)
    for run in overview.runs:
        for place, (name, done) in enumerate(_progress(run)):
            first = place == 0
            state = Text(run.state, _STYLES.get(run.state, "yellow")) if first else Text()
            runs.add_row(Text(run.name if first else ""), state, Text(name), done)
    parts: list[RenderableType] = [table for table in (members, runs) if table.row_count]
    return Group(*parts)


def _progress(run: RunSeen) -> Iterator[tuple[str, str]]:
    if run.problem:
        yield run.problem, ""
    for stage in run.stages:
        yield stage.name, _done(stage)


def _done(stage: StageSeen) -> str:
    words = f"{stage.done} of {stage.total} rounds" if stage.kind == "rounds" else "done" if stage.over else "open"
    return f"{words}, over" if stage.kind == "rounds" and stage.over and stage.done < stage.total else words


def _heard(member: MemberSeen) -> str:
    if member.last_seen is not None:
        return f"{member.last_seen:%Y-%m-%d %H:%M:%S}"
    return f"invited until {utc(member.expires)}" if member.expires is not None else ""


def _facts(place: ServerPlace, overview: Overview) -> Iterator[tuple[str, str]]:
    link, server = overview.link, place.config.server
    yield "folder", str(place.folder)
    if link.running:
        again = f", started {link.starts} times" if link.starts > 1 else ""
        yield "link", f"process {link.process} since {link.since}{again}, port {server.port} at {server.listen}"
    else:
        yield "link", "not running; migrafed server up"
    if link.said:
        yield "it ended", link.said
    if overview.problem:
        yield "problem", overview.problem
    for finding in overview.findings:
        yield "keys", finding.text
    if overview.strangers:
        yield "strangers", f"{len(overview.strangers)} nodes are registered and no member's: {overview.strangers[:5]}"
    for run in overview.runs:
        if run.state == "stopped":
            yield "resume", shlex.join(["migrafed", "server", "resume", str(run.folder), "--server", str(place.folder)])
