"""What a holder has to offer so that it can take part in an exchange with other holders: write mail, read mail.

The coordinator relays mail and must not be able to read it, so writers seal it (`privacy.sealed`). Both calls may come
again after a crash of either side, with the same phase: then the same is written, at no further cost, and reading again
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from protocol.records import Header


class Correspondence(Protocol):
    """One holder's side of an exchange; `clients.call_holding` is one."""

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        """One sealed parcel for each other holder."""
        ...

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        """Take in what the others sent in this phase; all of it or nothing."""
        ...

    def tables(self) -> Any:
        """The holder's tables with all that was received so far."""
        ...
