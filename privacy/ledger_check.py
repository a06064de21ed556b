"""Reading a ledger without its key and without changing it: for the holder's staff, an auditor, a peer with a copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.ledger_book import Book, Terms
from privacy.ledger_chain import Chain, Witness, check_key, named_key
from privacy.ledger_file import LedgerFolder
from privacy.ledger_lines import LedgerLine, decode_head, public_hex, public_key_from_hex


@dataclass(frozen=True)
class LedgerFacts:
    """A ledger that was verified, without its key and without changing it.

    Args:
        public_key: Whose signatures it carries, in hexadecimal. Compare it with the one the holder gave you.
        lines: All of them.
        book: What they add up to.
        witness: Length and head.
        acknowledged: Lines that the head counts; one less than `lines` after a crash.
        torn: Bytes of an incomplete last line that a crash left; never acknowledged, so nothing was released for it.
        blobs_checked: Releases whose stored bytes are as recorded.
        blobs_missing: Releases whose stored bytes are not beside this copy of the ledger.
    """

    public_key: str
    lines: tuple[LedgerLine, ...]
    book: Book
    witness: Witness
    acknowledged: int
    torn: int
    blobs_checked: int
    blobs_missing: int

    @property
    def terms(self) -> Terms:
        """What the ledger stands for."""
        return self.book.terms


def verify_ledger(
    folder: Path, *, public_key: Ed25519PublicKey | None = None, witness: Witness | None = None
) -> LedgerFacts:
    """Verify every line, every signature, the budget rule, the head and the stored releases. Reads only.

    Args:
        folder: Where it lies; a copy will do.
        public_key: The holder's, got in another way than with the ledger. None takes the one it names: then the
            ledger is shown to be consistent, but anybody may have written it.
        witness: What somebody saw of it before.

    Raises:
        LedgerError: the ledger is not what its holder wrote.
    """
    files = LedgerFolder(folder)
    head, data = files.snapshot()
    if public_key is None:
        public_key = public_key_from_hex(named_key(data))
    check_key(data, public_key)
    acknowledged = decode_head(head, public_key=public_key)
    chain = Chain(public_key)
    torn = chain.extend(data)
    chain.check_head(acknowledged, torn=torn)
    if witness is not None:
        chain.check_witness(witness)
    checked, missing = _check_blobs(files, chain.book)
    return LedgerFacts(
        public_key=public_hex(public_key),
        lines=tuple(chain.lines),
        book=chain.book,
        witness=chain.witness,
        acknowledged=acknowledged.length,
        torn=torn,
        blobs_checked=checked,
        blobs_missing=missing,
    )


def _check_blobs(files: LedgerFolder, book: Book) -> tuple[int, int]:
    """How many stored releases are as recorded, and how many are not here."""
    checked = missing = 0
    for name, campaign in book.campaigns.items():
        for number, (_, blob) in campaign.served.items():
            if files.has(name, number):
                files.stored(name, number, blob)
                checked += 1
            else:
                missing += 1
    return checked, missing
