"""DHG-SIL as a task that holders can train together: the adapter between the contract and this package.

What is summed over holders before training (`phases`) depends on the plan's share:

==================  ==========  =================================================================================
share               phase       what each holder contributes
==================  ==========  =================================================================================
weights             linear      its own least-squares weights, to start the shared ones from their average
weights+margins     totals      counts per step, only if the index is a share of all queries
weights+margins     margins     in- and out-totals, entropy sums, the coarse mobility matrices (`dhgsil.margins`),
                                and the moments of the pooled least squares
==================  ==========  =================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue, model_validator
from torch import Tensor, nn

from dhgsil.calendars import calendar_features
from dhgsil.dataset import NODE_FEATURES, WindowDataset
from dhgsil.index import QUERIES_PER_MILLION, Index, Mode, fit_index
from dhgsil.least_squares import least_squares, normal_equations, start_from_least_squares
from dhgsil.losses import example_losses
from dhgsil.margins import Margins, margins_of
from dhgsil.model import DHGSIL, draw_dropout, personal_parameter_names
from dhgsil.model_config import DataConfig, ModelConfig, ModelSpec
from dhgsil.noisy_counts import count_queries, estimate_counts, released_series
from dhgsil.queries.rules import QueryRules
from dhgsil.readers import SOURCES, read_series
from dhgsil.regions import Regions
from dhgsil.series import ODSeries
from dhgsil.steps import Step
from dhgsil.windows import Split, chronological_split, split_at, window_origins
from protocol.errors import PlanError
from protocol.plan import FrozenConfig, Plan, Share
from protocol.tasks import Arrays

SYNTHETIC = "synthetic"
JOB_QUERIES = "job_queries"
_MARGIN = "margin."
SEASONS: dict[Step, int] = {"day": 7, "week": 1, "month": 1}
"""Steps after which a pattern may repeat within a training span of ordinary length."""
ROW_AXES = {"history": 2, "target": 2, "pair_features": 2, "rows": 1, "pair_weight": 1}
"""Tensors of a batch that have the held rows as an axis, and which."""
DRAWS_PER_STEP = 2**20
"""Numbers of draws that belong to one step when each of its examples has a draw of its own."""


class SplitDates(FrozenConfig):
    """First target day of validation and of test."""

    validation: str
    test: str


class QuerySection(FrozenConfig):
    """``[data.queries]``: days and rules by which raw job queries become counts. Public, the same for all holders."""

    step: Step = "week"
    zone: str = Field(default="Asia/Shanghai", description="where a day begins and ends")
    rules: QueryRules = QueryRules()


class DataSection(DataConfig):
    """``[data]`` of a plan: which series, which span of it, and how it is cut into windows.

    ``source = "job_queries"``: raw queries, a table of its own at each holder; with ``[data.world]`` they are made up.
    """

    source: Literal["synthetic", "job_queries", "parquet", "japan_pref_daily", "us_state_daily"]
    start: str | None = None
    end: str | None = None
    index: Mode = "total_share"
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    split: SplitDates | None = None
    world: dict[str, JsonValue] | None = None
    queries: QuerySection | None = None

    @model_validator(mode="after")
    def _sections_belong_to_the_source(self) -> DataSection:
        if self.world is not None and self.source not in (SYNTHETIC, JOB_QUERIES):
            raise ValueError(f'[data.world] describes a synthetic world, but source = "{self.source}"; remove one')
        if self.queries is not None and self.source != JOB_QUERIES:
            raise ValueError(f'[data.queries] is about raw queries, but source = "{self.source}"; remove one')
        if self.source == JOB_QUERIES and self.world is None and (self.start is None or self.end is None):
            raise ValueError("the days that raw queries are counted on must be public; set data.start and data.end")
        return self

    @property
    def made_up(self) -> bool:
        """Whether a world of ours makes the records, so that there is nobody to protect."""
        return self.source == SYNTHETIC or self.world is not None


@dataclass(frozen=True, eq=False)
class Grid:
    """What everybody may know of a series: when and where, but no counts."""

    times: np.ndarray
    step: Step
    regions: Regions
    country: str | None


def data_section(plan: Plan) -> DataSection:
    """The plan's ``[data]``, typed."""
    return DataSection.model_validate(plan.data)


