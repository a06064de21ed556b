"""A deployed federation in which things go wrong at random: does every run end well, and do all files still hold?

    python -m simulations.experiments.chaos --faults 100 --out FILE.json

Real processes on this machine, made and run by the commands of the guide: a coordinator and three holders, TLS, node
keys, masked sums, counts released with noise. Each holder reaches the coordinator through a proxy. A service that ends
is started again a second later, as a service manager would; a run that ends before it is done is resumed. Faults come
from a shuffled deck of all kinds (`simulations.deployment.strikes`), some to each run, until the deck is empty. A last
run is left alone. All runs have the same plan but for its name, so all must end with the same bytes.

Printed and written: how often each kind came, and what became of it: *ridden out* (the run's process went on),
*resumed* (it ended after this fault and before another, and was taken up again), *stopped* (its run never was done),
*missed* (there was nothing to hit). And what was found wrong with ledgers, journals, files, models: that must be
nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from clients.settings import OUTBOX
from protocol.errors import LedgerError, LinkError
from protocol.files import write_whole
from protocol.plan import load_plan
from server.run_folder import FACTS_FILE, JOURNAL_FILE, MODEL_FILE
from simulations.benchmarks.timing import print_table
from simulations.deployment.faults import can_move_clocks
from simulations.deployment.federation import RUN, CommandError, Federation, Options
from simulations.deployment.invariants import (
    broken_journal,
    broken_ledgers,
    broken_outbox,
    drafts_in,
    other_files,
    rounds_in,
    spent_in,
    torn_files,
    witnessed,
)
from simulations.deployment.strikes import KINDS, Fault, deck, possible, strike

PLAN = Path(__file__).resolve().parents[1] / "plans" / "chaos.toml"
PATIENCE = {
    "statistics": 60, "exchange": 60, "masked": 40, "train": 60, "evaluate": 60, "arrival": 150, "least_holders": 3
}  # fmt: skip
MEAN_GAP = 9.0  # seconds between two faults
RESUMES = 12
RUN_SECONDS = 900.0
RIDDEN, RESUMED, STOPPED, MISSED = "ridden out", "resumed", "stopped", "missed"


@dataclass
class Struck:
    """One fault that was done, and what became of it."""

    fault: Fault
    run: int
    second: float
    outcome: str = RIDDEN


@dataclass
class Ran:
    """One run.

    Args:
        number: Its place among all.
        outcome: ``completed``, ``completed after resume`` or ``stopped``.
        ends: Why its process ended, each time before the last: kind of error and message.
        seconds: From its start to its end.
        rounds: Committed rounds of each stage.
    """

    number: int
    outcome: str = ""
    ends: list[str] = field(default_factory=list)
    seconds: float = 0.0
    rounds: dict[str, int] = field(default_factory=dict)


class Chaos:
    """The federation, the deck, and the book of what happened.

    Args:
        federation: Made, with its holders started.
        faults: What is to go wrong, in this order.
        per_run: Faults of each run.
        gap: Mean seconds between two faults.
        choose: Seeded.
        say: Told in one line each what happens.
    """

    def __init__(
        self,
        federation: Federation,
        faults: Sequence[Fault],
        *,
        per_run: int,
        gap: float,
        choose: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self.federation, self.struck, self.ran = federation, list[Struck](), list[Ran]()
        self.findings: list[str] = []
        self._deck, self._per_run, self._gap, self._choose, self._say = list(faults), per_run, gap, choose, say
        self._threads: list[threading.Thread] = []

    def run_all(self, after_each: Callable[[], None]) -> None:
        """Runs until the deck is empty, then one that is left alone."""
        while self._deck:
            self.run_one(self._per_run)
            after_each()
        self.run_one(0)

    def folder(self, number: int) -> Path | None:
        """Folder of a run, once there is one."""
        found = sorted((self.federation.server / "runs").glob(f"chaos-{number}-*"))
        return found[0] if found else None

    def run_one(self, faults: int) -> Ran:
        """One run, resumed until it is done, with its share of faults from the deck."""
        federation, number = self.federation, len(self.ran) + 1
        ran = Ran(number)
        self.ran.append(ran)
        plan = self._plan(number)
        federation.approve(plan)
        started, due = time.monotonic(), self._next()
        log_begins = len(_written(federation))
        service = federation.run(plan)
        while True:
            federation.look_after()
            if not service.running:
                text = _written(federation)
                end, log_begins = end_of(text[log_begins:]), len(text)
                if service.code == 0 or "holds a finished run" in end:
                    break
                ran.ends.append(f"[{service.code}] {end}")
                self._blame(number)
                self._say(f"run {number}: {ran.ends[-1][:160]}")
                if (not end and service.code != -signal.SIGKILL) or "unexpected " in end:
                    self.findings.append(f"run {number} ended with code {service.code} and no stated reason: {end}")
                if len(ran.ends) > RESUMES:
                    break
                time.sleep(1.0)
                folder = self.folder(number)
                service = federation.run(plan) if folder is None else federation.resume(str(folder))
            elif time.monotonic() - started > RUN_SECONDS:
                self.findings.append(f"run {number} did not end within {RUN_SECONDS:g} seconds")
                service.end()
                break
            elif faults and self._deck and time.monotonic() - started >= due:
                self._strike(self._deck.pop(0), number, time.monotonic() - started)
                faults, due = faults - 1, due + self._next()
            time.sleep(0.2)
        self._calm()
        ran.seconds = round(time.monotonic() - started, 1)
        self._close(ran)
        return ran

    def _close(self, ran: Ran) -> None:
        """Put down how a run ended."""
        folder = self.folder(ran.number)
        done = folder is not None and (folder / FACTS_FILE).is_file()
        ran.outcome = STOPPED if not done else "completed after resume" if ran.ends else "completed"
        if not done:
            for struck in self.struck:
                if struck.run == ran.number and struck.outcome == RIDDEN:
                    struck.outcome = STOPPED
        if folder is not None and (folder / JOURNAL_FILE).is_file():
            ran.rounds = rounds_in(folder / JOURNAL_FILE)
        self._say(f"run {ran.number}: {ran.outcome} after {ran.seconds:.0f} s, {len(ran.ends)} resume(s)")

    def _strike(self, fault: Fault, number: int, second: float) -> None:
        struck = Struck(fault, number, round(second, 1))
        self.struck.append(struck)
        self._say(f"run {number}, {second:.0f} s: {fault.kind}, {fault.holder}, {fault.seconds:g} s {fault.size or ''}")

        def do() -> None:
            if not strike(self.federation, fault):
                struck.outcome = MISSED

        thread = threading.Thread(target=do, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _blame(self, number: int) -> None:
        """The run's process ended: that is put down to the fault before."""
        before = [struck for struck in self.struck if struck.run == number and struck.outcome != MISSED]
        if before:
            before[-1].outcome = RESUMED

    def _calm(self) -> None:
        """Wait until no fault lasts any more, and all services are there again."""
        while any(thread.is_alive() for thread in self._threads):
            self.federation.look_after()
            time.sleep(0.2)
        self._threads.clear()
        holders = len(self.federation.holders)
        try:
            self.federation.until(lambda: self.federation.online() >= holders, seconds=180, what="all nodes")
        except LinkError as error:
            self.findings.append(str(error))

    def _plan(self, number: int) -> Path:
        """The plan under another name."""
        values = tomllib.loads(self.federation.plan_file.read_text(encoding="utf-8"))
        values["run"]["name"] = f"chaos-{number}"
        path = self.federation.folder / "files" / f"plan-{number}.toml"
        path.write_text(tomli_w.dumps(values), encoding="utf-8")
        return path

    def _next(self) -> float:
        return self._choose.expovariate(1 / self._gap) if self._gap else 0.0


