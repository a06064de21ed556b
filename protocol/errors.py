"""The error tree of migrafed.

Every error names the offending value, the rule it breaks and the way out, and never holds a row of data or a secret::

    MigrafedError                     exit code 1
    ├── InputError (ValueError)       exit code 2   something a person gave us is wrong; nothing was changed
    │   ├── PlanError                               a plan or another configuration
    │   │   └── PrivacyParameterError               epsilon, delta, noise or bounds that break a rule
    │   ├── DataError                               a file, a table or an array of input data
    │   └── RunFolderError                          a run folder that cannot be used as asked
    ├── ProtocolError                 exit code 1   a message that does not follow the protocol
    │   ├── ForgedFileError           exit code 2   a file of another party whose signature does not hold; an InputError
    │   └── TranscriptError                         what a run recorded of its masked sums does not hold
    ├── TrainingError                 exit code 1   training cannot go on (a loss that is not finite, say)
    ├── EngineError                   exit code 1   a query engine failed or hung up; nothing was released
    ├── LinkError                     exit code 1   another process or machine cannot be reached, or hung up
    ├── StorageError                  exit code 1   something could not be kept: a full disk, an unwritable file
    ├── RefusedError                  exit code 3   a privacy rule of a holder forbids it; nothing was released
    │   ├── NotApprovedError                        the holder's operator has not approved it, or no longer does
    │   ├── HolderRefusedError                      what a holder said no to, as its coordinator is told
    │   ├── PolicyRefusedError                      the plan asks for more than the holder's policy allows
    │   ├── BudgetExceededError                     the budget left is smaller than what was asked
    │   ├── AggregationRefusedError                 a sum was asked for in a way that could show one holder's part
    │   ├── LedgerError                             a ledger that is damaged, rolled back, or somebody else's
    │   ├── PrivacyUnitError                        gradients do not have one row per unit of privacy
    │   └── ConformanceError                        a mechanism failed its check before the run
    └── RunInterruptedError           exit code 4   stopped on request; the run can be resumed
"""

from __future__ import annotations

from pathlib import Path


class MigrafedError(Exception):
    """Root of all errors raised on purpose by this toolkit."""

    exit_code = 1


class InputError(MigrafedError, ValueError):
    """Something given by the user breaks a rule; nothing was changed."""

    exit_code = 2


class PlanError(InputError):
    """A plan, or another configuration, is not valid."""


class PrivacyParameterError(PlanError):
    """Privacy parameters break a rule: epsilon, delta, noise, sampling rate or contribution bounds."""


class DataError(InputError):
    """Input data break a rule; says where (file, column, row number) but never shows the row.

    Args:
        problem: What is wrong and the rule, in one sentence.
        way_out: What the user can do about it.
        source: File or array the data came from.
        column: Column in which the problem was found.
        row: Row number, counted from 1 without the header.
    """

    def __init__(
        self,
        problem: str,
        *,
        way_out: str,
        source: str | Path | None = None,
        column: str | None = None,
        row: int | None = None,
    ) -> None:
        place = ", ".join(
            part
            for part in (
                str(source) if source is not None else "",
                f"column '{column}'" if column is not None else "",
                f"row {row}" if row is not None else "",
            )
            if part
        )
        super().__init__(f"{place + ': ' if place else ''}{problem}; {way_out}")
        self.source, self.column, self.row, self.way_out = source, column, row, way_out


class RunFolderError(InputError):
    """A run folder is missing, holds another run, or is damaged."""


class ProtocolError(MigrafedError):
    """A message does not follow the protocol: missing, unknown or malformed content."""


class TranscriptError(ProtocolError):
    """What a run recorded of its masked sums does not hold when it is rechecked.

    Args:
        problem: What does not hold.
        stage: The training.
        session: The session, 32 hexadecimal digits; empty where it is about the whole stage.
        sequence: Number of the sum in the session; 0 where it is about the session or the stage.
    """

    def __init__(self, problem: str, *, stage: str, session: str = "", sequence: int = 0) -> None:
        where = f"stage '{stage}'" + (f", session {session[:8]}" if session else "")
        super().__init__(f"{where}{f', sum {sequence}' if sequence else ''}: {problem}")
        self.problem, self.stage, self.session, self.sequence = problem, stage, session, sequence


class ForgedFileError(ProtocolError, InputError):
    """A file of another party whose signature does not hold; nothing was taken from it."""


class TrainingError(MigrafedError):
    """Training cannot go on."""


class EngineError(MigrafedError):
    """A query engine failed, or dropped the connection; nothing was released. Never holds the engine's own message.

    An engine may quote a value of a row, or an address with a password, in what it says.
    """


class LinkError(MigrafedError):
    """Another process or machine cannot be reached, is not who it should be, or hung up."""


class StorageError(MigrafedError):
    """Something could not be kept, so nothing was given away: a full disk, or a file that cannot be written."""


class RefusedError(MigrafedError):
    """A privacy rule of a holder forbids what was asked."""

    exit_code = 3


class NotApprovedError(RefusedError):
    """A plan, a roster or a coordinator that the holder's operator has not approved, or no longer does."""


class HolderRefusedError(RefusedError):
    """A holder said no. The coordinator is told the kind of reason and where its operator finds the whole of it.

    Args:
        holder: Name of the holder, or of its node.
        code: Class name of the error that the holder raised.
        number: Of the refusal in the holder's outbox; 0 if it is the node's own word, or could not be written there.
    """

    def __init__(self, holder: str, *, code: str, number: int) -> None:
        where = f"as refusal {number} with 'migrafed holder outbox'" if number else "in the node's and the agent's log"
        super().__init__(f"{holder} refuses ({code}); its operator finds why {where}")
        self.holder, self.code, self.number = holder, code, number


class PolicyRefusedError(RefusedError):
    """A plan asks for less noise, wider bounds or more than the holder's policy allows."""


class BudgetExceededError(RefusedError):
    """A release would spend more than the budget allows; what is left is in the message."""

    def __init__(self, problem: str, *, requested: float, left: float) -> None:
        super().__init__(problem)
        self.requested, self.left = requested, left


class AggregationRefusedError(RefusedError):
    """A sum was asked for in a way that could show what a single holder put into it; nothing was given away."""


class LedgerError(RefusedError):
    """A ledger cannot be trusted: damaged, tampered with, rolled back, or kept for somebody else."""


class PrivacyUnitError(RefusedError):
    """Per-example gradients do not have one row per unit of privacy, or a model mixes examples."""


class ConformanceError(RefusedError):
    """A mechanism failed its conformance check, so the private run does not start."""


class RunInterruptedError(MigrafedError):
    """The run was stopped on request and can be resumed."""

    exit_code = 4
