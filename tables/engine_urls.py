"""URLs of engines, as they may appear in messages: without user, password and options."""

from __future__ import annotations

import re


def masked(url: str) -> str:
    """The URL with "***" for everything that may hold a secret; all of it where that cannot be told.

    Passwords hold signs that ought to be escaped and are not, so nothing before the last "@" is shown, and nothing
    after the first "?", "#" or ";".
    """
    scheme, separator, rest = url.partition("://")
    if not scheme or not separator:
        return "***"
    shown = re.split("[?#;]", rest, maxsplit=1)[0]
    options = "?***" if len(shown) < len(rest) else ""
    if "@" in rest[len(shown) :]:
        # The cut may lie inside a password.
        return f"{scheme}://***"
    user, at, host = shown.rpartition("@")
    return f"{scheme}://{'***@' if at or user else ''}{host}{options}"
