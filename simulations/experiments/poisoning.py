"""What dishonest holders can spoil under either promise: masked sums, or robust rules over updates that are seen.

    python -m simulations.experiments.poisoning --out FILE.json

*Worlds.* Both are made up, under private plans. Forecasts (`dhgsil`): daily counts between 2 n regions, two of them at
each of n holders, released once with noise (epsilon 4 for a person of 4 contributions), then a small model trained for
3 rounds. Persons (`integration`): rows of a made-up city (own features, K = 0) dealt to n operators at random, logistic
regression by DP-SGD (epsilon 4), 3 rounds. Holders: n = 5 with k = 1 dishonest, and n = 7 with k = 2 who collude.

*Modes.* ``secure``: masked sums through the real protocol; honest holders shorten their updates to `update_norm`,
dishonest ones do not. ``median``, ``trimmed_mean`` (trim .2 at n = 5, .3 at n = 7: k on either side) and ``norm_bound``
(`update_norm`): robust rules over updates that the coordinator sees.

*Attacks* are those of `simulations.experiments.dishonest.ATTACKS`; "none" is the baseline, in the same table.

**Declared before the run.** Every cell of the grid is reported, whatever it shows; no seed is left out.

damage
    Loss of the final model over that of the secure run of the same seed without attack, both on clean test data of the
    honest holders. Forecasts: RMSE of log1p against the raw counts off the diagonal. Persons: 1 - AUC of settled
    against local, on the half of week 2 that nobody trained on. 1 is no damage. Scores are cut off at 1e6 before they
    are compared, so that garbage has a finite loss.
backdoor success
    Forecasts: of the test forecasts of honest holders' pairs with the trigger in their history, the share that went at
    least half of the way from the clean forecast to the planted value. Persons: of honest holders' settled test
    persons with the trigger, the share that is called local (score below 0). It is given for all attacks: without a
    backdoor it is what the trigger does by itself.
stopped
    Runs that ended with an error, and with which: a masked sum beyond its range, an honest holder whose loss was not
    finite. No model comes of them, so they have no damage: they are counted beside it.
alarm
    Runs in which the validation error of a round was more than 10 % above the lowest one before it. Forecasts alone:
    private training measures none. What it shows without an attack are its false alarms.

Over seeds: the geometric mean of damage, with a 95 % interval (t on logs); the mean of success; counts of the others.
Seeds change the world or the dealing, the release, the weights and the batches. Noise of DP-SGD comes from the system's
randomness, so persons' figures differ a little from run to run.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from protocol.files import write_whole
from simulations.experiments.dishonest import ATTACKS
from simulations.experiments.poisoned_worlds import ForecastWorld, PersonWorld, World, city_rows

MODES = ("secure", "median", "trimmed_mean", "norm_bound")
COHORTS = {5: 1, 7: 2}
"""Holders, and how many of them are dishonest."""
SEEDS = {5: 5, 7: 3}
NO_STATISTICS = ("integration", "statistics x30")
"""Private training sums nothing before it starts."""


@dataclass(frozen=True)
class Case:
    """One training."""

    task: str
    holders: int
    dishonest: int
    mode: str
    attack: str
    seed: int

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return ", ".join(str(value) for value in asdict(self).values())


def cases(tasks: Sequence[str], seeds: dict[int, int]) -> Iterator[Case]:
    """The whole grid, seed after seed; the baseline of a seed comes first."""
    for seed in range(max(seeds.values())):
        for task in tasks:
            for holders, dishonest in COHORTS.items():
                if seed >= seeds[holders]:
                    continue
                for attack in ATTACKS:
                    if (task, attack) != NO_STATISTICS:
                        for mode in MODES:
                            yield Case(task, holders, dishonest, mode, attack, seed)


def measure(case: Case, world: World) -> dict[str, Any]:
    """Train and score one case."""
    return asdict(case) | world.outcome(mode=case.mode, attack=ATTACKS[case.attack], dishonest=case.dishonest)


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each task, cohort, attack and mode; see the top of the module."""
    base = {
        (r["task"], r["holders"], r["seed"]): r["loss"]
        for r in results
        if (r["mode"], r["attack"]) == ("secure", "none")
    }
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in results:
        groups.setdefault((r["task"], r["holders"], r["dishonest"], r["attack"], r["mode"]), []).append(r)
    lines = []
    for (task, holders, dishonest, attack, mode), runs in groups.items():
        whole = [r for r in runs if r["stopped"] is None]
        logs = np.log([r["loss"] / base[task, holders, r["seed"]] for r in whole])
        lines.append({
            "task": task, "holders": holders, "dishonest": dishonest, "attack": attack, "mode": mode,
            "runs": len(runs), "stopped": len(runs) - len(whole),
            "causes": sorted({r["stopped"] for r in runs} - {None}),
            "damage": float(np.exp(logs.mean())) if whole else None, "interval": _interval(logs),
            "success": float(np.mean([r["success"] for r in whole])) if whole else None,
            "loss": float(np.mean([r["loss"] for r in whole])) if whole else None,
            "alarms": sum(bool(r["alarm"]) for r in runs),
        })  # fmt: skip
    return lines


