"""The privacy card of a run: what is promised to whom, at which price, on which evidence, and what is not promised.

One frozen value, written as ``card.json`` beside every run; `docs/card.schema.json` is its published JSON schema. The
fields answer the questions of NIST SP 800-226 ("Guidelines for Evaluating Differential Privacy Guarantees", 2025) from
the top of its pyramid down, and hold the public columns of the registry of differential-privacy deployments. A run
without noise has a card too, and it says so::

    card = PrivacyCard.from_json((folder / "card.json").read_text())
    card.holders[0].joint_epsilon, card.holders[0].promises[0].unit
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from protocol.plan import FrozenConfig

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Origin = Literal["noised release", "post-processing", "public", "raw data"]
"""What a thing is made of: a mechanism's own output, that output only, what was public before, or plain records."""
ALL = "all"
"""In place of a holder's name: what all of them send, put together."""


class Promise(FrozenConfig):
    """One mechanism's promise to one unit: (epsilon, delta)-differential privacy for adding or removing it."""

    task: Text
    mechanism: Text
    mechanism_digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the plan of the mechanism")
    unit: Text
    is_person: bool = Field(description="whether the unit is a person; a window of time is not")
    adjacency: Literal["add/remove"] = "add/remove"
    contacts: int | None = Field(
        default=None, ge=0, description="K: rows of others that a person's records enter; null: rows are no persons"
    )
    contributions: int | None = Field(default=None, ge=1, description="k: cells per person over the whole period")
    contribution_rules: tuple[Text, ...] = Field(default=(), description="what a person adds to each query at most")
    contributions_enforced: bool | None = Field(default=None, description="false: assumed of counts that came bounded")
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    event_epsilon: float | None = Field(
        default=None, gt=0, description="epsilon of a single event at the same delta; never to be quoted alone"
    )
    accountant: Text
    noise_stddev: dict[str, float] = Field(default={}, description="absolute noise of each query")
    noise_multiplier: float = Field(gt=0, description="noise over L2 sensitivity, of the query with the least")
    clip_norm: float | None = Field(default=None, gt=0)
    sampling_rate: float | None = Field(default=None, gt=0, le=1, description="chance of a unit to be in a step")
    expected_batch: float | None = Field(default=None, gt=0, description="what each noisy sum is divided by")
    steps: int | None = Field(default=None, ge=1)
    person_epsilon: dict[int, float | None] = Field(
        default={}, description="epsilon of a person who owns so many units, which come and go with the person"
    )
    changed_epsilon: dict[int, float | None] = Field(
        default={}, description="epsilon of a person whose records change so many units, which stay; null: none finite"
    )


class HolderCard(FrozenConfig):
    """What one holder promises its people, and what its ledger says.

    What is null was not known to whoever wrote the card: a coordinator sees length and hash of a ledger and no more.
    """

    holder: Text
    population: Text | None = Field(description="whose people these are, in the words of the holder's policy")
    period: Text
    promises: tuple[Promise, ...] = Field(min_length=1)
    joint_epsilon: float = Field(gt=0, description="all promises of this card on the same people, composed jointly")
    joint_delta: float = Field(gt=0, lt=1)
    budget_epsilon: float | None = Field(gt=0, description="what the holder's policy allows in the period")
    spent_epsilon: float | None = Field(
        ge=0, description="what its ledger holds in the period, earlier campaigns included"
    )
    left: Text | None
    ledger_length: int | None = Field(ge=1, description="null: no answer of the holder told it")
    ledger_head: str | None = Field(pattern=r"^[0-9a-f]{64}$")


class ReleasedObject(FrozenConfig):
    """Something that left a holder, or that a reader of the run gets."""

    name: Text
    origin: Origin
    place: Literal["leaves a holder", "stays with its holder", "run folder"]
    holder: str | None = Field(
        default=None, description="null: each sends its own, of this size; all: of all holders together"
    )
    numbers: int | None = Field(default=None, ge=0, description="how many numbers one is made of; null: not counted")
    size_bytes: int | None = Field(default=None, ge=0, description="of these numbers, without what frames them")
    times: int | None = Field(default=None, ge=1, description="how often one is sent, at most")
    goes_to: Text


class ShownValues(FrozenConfig):
    """The values that tables and drawings of the run show as observed."""

    origin: Origin
    scored: Origin = Field(description="what errors are measured against")
    noise_stddev: float | None = Field(
        default=None, gt=0, description="of one value of one pair and step, in the unit shown; null: none or not known"
    )


