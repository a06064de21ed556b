"""Tables of `queries` in markdown, one after the other, from the cases of its file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from simulations.experiments.query_bias import class_names
from simulations.experiments.query_bounding import BEFORE, SORTS

Result = dict[str, Any]
RMSE, WMAPE = "relative RMSE", "WMAPE"


def tables(results: Sequence[Result]) -> str:
    """All tables of all worlds of a file."""
    lines: list[str] = []
    worlds = {json.dumps(result["setting"]): result["setting"] for result in results}
    for setting in worlds.values():
        own = [result for result in results if result["setting"] == setting]
        lines += ["", f"## {setting['queries']:,} rows, {setting['cities']} cities, {setting['days']} days, "
                  f"a step is a {setting['step']}, seed {setting['seed']}"]  # fmt: skip
        for table in (_rows, _persons, _bias, _deciles, _classes, _time, _sorts, _errors):
            lines += table(own)
    return "\n".join([*lines, *_attraction(results), *_shocks(results)])


def _of(results: Iterable[Result], part: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    return ((result["case"], result["figures"]) for result in results if result["case"]["part"] == part)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    body = [[str(cell) for cell in row] for row in rows]
    if not body:
        return []
    return ["", *(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *body])]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _rows(results: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for _, found in _of(results, "rows"):
        seen = found["found"]
        reasons = list(dict.fromkeys([*found["planted"], *seen]))
        lines += _table(
            ["reason", "planted rows", "found", "difference"],
            ((r, f"{(p := found['planted'].get(r, 0)):,}", f"{(f := seen.get(r, 0)):,}", f - p) for r in reasons),
        )
        lines += _table(["kind of row", "rows"], ((kind, f"{rows:,}") for kind, rows in found["kinds"].items()))
        lines += _table(
            [
                "rows read",
                "wanted contributions",
                "that can be found",
                "found beyond them",
                "missed",
                "cells that differ",
            ],
            [[f"{found[name]:,}" for name in ("rows", "wanted", "sure", "too many", "too few", "cells that differ")]],
        )
    return lines


def _persons(results: Sequence[Result]) -> list[str]:
    found = [figures for _, figures in _of(results, "persons")]
    return _table(list(found[0]), ([f"{value:,.4g}" if value < 1e4 else f"{value:,}" for value in row.values()]
                                   for row in found)) if found else []  # fmt: skip


def _bias(results: Sequence[Result]) -> list[str]:
    names = ("dropped", "dropped at home", "dropped between cities", "home share", "dropped to hubs",
             "dropped to other cities")  # fmt: skip
    rows = ([case["rule"], *(_share(found[name]) for name in names)] for case, found in _of(results, "bias"))
    return _table(["rule", *names], rows)


def _deciles(results: Sequence[Result]) -> list[str]:
    rows = [
        [case["rule"], *(_share(found[f"dropped in decile {number}"]) for number in range(1, 11))]
        for case, found in _of(results, "bias")
        if case["rule"] != BEFORE
    ]
    return _table(["dropped, by decile of the pair's volume", *map(str, range(1, 11))], rows)


def _classes(results: Sequence[Result]) -> list[str]:
    names = [f"{name} after" for name in class_names()]
    more = ("destinations moved", "heaviest against lightest", "expected by chance")
    rows = (
        [case["rule"], *(_share(found[name]) for name in names), *(f"{found[name]:.4f}" for name in more)]
        for case, found in _of(results, "classes")
    )
    return _table(["rule", *class_names(), *more], rows)


def _time(results: Sequence[Result]) -> list[str]:
    shares = [f"{name}, {half} half" for half in ("first", "second") for name in ("kept", "expected")]
    tests = ["kept, z of the first half", "kept, mean z squared"]
    rows = (
        [case["rule"], *(f"{100 * found[name]:.3f} %" for name in shares), *(f"{found[name]:.2f}" for name in tests)]
        for case, found in _of(results, "time")
    )
    return _table(["rule", *shares, *tests], rows)


def _sorts(results: Sequence[Result]) -> list[str]:
    names = [f"kept, {sort}" for sort in SORTS]
    rows = (
        [case["rule"], *(f"{100 * (found[name] - 1):+.2f} % (z {found[f'{name}, z']:+.1f})" for name in names)]
        for case, found in _of(results, "sorts")
    )
    return _table(["rule", *names], rows)


def _errors(results: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for kind in ("", " of the period"):
        names = [f"{what}{kind}{scale} {metric}" for what in ("cells", "inflow") for scale in ("", " rescaled")
                 for metric in (RMSE, WMAPE)]  # fmt: skip
        rows = [
            [case["k"], f"{case['epsilon']:g}" if case["epsilon"] else "none", _noise(found),
             *(f"{found[name]:.3g}" for name in names)]
            for case, found in _of(results, "error")
        ]  # fmt: skip
        rows.sort(key=lambda row: (row[1] == "none", row[1], row[0]))
        if not kind:
            rows += [["", "constant", "", *(f"{found[n]:.3g}" if n in found else "" for n in names)]
                     for _, found in _of(results, "constant")]  # fmt: skip
        lines += _table(["k", "epsilon", "noise of a cell, a margin", *names], rows)
    return lines


def _noise(found: dict[str, Any]) -> str:
    return f"{found['noise of a cell']:.1f}, {found['noise of a margin']:.1f}" if "noise of a cell" in found else "0"


def _attraction(results: Sequence[Result]) -> list[str]:
    rows = [
        [*key, len(found), *(_interval([f[name] for f in found]) for name in
         ("spearman", "spearman of plain inflow", "season", "decay"))]
        for key, found in _grouped(results)
    ]  # fmt: skip
    head = ["world", "counts", "k", "epsilon", "margins", "holders", "runs", "Spearman, estimated attraction",
            "Spearman, plain inflow", "correlation with the planted season", "decay"]  # fmt: skip
    return ["", "## Attraction", *_table(head, rows)] if rows else []


def _grouped(results: Sequence[Result]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    groups: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for result in results:
        case, setting = result["case"], result["setting"]
        if case["part"] == "attraction":
            world = f"{setting['queries']:,} rows, {setting['cities']} cities, by {setting['step']}"
            released = "epsilon" in case
            key = [world, "released" if released else case["counts"], str(case.get("k", "")),
                   f"{case['epsilon']:g}" if released else "none",
                   {True: "half", False: "none", None: ""}[case.get("margins")], case.get("scope", "")]  # fmt: skip
            groups.setdefault(json.dumps(key), (key, []))[1].append(result["figures"])
    return list(groups.values())


def _interval(values: Sequence[float]) -> str:
    """Mean, and the range of all runs."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({min(values):.3f} .. {max(values):.3f})"


def _shocks(results: Sequence[Result]) -> list[str]:
    """Error of the measured effect of each planted shock, against the effect in the planted rates."""
    rows = []
    for key, found in _grouped(results):
        pairs = np.array([pair for figures in found for pair in figures["shocks"]])
        if len(pairs):
            error = pairs[:, 0] - pairs[:, 1]
            rows.append([*key, len(pairs), f"{np.abs(pairs[:, 1]).mean():.3f}", _root(error), f"{error.mean():+.3f}"])
    head = ["world", "counts", "k", "epsilon", "margins", "holders", "shocks", "mean size in the rates", "RMSE", "mean"]
    return ["", "## Shocks", *_table(head, rows)] if rows else []


def _root(error: np.ndarray) -> str:
    return f"{np.sqrt(np.square(error).mean()):.3f}"
