"""Which words make a query a job query, and which words say that it is none after all.

Three lists. A query with a *job* term is a job query, unless it also has a *stop* term (an employer's or a reader's
search: a recruiting poster, interview questions). *Not places* are words that hold a city's name and name no city, such
as the dish 兰州拉面; as longest matches they hide it, and a name that is among them itself (东方) is no place at all.
Terms are compared after `normalise`; Latin ones as whole words.

The built-in lists are the files ``keywords/zh.toml`` and ``keywords/en.toml`` beside this module. A file of one's own
has the same keys. The lists are public, and never chosen from the holder's rows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import Field

from dhgsil.queries.rules import Language
from protocol.errors import PlanError
from protocol.plan import FrozenConfig, digest_of, parse_config, read_toml


@dataclass(frozen=True)
class Keywords:
    """Terms as they were written; `TextReader` normalises them."""

    job: tuple[str, ...]
    stop: tuple[str, ...] = ()
    not_places: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of the three lists, whatever their order, as 64 hexadecimal digits."""
        lists = {"job": self.job, "stop": self.stop, "not_places": self.not_places}
        return digest_of({name: [*sorted(set(terms))] for name, terms in lists.items()})


class KeywordFile(FrozenConfig):
    """Content of a keyword file."""

    job: tuple[str, ...] = Field(min_length=1)
    stop: tuple[str, ...] = ()
    not_places: tuple[str, ...] = ()

    def keywords(self) -> Keywords:
        """The same, as a plain value."""
        return Keywords(job=self.job, stop=self.stop, not_places=self.not_places)


def builtin_keywords(languages: Sequence[Language] = ("zh", "en")) -> Keywords:
    """The built-in terms of these languages, joined.

    Raises:
        PlanError: a language is unknown.
    """
    found = [_builtin(language) for language in languages]
    return Keywords(
        job=tuple(dict.fromkeys(term for part in found for term in part.job)),
        stop=tuple(dict.fromkeys(term for part in found for term in part.stop)),
        not_places=tuple(dict.fromkeys(term for part in found for term in part.not_places)),
    )


def read_keywords(path: Path) -> Keywords:
    """The terms of a TOML file: ``job = [...]``, and perhaps ``stop`` and ``not_places``.

    Raises:
        PlanError: no such file, not TOML, no job term, an unknown key.
    """
    return _checked(read_toml(path, what="keyword list"), where=str(path))


def _builtin(language: str) -> Keywords:
    file = resources.files("dhgsil.queries").joinpath("keywords", f"{language}.toml")
    if not file.is_file():
        raise PlanError(f"there is no built-in keyword list '{language}'; use 'zh' or 'en', or a file of your own")
    return _checked(tomllib.loads(file.read_text(encoding="utf-8")), where=f"{language}.toml")


def _checked(values: Mapping[str, object], *, where: str) -> Keywords:
    return parse_config(KeywordFile, values, where=where).keywords()
