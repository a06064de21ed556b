"""What the desk asks of a holder's own rows of a plan, whatever they are, and what it lends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clients.correspondence import Correspondence
from clients.custody import Custody
from clients.policy import HolderPolicy
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.roster import Identity, Roster
from protocol.errors import LedgerError, NotApprovedError
from protocol.plan import Plan, PrivacyMode
from protocol.stages import StageSpec

UNITS: dict[PrivacyMode, str] = {"counts": "people", "window-dpsgd": "windows", "person-dpsgd": "subscribers"}
"""What a ledger of each mode counts, and the name of its folder: budgets of different units must not be added up."""
TIES = "ties"
"""The ledger that counts with noise about contacts are charged in."""


class Ledgers:
    """A holder's ledgers, one folder for each unit; each is opened, or begun, when it is first asked for.

    Args:
        folder: Where they lie.
        policy: What the holder allows.
    """

    def __init__(self, folder: Path, policy: HolderPolicy) -> None:
        self.folder, self.policy = folder, policy
        self._open: dict[str, Custody] = {}

    def custody(self, unit: str) -> Custody:
        """The ledger of a unit.

        Raises:
            LedgerError: it is damaged, somebody else's, or was opened under other terms.
        """
        if unit not in self._open:
            try:
                self._open[unit] = Custody.at(self.folder / unit, self.policy)
            except OSError as error:
                raise LedgerError(
                    f"the ledger in {self.folder / unit} cannot be opened ({error.strerror}); see who owns the folder "
                    "and whether the disk is full"
                ) from None
        return self._open[unit]

    def opened(self) -> dict[str, Custody]:
        """Those that were asked for, by unit."""
        return dict(self._open)

    def close(self) -> None:
        """Let go of all."""
        for custody in self._open.values():
            custody.close()
        self._open = {}


@dataclass(frozen=True)
class Premises:
    """A holder's own places.

    Args:
        name: The holder's name.
        data: Where its rows lie, and the public lists beside them.
        work: A private folder for what is staged; emptied when the agent ends.
        ledgers: Its ledgers.
    """

    name: str
    data: Path
    work: Path
    ledgers: Ledgers = field(repr=False)

    @property
    def policy(self) -> HolderPolicy:
        """What the holder allows."""
        return self.ledgers.policy


class OwnRows(Protocol):
    """A holder's rows of one plan, read once and kept while the agent lives."""

    @property
    def mechanism(self) -> DPSGDPlan | None:
        """The noise of every training step, for a plan that trains privately."""
        ...

    @property
    def custody(self) -> Custody | None:
        """The ledger that the plan is charged in; None where it promises nobody anything."""
        ...

    def tables(self, spec: StageSpec) -> Any:
        """What a stage trains on: raw where nobody is protected or every step is noised, else what was released."""
        ...

    def letters(self, run: Path, roster: Roster, identity: Identity) -> Correspondence | None:
        """The holder's part in the exchange of a run, whose folder is given; None where the plan has none."""
        ...

    def close(self) -> None:
        """Let go of files and engines."""
        ...


def check_named(plan: Plan, holder: str) -> tuple[str, ...]:
    """What the plan says that a holder holds.

    Raises:
        NotApprovedError: it names other holders only.
    """
    if holder not in plan.federation.holders:
        others = ", ".join(f"'{name}'" for name in list(plan.federation.holders)[:5])
        raise NotApprovedError(
            f"the plan '{plan.run.name}' is for the holders {others} and not for '{holder}'; ask the coordinator for a "
            "plan with this holder, or correct [holder] name"
        )
    return plan.federation.holders[holder]
