"""Where people were born: codes of provinces and their numbers in staged tables.

The codes are the last two letters of ISO 3166-2:CN for the provinces of the mainland, Hong Kong, Macau and Taiwan, and
`OTHER` for everywhere else. A number is a position in `PROVINCES`; `UNKNOWN` stands for a birthplace nobody told.
"""

from __future__ import annotations

PROVINCES = (
    "AH", "BJ", "CQ", "FJ", "GD", "GS", "GX", "GZ", "HA", "HB", "HE", "HI", "HL", "HN", "JL", "JS", "JX", "LN", "NM",
    "NX", "QH", "SC", "SD", "SH", "SN", "SX", "TJ", "XJ", "XZ", "YN", "ZJ", "HK", "MO", "TW", "OTHER",
)  # fmt: skip
UNKNOWN = -1
NUMBER_OF = {code: number for number, code in enumerate(PROVINCES)}
