"""What a verdict is worth: does it survive a fixed number of calls, and do placebo locals show the same?"""

from __future__ import annotations

import math

import pandas as pd

CONCLUSION_COLUMNS = ("feature", "verdict", "rarefied", "placebo", "survives", "specific", "statement")
NO_COMPANION = ""
_PLACEBO = {
    "yes": "placebo locals do not show it",
    "no": "not specific: placebo locals move alike",
    "open": "too few placebo locals to tell whether they show it",
    NO_COMPANION: "placebo locals were not asked, or are too few",
}


def conclusions(verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per feature (`CONCLUSION_COLUMNS`) from the verdicts of "new" and, if there are any, of "placebo".

    `survives` is "yes" if the rarefied variant has the same verdict, "no" if not, and empty where there is no companion
    or no verdict. `specific` is "no" if placebo locals have the same verdict, or significantly approach or leave locals
    as newcomers do; "yes" if the interval of their step lies apart from that of newcomers'; "open" if it does not, as
    with few of them; and empty where they were not asked, were too few to be told, or there is no verdict.
    """
    keyed = {(str(row["newcomers"]), str(row["variant"]), str(row["feature"])): row for _, row in verdicts.iterrows()}
    lines = []
    for (newcomers, variant, feature), plain in keyed.items():
        if (newcomers, variant) != ("new", "plain"):
            continue
        thin, placebo = keyed.get(("new", "rarefied", feature)), keyed.get(("placebo", "plain", feature))
        letter = str(plain["verdict"])
        survives = specific = NO_COMPANION
        if letter != "none" and thin is not None:
            survives = "yes" if thin["verdict"] == letter else "no"
        if letter != "none" and placebo is not None and not math.isnan(placebo["d_nl"]):
            specific = "no" if _alike(plain, placebo) else "yes" if _apart(plain, placebo) else "open"
        lines.append(
            (
                feature, letter, NO_COMPANION if thin is None else str(thin["verdict"]),
                NO_COMPANION if placebo is None else str(placebo["verdict"]), survives, specific,
                _statement(letter, str(plain["reason"]), survives, specific),
            )
        )  # fmt: skip
    return pd.DataFrame(lines, columns=list(CONCLUSION_COLUMNS))


def _alike(plain: pd.Series, placebo: pd.Series) -> bool:
    """Whether placebo locals show what newcomers show: the verdict, or a significant step the same way."""
    if placebo["verdict"] == plain["verdict"]:
        return True
    sure = placebo["d_nl_lo"] > 0 or placebo["d_nl_hi"] < 0
    return bool(sure and (placebo["d_nl"] > 0) == (plain["d_nl"] > 0))


def _apart(plain: pd.Series, placebo: pd.Series) -> bool:
    """Whether the intervals of the two steps against locals do not overlap."""
    return bool(plain["d_nl_hi"] < placebo["d_nl_lo"] or placebo["d_nl_hi"] < plain["d_nl_lo"])


def _statement(letter: str, reason: str, survives: str, specific: str) -> str:
    if letter == "none":
        return f"no verdict: {reason}"
    told = {
        "yes": "survives rarefaction",
        "no": "does not survive rarefaction: report it as exposure",
        NO_COMPANION: "has no rarefied companion",
    }[survives]
    return f"{told}; {_PLACEBO[specific]}"
