"""The coordinator's side of secure aggregation: collects what holders send, and opens a sum with what they give.

It learns the sum over the survivors. It checks every signature too, so that whoever spoils a sum is named. Nothing here
decides who must survive: holders refuse on their own (`holder`).

::

    enrolment = Enrolment(terms, roster)            # adverts, then confirmations: once for a session
    masked = MaskedSum(enrolment.agreement, order, roster)
    masked.add_contribution(...)                    # from each holder of the cohort
    masked.close()                                  # now everybody who has not contributed has dropped out
    masked.add_signature(...)                       # only if somebody dropped out
    masked.add_reveal(...)                          # from each survivor, at least t
    words = masked.total()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from privacy.secure_aggregation.masks import add_masks
from privacy.secure_aggregation.messages import Advert, Contribution, Reveal, Survivors, Unmasking, seed_digest
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.shamir import SHARE_BYTES, secret_from
from privacy.secure_aggregation.terms import SessionTerms, SumOrder, confirmation_statement
from protocol.errors import ProtocolError, TrainingError


class Enrolment:
    """The start of a session: everybody's key, and everybody's word that it has seen the same keys."""

    def __init__(self, terms: SessionTerms, roster: Roster) -> None:
        self.terms, self._roster = terms, roster
        self.adverts: dict[str, bytes] = {}
        self.confirmations: dict[str, bytes] = {}

    def add_advert(self, name: str, blob: bytes) -> None:
        """Take a holder's advert.

        Raises:
            ProtocolError: it cannot be read, or is not signed by this member of the roster.
        """
        advert = Advert.from_bytes(blob)
        if not self._roster.signed(name, self.terms.advert_statement(name, advert.key), advert.signature):
            raise ProtocolError(f"the advert of '{name}' is not signed by the roster's key; ask the holder")
        self.adverts[name] = blob

    @property
    def agreement(self) -> bytes:
        """Hash of the terms and all adverts."""
        return self.terms.agreement(self.adverts)

    def add_confirmation(self, name: str, signature: bytes) -> None:
        """Take a holder's signature of having seen all adverts.

        Raises:
            ProtocolError: it did not sign these adverts.
        """
        if name not in self.adverts or not self._roster.signed(
            name, confirmation_statement(self.agreement, name), signature
        ):
            raise ProtocolError(f"'{name}' did not confirm the adverts of this session; start a new session")
        self.confirmations[name] = signature


class MaskedSum:
    """One sum in progress.

    Args:
        agreement: Of the session, see `Enrolment`.
        order: The sum, as every holder of the cohort was asked for it.
        roster: The members.
    """

    def __init__(self, agreement: bytes, order: SumOrder, roster: Roster) -> None:
        self._order, self._roster = order, roster
        self.context = order.context(agreement)
        self._total, self.layout = np.zeros(0, dtype=np.uint32), b""
        self._contributions: dict[str, Contribution] = {}
        self._signatures: dict[str, bytes] = {}
        self._reveals: dict[str, Reveal] = {}
        self._survivors: Survivors | None = None

    def add_contribution(self, name: str, blob: bytes) -> None:
        """Add a holder's masked words.

        Raises:
            ProtocolError: it cannot be read, is of another sum or holder, is not signed by it, or came twice or late.
        """
        given = Contribution.from_bytes(blob)
        if self._survivors is not None or name in self._contributions:
            raise ProtocolError(f"'{name}' contributed twice, or after the sum was closed; the answer is left out")
        others = set(self._order.cohort) - {given.holder}
        fits = (
            given.holder == name in self._order.weights
            and given.context == self.context
            and given.digests.keys() == {*others, name}
            and given.parcels.keys() == others
            and self._roster.least_survivors <= given.threshold <= len(self._roster.members)
        )
        if not fits:
            raise ProtocolError(f"'{name}' contributed to another sum, or not in its form; all must run one version")
        everybody = Survivors(context=self.context, left=self._order.cohort, dropped=())
        if not (
            self._roster.signed(name, given.statement(), given.signature)
            and self._roster.signed(name, everybody.statement(), given.unanimity)
        ):
            raise ProtocolError(f"the contribution of '{name}' is not signed by it; it was changed on the way")
        words = given.words()
        if not self._contributions:
            self._total, self.layout = words.copy(), given.layout
        elif (len(words), given.layout) != (len(self._total), self.layout):
            raise ProtocolError(
                f"'{name}' contributed {len(words)} words of another layout than {sorted(self._contributions)[:3]} "
                f"with {len(self._total)}; all must run the same version and plan"
            )
        else:
            self._total += words
        self._contributions[name] = replace(given, masked=b"")

    def close(self) -> Survivors:
        """Who is left; from now on nobody can contribute.

        Raises:
            TrainingError: fewer than the roster needs.
            ProtocolError: two holders do not have the same seed for their pair.
        """
        if self._survivors is None:
            left = tuple(sorted(self._contributions))
            needed = max((given.threshold for given in self._contributions.values()), default=0)
            needed = max(needed, self._roster.least_survivors)
            if len(left) < needed:
                raise TrainingError(
                    f"{len(left)} of {len(self._order.weights)} holders contributed to '{self._order.label}' and "
                    f"{needed} are needed; nothing was opened. Resume the run once they are back"
                )
            self._check_pairs(left)
            dropped = tuple(name for name in self._order.cohort if name not in self._contributions)
            self._survivors = Survivors(context=self.context, left=left, dropped=dropped)
            if not dropped:
                self._signatures = {name: given.unanimity for name, given in self._contributions.items()}
        return self._survivors

    @property
    def needs_signatures(self) -> bool:
        """Whether somebody dropped out, so that those who are left have to sign who that is."""
        return bool(self.close().dropped)

    def add_signature(self, name: str, signature: bytes) -> None:
        """Take a survivor's signature of who is left.

        Raises:
            ProtocolError: it is none.
        """
        survivors = self.close()
        if name not in survivors.left or not self._roster.signed(name, survivors.statement(), signature):
            raise ProtocolError(f"'{name}' did not sign who is left; its answer is left out")
        self._signatures[name] = signature

    def unmasking(self, name: str) -> bytes:
        """What a survivor is asked with to open the sum."""
        survivors = self.close()
        parcels = {other: self._contributions[other].parcels[name] for other in survivors.left if other != name}
        return Unmasking(survivors=survivors, signatures=self._signatures, parcels=parcels).to_bytes()

    def add_reveal(self, name: str, blob: bytes) -> None:
        """Take what a survivor gives to open the sum.

        Raises:
            ProtocolError: it cannot be read, is of another sum or holder, or is not signed by it.
        """
        given, survivors = Reveal.from_bytes(blob), self.close()
        row = len(survivors.dropped) * SHARE_BYTES
        fits = (
            given.holder == name
            and given.context == self.context
            and name in survivors.left
            and given.shares.keys() == set(survivors.left)
            and given.seeds.keys() == set(survivors.dropped)
            and given.pair_shares.keys() == set(survivors.left) - {name}
            and all(len(shares) == row for shares in given.pair_shares.values())
        )
        if not (fits and self._roster.signed(name, given.statement(), given.signature)):
            raise ProtocolError(f"'{name}' does not open this sum, or did not sign what it gives; it is left out")
        for gone, seed in given.seeds.items():
            if seed_digest(seed) != self._contributions[name].digests[gone]:
                raise ProtocolError(f"'{name}' gives another seed than it masked with; it is left out")
        self._reveals[name] = given

    def total(self) -> np.ndarray:
        """The sum over the survivors modulo 2^32, (words,) of uint32.

        Raises:
            TrainingError: too few survivors gave what opens it.
            ProtocolError: shares do not give the seed that a survivor masked with.
        """
        survivors, total = self.close(), self._total.copy()
        masks: list[tuple[bytes, int]] = []
        for name in survivors.left:
            masks.append((self._own_seed(name), -1))
            masks += [
                (self._pair_seed(name, gone, position), 1 if gone < name else -1)
                for position, gone in enumerate(survivors.dropped)
            ]
        add_masks(total, masks)
        return total

    def _own_seed(self, name: str) -> bytes:
        """Seed of a survivor's own mask, from everybody's shares of it."""
        return self._from_shares(name, name, {giver: given.shares[name] for giver, given in self._reveals.items()})

    def _pair_seed(self, name: str, gone: str, position: int) -> bytes:
        """Seed of a survivor's pair with one who dropped out: as it gives it, or from shares if it did not answer."""
        if name in self._reveals:
            return self._reveals[name].seeds[gone]
        row = slice(position * SHARE_BYTES, (position + 1) * SHARE_BYTES)
        shares = {giver: given.pair_shares[name][row] for giver, given in self._reveals.items()}
        return self._from_shares(name, gone, shares)

    def _from_shares(self, name: str, other: str, shares: Mapping[str, bytes]) -> bytes:
        """The seed that `name` masked with for `other`, which its digest tells."""
        threshold = self._contributions[name].threshold
        if len(shares) < threshold:
            raise TrainingError(
                f"{len(shares)} holders helped to open '{self._order.label}' and {threshold} are needed; nothing was "
                "opened. Resume the run once they are back"
            )
        seed = secret_from({self._roster.place(giver): share for giver, share in shares.items()}, threshold=threshold)
        if seed_digest(seed) != self._contributions[name].digests[other]:
            raise ProtocolError(
                f"the shares of a seed of '{name}' do not give it: '{name}' shared another one, or one of "
                f"{sorted(shares)[:threshold]} sent a false share; ask them to open their commitments"
            )
        return seed

    def _check_pairs(self, left: tuple[str, ...]) -> None:
        for place, name in enumerate(left):
            for other in left[place + 1 :]:
                if self._contributions[name].digests[other] != self._contributions[other].digests[name]:
                    raise ProtocolError(
                        f"'{name}' and '{other}' do not have one seed for their pair, so the sum cannot be opened; one "
                        "of them is not honest, or was told something else"
                    )
