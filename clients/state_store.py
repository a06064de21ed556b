"""A holder's training states on its own disk, by round, so that it goes on where a crash of anybody stopped the run.

A coordinator that crashed may ask for its last round once more. What a holder trained in that round is then forgotten:
it begins from the state after the round before, and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from clients.private_files import make_private_folder, write_private
from clients.state import LocalState
from protocol.errors import ProtocolError, StorageError

_KEPT = 2
"""Rounds whose states are kept: the last one may be asked for again."""
_STATE, MODEL_FILE = ".state", "model.safetensors"


class StateStore:
    """States of one run, a folder for each stage.

    Args:
        folder: Of the run; private, made on first use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, stage: str, state: LocalState) -> None:
        """Keep the state after a round; later rounds, which did not happen after all, are forgotten.

        Raises:
            StorageError: it cannot be written; the round must not be told to anybody.
        """
        place = self._place(stage)
        try:
            make_private_folder(place)
            write_private(place / f"{state.round:08d}{_STATE}", state.to_bytes())
            others = [number for number in self._rounds(stage) if number != state.round]
            earlier = [number for number in others if number < state.round]
            for number in {*others} - {*earlier[-(_KEPT - 1) :]}:
                (place / f"{number:08d}{_STATE}").unlink()
        except OSError as error:
            raise StorageError(
                f"the training state cannot be kept in {place} ({error.strerror}); make room and let the run resume"
            ) from None

    def load(self, stage: str, *, before: int) -> LocalState:
        """The state that a round begins with: after the last one before it that this holder took part in.

        Raises:
            ProtocolError: the round lies before all that are kept, or a file is damaged.
        """
        known = self._rounds(stage)
        earlier = [number for number in known if number < before]
        if not earlier:
            if known and before > 1:
                raise ProtocolError(
                    f"round {before} of '{stage}' is asked for and this holder has states of {known} alone; a "
                    "coordinator goes back one round at most, so it must start a new run"
                )
            return LocalState()
        path = self._place(stage) / f"{earlier[-1]:08d}{_STATE}"
        try:
            return LocalState.from_bytes(path.read_bytes())
        except (OSError, SafetensorError, KeyError, ValueError):
            raise ProtocolError(
                f"the training state of round {earlier[-1]} of '{stage}' is damaged; the run cannot go on with this "
                "holder: restore its folder, or start a new run"
            ) from None

    def keep_model(self, stage: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """Keep the model that a stage ended with, the holder's personal parameters included.

        Raises:
            StorageError: it cannot be written.
        """
        place = self._place(stage)
        try:
            make_private_folder(place)
            write_private(place / "stage.txt", stage.encode())
            write_private(
                place / MODEL_FILE, save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
            )
        except OSError as error:
            raise StorageError(f"the model cannot be kept in {place} ({error.strerror}); make room") from None
        return place / MODEL_FILE

    def _rounds(self, stage: str) -> list[int]:
        return sorted(int(path.stem) for path in self._place(stage).glob(f"[0-9]*{_STATE}"))

    def _place(self, stage: str) -> Path:
        return self._folder / f"stage-{hashlib.sha256(stage.encode()).hexdigest()[:16]}"