def model_section(plan: Plan) -> ModelConfig:
    """The plan's ``[model]``, typed."""
    return ModelConfig.model_validate(plan.model)


def split_of(times: np.ndarray, data: DataSection) -> Split:
    """Training, validation and test targets of a plan: by dates if it names them, else by fractions."""
    if data.split is not None:
        return split_at(times, validation=data.split.validation, test=data.split.test)
    return chronological_split(len(times), fractions=data.fractions)


def indexed_counts(series: ODSeries, data: DataSection) -> np.ndarray:
    """Counts the index is made of: without those that stay, if shares of a row are forecast for other regions only.

    Otherwise a row's large diagonal would decide the scale of cells that are never scored against it.

    Shapes: -> (T, N, N)
    """
    if data.index != "row_share" or data.cells != "off_diagonal":
        return series.counts
    return series.counts * (1 - np.eye(series.num_regions, dtype=np.int64))


def holder_index(series: ODSeries, data: DataSection, share: Share, totals: Arrays) -> Index:
    """The index of a holder's counts.

    ``total_share`` needs the queries of all holders. With margins it has them; without, a holder's own share is scaled
    by the part of the regions it holds, so that values stay of the same order.
    """
    train = split_of(series.times, data).train
    if data.index != "total_share":
        return fit_index(indexed_counts(series, data), data.index, train=train)
    if share == "weights+margins":
        return fit_index(series.counts, data.index, train=train, totals=totals["totals"])
    kappa = QUERIES_PER_MILLION * float(series.observed.mean())
    return fit_index(series.counts, data.index, train=train, kappa=kappa)


def check_windows_apart(plan: Plan) -> None:
    """Refuse a plan whose windows carry statistics of other windows: noise on one window would not cover those.

    Raises:
        PlanError: names every switch to change.
    """
    data, model = data_section(plan), model_section(plan)
    own = {"reverse", "sparsity"}
    wanted = {
        'data.index = "raw"': data.index != "pair_minmax_train",
        "data.block_steps = 1": data.block_steps == 1,
        "model.node_features = false": not model.node_features,
        f"model.pair_features of {sorted(own)} only": set(model.pair_features) <= own,
    }
    if missing := [rule for rule, kept in wanted.items() if not kept]:
        raise PlanError(
            'with privacy.mode = "window-dpsgd" an example may be made of its own window only, and scalers and means '
            f"over the training span are not; set {', '.join(missing)}"
        )


