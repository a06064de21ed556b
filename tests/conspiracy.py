"""Real holders of whom some help a coordinator that lies: a strategy of `tests.collusion`, carried out on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.randomness import SecureStream
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.keys import PairChain, fresh_nonce, opened, sealed
from privacy.secure_aggregation.masks import add_mask
from privacy.secure_aggregation.messages import (
    Advert,
    Contribution,
    Reveal,
    Survivors,
    Unmasking,
    bundle,
    unbundle,
)
from privacy.secure_aggregation.shamir import SHARE_BYTES, secret_from
from privacy.secure_aggregation.terms import SumOrder, confirmation_statement
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError
from tests.collusion import components
from tests.masked_sums import LAYOUT, MODEL, identity, names_of, plain_sum, roster_of, terms_of, vectors

Seeds = dict[tuple[str, str], bytes]
"""(who masked with it, for whom) -> seed; the own mask is for oneself."""


class Conspiracy:
    """Real holders, of whom the last few help a coordinator that lies; it and they do what a strategy says.

    Args:
        count: Members of the roster.
        colluders: How many of them help.
    """

    def __init__(self, count: int, colluders: int) -> None:
        self.names = names_of(count)
        self.honest, self.helpers = self.names[: count - colluders], self.names[count - colluders :]
        self.roster, self.stream = roster_of(self.names), SecureStream()
        self.inputs = vectors(self.names, 4, seed=count)
        terms = terms_of(self.roster)
        self.holders = {name: MaskingHolder(identity(name), self.roster, terms=terms) for name in self.honest}
        keys = {name: X25519PrivateKey.generate() for name in self.helpers}
        adverts = {name: holder.advertise() for name, holder in self.holders.items()}
        for name, key in keys.items():
            public = key.public_key().public_bytes_raw()
            signature = identity(name).sign(terms.advert_statement(name, public))
            adverts[name] = Advert(key=public, signature=signature).to_bytes()
        self.agreement = terms.agreement(adverts)
        self.confirmations = {name: holder.agree(adverts) for name, holder in self.holders.items()}
        self.chains: dict[tuple[str, str], PairChain] = {}
        for name, key in keys.items():
            self.confirmations[name] = identity(name).sign(confirmation_statement(self.agreement, name))
            for other in self.honest:
                info = pack("pair", self.agreement, *sorted((name.encode(), other.encode())))
                self.chains[name, other] = PairChain(key, Advert.from_bytes(adverts[other]).key, info=info)
                self.chains[name, other].advance(1)

    def sums(self, names: Sequence[str], actions: Sequence[int | None], *, model: bytes = MODEL) -> list[list[str]]:
        """Show some honest holders an order, carry out a strategy, and compute all sums that follow: who is in them.

        Each is computed from what was sent, and compared with the plain sum.
        """
        order = SumOrder(
            sequence=1, label="sum", model_hash=model, weights=dict.fromkeys(self.names, 1),
            confirmations=self.confirmations,
        )  # fmt: skip
        context = order.context(self.agreement)
        given: dict[str, Contribution] = {}
        for name in names:
            self.holders[name].begin(order.to_bytes())
            given[name] = Contribution.from_bytes(self.holders[name].contribute(self.inputs[name], layout=LAYOUT))
        seeds = self._known(context, given, list(self._answers(names, actions, context, given)))
        absent = set(self.honest) - set(names)
        usable = [(name, name) in seeds and all((name, gone) in seeds for gone in absent) for name in names]
        found = components(usable, lambda one, other: (names[one], names[other]) in seeds)
        groups = [[names[place] for place in group] for group in found]
        for group in groups:
            self._check_sum(group, given, seeds)
        return groups

    def _known(self, context: bytes, given: Mapping[str, Contribution], answers: Sequence[Reveal]) -> Seeds:
        """All seeds that helpers have, were told, or can put together from shares."""
        shares: dict[tuple[str, str], dict[int, bytes]] = {(owner, of): {} for owner in given for of in self.names}
        seeds: Seeds = {}
        for owner, helper in itertools.product(given, self.helpers):
            chain, label = self.chains[helper, owner], _label(context, owner, helper)
            seeds[owner, helper] = chain.seed(context)
            key = chain.parcel_key(context, sender=owner, recipient=helper)
            row = unbundle(opened(key, given[owner].parcels[helper], label=label), len(self.names))
            for of, share in zip(self.names, row, strict=True):
                shares[owner, of][self.roster.place(helper)] = share
        for answer in answers:
            place, dropped = self.roster.place(answer.holder), sorted(answer.seeds)
            seeds |= {(answer.holder, gone): seed for gone, seed in answer.seeds.items()}
            for owner in answer.shares.keys() & given.keys():
                shares[owner, owner][place] = answer.shares[owner]
            for owner in answer.pair_shares.keys() & given.keys():
                for of, share in zip(dropped, _cut(answer.pair_shares[owner]), strict=True):
                    shares[owner, of][place] = share
        least = self.roster.least_survivors
        seeds |= {pair: secret_from(parts, threshold=least) for pair, parts in shares.items() if len(parts) >= least}
        return seeds | {(of, owner): seed for (owner, of), seed in seeds.items() if of in given}

    def _check_sum(self, group: Sequence[str], given: Mapping[str, Contribution], seeds: Seeds) -> None:
        """Unmask the sum of a group: what pairs inside it share has cancelled."""
        total = plain_sum({name: given[name].words() for name in group}, group)
        for owner in group:
            for of in set(self.names) - set(group) | {owner}:
                add_mask(total, seeds[owner, of], sign=1 if of < owner else -1)
        assert np.array_equal(total, plain_sum(self.inputs, group))

    def _answers(
        self, names: Sequence[str], actions: Sequence[int | None], context: bytes, given: dict[str, Contribution]
    ) -> Iterator[Reveal]:
        """What honest holders give away under a strategy; whoever refuses gives nothing."""
        everybody = (1 << len(names)) - 1
        asked: dict[str, Survivors] = {}
        signatures: dict[Survivors, dict[str, bytes]] = {}
        for name, action in zip(names, actions, strict=True):
            if action is None:
                continue
            left = {names[place] for place in range(len(names)) if action >> place & 1} | set(self.helpers)
            survivors = Survivors(
                context=context, left=tuple(sorted(left)), dropped=tuple(sorted(set(self.names) - left))
            )  # fmt: skip
            asked[name] = survivors
            by = signatures.setdefault(
                survivors, {helper: identity(helper).sign(survivors.statement()) for helper in self.helpers}
            )
            if action == everybody and not survivors.dropped:
                by |= {other: given[other].unanimity for other in names}
                continue
            try:
                by[name] = self.holders[name].sign(survivors.to_bytes())
            except AggregationRefusedError:
                del asked[name]
        for name, survivors in asked.items():
            parcels = {helper: self._parcel(context, helper, name) for helper in self.helpers}
            parcels |= {
                other: given[other].parcels[name] for other in survivors.left if other in given and other != name
            }
            message = Unmasking(survivors=survivors, signatures=signatures[survivors], parcels=parcels)
            try:
                yield Reveal.from_bytes(self.holders[name].reveal(message.to_bytes()))
            except AggregationRefusedError:
                continue

    def _parcel(self, context: bytes, helper: str, name: str) -> bytes:
        key = self.chains[helper, name].parcel_key(context, sender=helper, recipient=name)
        row = bundle([bytes(SHARE_BYTES)] * len(self.names))
        return sealed(key, row, nonce=fresh_nonce(self.stream), label=_label(context, helper, name))


def _label(context: bytes, sender: str, recipient: str) -> bytes:
    return pack("parcel", context, sender.encode(), recipient.encode())


def _cut(row: bytes) -> list[bytes]:
    return [row[start : start + SHARE_BYTES] for start in range(0, len(row), SHARE_BYTES)]
