"""`migrafed holder init DIR`: make a holder's folder with its settings, policy and keys."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
from pathlib import Path
from typing import Any

from clients.holder_folder import SOCKET, make_holder, node_fingerprint
from clients.joining import identity_of
from clients.settings import HolderFile
from migrafed.questions import Questions
from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError
from protocol.plan import parse_config


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Ask for what was not given, check all of it, then make the folder."""
    values = _values(options, Questions(as_json=options.json))
    place = make_holder(options.folder, parse_config(HolderFile, values, where="holder.toml"))
    identity, node = identity_of(place).public.hex(), node_fingerprint(place)
    payload = {
        "holder": place.name,
        "file": str(place.file),
        "folder": str(place.folder),
        "identity": identity,
        "node": node,
    }
    answer = f"joining-{place.name}.json"
    facts = [
        ("settings", f"{place.file}: read [privacy], it is your policy"),
        ("identity", identity),
        ("node key", node),
        ("keys", f"{place.folder / 'keys'}: back them up, and give them to nobody"),
        (
            "next",
            shlex.join(["migrafed", "holder", "join", "INVITATION", "--holder", str(options.folder), "--out", answer]),
        ),
    ]
    return Outcome(payload, f"SUCCESS holder '{place.name}' made", facts)


def _values(options: argparse.Namespace, questions: Questions) -> dict[str, Any]:
    name = options.name or questions.text("Name of the holder", flag="--name")
    data = options.data or Path(questions.text("Folder of its rows", flag="--data"))
    epsilon = options.max_epsilon or questions.text("Largest epsilon of the period", flag="--max-epsilon")
    delta = options.delta or questions.text("Delta", flag="--delta", default="1e-7" if questions.allowed else None)
    year = str(dt.datetime.now(dt.UTC).year)
    population = options.population or questions.text("Whose records they are", flag="--population", default="people")
    privacy: dict[str, Any] = {
        "holder": name,
        "population": population,
        "period": options.period or questions.text("Period of the budget", flag="--period", default=year),
        "max_epsilon": _number(epsilon, "--max-epsilon"),
        "delta": _number(delta, "--delta"),
        "contributions": options.contributions,
        "least_noise_multiplier": _number(options.least_noise_multiplier, "--least-noise-multiplier"),
        "clip_norm": _number(options.clip_norm, "--clip-norm"),
        "pushes": {"allow": options.pushes, "made_up": options.made_up},
        "aggregation": {"allow": list(options.allow)},
    }
    if options.population_size is not None:
        privacy["population_size"] = options.population_size
    values: dict[str, Any] = {
        "holder": {"name": name, "socket": SOCKET},
        "data": {"folder": str(_seen_from(options.folder, data))},
        "privacy": privacy,
    }
    if options.node_user is not None:
        values["holder"]["node_user"] = options.node_user
    if options.node_port is not None:
        values["node"] = {"port": options.node_port}
    return values


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{flag} '{text}' is not a number; write it as 2 or 1e-7") from None


def _seen_from(folder: Path, data: Path) -> Path:
    """The data as the settings name it: relative where it lies inside the holder's folder."""
    inside = os.path.relpath(data.absolute(), folder.absolute())
    return data.absolute() if inside.startswith("..") else Path(inside)
