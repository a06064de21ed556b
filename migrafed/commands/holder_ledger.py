"""`migrafed holder ledger show|verify|export`: read a ledger. Writes nothing to it and needs no private key."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from migrafed.folders import given_folder
from migrafed.terminal import SCHEMA_VERSION, Outcome, Terminal
from privacy.ledger import LedgerFacts, LedgerLine, Witness, verify_ledger
from privacy.ledger_book import Book
from privacy.ledger_lines import public_key_from_hex
from protocol.errors import InputError, LedgerError

_COLUMNS = "{:>6}  {:<19}  {:<8}  {:>5}  {:>9}  {}"


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Verify the ledger; then list it, or write it to a file, or leave it at that."""
    if not given_folder(options.folder, what="the folder of a ledger").is_dir():
        raise InputError(f"{options.folder} is not a folder; give the folder of a ledger")
    found = verify_ledger(options.folder, public_key=_public_key(options), witness=_witness(options))
    payload: dict[str, Any] = {"ledger": _totals(found)}
    facts = _closing_facts(found, key_was_given=options.public_key is not None)
    if options.action == "show":
        rows = list(_rows(found))
        return Outcome(payload | {"lines": rows}, "SUCCESS ledger verified", facts, above=_table(rows))
    if options.action == "export":
        _write_new(options.out, {"schema_version": SCHEMA_VERSION} | payload | {"lines": _whole_lines(found)})
        payload["paths"] = {"export": str(options.out)}
        facts.append(("export", str(options.out)))
    return Outcome(payload, "SUCCESS ledger verified", facts)


def _public_key(options: argparse.Namespace) -> Ed25519PublicKey | None:
    try:
        return None if options.public_key is None else public_key_from_hex(options.public_key)
    except LedgerError as error:
        raise InputError(f"--public-key: {error}") from None


def _witness(options: argparse.Namespace) -> Witness | None:
    try:
        return None if options.witness is None else Witness.parse(options.witness)
    except LedgerError as error:
        raise InputError(f"--witness: {error}") from None


def _totals(found: LedgerFacts) -> dict[str, Any]:
    """The ledger in figures; exact rationals are in the lines."""
    terms, book = found.terms, found.book
    return {
        "holder": terms.holder,
        "population": terms.population,
        "period": terms.period,
        "epsilon": float(terms.epsilon),
        "delta": float(terms.delta),
        "spent": float(book.spent),
        "left": float(book.left),
        "left_in_words": book.left_in_words,
        "campaigns": [
            {"campaign": name, "epsilon": float(one.cost.epsilon), "rounds": one.rounds, "served": len(one.served)}
            for name, one in book.campaigns.items()
        ],
        "public_key": found.public_key,
        "length": found.witness.length,
        "head": found.witness.head,
        "acknowledged": found.acknowledged,
        "torn_bytes": found.torn,
        "releases_checked": found.blobs_checked,
        "releases_missing": found.blobs_missing,
    }


def _rows(found: LedgerFacts) -> Iterator[dict[str, Any]]:
    """Each line in short, with the epsilon spent when it was written."""
    book = Book(found.terms)
    for line in found.lines:
        if line.seq > 1:
            book.apply(line)
        yield {
            "seq": line.seq,
            "time": _utc(line),
            "kind": line.kind,
            "campaign": line.body.get("campaign"),
            "round": line.body.get("round_number"),
            "spent": float(book.spent),
        }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    header = _COLUMNS.format("line", "time (UTC)", "kind", "round", "spent", "campaign")
    return [
        header,
        *(
            _COLUMNS.format(
                row["seq"],
                row["time"].removesuffix("Z").replace("T", " "),
                row["kind"],
                row["round"] or "",
                f"{row['spent']:.4f}",
                row["campaign"] or "",
            )
            for row in rows
        ),
    ]


def _whole_lines(found: LedgerFacts) -> list[dict[str, Any]]:
    return [asdict(line) | {"time_utc": _utc(line)} for line in found.lines]


def _utc(line: LedgerLine) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(line.time // 1_000_000_000))


def _closing_facts(found: LedgerFacts, *, key_was_given: bool) -> list[tuple[str, str]]:
    terms, book = found.terms, found.book
    facts = [
        ("holder", f"{terms.holder}, {terms.population}, {terms.period}"),
        ("budget", f"epsilon {float(terms.epsilon):.4g} at delta {float(terms.delta):g}"),
        ("spent", f"epsilon {float(book.spent):.4g} in {len(book.campaigns)} campaigns"),
        ("left", book.left_in_words),
        ("releases", f"{found.blobs_checked} as recorded, {found.blobs_missing} not beside this ledger"),
        ("witness", str(found.witness)),
        ("key", found.public_key + ("" if key_was_given else " (named by the ledger itself: compare it)")),
    ]
    if found.torn or found.acknowledged < found.witness.length:
        facts.append(("crash", "the last write was interrupted; the next one puts it right, and nothing is lost"))
    return facts


def _write_new(path: Path, content: dict[str, Any]) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, allow_nan=False, indent=1)
            file.write("\n")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); give --out a new file") from None
