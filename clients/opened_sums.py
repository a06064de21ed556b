"""What a holder remembers of the masked sums it helped to open: over whom each was. On disk where noise is shared.

Whoever has one sum twice, once with and once without a holder, has that holder's part. Where parts carry all of their
noise this tells what the noise allows; where they carry a share (`privacy.distributed`) it would not, so a holder must
not forget it when it is started anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from protocol.errors import LedgerError

Key = tuple[str, str, str]
"""Run, stage and label of a sum."""
OPENED_FILE = "opened-sums.jsonl"


class OpenedSums:
    """Sums that were opened, and over which holders.

    Args:
        path: File that keeps them, one line each, written before anything is given away; None: memory only.

    Raises:
        LedgerError: the file is damaged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._over = path, dict[Key, tuple[str, ...]]()
        if path is not None and path.exists():
            self._read(path)

    def over(self, key: Key) -> tuple[str, ...] | None:
        """Over whom a sum was opened; None if it was not."""
        return self._over.get(key)

    def note(self, key: Key, names: tuple[str, ...]) -> None:
        """Remember over whom a sum is opened; on disk when this returns."""
        if self._path is not None and self._over.get(key) != names:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(json.dumps([*key, list(names)]).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._over[key] = names

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # cut short by a crash, before anything was given away
            with path.open("r+b") as file:
                file.truncate(len(whole))
                file.flush()
                os.fsync(file.fileno())
        try:
            for line in whole.splitlines():
                run, stage, label, names = json.loads(line)
                self._over[run, stage, label] = tuple(names)
        except (ValueError, TypeError):
            raise LedgerError(
                f"{path}, which tells over whom sums were opened, is damaged; restore the holder's folder from a backup"
            ) from None
