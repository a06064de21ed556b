"""A holder's side of secure aggregation: a state machine that gives away a masked vector and, once, what opens the sum.

::

    new -- advertise --> advertised -- agree --> agreed -- begin --> begun -- contribute --> contributed
    contributed -- sign --> signed             where somebody dropped out
    contributed or signed -- reveal --> revealed -- begin --> begun (the next sum) ...
    any but new and advertised -- begin --> begun       (an older sum is given up, its secrets are gone)

A message that is not the next one is refused, and a refused message changes nothing.

**What is promised.** Against a coordinator that lies and c <= 2t - n - 1 holders that help it, of n in the roster with
t the least number of survivors: of a sum that is asked for, whatever is shown to whom, only one sum over at least t - c
honest holders can be computed. With t = floor(2n/3) + 1 that bears c = floor(n/3), and two honest holders or more are
in the sum if n >= 4. Two holders learn each other's part, and n - 1 that conspire the last one's. Nothing is promised
about what others put in, nor about the difference of two sums.

Why: a holder answers once per sum, for one set; for each other one it gives a share of the own mask or the seed of the
pair, never both. Opening a set takes the answers of t - c of the n - c honest holders; two would take 2t - 2c > n - c.

**How it differs from the paper.** Keys are agreed once for a session and move on with every sum, and a holder shares,
beside the seed of its own mask, the seeds of its pairs (not the key they are made of): whoever drops out, what is given
away opens this sum and no other, and holders need not be asked before they contribute. Everybody who contributes signs
at once that everybody is left, so where that is so two messages do.

Source: Bonawitz et al. 2017, CCS, doi:10.1145/3133956.3133982, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.randomness import SecureStream
from privacy.secure_aggregation.alone import Alone, alone
from privacy.secure_aggregation.keys import SEED_BYTES, PairChain, fresh_nonce, opened, sealed
from privacy.secure_aggregation.masks import add_masks
from privacy.secure_aggregation.messages import (
    SALT_BYTES,
    Advert,
    Contribution,
    Opening,
    Reveal,
    Survivors,
    Unmasking,
    bundle,
    seed_digest,
    unbundle,
)
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.shamir import element, shares_of
from privacy.secure_aggregation.states import State, SumInProgress
from privacy.secure_aggregation.terms import SessionTerms, SumOrder, confirmation_statement
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError, PlanError, ProtocolError


class MaskingHolder(Alone):
    """One holder in one session.

    Args:
        identity: Its name and signing key.
        roster: The members that its operator approved.
        terms: What the session is for; the caller has checked run, stage and plan.
        least_survivors: Fewest holders that a sum may be opened over; the roster's at least, never the coordinator's.
        stream: Where secrets come from; the operating system's randomness unless a test gives another.

    Raises:
        PlanError: the identity is not the roster's, or fewer survivors than the roster allows.
        AggregationRefusedError: the terms are of another roster.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        *,
        terms: SessionTerms,
        least_survivors: int | None = None,
        stream: SecureStream | None = None,
    ) -> None:
        if roster.members.get(identity.name) != identity.public:
            raise PlanError(f"the roster does not have '{identity.name}' with this key; approve a roster that does")
        least = roster.least_survivors if least_survivors is None else least_survivors
        if not roster.least_survivors <= least <= len(roster.members):
            raise PlanError(
                f"a sum over {least} of {len(roster.members)} holders was allowed; it must be {roster.least_survivors} "
                "or more and not more than there are, or a coordinator could open two sums of one round"
            )
        if terms.roster_hash != roster.digest():
            raise AggregationRefusedError(
                f"the session is for roster {terms.roster_hash.hex()[:12]}, and this holder approved "
                f"{roster.digest().hex()[:12]}; compare the members before you approve another"
            )
        super().__init__()
        self._identity, self._roster, self._terms, self._least = identity, roster, terms, least
        self._stream = stream or SecureStream()
        self._state = State.NEW
        self._key: X25519PrivateKey | None = None
        self._agreement, self._confirmed = b"", False
        self._chains: dict[str, PairChain] = {}
        self._last = 0
        self._sum: SumInProgress | None = None

    @property
    def name(self) -> str:
        """Whose side this is."""
        return self._identity.name

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @alone
    def advertise(self) -> bytes:
        """A new key for this session, signed."""
        self._expect(State.NEW, asked="to advertise a key")
        self._key = X25519PrivateKey.from_private_bytes(self._stream.random_bytes(32))
        public = self._key.public_key().public_bytes_raw()
        self._state = State.ADVERTISED
        signature = self._identity.sign(self._terms.advert_statement(self.name, public))
        return Advert(key=public, signature=signature).to_bytes()

    @alone
    def agree(self, adverts: Mapping[str, bytes]) -> bytes:
        """Agree on keys with everybody who advertised one; returns the signature of having seen these adverts.

        Raises:
            ProtocolError: an advert that cannot be read.
            AggregationRefusedError: too few, an unknown member, a key its owner did not sign, or another key as ours.
        """
        self._expect(State.ADVERTISED, asked="to agree on keys")
        own = self._own_key()
        read = {name: Advert.from_bytes(blob) for name, blob in adverts.items()}
        self._check_members(read.keys(), what="adverts")
        for name, advert in read.items():
            if not self._roster.signed(name, self._terms.advert_statement(name, advert.key), advert.signature):
                raise self._refusal(f"the key advertised for '{name}' is not signed by it for this session")
        if read[self.name].key != own.public_key().public_bytes_raw():
            raise self._refusal("another key is shown as ours: an old advert, or one of another session")
        if len({advert.key for advert in read.values()}) != len(read):
            raise self._refusal("one key is advertised for two holders")
        agreement = self._terms.agreement(adverts)
        self._chains = {
            name: PairChain(own, advert.key, info=pack("pair", agreement, *sorted((name.encode(), self.name.encode()))))
            for name, advert in read.items()
            if name != self.name
        }
        self._agreement, self._key, self._state = agreement, None, State.AGREED
        self._stream.forget()
        return self._identity.sign(confirmation_statement(agreement, self.name))

    @alone
    def begin(self, order: bytes) -> SumOrder:
        """Check the order of a sum, before anything is computed for it; an unfinished sum before it is given up.

        Raises:
            ProtocolError: an order that cannot be read.
            AggregationRefusedError: an old number, too few holders, or somebody agreed with other keys.
        """
        self._expect(
            State.AGREED, State.BEGUN, State.CONTRIBUTED, State.SIGNED, State.REVEALED, asked="to begin a sum"
        )  # fmt: skip
        asked = SumOrder.from_bytes(order)
        if asked.sequence <= self._last:
            raise self._refusal(f"sum {asked.sequence} was asked for after sum {self._last}: replayed, or out of order")
        self._check_members(asked.weights.keys(), what="the cohort")
        if absent := sorted(asked.weights.keys() - self._chains.keys() - {self.name}):
            raise self._refusal(f"{absent[:3]} advertised no key in this session")
        if not self._confirmed:
            self._check_confirmations(asked.confirmations)
        for chain in self._chains.values():  # refuses a leap before any moves
            chain.check(asked.sequence)
        self._forget()
        for chain in self._chains.values():
            chain.advance(asked.sequence)
        self._confirmed, self._last = True, asked.sequence
        self._sum, self._state = SumInProgress(asked, asked.context(self._agreement)), State.BEGUN
        return asked

    @alone
    def contribute(self, words: np.ndarray, *, layout: bytes) -> bytes:
        """Mask a vector for the sum that was begun.

        Args:
            words: What is put into the sum.
            layout: What the words stand for; public, sent along, and the same for all if the sum is to be of use.

        Shapes: words (n,) of uint32

        Raises:
            ProtocolError: a vector of another type, or an empty one.
        """
        self._expect(State.BEGUN, asked="to contribute")
        current = self._current()
        if words.dtype != np.uint32 or words.ndim != 1 or not words.size:
            raise ProtocolError(f"a vector {words.dtype} {words.shape} was given; a sum takes words (n,) of uint32")
        cohort = current.order.cohort
        seeds = {name: self._chains[name].seed(current.context) for name in cohort if name != self.name}
        seeds[self.name] = self._own_seed()
        opening = Opening(
            context=current.context, holder=self.name, salt=self._stream.random_bytes(SALT_BYTES),
            words=words.astype("<u4", copy=False).tobytes(),
        )  # fmt: skip
        shares = shares_of(
            [seeds[name] for name in cohort], threshold=self._least,
            places=[self._roster.place(name) for name in cohort], stream=self._stream,
        )  # fmt: skip
        unsigned = Contribution(
            context=current.context, holder=self.name, threshold=self._least, layout=layout,
            masked=self._masked(words, seeds), commitment=opening.commitment(),
            digests={name: seed_digest(seed) for name, seed in seeds.items()},
            parcels={name: self._parcel(name, shares[self._roster.place(name)]) for name in seeds if name != self.name},
            unanimity=self._identity.sign(Survivors(context=current.context, left=cohort, dropped=()).statement()),
            signature=b"",
        )  # fmt: skip
        signature = self._identity.sign(unsigned.statement())
        current.seeds = {name: bytearray(seed) for name, seed in seeds.items()}
        current.own_shares = shares[self._roster.place(self.name)]
        current.opening = opening
        self._state = State.CONTRIBUTED
        return replace(unsigned, signature=signature).to_bytes()

    @alone
    def sign(self, survivors: bytes) -> bytes:
        """Sign who is left, once per sum; from then on only that sum is opened.

        Raises:
            ProtocolError: a message that cannot be read.
            AggregationRefusedError: too few, not of the cohort, without us, or somebody both left and dropped.
        """
        self._expect(State.CONTRIBUTED, asked="to sign who is left")
        asked = Survivors.from_bytes(survivors)
        self._check_survivors(asked)
        self._current().signed, self._state = asked, State.SIGNED
        return self._identity.sign(asked.statement())

    @alone
    def reveal(self, unmasking: bytes) -> bytes:
        """Give what opens the sum over the survivors, once; the secrets of the sum are wiped.

        Raises:
            ProtocolError: a message that cannot be read.
            AggregationRefusedError: not the survivors that we signed, too few signatures, one that is none, or shares
                that do not open.
        """
        self._expect(State.CONTRIBUTED, State.SIGNED, asked="to open the sum")
        asked, current = Unmasking.from_bytes(unmasking), self._current()
        left, dropped = asked.survivors.left, asked.survivors.dropped
        self._check_survivors(asked.survivors)
        if current.signed is None and dropped:
            raise self._refusal("the sum is to be opened without holders whose absence nobody asked us to sign")
        if current.signed is not None and asked.survivors != current.signed:
            raise self._refusal("the sum is to be opened over other holders than those we signed for")
        self._check_signatures(asked)
        if asked.parcels.keys() != set(left) - {self.name}:
            raise self._refusal("shares are missing, or are of holders that are not left")
        received = {name: self._unsealed(name, parcel) for name, parcel in asked.parcels.items()}
        received[self.name] = current.own_shares
        cohort = current.order.cohort
        unsigned = Reveal(
            context=current.context,
            holder=self.name,
            shares={name: received[name][cohort.index(name)] for name in left},
            seeds={name: bytes(current.seeds[name]) for name in dropped},
            pair_shares={
                name: bundle(received[name][cohort.index(gone)] for gone in dropped)
                for name in left
                if name != self.name
            },
            signature=b"",
        )
        signature = self._identity.sign(unsigned.statement())
        self._wipe_seeds()
        self._state = State.REVEALED
        return replace(unsigned, signature=signature).to_bytes()

    @alone
    def open(self) -> bytes:
        """What we put into the last sum, with the salt of its commitment. For a dispute, where our operator allows it.

        Raises:
            AggregationRefusedError: there is no sum that was opened.
        """
        self._expect(State.REVEALED, asked="to show what was put into a sum")
        opening = self._current().opening
        if opening is None:
            raise self._refusal("nothing is kept of this sum")
        return opening.to_bytes()

    @alone
    def close(self) -> None:
        """End the session; its keys are wiped."""
        self._forget()
        for chain in self._chains.values():
            chain.wipe()
        self._chains, self._key, self._state = {}, None, State.CLOSED

    def _own_seed(self) -> bytes:
        """A new seed for the own mask of this sum."""
        return self._stream.random_bytes(SEED_BYTES)

    def _masked(self, words: np.ndarray, seeds: Mapping[str, bytes]) -> bytes:
        """words + own mask + masks of pairs with those behind us - masks of pairs with those before us, mod 2^32."""
        masked = words.copy()
        add_masks(masked, [(seed, -1 if name < self.name else 1) for name, seed in seeds.items()])
        return masked.astype("<u4", copy=False).tobytes()

    def _parcel(self, recipient: str, shares: list[bytes]) -> bytes:
        context = self._current().context
        key = self._chains[recipient].parcel_key(context, sender=self.name, recipient=recipient)
        label = pack("parcel", context, self.name.encode(), recipient.encode())
        return sealed(key, bundle(shares), nonce=fresh_nonce(self._stream), label=label)

    def _unsealed(self, sender: str, parcel: bytes) -> list[bytes]:
        current = self._current()
        key = self._chains[sender].parcel_key(current.context, sender=sender, recipient=self.name)
        label = pack("parcel", current.context, sender.encode(), self.name.encode())
        try:
            shares = unbundle(opened(key, parcel, label=label), len(current.order.weights))
            for share in shares:
                element(share)
        except (AggregationRefusedError, ProtocolError) as error:
            raise self._refusal(f"of '{sender}', {error}") from None
        return shares

    def _check_members(self, names: Iterable[str], *, what: str) -> None:
        given = set(names)
        if unknown := sorted(given - self._roster.members.keys()):
            raise self._refusal(f"{what} name {unknown[:3]}, who are not in the roster")
        if self.name not in given:
            raise self._refusal(f"{what} do not have this holder")
        if len(given) < self._least:
            raise self._refusal(f"{what} name {len(given)} holders, and this holder needs {self._least}")

    def _check_confirmations(self, confirmations: Mapping[str, bytes]) -> None:
        expected = self._chains.keys() | {self.name}
        if confirmations.keys() != expected:
            raise self._refusal("not everybody who advertised a key has confirmed the keys of all")
        for name, signature in confirmations.items():
            if not self._roster.signed(name, confirmation_statement(self._agreement, name), signature):
                raise self._refusal(f"'{name}' did not confirm the keys that we were shown")

    def _check_survivors(self, asked: Survivors) -> None:
        current = self._current()
        left, dropped = set(asked.left), set(asked.dropped)
        if asked.context != current.context:
            raise self._refusal("the message is of another sum, model, plan, cohort or weight")
        if both := sorted(left & dropped):
            raise self._refusal(f"{both[:3]} are named as left and as dropped")
        if left | dropped != current.order.weights.keys():
            raise self._refusal("those who are left and those who dropped are not the cohort that was asked")
        self._check_members(left, what="survivors")

    def _check_signatures(self, asked: Unmasking) -> None:
        if not asked.signatures.keys() <= set(asked.survivors.left):
            raise self._refusal("somebody signed who is not left")
        if (signed := len(asked.signatures)) < self._least:
            raise self._refusal(f"{signed} holders signed who is left, and this holder needs {self._least}")
        for name, signature in asked.signatures.items():
            if not self._roster.signed(name, asked.survivors.statement(), signature):
                raise self._refusal(f"'{name}' did not sign that these holders are left of this sum")

    def _expect(self, *states: State, asked: str) -> None:
        if self._state not in states:
            raise self._refusal(f"it was asked {asked}, which does not follow after '{self._state.value}'")

    def _refusal(self, problem: str) -> AggregationRefusedError:
        return AggregationRefusedError(
            f"holder '{self.name}' gives nothing away: {problem}; end the run, or start a new session, and ask the "
            "coordinator how it came to this"
        )

    def _own_key(self) -> X25519PrivateKey:
        if self._key is None:
            raise self._refusal("there is no key of this session")
        return self._key

    def _current(self) -> SumInProgress:
        if self._sum is None:
            raise self._refusal("no sum was begun")
        return self._sum

    def _wipe_seeds(self) -> None:
        """Overwrite seeds and drop shares. Copies that the interpreter or a library made are beyond reach."""
        if self._sum is not None:
            for seed in self._sum.seeds.values():
                seed[:] = bytes(len(seed))
            self._sum.seeds, self._sum.own_shares = {}, []
            for chain in self._chains.values():
                chain.advance(self._last + 1)
            self._stream.forget()

    def _forget(self) -> None:
        self._wipe_seeds()
        self._sum = None
