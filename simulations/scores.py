"""What one forecaster came to on the test span: metric rows, and losses per window for paired comparisons.

Kept small on purpose: a finished stage stores its score in the journal, not its forecasts, so that a resumed run can
complete the table without training again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from dhgsil.bootstrap import window_losses
from dhgsil.metrics import Row, Scoring, attraction_ranking, forecast_errors, to_scale

_TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Rows of the metrics table and window losses by (scale, metric).

    `seconds` is the wall time the stage took; `note` a sentence for the report (why a baseline is not there, say).
    """

    rows: tuple[Row, ...]
    losses: dict[tuple[str, str], np.ndarray]
    ranking: tuple[Row, ...] = ()
    seconds: float = 0.0
    note: str = ""

    def to_bytes(self) -> bytes:
        text = json.dumps(
            {"rows": self.rows, "ranking": self.ranking, "seconds": self.seconds, "note": self.note}
        ).encode()
        arrays = {f"{scale}:{metric}": value for (scale, metric), value in self.losses.items()}
        return save({_TEXT: np.frombuffer(text, dtype=np.uint8), **arrays})

    @classmethod
    def from_bytes(cls, blob: bytes) -> Score:
        arrays = load(blob)
        text = json.loads(arrays.pop(_TEXT).tobytes())
        losses = {(key.split(":")[0], key.split(":")[1]): value for key, value in arrays.items()}
        return cls(
            rows=tuple(text["rows"]),
            ranking=tuple(text["ranking"]),
            losses=losses,
            seconds=text["seconds"],
            note=text["note"],
        )


def score_forecast(
    truth: np.ndarray,
    forecast: np.ndarray,
    scoring: Scoring,
    *,
    labels: dict[str, str],
    seed: int,
    target_times: np.ndarray,
    inside: np.ndarray | None = None,
    seconds: float = 0.0,
) -> Score:
    """Score test forecasts in model space. Shapes: truth, forecast, inside (W, H, N, N), target_times (W, H)."""
    rows = forecast_errors(
        truth, forecast, scoring, seed=seed, target_times=target_times, inside=inside,
        model=labels["model"], scope=labels["scope"], share=labels.get("share", ""), holder=labels.get("holder", ""),
    )  # fmt: skip
    losses = {}
    for scale in scoring.scales:
        true = to_scale(truth, scale, space=scoring.space, scored=scoring.scored)
        predicted = to_scale(forecast, scale, space=scoring.space, scored=scoring.scored)
        for metric in ("rmse", "mae"):
            losses[scale, metric] = window_losses(true, predicted, scored=scoring.scored, metric=metric)
    ranking = attraction_ranking(truth, forecast, space=scoring.space)
    return Score(rows=tuple(rows), losses=losses, ranking=tuple(ranking), seconds=seconds)
