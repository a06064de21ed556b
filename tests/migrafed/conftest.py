"""A run folder made up for the tests: small, complete, seeded, and with whatever names a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from privacy.card import PrivacyCard
from simulations.results import (
    Comparison,
    GraphHomophily,
    HolderFacts,
    RunFacts,
    RunTables,
    model_label,
    pair_id,
    write_run,
)
from simulations.run_tables import MODEL, PARTS
from tests.cards import plain_card

HORIZON = 7
CITIES = ("Aoba", "Birch", "Cedar", "Delta", "Elm", "Fjord", "Grove", "Haven", "Isle", "Juniper", "Kestrel", "Linden")
SETTINGS = (
    (MODEL, "federated", "weights+margins", "", 0.372),
    (MODEL, "federated", "weights", "", 0.381),
    (MODEL, "pooled", "", "", 0.3705),
    (MODEL, "alone", "", "", 0.402),
    ("residual network with embeddings", "baseline", "", "", 0.3779),
    ("pooled least squares", "baseline", "", "", 0.4021),
    ("historical average, 4 weeks", "baseline", "", "", 0.4376),
    ("copy last week", "baseline", "", "", 0.5128),
)


def fabricated_metrics(holders: Sequence[str], seeds: Sequence[int] = (0, 1)) -> pd.DataFrame:
    """Errors that grow with the horizon and fall with the volume, for every setting, scale and slice."""
    settings = [*SETTINGS, *((MODEL, "alone", "", name, 0.39 + 0.01 * i) for i, name in enumerate(holders))]
    slices = [("all", 0, 1.0)]
    slices += [(f"h={h}", h, 0.94 + 0.02 * h) for h in range(1, HORIZON + 1)]
    slices += [(f"decile={d}", 0, 1.6 - 0.11 * d) for d in range(1, 11)]
    slices += [("before 2020-12-20", 0, 0.95), ("after 2020-12-20", 0, 1.06)]
    rows = []
    for model, scope, share, holder, rmse in settings:
        for scale, size in (("log1p", 1.0), ("raw", 9000.0), ("share", 0.016)):
            for name, horizon, factor in slices:
                for seed in seeds:
                    error = rmse * size * factor * (1 + 0.002 * seed)
                    covered = 0.9 - 0.004 * horizon if model == MODEL else np.nan
                    rows.append([model, scope, share, holder, scale, name, horizon, error, 0.71 * error,
                                 1 - error / size / 3, error / size / 0.51, covered, seed])  # fmt: skip
    columns = ["model", "scope", "share", "holder", "scale", "slice", "horizon"]
    return pd.DataFrame(rows, columns=[*columns, "rmse", "mae", "cpc", "mase", "coverage", "seed"])


def fabricated_forecasts(pairs: Sequence[str], rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Daily forecasts from every day of seven weeks, and their five parts in model space."""
    days = pd.date_range("2020-12-06", periods=56, freq="D")
    forecasts, parts = [], []
    for rank, pair in enumerate(pairs):
        weekly = np.where(days.day_of_week >= 5, 0.72, 1.0)
        truth = np.round(9000 / (1 + rank) * weekly * np.exp(rng.normal(0, 0.06, len(days))))
        for cut in range(len(days) - HORIZON):
            for h in range(1, HORIZON + 1):
                t = cut + h
                centre = 9000 / (1 + rank) * weekly[t] * np.exp(rng.normal(0, 0.03))
                width = np.exp(0.1 + 0.01 * h)
                when = (pair, days[t], days[cut])
                forecasts.append([*when, truth[t], centre, centre / width, centre * width])
                level = np.log1p(9000 / (1 + rank)) - 0.08
                values = (level, 0.01 * h, 0.8 * np.log(weekly[t]), 0.2 * np.log(weekly[t]), 0.08)
                parts += [[*when, part, value] for part, value in zip(PARTS, values, strict=True)]
    keys = ["unique_id", "ds", "cutoff"]
    return (
        pd.DataFrame(forecasts, columns=[*keys, "y", MODEL, f"{MODEL}-lo-90", f"{MODEL}-hi-90"]),
        pd.DataFrame(parts, columns=[*keys, "part", "value"]),
    )


