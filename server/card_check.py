"""Recheck the card of a finished run: the bytes that were sealed, of this plan, and of the ledgers that were seen."""

from __future__ import annotations

from pathlib import Path

from protocol.errors import RunFolderError, TranscriptError
from protocol.plan import Plan
from server.journal import Journal
from server.run_folder import CARD_FILE, FACTS_FILE, run_name
from server.sealing import digest, read_card, sealed_digests


def check_card(folder: Path, plan: Plan, journal: Journal) -> bool:
    """Whether there was a card to check: who was given journal, plan and model alone has none.

    Raises:
        TranscriptError: it is gone, was changed, or says something else than plan and journal.
        RunFolderError: ``run.json`` cannot be read.
    """
    if not (folder / FACTS_FILE).is_file():
        return False
    sealed = sealed_digests(folder).get(CARD_FILE)
    if sealed is None:
        return False
    path = folder / CARD_FILE
    if not path.is_file():
        raise TranscriptError(f"{CARD_FILE} is missing, and run.json has its SHA-256", stage=CARD_FILE)
    if digest(path) != sealed:
        raise TranscriptError(f"{CARD_FILE} differs from what the run wrote (SHA-256)", stage=CARD_FILE)
    try:
        card = read_card(folder)
    except RunFolderError as error:
        raise TranscriptError(str(error), stage=CARD_FILE) from None
    wanted = {"run": run_name(plan), "plan_hash": plan.digest(), "mode": plan.mode}
    if wrong := [name for name, value in wanted.items() if getattr(card, name) != value]:
        raise TranscriptError(f"{CARD_FILE} has another {' and '.join(wrong)} than the plan", stage=CARD_FILE)
    seen = journal.witnesses()
    for holder in card.holders:
        if holder.spent_epsilon is None and (holder.ledger_length, holder.ledger_head) != seen.get(
            holder.holder, (None, None)
        ):
            raise TranscriptError(
                f"{CARD_FILE} has another length or head of the ledger of '{holder.holder}' than the journal",
                stage=CARD_FILE,
            )
    return True
