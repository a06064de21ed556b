"""One spelling for texts: NFKC, lower case, punctuation and symbols as single blanks; and texts that are garbled."""

from __future__ import annotations

import unicodedata

BLANK_CATEGORIES = frozenset({"P", "S", "Z"})


def normalise(text: str) -> str:
    """A text in the one spelling in which texts and names are compared."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return " ".join("".join(" " if unicodedata.category(c)[0] in BLANK_CATEGORIES else c for c in folded).split())


def is_garbled(text: str) -> bool:
    """Whether a text was read in a wrong encoding, or holds control characters."""
    return any(c == "\ufffd" or (unicodedata.category(c) in {"Cc", "Cs"} and c not in "\t\n\r\v\f\x85") for c in text)
