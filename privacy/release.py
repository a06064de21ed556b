"""The count release: discrete Gaussian noise on every cell of the public grid, empty cells included.

::

    noisy = release_counts(counts.queries(), plan, SecureStream())
    blob = noisy.to_bytes()  # what the ledger stores and the holder trains on

Everything computed from the result alone (models, graphs, scalings, plots, any number of rounds) is post-processing and
costs nothing more. Values may be negative: an empty cell gets noise like any other. Clipping them at zero is
post-processing too, allowed but biased upwards, and done elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from privacy.discrete_gaussian import DiscreteGaussian
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from protocol.errors import DataError, PrivacyParameterError, ProtocolError

CELLS = "cells"
MARGINS = ("inflow", "outflow")
DIMENSIONS = {"cells": 3, "inflow": 2, "outflow": 2}

MAGIC = b"migrafed noisy counts 1\n"
DIGEST_BYTES = 32
LARGEST_COUNT = 1 << 62  # leaves room for any noise in int64


@dataclass(frozen=True, eq=False)
class NoisyCounts:
    """Released counts and how noisy each query is; safe to keep, to send and to publish.

    Args:
        values: Noisy counts by query, int64, possibly negative: cells (T, R, N), inflow (T, N), outflow (T, R).
        stddev: Standard deviation of the noise on each value, by query.

    Raises:
        DataError: queries that do not fit together, or a noise stddev that is not finite and above 0.
    """

    values: dict[str, np.ndarray]
    stddev: dict[str, float]

    def __post_init__(self) -> None:
        _check_shapes(self.values)
        if self.values.keys() != self.stddev.keys():
            raise DataError(
                f"values has {_listing(self.values)}, stddev has {_listing(self.stddev)}",
                way_out="give one stddev for each query",
            )
        for name, stddev in self.stddev.items():
            if isinstance(stddev, bool) or not (isinstance(stddev, (int, float)) and 0 < stddev < math.inf):
                raise DataError(f"the noise stddev of '{name}' must be finite and > 0", way_out="take it from the plan")

    def to_bytes(self) -> bytes:
        """One fixed encoding: a line that names the format, the SHA-256 of the rest, and a safetensors file.

        The digest shows damage, not forgery, as anybody can compute it: the ledger's signature is what binds the bytes
        to a holder.
        """
        # A single metadata key: safetensors keeps no order among several.
        header = json.dumps({"stddev": self.stddev}, sort_keys=True, separators=(",", ":"))
        body = save({name: np.ascontiguousarray(array) for name, array in self.values.items()}, {"migrafed": header})
        return b"".join((MAGIC, hashlib.sha256(body).digest(), body))

    @classmethod
    def from_bytes(cls, blob: bytes) -> NoisyCounts:
        """Counts from `to_bytes`.

        Raises:
            ProtocolError: bytes of another format, cut short, changed, or that hold something else.
        """
        start = len(MAGIC) + DIGEST_BYTES
        if not blob.startswith(MAGIC):
            raise ProtocolError("these bytes are not noisy counts of version 1; ask the holder for its stored release")
        body = bytes(memoryview(blob)[start:])
        if hashlib.sha256(body).digest() != blob[len(MAGIC) : start]:
            raise ProtocolError("the digest of these noisy counts does not fit: cut short or changed; fetch them again")
        try:
            return cls(values=load(body), stddev=_stddev_in(body))
        except (SafetensorError, DataError, ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"these bytes are not noisy counts: {error}") from error


def release_counts(queries: Mapping[str, np.ndarray], plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
    """Every count of the public grid plus discrete Gaussian noise of the plan's stddev, drawn afresh for each.

    ``value = count + noise``,  ``P[noise = x] ∝ exp(-x² / (2 stddev²))``, counts of zero included: noise on the other
    cells alone would tell which cells are empty.

    Unit and adjacency: as in the plan; add or remove one person. Sensitivity of each query: L1 <= k, L2 <= sqrt(k),
    Linf <= 1 with k = plan.contributions, which is what `privacy.bounding.bound_contributions` makes sure of and
    what cannot be seen from the counts. One call is one release: what it costs is reserved before, in the ledger.

    Args:
        queries: Bounded counts by name: "cells", and "inflow" and "outflow" exactly if the plan pays for margins.
        plan: Noise of each query.
        stream: Secure randomness.

    Shapes: cells (T, R, N), inflow (T, N), outflow (T, R); the same in the result. Holders that see R of N origins
        release R rows.

    Raises:
        PrivacyParameterError: a query that the plan does not pay for, or one that is missing.
        DataError: counts that are not int64, negative, too large, or of shapes that do not fit together.
    """
    stddev = _stddevs(plan)
    if queries.keys() != stddev.keys():
        raise PrivacyParameterError(
            f"the plan pays for {_listing(stddev)}, and was given {_listing(queries)}; give exactly those"
        )
    _check_shapes(queries)
    for name, counts in queries.items():
        # One message for both ends: where and how large is the data's secret.
        if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) < LARGEST_COUNT:
            raise DataError(f"'{name}' has values outside 0 to 2^62", way_out="give counts of persons")
    return NoisyCounts(
        values={name: _noised(queries[name], scale, stream) for name, scale in stddev.items()}, stddev=stddev
    )


def _stddevs(plan: CountReleasePlan) -> dict[str, float]:
    """Noise stddev of each query that the plan pays for."""
    stddev = {CELLS: float(plan.cells_stddev)}
    return stddev if plan.margins_stddev is None else stddev | dict.fromkeys(MARGINS, float(plan.margins_stddev))


def _noised(counts: np.ndarray, stddev: float, stream: SecureStream) -> np.ndarray:
    """Counts plus a fresh draw on each."""
    noisy = DiscreteGaussian(stddev).sample(counts.shape, stream)
    noisy += counts
    return noisy


def _check_shapes(queries: Mapping[str, np.ndarray]) -> None:
    """Known names, int64, and one grid (T, R, N) for all."""
    unknown = queries.keys() - DIMENSIONS.keys()
    if unknown or CELLS not in queries:
        raise DataError(
            f"queries are {_listing(queries)}", way_out=f"known are {_listing(DIMENSIONS)}, the first always"
        )
    for name, values in queries.items():
        if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != DIMENSIONS[name]:
            kind = f"{values.dtype}, {values.ndim}-d" if isinstance(values, np.ndarray) else type(values).__name__
            raise DataError(
                f"'{name}' is {kind}, and must be an array of int64 with {DIMENSIONS[name]} dimensions",
                way_out="give counts as bound_contributions makes them",
            )
    times, origins, destinations = queries[CELLS].shape
    for name, shape in (("inflow", (times, destinations)), ("outflow", (times, origins))):
        if name in queries and queries[name].shape != shape:
            raise DataError(f"'{name}' has shape {queries[name].shape}, cells ask for {shape}", way_out="use one grid")


def _stddev_in(body: bytes) -> dict[str, float]:
    """The noise stddevs in the header of a safetensors file, which begins with its length in eight bytes."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["migrafed"])
    if not isinstance(header, dict) or header.keys() != {"stddev"} or not isinstance(header["stddev"], dict):
        raise ValueError("their header is not one of noisy counts")
    return header["stddev"]


def _listing(names: Iterable[str]) -> str:
    """Names in order, for a message."""
    return ", ".join(sorted(names)) or "nothing"