def check(chaos: Chaos, *, verify: int) -> None:
    """Hold every file of the federation against its invariants; what does not hold becomes a finding.

    Args:
        chaos: After all runs.
        verify: So many of the runs are rechecked from their transcripts too, the last ones first.
    """
    federation = chaos.federation
    folders = {f"run {ran.number}": chaos.folder(ran.number) for ran in chaos.ran if ran.outcome != STOPPED}
    done = {name: folder for name, folder in folders.items() if folder is not None}
    journals = [folder / JOURNAL_FILE for folder in done.values()]
    for journal in journals:
        chaos.findings += broken_journal(journal)
    counts = [ran.rounds for ran in chaos.ran if ran.outcome != STOPPED]
    if any(rounds != counts[0] for rounds in counts):
        chaos.findings.append(f"runs of one plan have different rounds: {counts}")
    chaos.findings += other_files(done, MODEL_FILE)
    made = {folder.name: sum(rounds_in(folder / JOURNAL_FILE).values()) for folder in done.values()}
    for name in federation.holders:
        chaos.findings += broken_outbox(federation.holder(name) / OUTBOX, made)
        seen = [heads[name] for journal in journals if name in (heads := witnessed(journal))]
        chaos.findings += broken_ledgers(federation.holder(name), seen)
        try:
            spent = spent_in(federation.holder(name))
        except LedgerError:
            continue
        chaos.findings += [
            f"{name}: {place} has {one.campaigns} campaigns and {one.releases} releases, where one of each was made"
            for place, one in spent.items()
            if (one.campaigns, one.releases) != (1, 1)
        ]
        if not spent:
            chaos.findings.append(f"{name}: has no ledger")
    for place in (federation.server, *map(federation.holder, federation.holders)):
        chaos.findings += torn_files(place)
    for folder in list(done.values())[::-1][:verify]:
        try:
            federation.command("server", "verify", str(folder))
        except CommandError as error:
            chaos.findings.append(str(error))


