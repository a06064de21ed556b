"""Writers that are killed at random while they spend from one ledger. A program of its own: light, so forks are quick.

    python -m tests.ledger_storm FOLDER KILLS SEED      prints one JSON object with what happened

Each trial is a new ledger. Three writers reserve small campaigns and serve their rounds, some of them under the same
names, until they are killed; a new one takes over at once. Whatever `serve` returned is noted in a side file, after it
returned. At the end the notes are held against the ledger, with sums of our own.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from privacy.filters import ORDERS
from privacy.ledger import Ledger, verify_ledger
from protocol.errors import BudgetExceededError
from tests.ledgers import KEY, TERMS, gaussian_cost

WRITERS = 3
ROUNDS = 3
RHO = Fraction(6, 1000)  # about 10 campaigns fill the cap
KILLS_PER_TRIAL = 40
MEAN_SECONDS = 0.03  # between two kills


def write_until_killed(folder: Path, seed: int) -> None:
    """Reserve and serve for ever; shared names make writers meet at the same round."""
    choose = random.Random(seed)
    ledger = Ledger.open(folder, key=KEY)
    notes = os.open(folder.with_suffix(".notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def produce() -> bytes:
        time.sleep(choose.random() * 0.001)
        return os.urandom(24)

    for number in range(10**6):
        campaign = f"shared {choose.randrange(6)}" if number % 2 else f"own {seed} {number}"
        try:
            ledger.reserve(campaign, gaussian_cost(RHO), request="plan", rounds=ROUNDS)
        except BudgetExceededError:
            continue
        for round_number in range(1, ROUNDS + 1):
            answer = ledger.serve(campaign, round_number, request=f"{campaign} {round_number}", produce=produce)
            note = [campaign, round_number, sha256(answer).hexdigest()]
            os.write(notes, json.dumps(note).encode() + b"\n")


def forked_writer(folder: Path, seed: int) -> int:
    """A new writer; whatever it fails with, other than being killed, is seen by its exit status."""
    if child := os.fork():
        return child
    status = 1
    try:
        write_until_killed(folder, seed)
    finally:
        os._exit(status)


def trial(folder: Path, kills: int, choose: random.Random) -> Counter[str]:
    """One ledger, `kills` kills, and the account of it."""
    Ledger.create(folder, TERMS, KEY).close()
    figures: Counter[str] = Counter()
    writers = [forked_writer(folder, choose.randrange(10**9)) for _ in range(WRITERS)]
    for _ in range(kills):
        time.sleep(choose.expovariate(1 / MEAN_SECONDS))
        position = choose.randrange(WRITERS)
        figures += ended(writers[position])
        writers[position] = forked_writer(folder, choose.randrange(10**9))
    for writer in writers:
        figures += ended(writer)
    return figures + account(folder)


def ended(writer: int) -> Counter[str]:
    """Kill a writer; one that had ended by itself has failed."""
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return Counter(kills=int(killed), failures=int(not killed))


def account(folder: Path) -> Counter[str]:
    """Read the raw lines without the ledger's own sums, and hold the notes against them."""
    facts = verify_ledger(folder)
    raw = [json.loads(line) for line in (folder / "ledger.jsonl").read_bytes().split(b"\n")[1 : len(facts.lines)]]
    campaigns = [line["body"]["campaign"] for line in raw if line["kind"] == "reserved"]
    served = {
        (body["campaign"], body["round_number"]): body["blob"]
        for line in raw
        if line["kind"] == "served" and (body := line["body"])
    }
    notes_file = folder.with_suffix(".notes")
    notes = [json.loads(note) for note in notes_file.read_text().splitlines()] if notes_file.exists() else []
    return Counter(
        trials=1,
        campaigns=len(campaigns),
        lines=len(facts.lines),
        releases=len({(campaign, number) for campaign, number, _ in notes}),
        returned=len(notes),
        served_not_returned=len(served.keys() - {(campaign, number) for campaign, number, _ in notes}),
        beyond_the_ledger=sum(served.get((campaign, number)) != blob for campaign, number, blob in notes),
        served_twice=sum(line["kind"] == "served" for line in raw) - len(served),
        overspends=int(spent(len(campaigns)) > float(TERMS.epsilon)) + len(campaigns) - len(set(campaigns)),
        full=int(spent(len(campaigns) + 1) > float(TERMS.epsilon)),
        after_a_crash=int(facts.torn > 0 or facts.acknowledged < len(facts.lines)),
    )


def spent(campaigns: int) -> float:
    """Epsilon of so many campaigns, at the best order, delta shared by all."""
    rho, delta = campaigns * float(RHO), float(TERMS.delta) / len(ORDERS)
    return min(order * rho + math.log1p(-1 / order) - math.log(delta * order) / (order - 1) for order in ORDERS)


def main(folder: Path, kills: int, seed: int) -> dict[str, float]:
    """As many trials as it takes."""
    choose, figures, start = random.Random(seed), Counter[str](), time.monotonic()
    while figures["kills"] < kills:
        figures += trial(folder / f"trial{figures['trials']}", KILLS_PER_TRIAL, choose)
        if figures["failures"]:
            break
    return {**figures, "seconds": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))) + "\n")
