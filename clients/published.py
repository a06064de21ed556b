"""What analysts read of a release: one folder per step with its noisy counts as tables, and how noisy they are.

Everything here is made from the released values and public inputs alone, so it costs nothing and can be made again.

    releases/STEP/counts.parquet    time, origin, destination, count
    releases/STEP/margins.parquet   time, side (inflow: of a destination, outflow: of an origin), city, count
    releases/STEP/release.json      unit, epsilon, delta, contributions, noise, threshold
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.holder_config import HolderSettings
from clients.public_inputs import PublicInputs
from clients.release_store import ReleaseStore, ServedStep
from privacy.ledger_file import sync_folder
from privacy.plan import CountReleasePlan
from privacy.release import CELLS, NoisyCounts

COUNTS, MARGINS, METADATA = "counts.parquet", "margins.parquet", "release.json"


def publish(
    settings: HolderSettings,
    public: PublicInputs,
    mechanism: CountReleasePlan,
    store: ReleaseStore,
    step: ServedStep,
) -> Path:
    """Write the tables of a released step, whole or not at all; those that are there already stay as they are.

    Raises:
        LedgerError: the stored release is missing or changed.
    """
    place = store.published / str(step.first)
    if place.is_dir():
        return place
    noisy = store.stored(step)
    store.published.mkdir(exist_ok=True)
    draft = store.published / f".{step.first}.new"
    shutil.rmtree(draft, ignore_errors=True)  # left by a crash
    draft.mkdir()
    try:
        pq.write_table(counts_table(settings, public, step, noisy), draft / COUNTS, compression="zstd")
        if len(noisy.values) > 1:
            pq.write_table(margins_table(public, step, noisy), draft / MARGINS, compression="zstd")
        text = json.dumps(metadata(settings, mechanism, step, noisy), ensure_ascii=False, indent=1, allow_nan=False)
        (draft / METADATA).write_text(text + "\n", encoding="utf-8")
        _sync_files(draft)
        draft.rename(place)
        sync_folder(store.published)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def counts_table(settings: HolderSettings, public: PublicInputs, step: ServedStep, noisy: NoisyCounts) -> pa.Table:
    """Every cell of the step, zeros included. With ``hide_small_cells`` values below the threshold are set to 0.

    The threshold acts on the noisy values of this table only, which costs nothing; what is trained on stays as it is.
    """
    values = noisy.values[CELLS][0]
    if settings.config.release.hide_small_cells:
        values = np.where(values < settings.config.rules.small_cell_threshold, 0, values)
    rows, columns = values.shape
    return pa.table({
        "time": pa.array(np.full(values.size, np.datetime64(step.first, "D"))),
        "origin": _named(public.held, np.repeat(np.arange(rows), columns)),
        "destination": _named(public.cities.codes, np.tile(np.arange(columns), rows)),
        "count": values.ravel(),
    })  # fmt: skip


def margins_table(public: PublicInputs, step: ServedStep, noisy: NoisyCounts) -> pa.Table:
    """What enters each city from the held ones, and what leaves each held one; the diagonal is in neither."""
    inflow, outflow = noisy.values["inflow"][0], noisy.values["outflow"][0]
    sides = np.repeat([0, 1], [len(inflow), len(outflow)])
    return pa.table({
        "time": pa.array(np.full(len(sides), np.datetime64(step.first, "D"))),
        "side": _named(("inflow", "outflow"), sides),
        "city": pa.array([*public.cities.codes, *public.held]),
        "count": np.concatenate([inflow, outflow]),
    })  # fmt: skip


def metadata(
    settings: HolderSettings, mechanism: CountReleasePlan, step: ServedStep, noisy: NoisyCounts
) -> dict[str, Any]:
    """What a reader must know of the values. Holds no function of the raw rows but the release itself."""
    release, policy = settings.config.release, settings.config.privacy
    return {
        "schema_version": 1,
        "holder": policy.holder,
        "population": policy.population,
        "measure": "intention to look for a job in a city, from job queries; not migration",
        "step": str(step.first),
        "step_length": release.step,
        "zone": release.zone,
        "unit": mechanism.unit,
        "adjacency": mechanism.adjacency,
        "contributions": release.contributions,
        "window_days": release.window_days,
        "contributions_per_period": release.contributions_per_period,
        "ledger_period": step.ledger,
        "round": step.number,
        "epsilon": mechanism.epsilon(policy.delta),
        "delta": policy.delta,
        "epsilon_is_for": "all steps of the ledger period together",
        "noise_stddev": noisy.stddev,
        "hidden_below": settings.config.rules.small_cell_threshold if release.hide_small_cells else None,
        "reserved_for": step.base,
        "released": step.blob,
    }


def _named(names: tuple[str, ...], positions: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(positions.astype(np.int32)), pa.array(names))


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    sync_folder(folder)
