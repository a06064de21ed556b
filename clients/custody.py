"""A holder's custody of its people's privacy: policy, ledger and noise in one place, and one way out.

Whatever is made of raw records leaves through here: the policy is asked, the budget is reserved and on disk, and only
then is noise drawn and the release stored and handed out. The server's messages decide none of it::

    custody = Custody.at(folder, policy)
    noisy = custody.release_counts(campaign, lambda: queries, mechanism)  # the same campaign: the same bytes again
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from clients.policy import HolderPolicy
from privacy.accounting import cost_of
from privacy.campaign import campaign_events
from privacy.ledger import Ledger, Witness
from privacy.plan import CountReleasePlan, DPSGDPlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from protocol.errors import LedgerError
from protocol.plan import digest_of
from protocol.records import LedgerHead, Witnesses

KEY_FILE = "ledger.key.pem"
LEDGER_FOLDER = "ledger"


class Custody:
    """The open ledger of one holder with the policy that fills it. Use as a context manager.

    Args:
        policy: What the holder allows.
        ledger: Its open ledger.
        folder: Where both lie; what else must not be forgotten is kept there too.
    """

    def __init__(self, policy: HolderPolicy, ledger: Ledger, folder: Path | None = None) -> None:
        self.policy, self.ledger, self.folder = policy, ledger, folder
        self._peers: dict[str, LedgerHead] = {}

    @classmethod
    def at(cls, folder: Path, policy: HolderPolicy) -> Custody:
        """Open the ledger in a folder, or create key and ledger there.

        Raises:
            LedgerError: the ledger is damaged, rolled back or another holder's, or its terms are not the policy's.
        """
        key = holder_key(folder / KEY_FILE)
        place = folder / LEDGER_FOLDER
        if not place.exists():
            return cls(policy, Ledger.create(place, policy.terms(), key), folder)
        ledger = Ledger.open(place, key=key, holder=policy.holder)
        if ledger.terms != policy.terms():
            ledger.close()
            raise LedgerError(
                f"the ledger in {place} was opened for epsilon {float(ledger.terms.epsilon):g} at delta "
                f"{float(ledger.terms.delta):g} for {ledger.terms.population} in period '{ledger.terms.period}', the "
                f"policy says {policy.max_epsilon:g} at {policy.delta:g} for {policy.population} in "
                f"'{policy.period}'; a budget is not changed on the way: "
                "use the policy it was opened with, or start a new period with a new ledger"
            )
        return cls(policy, ledger, folder)

    def __enter__(self) -> Custody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger's files."""
        self.ledger.close()

    def head(self) -> LedgerHead:
        """Where the ledger stands, for others to witness."""
        seen = self.ledger.witness()
        return LedgerHead(holder=self.policy.holder, length=seen.length, head=seen.head)

    def check_witnesses(self, witnesses: Witnesses) -> None:
        """Refuse to go on if somebody has seen this ledger, or a peer's, further than it is now.

        Raises:
            LedgerError: a ledger was rolled back or replaced.
        """
        for seen in witnesses:
            if seen.holder == self.policy.holder:
                self.ledger.check_witness(Witness(seen.length, seen.head))
                continue
            if seen.contradicts(self._peers.get(seen.holder)):
                raise LedgerError(
                    f"the ledger of holder '{seen.holder}' is shown with {seen.length} lines and another history than "
                    f"the {self._peers[seen.holder].length} seen before; it was rolled back, or the coordinator shows "
                    "different ones"
                )
            self._peers[seen.holder] = seen

    def check(self, mechanism: CountReleasePlan | DPSGDPlan, campaign: str) -> None:
        """Whether `mechanism` would be allowed and could be paid for; changes nothing.

        Raises:
            PolicyRefusedError: it asks for more than the policy allows.
            BudgetExceededError: what is left does not pay for it.
        """
        self.policy.check(mechanism)
        cost = cost_of(campaign_events(mechanism), delta=self.policy.delta)
        self.ledger.check_budget(campaign, cost)

    def release_counts(
        self, campaign: str, queries: Callable[[], Mapping[str, np.ndarray]], mechanism: CountReleasePlan
    ) -> NoisyCounts:
        """Release a holder's counts with noise, once; the same campaign again returns the stored release, at no cost.

        Args:
            campaign: Names the release.
            queries: Makes the bounded counts; called only if they have not been released yet.
            mechanism: Noise of each query.

        Raises:
            PolicyRefusedError: see `check`.
            BudgetExceededError: see `check`.
            LedgerError: the ledger cannot be trusted; nothing was released.
        """
        request = digest_of({"campaign": campaign, "mechanism": mechanism.digest()})
        self.reserve(campaign, mechanism, request=request, rounds=1)

        def produce() -> bytes:
            return release_counts(queries(), mechanism, SecureStream()).to_bytes()

        return NoisyCounts.from_bytes(self.ledger.serve(campaign, 1, request=request, produce=produce))

    def reserve(self, campaign: str, mechanism: CountReleasePlan | DPSGDPlan, *, request: str, rounds: int) -> None:
        """Reserve a whole campaign before its first release; a campaign that is reserved already costs nothing more."""
        self.policy.check(mechanism)
        cost = cost_of(campaign_events(mechanism), delta=self.policy.delta)
        self.ledger.reserve(campaign, cost, request=request, rounds=rounds)

    def serve(self, campaign: str, number: int, *, request: str, produce: Callable[[], bytes]) -> bytes:
        """The release of one round: made once, stored, and the same bytes for the same request ever after."""
        return self.ledger.serve(campaign, number, request=request, produce=produce)


def holder_key(path: Path) -> Ed25519PrivateKey:
    """The holder's signing key, made on first use and readable by its owner only.

    Raises:
        LedgerError: the file is no Ed25519 key.
    """
    if not path.exists():
        _make_key(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(f"{path} holds no Ed25519 key; restore the holder's key, its ledger cannot go on without")
    return key


def _make_key(path: Path) -> None:
    """Put a new key in place whole, unless another process was quicker: then that one's stays."""
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
