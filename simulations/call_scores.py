"""Scores of single persons, which a run writes only if it is asked to and every operator's policy consents.

That somebody is taken for a migrant is a sensitive statement about a person. An operator consents in its
``holder.toml``::

    [privacy]
    person_scores = true

Each operator's scores go into a file of its own that only this user may read; nobody else's are in it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clients.desk.calls import HOLDER_FILE
from clients.policy import load_policy
from integration.study import StudySection
from protocol.errors import PolicyRefusedError
from protocol.files import write_whole
from protocol.plan import Plan
from simulations.call_training import Fitted

FOLDER = "scores"


def check_scores(plan: Plan, study: StudySection, data: Path | None) -> None:
    """Whether every operator allows that scores of its subscribers are written; made-up people are nobody's.

    Raises:
        PolicyRefusedError: the first operator that does not, and what it would have to say.
    """
    if study.made_up or data is None:
        return
    for name in plan.federation.holders:
        if not load_policy(data / name / HOLDER_FILE).person_scores:
            raise PolicyRefusedError(
                f"operator '{name}' does not allow that scores of single persons are written; leave out --scores, or "
                "have it set person_scores = true in [privacy] of its holder.toml"
            )


def write_scores(folder: Path, rows: pd.DataFrame, fitted: Fitted) -> None:
    """One file for each operator: number, week, probability of the positive class; 0600 in a folder of 0700.

    Args:
        folder: The run folder.
        rows: Rows of features of all operators.
        fitted: The main classifier.
    """
    place = folder / FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    for operator, own in rows.groupby("operator"):
        scores = pd.DataFrame({
            "number": [_name(int(code)) for code in own["person"]],
            "week": own["week"].to_numpy(),
            "probability": fitted.probabilities(own)[:, -1],
        })  # fmt: skip
        path = place / f"{operator}.parquet"
        write_whole(path, scores.to_parquet)
        path.chmod(0o600)


def _name(code: int) -> str:
    """The number behind its code; numbers of other signs than digits keep the code, which has no way back."""
    return str(code)[1:] if code > 0 else f"code {code}"
