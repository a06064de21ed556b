"""The section ``[privacy]`` of a run plan: what protects each person."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from protocol.frozen import FrozenConfig

PrivacyMode = Literal["counts", "window-dpsgd", "person-dpsgd"]


class PrivacySection(FrozenConfig):
    """``[privacy]``: what protects each person. Without this section nothing does.

    ``counts``: each holder releases its counts once, with noise, and everything is trained on what was released; the
    unit is a person. ``window-dpsgd``: every training step is noised; the unit is one window, which is not a person.
    ``person-dpsgd``: the same over rows that are one person each; the unit is a subscriber's own outgoing records, and
    with `contacts` K these may also enter the rows of K others, which takes far more noise. Being called is not
    protected. `epsilon` and `delta` hold per holder: a person known to two holders is promised the sum of both.
    """

    mode: PrivacyMode = "counts"
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    contributions: int = Field(default=10, ge=1, le=100_000, description="cells per person in the whole span (counts)")
    margins: bool = Field(default=True, description="in- and outflows as queries of their own (counts)")
    margin_share: float = Field(default=0.5, gt=0, lt=1, description="part of the budget the margins get (counts)")
    clip_norm: float = Field(default=1.0, gt=0, description="largest gradient norm of one window or row (dpsgd)")
    contacts: int = Field(
        default=0, ge=0, le=1000, description="rows of others a person's records enter (person-dpsgd)"
    )
    period: str = Field(default="this series", min_length=1, max_length=64, description="what the budget is for")
    budget: float | None = Field(default=None, gt=0, description="epsilon each holder's ledger allows; default epsilon")
    noise: Literal["local", "distributed"] = Field(
        default="local", description="distributed: each holder adds a part, the sum has the whole (dpsgd, secure)"
    )
    score_against: Literal["released", "truth"] = Field(
        default="released", description="truth: errors are measured on raw counts, outside the promise"
    )

    @model_validator(mode="after")
    def _training_releases_no_truth(self) -> PrivacySection:
        if self.mode != "counts" and self.score_against != "truth":
            raise ValueError(
                f'mode = "{self.mode}" releases no values that forecasts could be scored against; set '
                'score_against = "truth", which is meant for synthetic and public data'
            )
        if self.contacts and self.mode != "person-dpsgd":
            raise ValueError(f'contacts = {self.contacts} is for mode = "person-dpsgd"; take it out')
        return self

    @model_serializer(mode="wrap")
    def _without_no_contacts(self, values_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not in the digest."""
        unused = {"contacts": 0, "noise": "local"}
        return {name: value for name, value in values_of(self).items() if value != unused.get(name, ...)}
