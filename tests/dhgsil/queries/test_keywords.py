"""The built-in keyword lists are sound, and a list of one's own has the same shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhgsil.queries.keywords import Keywords, builtin_keywords, read_keywords
from dhgsil.queries.normalise import normalise
from dhgsil.queries.rules import Language
from protocol.errors import PlanError

SEEDS = {
    "job": (
        "找工作",
        "招聘",
        "求职",
        "人才网",
        "招工",
        "兼职",
        "58同城",
        "boss直聘",
        "智联",
        "前程无忧",
        "job",
        "hiring",
    ),
    "stop": ("招聘会策划", "招聘海报", "面试题", "工资计算", "interview questions", "resume template"),
}


@pytest.mark.parametrize("kind", ["job", "stop"])
def test_the_seeds_are_there(kind: str) -> None:
    assert set(SEEDS[kind]) <= set(getattr(builtin_keywords(), kind))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_builtin_list_is_sound(language: Language) -> None:
    """No term is there twice or in two lists, and all are spelled as they are matched."""
    keywords = builtin_keywords([language])
    every = [*keywords.job, *keywords.stop, *keywords.not_places]
    assert len(keywords.job) > 150
    assert len(keywords.stop) > 80
    assert len({normalise(term) for term in every}) == len(every)
    assert [normalise(term) for term in every] == every
    assert all(len(term) > 1 for term in every)
    assert all(term.isascii() == (language == "en") for term in every if term != "51job")


def test_languages_are_joined() -> None:
    both, zh, en = builtin_keywords(["zh", "en"]), builtin_keywords(["zh"]), builtin_keywords(["en"])
    assert set(both.job) == set(zh.job) | set(en.job)
    assert set(both.stop) == set(zh.stop) | set(en.stop)
    with pytest.raises(PlanError, match="'fr'"):
        builtin_keywords(["fr"])  # type: ignore[list-item]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "keywords.toml"
    path.write_text('job = ["招聘", "job"]\nstop = ["海报"]\n', encoding="utf-8")
    assert read_keywords(path) == Keywords(job=("招聘", "job"), stop=("海报",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("job = []", "job"),
        ('stop = ["x"]', "job"),
        ('job = ["x"]\njobs = ["y"]', "jobs"),
        ("job = [", "TOML"),
        (None, "cannot read"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "keywords.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=told):
        read_keywords(path)


def test_the_digest_is_that_of_the_content() -> None:
    assert Keywords(("a", "b"), ("c",)).digest() == Keywords(("b", "a", "a"), ("c",)).digest()
    assert Keywords(("a",), ("b",)).digest() != Keywords(("b",), ("a",)).digest()
