"""Every switch of DHG-SIL, and the sizes and fixed matrices a model is built for.

The spec's choice is written beside each switch as `spec:`; where the default differs, the comment says why.
All of it is a re-design that satisfies the recovered facts about the paper, not a reproduction of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from dhgsil.graphs import geography_operator

VariableName = Literal["attraction", "outflow", "retention", "diversity"]
PairFeature = Literal["reverse", "train_mean", "train_reverse", "train_cycle", "deviation", "sparsity"]
"""Extra inputs of a pair, for the context and the autoregression.

reverse        mean opposite flow of the latest coarse blocks (shared margins: a holder need not see those rows)
train_mean     the pair's mean over the training span
train_reverse  the opposite pair's mean flow over the training span (shared margins)
train_cycle    the pair's mean at each phase of a week of the training span, less its mean, from the first target
               step on (daily steps; seven inputs)
deviation      how far the mean log flow of the origin, of the destination and of all pairs in the input steps lies
               from its training mean (shared margins; three inputs)
sparsity       share of zeros among the input steps, and log1p of their mean flow (two inputs)
"""
PAIR_FEATURE_WIDTH: dict[PairFeature, int] = {
    "reverse": 1, "train_mean": 1, "train_reverse": 1, "train_cycle": 7, "deviation": 3, "sparsity": 2,
}  # fmt: skip
CYCLE = 7
VARIABLES: tuple[VariableName, ...] = ("attraction", "outflow", "retention", "diversity")


class DataConfig(BaseModel):
    """How a series is cut into windows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_steps: int = Field(default=12, ge=1)
    horizon: int = Field(default=4, ge=1)
    space: Literal["log1p", "linear"] = "log1p"
    cells: Literal["all", "off_diagonal"] = "off_diagonal"
    block_steps: int = Field(default=1, ge=1, description="steps per block of the coarse mobility matrices")
    label_steps: int = Field(default=4, ge=1, description="last input steps the four variables are computed from")
    scale: float = Field(default=1.0, gt=0, description="factor on the index before it enters model space")
    public: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="digest of the public lists that every party must have"
    )

    @model_serializer(mode="wrap")
    def _without_no_digest(self, values_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not in the digest of the plan."""
        return {name: value for name, value in values_of(self).items() if (name, value) != ("public", None)}


class ModelConfig(BaseModel):
    """Switches of the model and its loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=0)
    region_embedding: int = Field(default=16, ge=0)
    context_channels: int = Field(default=64, ge=1)
    projection_channels: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    node_features: bool = True  # spec: True; False leaves a region only its embedding
    rows_per_step: int = Field(default=0, ge=0, description="origins drawn for a training step; spec: 0, all held")

    geography: bool = True
    mobility: Literal["diff", "lowpass", "signed", "off"] = "diff"
    graph: Literal["data", "random"] = "data"  # random: equal degrees, for the ablation
    graph_seed: int = 0

    temporal: Literal["additive", "gru"] = "additive"
    trend: bool = True
    season: bool = True
    season_form: Literal["bilinear", "network"] = "bilinear"  # spec: bilinear; network adds `CalendarNetwork`
    autoregression: bool = True
    structure: bool = True
    backcast: bool = True

    context_inputs: Literal["static", "history"] = "static"
    calendar_context: Literal["none", "future", "both"] = "none"  # spec: none; basis rows the pair context sees
    days_off: Literal["detailed", "compact", "sunday"] = "detailed"  # see `Calendar.compact` and `Calendar.sundays`
    context_dropout: float = Field(default=0.0, ge=0, lt=1)  # spec: 0; a unit of an origin's contexts at a time
    pair_features: tuple[PairFeature, ...] = ()  # spec: none; see `PairFeature`
    pair: Literal["none", "embedding"] = "none"
    pair_channels: int = Field(default=8, ge=1)
    pair_scale: float = Field(default=0.1, gt=0, description="stddev of the initial pair embedding")

    contrastive_weight: float = Field(default=0.05, ge=0)
    contrastive_variables: tuple[VariableName, ...] = VARIABLES
    temperature: float = Field(default=0.2, gt=0)
    huber: float | None = Field(default=None, gt=0)

    @property
    def num_pair_features(self) -> int:
        """Inputs of the pair context that come from `pair_features`."""
        return sum(PAIR_FEATURE_WIDTH[name] for name in self.pair_features)


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """What a model is built for.

    Attributes:
        num_regions: N.
        input_steps: L.
        horizon: H.
        season_dim: K, columns of the calendar basis.
        node_dim: F, node features stacked over the input steps.
        geography: Low-pass operator S. Shape (N, N), float32.
        log_distance: log1p of the great-circle distance in km. Shape (N, N), float32.
    """

    num_regions: int
    input_steps: int
    horizon: int
    season_dim: int
    node_dim: int
    geography: np.ndarray
    log_distance: np.ndarray

    @classmethod
    def for_regions(
        cls, distance_km: np.ndarray, *, input_steps: int, horizon: int, season_dim: int, node_dim: int
    ) -> ModelSpec:
        """Spec of a model for regions at the given distances. Shape of distance_km: (N, N)."""
        return cls(
            num_regions=len(distance_km),
            input_steps=input_steps,
            horizon=horizon,
            season_dim=season_dim,
            node_dim=node_dim,
            geography=geography_operator(distance_km).astype(np.float32),
            log_distance=np.log1p(distance_km).astype(np.float32),
        )