class SumsPromise(FrozenConfig):
    """What is promised of updates and sums that holders send to be added up: that they are hidden, or that a few
    dishonest holders cannot spoil the result; one of the two at most. No promise to persons: those are in `holders`.
    """

    aggregation: Literal["secure", "robust", "plain"] = Field(
        description="secure: hidden; robust: dishonest holders bounded; plain: neither"
    )
    headline: Text
    coordinator_sees: Text
    holds_while: Text
    otherwise: Text
    num_holders: int = Field(ge=1)
    least_survivors: int | None = Field(
        default=None, ge=2, description="secure: fewest holders that a sum is opened over; a holder may ask for more"
    )
    colluders: int | None = Field(
        default=None, ge=0, description="secure: holders that may help a coordinator that lies, at most"
    )
    rule: Literal["median", "trimmed_mean", "norm_bound"] | None = Field(
        default=None, description="robust: how updates are combined"
    )
    dishonest: int | None = Field(
        default=None,
        ge=1,
        description="robust: dishonest holders up to which every number of a result lies between honest ones; null: "
        "the rule bounds how far each moves the result",
    )
    update_norm: float | None = Field(
        default=None, gt=0, description="longest update in L2, longer ones are shortened; null: not limited"
    )

    @model_validator(mode="after")
    def _one_promise(self) -> SumsPromise:
        hidden, bounded = self.least_survivors is not None, self.rule is not None
        if (hidden, bounded) != (self.aggregation == "secure", self.aggregation == "robust"):
            raise ValueError(
                "least_survivors goes with secure sums, a rule with robust ones, and neither with plain ones"
            )
        return self


class AuditFinding(FrozenConfig):
    """One check or audit with its figure; passing refutes a defect, it does not prove the promise."""

    name: Text
    question: Text
    figure: float | None = Field(description="null: infinite or not a number")
    threshold: float | None = Field(description="largest figure that passes")
    passed: bool
    detail: str = Field(default="", max_length=2000)
    seconds: float = Field(ge=0)


class Party(FrozenConfig):
    """Who must be trusted with what, and what happens if that trust is misplaced."""

    party: Text
    trusted_with: Text
    otherwise: Text


class RegistryEntry(FrozenConfig):
    """The columns of the public registry of differential-privacy deployments (registry.opendp.org), filled in."""

    tier: Literal[1, 2, 3] | None = Field(
        description="how much is told, by the registry's tiers: 3 is all of it; null: nothing to register"
    )
    product: Text
    description: Text
    year: int | None = Field(default=None, description="of publication, for whoever publishes: a run bears no date")
    flavour: Text
    privacy_loss: Text
    unit: Text
    model: Text
    accounting: Text
    implementation: Text
    data_domain: Text
    unprotected: Text


class Question(FrozenConfig):
    """One question of the pyramid of NIST SP 800-226, answered for this run."""

    layer: Literal["guarantee", "what can undermine it", "what it stands on"]
    question: Text
    answer: Text


class PrivacyCard(FrozenConfig):
    """The whole card."""

    schema_version: Literal[1] = 1
    product: Literal["migrafed"] = "migrafed"
    version: Text
    run: Text
    plan_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: Literal["none", "counts", "window-dpsgd", "person-dpsgd"]
    flavour: Literal["none", "pure", "approximate"] = Field(description="of differential privacy")
    trust_model: Text
    headline: Text
    registry: RegistryEntry
    holders: tuple[HolderCard, ...] = ()
    across_holders: Text
    sums: SumsPromise | None = Field(default=None, description="null: a card from before there was a choice")
    shown: ShownValues
    released: tuple[ReleasedObject, ...]
    audits: tuple[AuditFinding, ...] = ()
    parties: tuple[Party, ...]
    not_promised: tuple[Text, ...] = Field(min_length=1)
    questions: tuple[Question, ...] = Field(description="of NIST SP 800-226, from the top of its pyramid down")

    @model_validator(mode="after")
    def _promises_and_mode_agree(self) -> PrivacyCard:
        if (self.mode == "none") != (not self.holders) or (self.mode == "none") != (self.flavour == "none"):
            raise ValueError('a card of mode "none" has no holders and flavour "none"; every other has both')
        return self

    def to_json(self) -> str:
        """The card as text, the same bytes for the same card."""
        values = self.model_dump(mode="json")
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PrivacyCard:
        """Inverse of `to_json`.

        Raises:
            ValueError: not a card of this version.
        """
        return cls.model_validate_json(text)


def card_schema() -> str:
    """The JSON schema of a card, as published in the documentation."""
    schema: dict[str, Any] = PrivacyCard.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