def fabricated_tables(names: Sequence[str] = CITIES, holders: Sequence[str] = ("north", "south")) -> RunTables:
    """Tables over the given region names; codes are R00, R01, ..."""
    rng = np.random.default_rng(7)
    codes = [f"R{i:02d}" for i in range(len(names))]
    lat, lon = 31 + 13 * rng.random(len(names)), 130 + 14 * rng.random(len(names))
    inflow = np.sort(rng.lognormal(9, 1, len(names)))[::-1]
    predicted = inflow * np.exp(rng.normal(0, 0.15, len(names)))
    flows = [
        [codes[i], codes[j], int(inflow[i] * inflow[j] / inflow.sum() * rng.lognormal(0, 0.3)), when]
        for when in ("2021-01-30", "2021-01-31")
        for i in range(len(names))
        for j in range(len(names))
        if i != j
    ]
    forecasts, parts = fabricated_forecasts([pair_id(codes[0], codes[i]) for i in range(1, 7)], rng)
    ranks = {"last_rank": _ranks(inflow), "predicted_rank": _ranks(predicted)}
    values = {"last_value": np.log1p(inflow), "predicted_value": np.log1p(predicted)}
    return RunTables(
        metrics=fabricated_metrics(holders),
        forecasts=forecasts,
        parts=parts,
        attraction=pd.DataFrame({"region": codes, "name": list(names), **ranks, **values}),
        regions=pd.DataFrame({"id": codes, "name": list(names), "lat": lat, "lon": lon}),
        flows=pd.DataFrame(flows, columns=["origin", "dest", "count", "time"]),
    )


def fabricated_facts(tables: RunTables, holders: Sequence[str] = ("north", "south")) -> RunFacts:
    """Facts that fit `fabricated_tables`; each holder has every n-th region."""
    codes = list(tables.regions["id"])
    main = model_label(MODEL, "federated", "weights+margins")
    rival = SETTINGS[4][0]
    return RunFacts(
        run="fabricated-0001",
        plan_hash="6f1c" * 16,
        task="dhgsil",
        seconds=41.3,
        seeds=(0, 1),
        versions={"python": "3.11.9", "migrafed": "0.1.0", "torch": "2.13.0", "flwr": "1.41.0"},
        measure="synthetic job-query intention",
        command="migrafed simulate plans/demo.toml --seed 0",
        shares=("weights", "weights+margins"),
        holders=tuple(HolderFacts(name=n, regions=tuple(codes[i :: len(holders)])) for i, n in enumerate(holders)),
        homophily={
            "geography": GraphHomophily(h=0.53),
            "mobility out": GraphHomophily(h=1.18, null=1.34),
            "mobility in": GraphHomophily(h=1.06, null=1.31),
        },
        comparisons=(
            Comparison(
                model_a=main, model_b=rival, metric="rmse", scale="log1p", difference=-0.0059, lo=-0.0081, hi=-0.0036
            ),
        ),
        notes=("The yearly season is switched off: it needs two training years, and there is one.",),
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(-values)) + 1


RunMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> RunMaker:
    """Writes a fabricated run folder; names, holders, single tables and single facts may be replaced."""

    def make(
        *,
        names: Sequence[str] = CITIES,
        holders: Sequence[str] = ("north", "south"),
        replaced: Mapping[str, pd.DataFrame] | None = None,
        folder: Path | None = None,
        card: PrivacyCard | None = None,
        **facts: object,
    ) -> Path:
        folder = folder or tmp_path_factory.mktemp("run")
        (folder / "plan.lock.toml").write_text('[run]\nname = "fabricated"\ntask = "dhgsil"\n', encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"no weights in a made-up run")
        tables = RunTables(**(vars(fabricated_tables(names, holders)) | dict(replaced or {})))
        write_run(folder, tables, fabricated_facts(tables, holders).model_copy(update=facts), card or plain_card())
        return folder

    return make