class HolderWindows(WindowDataset):
    """A holder's windows with what the training loop asks of a dataset."""

    def __init__(self, *args: object, seed: int, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self._seed = seed

    @property
    def num_examples(self) -> int:
        """Scored cells of one window: the weight with which averages over holders equal the pooled ones."""
        return int(self.scored_cells)

    @property
    def shape_key(self) -> tuple[int, ...]:
        """Rows in a training step; everything else is the same for all holders of a plan."""
        held, drawn = len(self.rows), self.model.rows_per_step
        return (min(held, drawn) if drawn else held,)

    def examples(self, split: str) -> np.ndarray:
        """Origins of the windows of a split (int64), in time order."""
        if split == "train+validation":
            return np.concatenate([self.origins("train"), self.origins("validation")])
        if split not in ("train", "validation", "test"):
            raise PlanError(f"unknown split '{split}'; use train, validation, train+validation or test")
        return self.origins(split)

    def training_batch(self, examples: np.ndarray, *, draw: int) -> dict[str, Tensor]:
        """A batch with what is random in training, drawn from (seed, draw), so that a resumed run draws the same.

        Dropout masks are the same for every holder. With `rows_per_step`, that many of the held rows at random.
        """
        masks, chosen = self._drawn(len(examples), draw)
        batch = self.batch(examples) | masks
        if chosen is None:
            return batch
        return batch | {
            name: batch[name].index_select(axis, chosen) for name, axis in ROW_AXES.items() if name in batch
        }

    def training_examples(self, examples: np.ndarray, *, draw: int) -> dict[str, Tensor]:
        """`training_batch` with masks and rows drawn for each example by (seed, draw, example): not by its place."""
        drawn = [self._drawn(1, draw * DRAWS_PER_STEP + int(example)) for example in examples]
        batch = self.batch(examples) | {name: torch.cat([masks[name] for masks, _ in drawn]) for name in drawn[0][0]}
        rows = [chosen for _, chosen in drawn if chosen is not None]
        if not rows:
            return batch
        return batch | {
            name: torch.stack([one.index_select(axis - 1, few) for one, few in zip(batch[name], rows, strict=True)])
            for name, axis in ROW_AXES.items()
            if name in batch
        }

    def _drawn(self, windows: int, draw: int) -> tuple[dict[str, Tensor], Tensor | None]:
        """Dropout masks of so many windows, and the places of the rows of a step; None for all rows."""
        generator = torch.Generator().manual_seed((self._seed << 32) + draw)
        masks = draw_dropout(self.model, windows=windows, num_regions=self.num_regions, generator=generator)
        count = self.model.rows_per_step
        if not count or count >= len(self.rows):
            return masks, None
        return masks, torch.randperm(len(self.rows), generator=generator)[:count].sort().values


class DHGSILTask:
    """See `protocol.tasks.Task` for what each member promises."""

    name = "dhgsil"
    unit = "one window: L input steps and H target steps of all rows a holder sees; not a person"
    data_config = DataSection
    model_config = ModelConfig

    def load(self, plan: Plan, folder: Path | None) -> ODSeries:
        """The series the plan names, cut to its span.

        Raises:
            PlanError: the plan needs a data folder and none was given.
            DataError: what the reader refuses, or a span outside the series.
        """
        data = data_section(plan)
        if data.source not in SOURCES or folder is None:
            raise PlanError(f'the plan reads source = "{data.source}"; pass its folder with --data DIR')
        return self.cut(read_series(data.source, folder), plan)

    def cut(self, series: ODSeries, plan: Plan) -> ODSeries:
        """The span of the plan, after checking that its split and windows fit into it."""
        data = data_section(plan)
        cut = series.between(data.start, data.end)
        split = split_of(cut.times, data)
        for span in (split.train, split.validation, split.test):
            window_origins(span, input_steps=data.input_steps, horizon=data.horizon)  # refuses a span without a window
        return cut

    def held_by(self, tables: ODSeries, regions: tuple[str, ...]) -> ODSeries:
        """The holder's rows; other rows are zero and unobserved."""
        return tables.held_by(regions)

    def counts(self, tables: ODSeries) -> dict[str, np.ndarray]:
        """The queries a holder releases with noise: its cells and the margins of what leaves or enters a region.

        Shapes: R held rows -> cells (T, R, N), inflow (T, N), outflow (T, R), all int64

        Raises:
            DataError: the tables hold estimates, which were released already.
        """
        return count_queries(tables)

    def with_released(
        self, tables: ODSeries, values: Mapping[str, np.ndarray], stddev: Mapping[str, float], plan: Plan
    ) -> ODSeries:
        """The holder's series as its released counts tell it; of `tables` only the grid and the held rows are used.

        Args:
            tables: The holder's series; its counts are not read.
            values: Released queries, see `counts`; the margins may be left out.
            stddev: Noise of each released query.
            plan: Says which steps are for training and on which scale errors count.

        Raises:
            DataError: a query is missing or has another shape than the grid.
        """
        data = data_section(plan)
        train = split_of(tables.times, data).train
        estimates = estimate_counts(
            values, stddev, rows=np.flatnonzero(tables.observed), distance_km=tables.regions.distance_km(),
            train_steps=train.steps, season=SEASONS[tables.step], space=data.space,
        )  # fmt: skip
        return released_series(tables, estimates, stddev)

    def records(self, plan: Plan) -> dict[str, JsonValue]:
        """What names the raw records of a plan: source and span, never a digest of the counts, which would leak them.

        So other records under the same name get the release of the first ones, and cost nothing.
        """
        data = data_section(plan)
        made = {"seed": plan.run.seed} if data.made_up else {}
        return {"source": data.source, "start": data.start, "end": data.end, "world": data.world, **made}

    def public(self, tables: ODSeries) -> Grid:
        """The grid without counts."""
        return Grid(tables.times, tables.step, tables.regions, tables.provenance.country)

    def phases(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """See the table at the top of the module; none where training is private, as sums of raw data are not."""
        if plan.trains_privately:
            check_windows_apart(plan)
            return ()
        if share == "weights":
            return ("linear",)
        return ("totals", "margins") if data_section(plan).index == "total_share" else ("margins",)

    def requests(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """None: rounds of local steps do all the training."""
        return ()

    def statistics(self, phase: str, tables: ODSeries, plan: Plan, share: Share, totals: Arrays) -> Arrays:
        """This holder's addends, float64."""
        if phase == "totals":
            return {"totals": tables.counts.sum(axis=(1, 2)).astype(np.float64)}
        data = data_section(plan)
        m = holder_index(tables, data, share, totals).apply(indexed_counts(tables, data))
        own = margins_of(m, block_steps=data.block_steps)
        windows = self._windows(tables, plan, m, own)
        sums = normal_equations(windows, windows.examples(plan.training.fit_on))
        if phase == "margins":
            return {f"{_MARGIN}{name}": value for name, value in own.arrays().items()} | sums
        cells = float(windows.num_examples)
        return {"linear": cells * least_squares(sums), "cells": np.array([cells])}

    def prepare(self, tables: ODSeries, plan: Plan, share: Share, totals: Arrays) -> HolderWindows:
        """Windows of the holder's rows, with its own margins or those summed over all holders."""
        if plan.trains_privately:  # the holder's own check: nobody has to have asked for a phase before
            check_windows_apart(plan)
        data = data_section(plan)
        m = holder_index(tables, data, share, totals).apply(indexed_counts(tables, data))
        if share == "weights":
            margins = margins_of(m, block_steps=data.block_steps)
        else:
            arrays = {key.removeprefix(_MARGIN): totals[key] for key in totals if key.startswith(_MARGIN)}
            margins = Margins.from_arrays(arrays, block_steps=data.block_steps)
        return self._windows(tables, plan, m, margins)

    def build_model(self, public: Grid, plan: Plan, share: Share, totals: Arrays) -> DHGSIL:
        """The model, seeded by the plan, with its autoregression at the least squares that the totals give."""
        data = data_section(plan)
        training_steps = len(split_of(public.times, data).train)
        calendar = calendar_features(public.times, public.step, public.country, training_steps=training_steps)
        spec = ModelSpec.for_regions(
            public.regions.distance_km(),
            input_steps=data.input_steps,
            horizon=data.horizon,
            season_dim=calendar.dim,
            node_dim=len(NODE_FEATURES) * data.input_steps,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.run.seed)
            model = DHGSIL(model_section(plan), spec)
        if not plan.trains_privately:
            linear = least_squares(totals) if "gram" in totals else totals["linear"] / totals["cells"]
            start_from_least_squares(model, linear)
        return model

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The per-pair table: its rows belong to the holder of the origin."""
        return personal_parameter_names(model)

    def loss(self, model: DHGSIL, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of each window plus contrastive terms, (B,)."""
        return example_losses(model(batch), batch, model.config)

    def error(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of each window in model space, (B,)."""
        weight = batch["pair_weight"][:, None]
        squares = (model(batch).total - batch["target"]).square() * weight
        return squares.sum(dim=(1, 2, 3)) / (weight.sum(dim=(1, 2, 3)) * squares.shape[1]).clamp_min(1.0)

    def _windows(self, tables: ODSeries, plan: Plan, m: np.ndarray, margins: Margins) -> HolderWindows:
        data = data_section(plan)
        split = split_of(tables.times, data)
        return HolderWindows(tables, m, data, model_section(plan), margins, split=split, seed=plan.run.seed)


TASK = DHGSILTask()
