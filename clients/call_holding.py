"""An operator in a federation: its call records, what it tells others about their subscribers, what it learned itself.

    holding = CallHolding("north", records, engine, study, key=SealingKey.generate(), policy=policy.pushes)
    HolderAgent("north", None, plan, task, shares, letters=holding)
    coordinator.exchange(stage, exchange_phases(study))

=============  ========================================================================================
phase          what goes from every operator to every other one, sealed but for the first
=============  ========================================================================================
``keys``       its public key, signed with its key of the roster (`privacy.signed_keys`)
``hubs``       tokens of hubs and couriers that the recipient's subscribers have calls with (levels L0 and L1)
``pushes``     counts for the recipient's subscribers over their contacts here
``questions``  blinded identities of those who look new or gone (`clients.call_matching`), where the plan matches
``answers``    the same, blinded once more, and the own blinded persons
=============  ========================================================================================

Level L1 pushes counts of at least `push_threshold` known contacts; L2 counts with noise, which the ledger pays for, as
one release for all other operators: a tie is in the histograms of one number alone. Unit: one tie, all calls between
one subscriber here and one number elsewhere. Asked again, an operator sends the same release at no further cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from clients.call_matching import SIZES, PersonMatching, check_asked
from clients.custody import Custody
from clients.policy import PushPolicy
from clients.push_mail import Tokens, pack_hubs, pack_pushed, unpack_hubs, unpack_pushed
from integration.exchange import ANSWERS, HUBS, KEYS, PUSHES, QUESTIONS, exchange_phases
from integration.features.assembling import Pushed, assemble
from integration.features.counts import WeekCounts, count_weeks
from integration.push_histograms import bins_of_a_tie, histograms, pushed_from
from integration.pushes import UNIT, added, hubs_for, hubs_met, push_aggregates, thresholded
from integration.records.records import CallRecords
from integration.study import StudySection
from integration.task import CallTables
from privacy.matching import MatchRules, QuestionBook
from privacy.plan import CountReleasePlan
from privacy.sealed import SealingKey, checked_keys
from privacy.signed_keys import KeySigner
from protocol.errors import PolicyRefusedError, ProtocolError
from protocol.plan import digest_of
from protocol.records import Header
from tables.engine import Engine


class CallHolding:
    """One operator's side of the exchange, see `clients.correspondence.Correspondence`.

    Args:
        name: Its name in the plan and in the routing table.
        records: Its call records, with routing.
        engine: Runs the counting; must outlive the holding.
        study: The plan's ``[data]``.
        key: Its sealing key; a restarted holder needs the same to read mail that is delivered again.
        policy: What it allows; the default allows nothing.
        custody: Its ledger, for level L2.
        signer: Signs the sealing key and checks the others', by a roster that was agreed on elsewhere. Without it a
            coordinator that replaces keys could read what is pushed, see `privacy.sealed`.
        weeks: Weeks to count; all but the first by default.
        match_rules: Public sizes of questions and answers, where the plan matches persons; the same at every operator.
        book: Questions that other operators have asked before in this period.
        noise_floor: Level L2: counts below so many standard deviations of the noise are taken for 0, by the sender.

    Raises:
        PolicyRefusedError: the plan's level goes further than the policy allows.
    """

    def __init__(
        self,
        name: str,
        records: CallRecords,
        engine: Engine,
        study: StudySection,
        *,
        key: SealingKey,
        policy: PushPolicy | None = None,
        custody: Custody | None = None,
        signer: KeySigner | None = None,
        weeks: Sequence[int] | None = None,
        match_rules: MatchRules = SIZES,
        book: QuestionBook | None = None,
        noise_floor: float = 0.0,
    ) -> None:
        policy = policy or PushPolicy()
        policy.check(study.pushes, least=study.push_threshold)
        if study.pushes == "L2" and custody is None:
            raise PolicyRefusedError(f"operator '{name}' cannot push counts with noise without a ledger; open one")
        self.name, self.records, self._engine, self._study = name, records, engine, study
        self._key, self._custody, self._signer, self._noise_floor = key, custody, signer, noise_floor
        last = records.calendar.weeks
        self._weeks = range(2, last + 1) if weeks is None else range(min(weeks), max(weeks) + 1)
        self._others = self._other_names()
        self._public: dict[str, bytes] = {}
        self._tokens: dict[str, Tokens] = {}
        self._own_hubs: pd.DataFrame | None = None
        self._hubs: dict[str, pd.DataFrame] = {}
        self._received: dict[str, Pushed] = {}
        self._counts: WeekCounts | None = None
        self._asked: dict[str, bytes] = {}
        self.matching: PersonMatching | None = None
        if study.matching:
            self.matching = PersonMatching(
                name, records.people, weeks=records.calendar.weeks, key=key, rules=match_rules, policy=policy, book=book
            )

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        """Mail for every other operator.

        Raises:
            ProtocolError: an unknown phase, or one before its time.
            RefusedError: the ledger does not pay for it.
        """
        if phase == KEYS:
            return dict.fromkeys(self._others, self._shown_key(header))
        return {other: self._seal(header, phase, other, text) for other, text in self._texts(header, phase).items()}

    def _texts(self, header: Header, phase: str) -> dict[str, bytes]:
        """What a phase tells every other operator, not sealed yet."""
        if phase == HUBS:
            met = hubs_met(self.records, self._engine, self._found_hubs(), own=self.name)
            return {other: pack_hubs(met[other], self._with(other)) for other in self._others}
        if phase == PUSHES:
            pushes = self.pushes()
            return {other: pack_pushed(pushes.get(other, Pushed()), self._with(other)) for other in self._others}
        if phase == QUESTIONS and self.matching is not None:
            return {other: self.matching.question(header, other) for other in self._others}
        if phase == ANSWERS and self.matching is not None:
            asked = check_asked(self._asked)
            return {other: self.matching.answer(header, other, asked[other]) for other in self._others}
        raise ProtocolError(f"operator '{self.name}' knows no phase '{phase}'; all must run the same version and plan")

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        """Take in what the others sent in a phase; all of it or nothing.

        Raises:
            ProtocolError: mail of somebody else, none of somebody, or mail that does not open or makes no sense.
        """
        if set(inbox) != set(self._others):
            odd = sorted(set(inbox) ^ set(self._others))
            raise ProtocolError(f"mail is missing or unexpected of {odd[:3]}; every operator of the routing takes part")
        if phase == KEYS:
            self._public = self._checked_keys(header, inbox)
            self._tokens = {}
            return
        opened = {other: self._open(header, phase, other, parcel) for other, parcel in inbox.items()}
        if phase == HUBS:
            self._hubs = {o: unpack_hubs(text, self._with(o), weeks=self._weeks) for o, text in opened.items()}
            self._counts = None
        elif phase == PUSHES:
            self._received = {o: unpack_pushed(text, self._with(o), weeks=self._weeks) for o, text in opened.items()}
        elif phase == QUESTIONS and self.matching is not None:
            self._asked = opened
        elif phase == ANSWERS and self.matching is not None:
            for other, text in opened.items():
                self.matching.learn(header, other, text)
        else:
            raise ProtocolError(f"operator '{self.name}' knows no phase '{phase}'; all must run the same version")

    def tables(self) -> CallTables:
        """Rows of features with all that was received so far."""
        return CallTables(self.rows(), (self.name,))

    def rows(self) -> pd.DataFrame:
        """One row for each focal person and week, with a column `operator`."""
        if self._counts is None:
            self._counts = count_weeks(self.records, self._engine, weeks=self._weeks, hubs=self._all_hubs())
        records = self.records
        people = records.people if self.matching is None else self.matching.corrected()
        rows = assemble(
            self._counts, people, city=records.city, rules=records.rules, pushed=added(self._received.values())
        )  # fmt: skip
        return rows.assign(operator=self.name)

    def pushes(self) -> dict[str, Pushed]:
        """What the plan's level lets others have, by operator; with numbers, not tokens."""
        level = self._study.pushes
        if level == "L2":
            return self._noisy_pushes()
        exact = push_aggregates(
            self.records, self._engine, own=self.name, weeks=self._weeks, hubs=self._all_hubs()
        )  # fmt: skip
        if level == "L0":
            return exact
        return {other: thresholded(pushed, least=self._study.push_threshold) for other, pushed in exact.items()}

    def mechanism(self) -> CountReleasePlan:
        """The noise of level L2."""
        plan = CountReleasePlan(unit=UNIT, contributions=bins_of_a_tie(len(self._weeks)), cells_stddev=1.0)
        return plan.calibrate(epsilon=self._study.push_epsilon, delta=self._study.push_delta)

    def _noisy_pushes(self) -> dict[str, Pushed]:
        """One release of dense histograms for all numbers elsewhere, then cut by operator."""
        if self._custody is None:
            raise PolicyRefusedError(f"operator '{self.name}' cannot push counts with noise without a ledger; open one")
        routes = self._routes()
        numbers, mechanism = routes["number"].to_numpy(np.int64), self.mechanism()

        def queries() -> dict[str, np.ndarray]:
            exact = push_aggregates(self.records, self._engine, own=self.name, weeks=self._weeks, structure=False)
            return {"cells": histograms(added(exact.values()), numbers, self._weeks)}

        released = self._custody.release_counts(self._campaign(numbers), queries, mechanism)
        least = self._noise_floor * mechanism.cells_stddev
        pushes = {}
        for other in self._others:
            theirs = (routes["operator"] == other).to_numpy()
            pushes[other] = pushed_from(released.values["cells"][:, theirs], numbers[theirs], self._weeks, least=least)
        return pushes

    def _campaign(self, numbers: np.ndarray) -> str:
        """Names the release by what it is of, so that the same study again is not charged again."""
        calendar = self.records.calendar.model_dump(mode="json")
        public = digest_of({"calendar": calendar, "weeks": list(self._weeks), "numbers": digest_of(numbers.tolist())})
        return f"pushes {public[:32]}"

    def _found_hubs(self) -> pd.DataFrame:
        if self._own_hubs is None:
            self._own_hubs = hubs_for(self.records, self._engine, own=self.name, weeks=self._weeks)
        return self._own_hubs

    def _all_hubs(self) -> pd.DataFrame | None:
        """Own hubs and those that others told of; None where nobody tells."""
        if HUBS not in exchange_phases(self._study):
            return None
        return pd.concat([self._found_hubs(), *self._hubs.values()], ignore_index=True)

    def _routes(self) -> pd.DataFrame:
        operators = self.records.operators
        if operators is None:
            raise ProtocolError(f"operator '{self.name}' has no routing table; add the section [routing]")
        return operators[operators["operator"].astype(str) != self.name].astype({"operator": str})

    def _other_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._routes()["operator"]))) if exchange_phases(self._study) else ()

    def _with(self, other: str) -> Tokens:
        """Tokens that this operator and another share."""
        if other not in self._tokens:
            operators = self.records.operators
            numbers = np.zeros(0, np.int64) if operators is None else operators["number"].to_numpy(np.int64)
            self._tokens[other] = Tokens(self._key.shared(self._public_key(other), purpose=b"tokens"), numbers)
        return self._tokens[other]

    def _shown_key(self, header: Header) -> bytes:
        """The own public key, signed where there is a roster."""
        return self._key.public if self._signer is None else self._signer.signed(self._key.public, of=_run(header))

    def _checked_keys(self, header: Header, inbox: Mapping[str, bytes]) -> dict[str, bytes]:
        return checked_keys(inbox if self._signer is None else self._signer.checked(inbox, of=_run(header)))

    def _public_key(self, other: str) -> bytes:
        if other not in self._public:
            raise ProtocolError(f"operator '{self.name}' has no key of '{other}' yet; exchange keys first")
        return self._public[other]

    def _seal(self, header: Header, phase: str, other: str, content: bytes) -> bytes:
        return self._key.seal(content, to=self._public_key(other), context=_context(header, phase, self.name, other))

    def _open(self, header: Header, phase: str, other: str, parcel: bytes) -> bytes:
        context = _context(header, phase, other, self.name)
        return self._key.open(parcel, sender=self._public_key(other), context=context)


def _run(header: Header) -> bytes:
    """What a sealing key is for."""
    return json.dumps([header.run, header.plan_hash, header.stage]).encode()


def _context(header: Header, phase: str, sender: str, recipient: str) -> bytes:
    """What a parcel belongs to; another run, plan, stage, phase or pair is another context."""
    return json.dumps([header.run, header.plan_hash, header.stage, phase, sender, recipient]).encode()
