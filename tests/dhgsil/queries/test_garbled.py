"""Texts in a wrong encoding are found; good texts of many languages are left alone."""

from __future__ import annotations

import gettext
from pathlib import Path

import holidays
import pytest

from dhgsil.queries.garbled import is_garbled, traces

CATALOGS = sorted((Path(holidays.__file__).parent / "locale").rglob("*.mo"))


def real_texts(languages: str = "") -> list[str]:
    """Names of holidays, as people of about a hundred languages write them."""
    texts = set()
    for path in CATALOGS:
        if path.parts[-3].startswith(languages):
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)
            texts |= {text for text in vars(catalog)["_catalog"].values() if isinstance(text, str) and text}
    return sorted(texts - {text for text in texts if "Content-Type" in text})


def test_good_texts_are_not_garbled() -> None:
    """None of the thousands of texts in about a hundred languages."""
    texts = real_texts()
    assert len(texts) > 5000
    assert [text for text in texts if is_garbled(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "北京招聘 会计",
        "濮阳 溧阳 漯河招聘",
        "ئۈرۈمچىدە خىزمەت",
        "قەشقەر",
        "👨‍👩‍👧 家政 ❤️ 招聘",
        "🏳️‍🌈",
        "naïve café über Ångström",
        "CAFÉ – «À la carte»",
        "«\xa0é\xa0»",
        "São Paulo – vagas",
        "东京 カフェ ｱﾙﾊﾞｲﾄ",
        "서울 채용",
        "1·2·3××",
        "£30–£40",
        "Đà Nẵng việc làm",
        "tab\tand\nline",
        "¿Dónde? ¡Sí!",
        "Straße „Äpfel“",
        "þæð",
    ],
)
def test_uncommon_texts_are_not_garbled(text: str) -> None:
    assert not is_garbled(text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("utf-8", "cp1252"),
        ("utf-8", "latin-1"),
        ("utf-8", "gbk"),
        ("utf-8", "gb18030"),
        ("gbk", "latin-1"),
        ("gbk", "cp1252"),
        ("gbk", "utf-8"),
    ],
)
def test_chinese_in_a_wrong_encoding_is_garbled(written: str, read: str) -> None:
    """At least 95 % of the real texts; bytes that cannot be read become U+FFFD."""
    texts = [text for text in real_texts("zh") if len(text) > 2 and not any(c.isascii() for c in text)]
    garbled = [text.encode(written, "ignore").decode(read, "replace") for text in texts]
    garbled = [text for text in garbled if text]
    assert len(garbled) > 100
    assert sum(map(is_garbled, garbled)) >= 0.95 * len(garbled)


def test_lost_bytes_may_have_become_question_marks() -> None:
    texts = [text for text in real_texts("zh_CN") if len(text) > 4]
    garbled = [text.encode().decode("gbk", "replace").replace("\ufffd", "?") for text in texts]
    assert sum(map(is_garbled, garbled)) >= 0.9 * len(garbled)


@pytest.mark.parametrize(
    "text",
    ["招聘\ufffd", "\ud83d", "招\x00聘", "招聘\x1b[0m", "\x85\x86", "锟斤拷锟斤拷", "cafÃ©", "ï»¿招聘", "Ðàáîòà"],
)
def test_what_no_text_holds(text: str) -> None:
    assert is_garbled(text)


def test_every_garbled_text_holds_a_trace() -> None:
    """Only texts with a trace are looked at, so a garbled one without would be missed."""
    known = traces()
    texts = real_texts()
    for written, read in (("utf-8", "cp1252"), ("utf-8", "gb18030"), ("gbk", "latin-1"), ("utf-8", "gbk")):
        garbled = [text.encode(written, "ignore").decode(read, "replace") for text in texts]
        assert all(known & set(text) for text in garbled if is_garbled(text))
    chinese = real_texts("zh")
    assert sum(bool(known & set(text)) for text in chinese) <= 0.01 * len(chinese)
