"""An exchange whose mail is kept, so that a holder that was started anew knows what it had read.

What arrived in each phase lies in the run's private folder, sealed as it came, and is read again in order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clients.correspondence import Correspondence
from clients.private_files import make_private_folder, write_private
from protocol.errors import ProtocolError, StorageError
from protocol.records import Header


class KeptMail:
    """See `clients.correspondence.Correspondence`.

    Args:
        inner: Writes and reads.
        folder: Where mail is kept.
        phases: Of the exchange, in order.
        tables: What is trained on instead of what the exchange makes, where the plan says so.

    Raises:
        ProtocolError: what was kept is damaged.
    """

    def __init__(
        self, inner: Correspondence, folder: Path, phases: Sequence[str], *, tables: Callable[[], Any] | None = None
    ) -> None:
        self._inner, self._folder, self._phases, self._instead = inner, folder, tuple(phases), tables
        self._read: set[str] = set()
        self._tables: Any = None
        for number, phase in enumerate(self._phases):
            if (path := self._path(number, phase)).is_file():
                header, inbox = _unpacked(path)
                self._inner.read(header, phase, inbox)
                self._read.add(phase)

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        """See `Correspondence`."""
        return self._inner.write(header, phase)

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        """See `Correspondence`; kept before it is answered.

        Raises:
            StorageError: it cannot be kept.
        """
        self._inner.read(header, phase, inbox)
        self._tables = None
        if phase in self._phases:
            try:
                make_private_folder(self._folder)
                write_private(self._path(self._phases.index(phase), phase), _packed(header, inbox))
            except OSError as error:
                raise StorageError(f"mail cannot be kept in {self._folder} ({error.strerror}); make room") from None
            self._read.add(phase)

    def tables(self) -> Any:
        """See `Correspondence`.

        Raises:
            ProtocolError: the exchange is not finished.
        """
        if self._instead is not None:
            return self._instead()
        if missing := [phase for phase in self._phases if phase not in self._read]:
            raise ProtocolError(
                f"the exchange has not come to its phase '{missing[0]}' here, and the plan trains on what it brings; "
                "the coordinator must carry it out first"
            )
        if self._tables is None:
            self._tables = self._inner.tables()
        return self._tables

    def _path(self, number: int, phase: str) -> Path:
        return self._folder / f"{number}-{phase}.json"


def _packed(header: Header, inbox: Mapping[str, bytes]) -> bytes:
    mail = {name: base64.b64encode(parcel).decode() for name, parcel in inbox.items()}
    return json.dumps({"header": asdict(header), "mail": mail}).encode()


def _unpacked(path: Path) -> tuple[Header, dict[str, bytes]]:
    try:
        values = json.loads(path.read_bytes())
        mail = {name: base64.b64decode(parcel, validate=True) for name, parcel in values["mail"].items()}
        return Header(**values["header"]), mail
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProtocolError(
            f"the mail kept in {path} is damaged; remove the folder of the run and let the coordinator start a new run"
        ) from None