def report(chaos: Chaos, *, seed: int, seconds: float) -> dict[str, Any]:
    """Everything that happened, for a file."""
    places = (chaos.federation.server, *map(chaos.federation.holder, chaos.federation.holders))
    return {
        "seed": seed,
        "seconds": round(seconds),
        "faults": [asdict(struck.fault) | {"run": struck.run, "second": struck.second, "outcome": struck.outcome}
                   for struck in chaos.struck],
        "runs": [asdict(ran) for ran in chaos.ran],
        "starts": {name: service.starts for name, service in chaos.federation.services.items()},
        "drafts_left": sum(len(drafts_in(place)) for place in places),
        "findings": chaos.findings,
    }  # fmt: skip


def print_report(result: dict[str, Any]) -> None:
    """Counts by fault and outcome, runs by outcome, and what was found."""
    outcomes = (RIDDEN, RESUMED, STOPPED, MISSED)
    counts = Counter((fault["kind"], fault["outcome"]) for fault in result["faults"])
    rows: list[list[str | float]] = []
    for kind in KINDS:
        row = [counts[kind, outcome] for outcome in outcomes]
        if any(row):
            rows.append([kind, str(sum(row)), *map(str, row)])
    rows.append(["all", str(len(result["faults"])), *(str(sum(counts[k, o] for k in KINDS)) for o in outcomes)])
    print_table("faults", ("kind", "count", *outcomes), rows)
    runs = Counter(run["outcome"] for run in result["runs"])
    print_table("runs", ("outcome", "count"), [[outcome, str(count)] for outcome, count in sorted(runs.items())])
    for finding in result["findings"]:
        print(f"found: {finding}")
    print(f"{len(result['findings'])} findings, {result['drafts_left']} drafts left, {result['seconds']} s")


def carry_out(
    folder: Path, *, faults: int, per_run: int, gap: float, seed: int, verify: int, disk_megabytes: int,
    say: Callable[[str], None], keep: Callable[[dict[str, Any]], None] = lambda result: None,
    kinds: Sequence[str] = KINDS, plan: Path = PLAN,
) -> dict[str, Any]:  # fmt: skip
    """Make a federation in a new folder, let everything go wrong, and say what came of it."""
    started, choose = time.monotonic(), random.Random(seed)
    options = Options(proxied=True, clocks=can_move_clocks(), disk_megabytes=disk_megabytes, patience=PATIENCE)
    with Federation(folder, plan, tuple(load_plan(plan).federation.holders), options) as federation:
        federation.make()
        federation.start_holders()
        say(f"a federation of {len(federation.holders)} holders is up after {time.monotonic() - started:.0f} s")
        allowed = [kind for kind in possible(federation) if kind in kinds]
        drawn = deck(faults, federation.holders, choose, allowed)
        chaos = Chaos(federation, drawn, per_run=per_run, gap=gap, choose=choose, say=say)
        chaos.run_all(lambda: keep(report(chaos, seed=seed, seconds=time.monotonic() - started)))
        federation.end_services()
        check(chaos, verify=verify)
        return report(chaos, seed=seed, seconds=time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> int:
    """The long form; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m simulations.experiments.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--per-run", type=int, default=9)
    parser.add_argument("--gap", type=float, default=MEAN_GAP, help="mean seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verify", type=int, default=3, help="runs to recheck from their transcripts")
    parser.add_argument("--disk", type=int, default=0, metavar="MIB", help="a disk of its own for everybody (root)")
    parser.add_argument("--folder", type=Path, help="where everything lies; kept (default: a temporary one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    given = parser.parse_args(arguments)

    def keep(result: dict[str, Any]) -> None:
        if given.out is not None:
            text = json.dumps(result, indent=1) + "\n"
            write_whole(given.out, lambda path: path.write_text(text, encoding="utf-8"))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    with tempfile.TemporaryDirectory(prefix="migrafed-chaos-") as temporary:
        folder = given.folder or Path(temporary) / "federation"
        result = carry_out(
            folder, faults=given.faults, per_run=given.per_run, gap=given.gap, seed=given.seed, verify=given.verify,
            disk_megabytes=given.disk, say=lambda line: print(line, file=sys.stderr, flush=True), keep=keep,
        )  # fmt: skip
    keep(result)
    print_report(result)
    return 1 if result["findings"] else 0


def _written(federation: Federation) -> str:
    """What all processes of all runs have said so far."""
    log = federation.folder / "logs" / f"{RUN}.log"
    return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""


def end_of(text: str) -> str:
    """Why a command ended, from its closing block: its title and cause; empty if it has none."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if line.startswith(("FAILED", "REFUSED", "INTERRUPTED", "SUCCESS"))]
    if not starts:
        return ""
    block = lines[starts[-1] :]
    cause = next((line.split(maxsplit=1)[1] for line in block if line.strip().startswith("cause ")), "")
    return f"{block[0]}: {cause}"


if __name__ == "__main__":
    sys.exit(main())
