"""The public inputs of a release: city list, held cities, keywords. Fixed before a row of the holder is read."""

from __future__ import annotations

from dataclasses import dataclass

from clients.holder_config import HolderSettings
from dhgsil.queries.cities import CityList, read_cities
from dhgsil.queries.keywords import Keywords, builtin_keywords, read_keywords
from protocol.errors import PlanError


@dataclass(frozen=True)
class PublicInputs:
    """What `[release]` names, read. Positions in `held` are the rows of every array of counts."""

    cities: CityList
    held: tuple[str, ...]
    keywords: Keywords

    def digests(self) -> dict[str, str]:
        """SHA-256 of each, by name."""
        return {"cities": self.cities.digest(), "keywords": self.keywords.digest()}


def read_public_inputs(settings: HolderSettings) -> PublicInputs:
    """Read the city list and the keywords, and find the held cities in the list.

    Raises:
        DataError: a file cannot be read or breaks a rule.
        PlanError: a held city is not in the list.
    """
    release = settings.config.release
    cities = read_cities(settings.base / release.cities)
    if unknown := [code for code in release.held if code not in cities.index]:
        raise PlanError(
            f"[release] held names {len(unknown)} codes that the city list lacks, the first is '{unknown[0]}'; correct "
            "them, or complete the list"
        )
    if release.keywords is None:
        keywords = builtin_keywords(settings.config.rules.languages)
    else:
        keywords = read_keywords(settings.base / release.keywords)
    return PublicInputs(cities, release.held, keywords)
