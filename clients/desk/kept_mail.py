"""An exchange whose mail is kept, so that a holder that was started anew sends the same and knows what it had read.

What was sent and what arrived in each phase lies in the run's private folder, sealed as it went. Mail that arrived is
read again in order; mail that was sent is sent again as it was, and nothing is released or answered a second time.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from clients.correspondence import Correspondence
from clients.private_files import make_private_folder, write_private
from privacy.matching import QuestionBook
from protocol.errors import LedgerError, ProtocolError, StorageError
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
        for phase in self._phases:
            if (kept := self._kept("in", phase)) is not None:
                self._inner.read(kept[0], phase, kept[1])
                self._read.add(phase)

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        """See `Correspondence`; kept before it leaves.

        Raises:
            StorageError: it cannot be kept.
        """
        kept = self._kept("out", phase) if phase in self._phases else None
        if kept is not None and kept[0] == header:
            return kept[1]
        mail = self._inner.write(header, phase)
        self._keep("out", header, phase, mail)
        return mail

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        """See `Correspondence`; kept before it is answered.

        Raises:
            StorageError: it cannot be kept.
        """
        self._inner.read(header, phase, inbox)
        self._tables = None
        self._keep("in", header, phase, inbox)
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

    def _keep(self, way: Literal["in", "out"], header: Header, phase: str, mail: Mapping[str, bytes]) -> None:
        parcels = {name: base64.b64encode(parcel).decode() for name, parcel in mail.items()}
        try:
            make_private_folder(self._folder)
            write_private(self._path(way, phase), json.dumps({"header": asdict(header), "mail": parcels}).encode())
        except OSError as error:
            raise StorageError(f"mail cannot be kept in {self._folder} ({error.strerror}); make room") from None

    def _kept(self, way: Literal["in", "out"], phase: str) -> tuple[Header, dict[str, bytes]] | None:
        path = self._path(way, phase)
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_bytes())
            mail = {name: base64.b64decode(parcel, validate=True) for name, parcel in values["mail"].items()}
            return Header(**values["header"]), mail
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProtocolError(
                f"the mail kept in {path} is damaged; move the run's folder away, and the coordinator must start a new "
                "run"
            ) from None

    def _path(self, way: str, phase: str) -> Path:
        number = self._phases.index(phase) if phase in self._phases else len(self._phases)
        return self._folder / f"{number}-{phase}.{way}.json"


class KeptQuestions(QuestionBook):
    """How often each holder has asked in this period, over all runs and starts of the agent.

    Args:
        path: File of the book.
        period: Of the holder's policy; another period begins anew.
        most: Questions one holder may ask in it.

    Raises:
        LedgerError: the file is damaged.
    """

    def __init__(self, path: Path, *, period: str, most: int) -> None:
        self._path, self._period = path, period
        super().__init__(most, self._before())

    def charge(self, holder: str) -> None:
        """See `QuestionBook`; on disk when this returns.

        Raises:
            RefusedError: the holder has asked as often as it may.
            StorageError: it cannot be written; nothing may be answered.
        """
        before = dict(self.asked)
        super().charge(holder)
        try:
            make_private_folder(self._path.parent)
            write_private(self._path, json.dumps({"period": self._period, "asked": self.asked}).encode())
        except OSError as error:
            self.asked = before
            raise StorageError(f"{self._path} cannot be written ({error.strerror}), so nothing is answered") from None

    def _before(self) -> dict[str, int]:
        if not self._path.is_file():
            return {}
        try:
            values = json.loads(self._path.read_bytes())
            asked = {str(name): int(times) for name, times in values["asked"].items()}
            return asked if values["period"] == self._period else {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LedgerError(
                f"{self._path}, which counts what others have asked, is damaged; restore it from a backup"
            ) from None
