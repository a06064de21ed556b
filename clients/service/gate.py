"""The one way out of a holder: what leaves is a reply of a known kind and of sizes that were public before.

Nothing of a reply is believed: `clients.service.allowed` says from the request, the plan and the model what it must
look like. What is sent is written anew from the typed reply, so nothing can ride along. And it has its line in the
outbox log, on the disk, before its first byte leaves. Of a refusal others get a code and the number of that line.
"""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections import Counter
from typing import TypedDict

from clients.agent import HolderAgent
from clients.service.allowed import Allowed
from clients.service.asked import Asked, Reply
from clients.service.outbox import REFUSAL, Outbox, Sent
from protocol import errors
from protocol.errors import MigrafedError, RefusedError, StorageError
from protocol.record_bytes import records_to_bytes

UNEXPECTED = "UnexpectedError"
"""Code of an error that nobody foresaw."""
NOT_WRITTEN = 0
"""Number of a refusal that could not be written down."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class _Place(TypedDict):
    run: str
    stage: str
    plan_hash: str


class Gate:
    """Lets replies and refusals out, one at a time, and counts them.

    Args:
        outbox: The log that each is written to before.
        ledger_holder: Under which name this holder keeps its ledgers.
    """

    def __init__(self, outbox: Outbox, *, ledger_holder: str) -> None:
        self._outbox, self._ledger_holder = outbox, ledger_holder
        self._words: dict[tuple[str, str, str], int] = {}
        self.counts: Counter[str] = Counter()
        self.bytes_sent = 0

    def release(self, asked: Asked, agent: HolderAgent, reply: Reply) -> bytes:
        """The bytes of a reply; they may be sent once this returns.

        Raises:
            RefusedError: it is not what may leave in answer to this request.
            StorageError: it cannot be written down that it leaves.
        """
        stage = (asked.header.run, asked.header.plan_hash, asked.header.stage)
        allowed = Allowed(asked, agent, ledger_holder=self._ledger_holder, opened_words=self._words.get(stage))
        most = allowed.most_bytes(reply)
        content = records_to_bytes(reply.to_records())
        if len(content) > most:
            raise RefusedError(
                f"an answer to '{asked.message_type}' was held back at the gate: it has {len(content)} bytes and may "
                f"have {most}; nothing left, tell the makers of this program"
            )
        if allowed.words is not None:
            self._words[stage] = allowed.words
        self._outbox.write(
            Sent(
                message_type=asked.message_type,
                kind=type(reply).__name__,
                **_place(asked),
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
        self.counts[type(reply).__name__] += 1
        self.bytes_sent += len(content)
        return content

    def refuse(self, message_type: str, asked: Asked | None, error: Exception) -> tuple[str, int]:
        """Code and number of a refusal: all that others are told of it."""
        code, text = code_of(error), text_of(error)
        try:
            number = self._outbox.write(
                Sent(message_type=message_type, kind=REFUSAL, **_place(asked), code=code, text=text)
            )
        except StorageError:
            code, number = StorageError.__name__, NOT_WRITTEN
        self.counts[REFUSAL] += 1
        return code, number


def code_of(error: Exception) -> str:
    """The name of the toolkit's error that this is: a word from a public list, whatever was raised."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError.__name__
    known = (kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    kind = next(known, None)
    return kind.__name__ if kind is not None and issubclass(kind, MigrafedError) else UNEXPECTED


def text_of(error: Exception) -> str:
    """Why, for the holder's own eyes. Of what nobody foresaw only where it happened: its text may hold a row."""
    if isinstance(error, MigrafedError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {frame.filename}:{frame.lineno}" for frame in place)
    return f"{type(error).__name__}{where}; the agent's log has the way there"


def _place(asked: Asked | None) -> _Place:
    if asked is None:
        return {"run": "", "stage": "", "plan_hash": ""}
    header = asked.header
    return {"run": header.run, "stage": header.stage, "plan_hash": header.plan_hash}
