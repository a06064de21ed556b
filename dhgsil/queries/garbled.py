"""Texts that were read in a wrong encoding (mojibake), or hold what no text holds.

Garbled is a text with a control character, a replacement character (U+FFFD) or a lone surrogate, and one with the trace
of a wrong encoding: UTF-8 read as Windows-1252 (``æ‰¾å·¥ä½œ`` for 找工作), GBK or another double-byte or Cyrillic
encoding read as Latin-1 (``ÕÒ¹¤×÷``), UTF-8 read as GBK (``鎵惧伐浣`` and 锟斤拷). The rules prefer to miss a garbled
text to refusing a good one: a single accented letter, French quotation marks or a rare Chinese character are no trace.
"""

from __future__ import annotations

import re

_CONTINUATION = bytes(range(0x80, 0xC0)).decode("cp1252", errors="ignore")  # what UTF-8's later bytes look like
_C = f"[{re.escape(_CONTINUATION)}]"
_UTF8_AS_LATIN = re.compile(
    rf"(?:[Â-ß]{_C}|[à-ï]{_C}{{2}}|[ð-ô]{_C}{{3}}){{2}}"  # two characters of several bytes side by side
    rf"|[ÃÂ][{re.escape(_CONTINUATION.replace(chr(0xA0), ''))}]"  # ... or a Western letter (Ã©)
    "|ï»¿"  # ... or a byte order mark
)
_DOUBLE_BYTE_AS_LATIN = re.compile("[\xa1-\xff]{4,}")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ud800-\udfff]")
_HAN_OR_ARABIC = re.compile("[\u3400-\u9fff\u0600-\u06ff]")


def is_garbled(text: str) -> bool:
    """Whether a text was read in a wrong encoding, or holds control characters. Linear in its length."""
    return (
        _CONTROL.search(text) is not None
        or _UTF8_AS_LATIN.search(text) is not None
        or any(_is_noise(run) for run in _DOUBLE_BYTE_AS_LATIN.findall(text))
        or _is_utf8_as_gbk(text)
    )


def traces() -> frozenset[str]:
    """Characters of which a garbled text holds one at least; hardly any other text does."""
    control = [chr(number) for number in (*range(0xA0), 0xFFFD, *range(0xD800, 0xE000)) if _CONTROL.match(chr(number))]
    latin = [chr(number) for number in range(0xC0, 0x100) if number not in {0xD7, 0xF7}]
    # UTF-8 read as GBK: the first byte of an Arabic letter, a Han character or U+FFFD, and a later byte.
    pairs = (
        bytes((lead, later)) for lead in (*range(0xD8, 0xDC), *range(0xE3, 0xEA), 0xEF) for later in range(0x80, 0xC0)
    )
    return frozenset([*control, *latin, *"".join(pair.decode("gbk", errors="ignore") for pair in pairs)])


def _is_noise(run: str) -> bool:
    """Whether four and more signs of the upper half of Latin-1 in a row are no word: letters and signs, all sorts."""
    return len(set(run)) > 2 and sum(sign >= "\xc0" for sign in run) > 1


def _is_utf8_as_gbk(text: str) -> bool:
    """Whether the GBK bytes of a text are UTF-8: two Han or Arabic letters at least, and twice as many as wrong bytes.

    Some are: bytes that are nothing in GBK were lost, or became question marks.
    """
    if "锟斤拷" in text:
        return True
    decoded = text.encode("gb18030", errors="replace").decode("utf-8", errors="replace")
    return len(_HAN_OR_ARABIC.findall(decoded)) >= max(2, 2 * decoded.count("\ufffd"))
