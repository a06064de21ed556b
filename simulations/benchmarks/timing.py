"""Timing of things that are compared: taken in turns, so that a noisy machine hits all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, wall clock and CPU of this process (all threads)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def best(self) -> float:
        """The fastest repeat by the wall clock: what the code takes when nothing else runs."""
        return min(self.wall)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu)


def alternated(cases: Mapping[str, Callable[[], object]], *, repeats: int, warmups: int = 1) -> dict[str, Timing]:
    """Time every case `repeats` times, one after the other in each repeat, after `warmups` untimed repeats."""
    wall: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(warmups + repeats):
        for name, case in cases.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            case()
            if repeat >= warmups:
                wall[name].append(time.perf_counter() - wall_start)
                cpu[name].append(time.process_time() - cpu_start)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in cases}


def tree_cpu_seconds() -> float:
    """CPU seconds so far of this process and all below it, running or waited for (reads /proc, so Linux only)."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = entry.read_text().rpartition(")")[2].split()  # a name may hold spaces and brackets
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since it was listed; its parent has its time
        children[int(values[1])].append(int(entry.parent.name))
        ticks[int(entry.parent.name)] = sum(int(value) for value in values[11:15])  # utime stime cutime cstime
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += children[process]
    return total / os.sysconf("SC_CLK_TCK")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]], *, note: str = "") -> None:
    """Print a table: first column to the left, numbers to the right with three significant digits."""
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:,.3g}" for cell in row))
    Console(soft_wrap=True).print(table)
