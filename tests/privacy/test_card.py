"""The card: written and read back alike, refused when it contradicts itself, and its published schema is its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from privacy.card import PrivacyCard, card_schema
from tests.cards import card, count_promise, holder_card, plain_card, private_card, window_card

DOCS = Path(__file__).parents[2] / "docs"
CARDS = {"none": plain_card(), "counts": private_card(), "window-dpsgd": window_card()}


@pytest.mark.parametrize("mode", CARDS)
def test_a_card_is_read_as_it_was_written(mode: str) -> None:
    """The same value and the same bytes, which end with a line feed and hold their keys in order."""
    text = CARDS[mode].to_json()
    assert CARDS[mode].mode == mode
    assert PrivacyCard.from_json(text) == CARDS[mode]
    assert PrivacyCard.from_json(text).to_json() == text
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_the_published_schema_is_the_cards() -> None:
    """Rewrite docs/card.schema.json with `card_schema()` after a change of the card."""
    assert (DOCS / "card.schema.json").read_text(encoding="utf-8") == card_schema()


def test_every_field_that_needs_words_has_them() -> None:
    """Who reads the schema alone learns what epsilon is of, and that a window is not a person."""
    schema = json.loads(card_schema())
    promise = schema["$defs"]["Promise"]["properties"]
    assert "not" in promise["is_person"]["description"]
    assert "never to be quoted alone" in promise["event_epsilon"]["description"]
    assert schema["properties"]["mode"]["enum"] == ["none", "counts", "window-dpsgd", "person-dpsgd"]
    assert set(schema["$defs"]["RegistryEntry"]["required"]) >= {
        "tier", "product", "description", "flavour", "privacy_loss", "unit", "model", "accounting", "implementation",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "counts"},
        {"flavour": "approximate"},
        {"holders": (holder_card("north", count_promise()),)},
        {"not_promised": ()},
        {"schema_version": 2},
        {"surprise": 1},
        {"plan_hash": "0"},
    ],
    ids=str,
)
def test_a_card_that_contradicts_itself_is_refused(values: dict[str, object]) -> None:
    """A promise without holders, a plain run with a flavour, a card that promises everything."""
    with pytest.raises(ValidationError):
        card(**values)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_an_epsilon_that_is_no_promise_is_refused(epsilon: float) -> None:
    with pytest.raises(ValidationError):
        count_promise(epsilon=epsilon)


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"schema_version": 2}'])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is pydantic's
        PrivacyCard.from_json(text)


def test_numbers_of_windows_survive_json() -> None:
    """Keys of JSON objects are text; they come back as the numbers they were, and null stays null."""
    (promise,) = PrivacyCard.from_json(CARDS["window-dpsgd"].to_json()).holders[0].promises
    assert promise.person_epsilon == {2: 4.3257, 6: 15.7496, 18: None}
    assert promise.changed_epsilon[6] == 74.489
