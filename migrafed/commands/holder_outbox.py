"""`migrafed holder outbox`: what left a holder and what it refused, from the log written before anything leaves."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from clients.holder_folder import find_holder
from clients.service.outbox import REFUSAL, OutboxLine, read_outbox
from clients.settings import OUTBOX
from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError

_COLUMNS = "{:>7}  {:<19}  {:<14}  {:<16}  {:>12}  {}"


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Verify the log; then list its end, or tell one refusal."""
    path = find_holder(options.holder).own(OUTBOX)
    lines = read_outbox(path)
    if options.refusal is not None:
        return _refusal(lines, options.refusal)
    wanted = [line for line in lines if options.run is None or line.run.startswith(options.run)]
    shown = wanted[-options.last :]
    kinds = Counter(line.kind for line in wanted if line.kind != REFUSAL)
    refused = sum(line.kind == REFUSAL for line in wanted)
    payload = {
        "outbox": str(path),
        "lines": [asdict(line) for line in shown],
        "left": sum(kinds.values()),
        "refused": refused,
        "bytes": sum(line.bytes for line in wanted),
        "kinds": dict(sorted(kinds.items())),
    }
    facts = [
        ("log", f"{path}, every line as it was written"),
        ("left", f"{payload['left']} messages, {payload['bytes']:,} bytes"),
        *((f"  {kind}", f"{number:,}") for kind, number in sorted(kinds.items())),
        ("refused", f"{refused}" + (": migrafed holder outbox --refusal NUMBER tells why" if refused else "")),
        ("shown", f"the last {len(shown)} of {len(wanted)}"),
    ]
    return Outcome(payload, "SUCCESS outbox verified", facts, above=_table(shown))


def _refusal(lines: Sequence[OutboxLine], number: int) -> Outcome:
    found = next((line for line in lines if line.number == number and line.kind == REFUSAL), None)
    if found is None:
        known = [str(line.number) for line in lines if line.kind == REFUSAL]
        raise InputError(
            f"there is no refusal {number} in this outbox; it has {', '.join(known[-5:]) or 'none'}"
            f"{' as the last ones' if len(known) > 5 else ''}"
        )
    facts = [
        ("when", found.time),
        ("run", f"{found.run or 'none'}, stage '{found.stage}'"),
        ("plan", found.plan_hash or "none"),
        ("message", found.message_type),
        ("told", f"{found.code}, number {found.number}: nothing else was told to the coordinator"),
        ("reason", found.text),
    ]
    return Outcome({"refusal": asdict(found)}, f"SUCCESS refusal {number}", facts)


def _table(lines: Sequence[OutboxLine]) -> list[str]:
    header = _COLUMNS.format("number", "time (UTC)", "message", "what", "bytes", "run, stage")
    return [
        header,
        *(
            _COLUMNS.format(
                line.number,
                line.time[:19].replace("T", " "),
                line.message_type[:14],
                line.kind if line.kind != REFUSAL else "REFUSED",
                f"{line.bytes:,}" if line.kind != REFUSAL else line.code[:12],
                f"{line.run}, {line.stage}" if line.run else "",
            )
            for line in lines
        ),
    ]
