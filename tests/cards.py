"""Privacy cards for run folders that tests make up."""

from __future__ import annotations

from privacy.card import Party, PrivacyCard, ReleasedObject


def plain_card() -> PrivacyCard:
    """The card of a run in which nothing was protected."""
    return PrivacyCard(
        version="0.0.0",
        run="fabricated",
        plan_hash="0" * 64,
        flavour="none",
        trust_model="no noise",
        headline="Nothing in this run is differentially private.",
        across_holders="Nothing is promised to anybody.",
        released=(ReleasedObject(name="final model", origin="raw data", goes_to="readers of the run"),),
        parties=(Party(party="coordinator", trusted_with="everything", otherwise="it may infer much"),),
        not_promised=("No noise was added.",),
        questions={"How large is epsilon?": "There is none."},
    )