def _interval(logs: np.ndarray) -> tuple[float, float] | None:
    """95 % of the geometric mean; none for fewer than two runs."""
    if len(logs) < 2:
        return None
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def table(lines: Sequence[dict[str, Any]], *, task: str, holders: int) -> str:
    """Markdown: a row for each attack, and for each mode damage with its interval, success, and runs stopped."""
    chosen = [line for line in lines if (line["task"], line["holders"]) == (task, holders)]
    rows = [["attack", *MODES], ["---"] * (1 + len(MODES))]
    for attack in dict.fromkeys(line["attack"] for line in chosen):
        cells = {line["mode"]: _cell(line) for line in chosen if line["attack"] == attack}
        rows.append([attack, *(cells.get(mode, "") for mode in MODES)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(line: dict[str, Any]) -> str:
    parts = []
    if line["damage"] is not None:
        low_high = line["interval"]
        spread = "" if low_high is None else f" ({low_high[0]:.3g} .. {low_high[1]:.3g})"
        parts.append(f"{line['damage']:.3g}{spread}; {100 * line['success']:.0f} %")
    if line["stopped"]:
        parts.append(f"stopped {line['stopped']} of {line['runs']}")
    if line["alarms"]:
        parts.append(f"alarm {line['alarms']}")
    return "; ".join(parts)


def main() -> None:
    """Parse arguments, measure what the file does not hold yet, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["dhgsil", "integration"], choices=["dhgsil", "integration"])
    parser.add_argument("--seeds", type=int, nargs=2, default=list(SEEDS.values()), help="at 5 and at 7 holders")
    parser.add_argument("--scale", type=float, default=0.005, help="of the made-up city")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    results = json.loads(given.out.read_text())["results"] if given.out.is_file() else []
    done = {Case(**{name: r[name] for name in Case.__dataclass_fields__}).key for r in results}
    left = [case for case in cases(given.tasks, dict(zip(COHORTS, given.seeds, strict=True))) if case.key not in done]
    rows = city_rows(given.scale) if any(case.task == "integration" for case in left) else None
    worlds: dict[tuple[str, int, int], World] = {}
    for case in left:
        place = (case.task, case.holders, case.seed)
        if place not in worlds:
            worlds[place] = (
                ForecastWorld(case.holders, case.seed)
                if rows is None or case.task == "dhgsil"
                else PersonWorld(case.holders, case.seed, rows)
            )
        results.append(measure(case, worlds[place]))
        text = json.dumps({"results": results, "summary": summary(results)}, indent=1)
        write_whole(given.out, lambda path, text=text: path.write_text(text))
    lines = summary(results)
    for task in given.tasks:
        for holders, dishonest in COHORTS.items():
            print(f"\n{task}, {dishonest} of {holders} holders dishonest\n")
            print(table(lines, task=task, holders=holders))


if __name__ == "__main__":
    main()
