"""The privacy card of a run: what is promised to whom, at which price, on which evidence, and what is not promised.

One frozen value, written as ``card.json`` beside every run; `docs/card.schema.json` is its published JSON schema. The
fields answer the questions of NIST SP 800-226 ("Guidelines for Evaluating Differential Privacy Guarantees", 2025) from
the top of its pyramid down, and hold the public columns of the registry of differential-privacy deployments (unit,
flavour, privacy loss, model of trust, accounting, implementation). A run without noise has a card too, and it says so.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.plan import FrozenConfig

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Origin = Literal["noised release", "post-processing", "public", "raw data"]


class Promise(FrozenConfig):
    """One mechanism's promise to one unit: (epsilon, delta)-differential privacy for adding or removing it."""

    task: Text
    mechanism: Text
    mechanism_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    unit: Text
    is_person: bool = Field(description="whether the unit is a person; a window of time is not")
    adjacency: Literal["add/remove"] = "add/remove"
    contributions: int | None = Field(default=None, description="k: cells per person over the whole period")
    contributions_enforced: bool | None = Field(default=None, description="false: assumed of counts that came bounded")
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    accountant: Text
    noise_stddev: dict[str, float] = Field(default={}, description="absolute noise of each query")
    noise_multiplier: float = Field(gt=0, description="noise over L2 sensitivity, of the query with the least")
    clip_norm: float | None = None
    sampling_rate: float | None = None
    steps: int | None = None
    person_epsilon: dict[int, float | None] = Field(
        default={}, description="epsilon of a person who owns so many units; null: no finite one at this delta"
    )


class HolderCard(FrozenConfig):
    """What one holder promises its people, and what its ledger says."""

    holder: Text
    population: Text
    period: Text
    promises: tuple[Promise, ...]
    joint_epsilon: float = Field(gt=0, description="all promises on the same people, composed jointly")
    joint_delta: float = Field(gt=0, lt=1)
    budget_epsilon: float = Field(gt=0)
    spent_epsilon: float = Field(ge=0)
    left: Text
    ledger_length: int = Field(ge=1)
    ledger_head: str = Field(pattern=r"^[0-9a-f]{64}$")


class ReleasedObject(FrozenConfig):
    """Something that left a holder, or that a reader of the run gets."""

    name: Text
    origin: Origin
    holder: str | None = Field(default=None, description="null: of all holders together")
    numbers: int | None = Field(default=None, ge=0, description="how many numbers it is made of")
    size_bytes: int | None = Field(default=None, ge=0)
    goes_to: Text


class AuditFinding(FrozenConfig):
    """One check or audit with its figure; passing refutes a defect, it does not prove the promise."""

    name: Text
    question: Text
    figure: float | None
    threshold: float | None
    passed: bool
    seconds: float = Field(ge=0)


class Party(FrozenConfig):
    """Who must be trusted with what, and what happens if that trust is misplaced."""

    party: Text
    trusted_with: Text
    otherwise: Text


class PrivacyCard(FrozenConfig):
    """The whole card."""

    schema_version: Literal[1] = 1
    product: Literal["migrafed"] = "migrafed"
    version: Text
    run: Text
    plan_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    flavour: Literal["none", "pure", "approximate"] = Field(description="of differential privacy")
    trust_model: Text
    headline: Text
    holders: tuple[HolderCard, ...] = ()
    across_holders: Text
    released: tuple[ReleasedObject, ...]
    audits: tuple[AuditFinding, ...] = ()
    parties: tuple[Party, ...]
    not_promised: tuple[Text, ...]
    questions: dict[str, str] = Field(description="question of NIST SP 800-226 -> answer")

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
