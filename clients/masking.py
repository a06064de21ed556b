"""A holder's part in masked sums: which sums it takes part in, and what it puts into them.

`privacy.secure_aggregation` keeps the order of messages and the secrets; here is what only the holder's side knows: the
plan it approved, what it was asked for, its own weight, and which sums it has helped to open before.

**Sums that differ by one holder.** Whoever has the same sum twice, once with and once without a holder, has that
holder's part. So all sums of one label (a phase of statistics, the update of a round) are opened over the same holders,
whatever else is asked for, in a session that begins anew too, and statistics also in another stage: they are of the
same rows there. A holder that is started anew has forgotten which they were, unless it keeps them in a file
(`remember_in`), as a deployed one does, and as it must where noise is shared. What a coordinator can still compare is
one round with another: against that, and against everything else that sums tell, there is the noise of a private plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clients.opened_sums import Key, OpenedSums
from clients.policy import AggregationPolicy
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import Opening, Unmasking
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from protocol.errors import AggregationRefusedError, PolicyRefusedError, ProtocolError
from protocol.masked_messages import MaskedAnswer, MaskedRequest
from protocol.records import Header


class Masking:
    """One holder's sessions, one for each stage, and its memory of the sums that were opened.

    Args:
        identity: The holder's name and signing key.
        roster: The members that its operator approved.
        policy: What it allows.

    Raises:
        PolicyRefusedError: the policy names another roster.
    """

    def __init__(self, identity: Identity, roster: Roster, policy: AggregationPolicy) -> None:
        policy.check_roster(roster.digest().hex())
        self.identity, self.roster, self.policy = identity, roster, policy
        self._sessions: dict[str, MaskingHolder] = {}
        self._weights: dict[str, dict[str, int]] = {}
        self._asked: dict[str, tuple[Key, SumOrder]] = {}
        self._opened = OpenedSums()

    @property
    def num_holders(self) -> int:
        """Members of the roster: how many parts a sum may have."""
        return len(self.roster.members)

    @property
    def least_survivors(self) -> int:
        """Fewest holders over which this one lets a sum be opened."""
        return max(self.roster.least_survivors, self.policy.least_survivors or 0)

    def remember_in(self, path: Path) -> None:
        """Keep in a file which sums were opened, so that being started anew forgets none.

        Raises:
            LedgerError: the file is damaged.
        """
        self._opened = OpenedSums(path)

    def answer(self, request: MaskedRequest, *, plan_hash: str) -> MaskedAnswer:
        """The next step of a session.

        Raises:
            ProtocolError: a message that cannot be read.
            AggregationRefusedError: see `privacy.secure_aggregation.holder`.
            PolicyRefusedError: nothing is shown under dispute here.
        """
        stage, parts = request.header.stage, request.parts
        if request.step == "terms":
            part = self._begin_session(request.header, _only(parts, "terms"), plan_hash=plan_hash)
        elif request.step == "adverts":
            part = self._session(stage).agree(parts)
        elif request.step == "survivors":
            self._check_new(stage)
            part = self._session(stage).sign(_only(parts, "survivors"))
        elif request.step == "unmasking":
            part = self._reveal(stage, _only(parts, "unmasking"))
        else:
            part = self._open(stage, _only(parts, "opening"))
        return MaskedAnswer(holder=self.identity.name, part=part)

    def begin(self, header: Header, order: bytes, *, label: str, content: bytes, weight: int | None) -> SumOrder:
        """Check the order that came with a request, before anything is computed for it.

        Args:
            header: Of the request.
            order: The order of the sum.
            label: What the request asks for, in the words that orders use.
            content: Hash of the request.
            weight: This holder's public weight; None where everybody counts once.

        Raises:
            ProtocolError: no order, or one that cannot be read.
            AggregationRefusedError: an order of something else, with other weights, or of a sum that was opened over
                other holders.
        """
        if not order:
            raise ProtocolError(
                f"'{label}' was asked for without the order of a masked sum, and the plan masks everything; "
                "both sides must run the same plan and version"
            )
        asked = SumOrder.from_bytes(order)
        if asked.label != label or asked.model_hash != content:
            raise self._refusal(f"the order is of '{asked.label}' with other weights or sums than came with it")
        self._check_weights(header.stage, asked, weight)
        # Statistics are the same in every stage.
        key = (header.run, header.stage if weight is not None else "", label)
        if self._opened.over(key) not in (None, asked.cohort):
            raise self._refusal(f"'{label}' was opened before over other holders; the difference would show one's part")
        self._session(header.stage).begin(order)
        self._asked[header.stage] = (key, asked)
        return asked

    def share(self, stage: str) -> float:
        """This holder's weight over the largest of the sum that was begun; in (0, 1]."""
        order = self._asked[stage][1]
        return order.weights[self.identity.name] / max(order.weights.values())

    def contribute(self, header: Header, layout: Layout, arrays: Mapping[str, np.ndarray]) -> bytes:
        """This holder's part of the sum that was begun."""
        return self._session(header.stage).contribute(layout.encode(arrays), layout=layout.to_bytes())

    def _begin_session(self, header: Header, blob: bytes, *, plan_hash: str) -> bytes:
        terms = SessionTerms.from_bytes(blob)
        if (terms.run, terms.stage, terms.plan_hash.hex()) != (header.run, header.stage, plan_hash):
            raise self._refusal("the session is for another run, stage or plan than the message that brings it")
        session = MaskingHolder(self.identity, self.roster, terms=terms, least_survivors=self.policy.least_survivors)
        advert = session.advertise()
        if header.stage in self._sessions:
            self._sessions[header.stage].close()
        self._sessions[header.stage] = session
        return advert

    def _reveal(self, stage: str, blob: bytes) -> bytes:
        session, left = self._session(stage), Unmasking.from_bytes(blob).survivors.left
        if stage in self._asked and self._opened.over(self._asked[stage][0]) not in (None, left):
            raise self._refusal("this sum was opened over other holders while this one was under way")
        given = session.reveal(blob)
        self._opened.note(self._asked[stage][0], left)
        return given

    def _open(self, stage: str, context: bytes) -> bytes:
        """What was put into the sum of this context, if it is the last one that was opened."""
        if not self.policy.openings:
            raise PolicyRefusedError(
                f"holder '{self.identity.name}' does not show what it put into a sum; its operator can allow that with "
                "aggregation.openings = true"
            )
        opening = self._session(stage).open()
        if Opening.from_bytes(opening).context != context:
            raise self._refusal("it is to show its part of another sum than the last, and keeps nothing of others")
        return opening

    def _check_new(self, stage: str) -> None:
        """A sum that was opened before is opened over the same holders or not at all."""
        if stage in self._asked and self._opened.over(self._asked[stage][0]) is not None:
            raise self._refusal("this sum was opened before with holders who have dropped out now")

    def _check_weights(self, stage: str, order: SumOrder, weight: int | None) -> None:
        if weight is None:
            if any(given != 1 for given in order.weights.values()):
                raise self._refusal("weights other than 1 are given to a sum in which everybody counts once")
            return
        pinned = self._weights.setdefault(stage, {self.identity.name: weight})
        changed = sorted(name for name, given in order.weights.items() if pinned.get(name, given) != given)
        if changed:
            raise self._refusal(f"the weights of {changed[:3]} are not those that were public before")
        pinned.update(order.weights)

    def _session(self, stage: str) -> MaskingHolder:
        if stage not in self._sessions:
            raise self._refusal(f"there is no session of stage '{stage}'")
        return self._sessions[stage]

    def _refusal(self, problem: str) -> AggregationRefusedError:
        return AggregationRefusedError(
            f"holder '{self.identity.name}' gives nothing away: {problem}; ask the coordinator how it came to this"
        )


def _only(parts: Mapping[str, bytes], name: str) -> bytes:
    if parts.keys() != {name}:
        raise ProtocolError(f"a step needs the part '{name}' and got {sorted(parts)[:3]}; both must run one version")
    return parts[name]
