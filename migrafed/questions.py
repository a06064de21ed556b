"""Questions to a person at a terminal. Without one nothing is asked: what is missing is said, with the flag for it."""

from __future__ import annotations

import sys

from protocol.errors import InputError, RunInterruptedError


class Questions:
    """Asks on stderr and reads answers from stdin, if both are a terminal.

    Args:
        as_json: The caller is a program: nothing is asked.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.allowed = not as_json and _is_terminal(sys.stdin) and _is_terminal(sys.stderr)

    def text(self, question: str, *, flag: str, default: str | None = None) -> str:
        """An answer, or the default if there is one.

        Raises:
            InputError: nobody can be asked, and there is no default.
        """
        if not self.allowed:
            if default is not None:
                return default
            raise InputError(f"{question.lower()} is missing, and there is no terminal to ask at; give {flag}")
        shown = f" [{default}]" if default is not None else ""
        while not (answer := _ask(f"{question}{shown}: ") or default or ""):
            pass
        return answer

    def agreed(self, question: str, *, flag: str) -> bool:
        """Whether somebody typed yes; anything else is no.

        Raises:
            InputError: nobody can be asked.
        """
        if not self.allowed:
            raise InputError(f"{question[0].lower()}{question[1:]} There is no terminal to ask at; give {flag}")
        return _ask(f"{question} Type yes: ").lower() == "yes"


def _ask(prompt: str) -> str:
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise RunInterruptedError("the input ended before an answer; nothing was changed")
    return line.strip()


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty is not None and isatty())
