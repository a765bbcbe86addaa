"""Checks that a pattern cannot make: given a candidate, where the thing it promises ends, or -1 if it is none.

All take the text as UTF-8, the candidate's start and its end, and may look at the characters beside it.
"""

from collections.abc import Callable

Validator = Callable[[bytes, int, int], int]

# Lengths by country: the IBAN registry of SWIFT (ISO 13616).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL FK SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM TL SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_DIGITS = bytes.maketrans(b"", b"")
_NO_DIGITS = bytes(b for b in range(256) if not 48 <= b <= 57)
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")


def luhn(text: bytes, start: int, end: int) -> int:
    """A payment card number: 13 to 19 digits whose check digit is right (ISO/IEC 7812-1, Annex B).

    Groups at the candidate's end that are not part of it, such as a security code or an expiry date, are left out.
    """
    while True:
        digits = text[start:end].translate(_DIGITS, _NO_DIGITS)
        if len(digits) < 13:
            return -1
        total = sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - 48 * len(digits)
        if len(digits) <= 19 and total % 10 == 0:
            return end
        end = max(text.rfind(b" ", start, end), text.rfind(b"-", start, end))
        if end < 0:
            return -1


def iban(text: bytes, start: int, end: int) -> int:
    """An IBAN: the country's length, and remainder 1 modulo 97 (ISO 7064). Spaces stand between groups of four.

    What follows it in the candidate is left out.
    """
    country = text[start : start + 2].upper().decode("ascii", "replace")
    length = _IBAN_LENGTHS.get(country, 0)
    kept = bytearray()
    at = start
    while at < end and len(kept) < length:
        if text[at] != 32:
            kept.append(text[at])
        elif len(kept) % 4:  # it is printed in groups of four: these are words
            return -1
        at += 1
    if not length or len(kept) < length or _is_word(text[at : at + 1]):
        return -1
    moved = (kept[4:] + kept[:4]).upper()
    number = int("".join(str(int(chr(c), 36)) for c in moved))
    return at if number % 97 == 1 else -1


def phone(text: bytes, start: int, end: int) -> int:
    """8 to 15 digits (ITU-T E.164), with no letter or digit beside them."""
    digits = len(text[start:end].translate(_DIGITS, _NO_DIGITS))
    if not 8 <= digits <= 15 or _is_word(text[end : end + 1]) or _is_word(text[max(0, start - 1) : start]):
        return -1
    return end


def word(text: bytes, start: int, end: int) -> int:
    """A word or phrase that is not part of a longer word in any script that separates words."""
    before = _character_before(text, start)
    after = _character_at(text, end)
    if before and _joins(before, _character_at(text, start)):
        return -1
    if after and _joins(_character_before(text, end), after):
        return -1
    return end


def _is_word(byte: bytes) -> bool:
    return byte.isalnum() or byte == b"_"


def _character_before(text: bytes, at: int) -> str:
    first = at - 1
    while first > 0 and at - first < 4 and text[first] & 0xC0 == 0x80:
        first -= 1
    return text[max(0, first) : at].decode("utf-8", "replace")


def _character_at(text: bytes, at: int) -> str:
    if at >= len(text):
        return ""
    lead = text[at]
    size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    return text[at : at + size].decode("utf-8", "replace")


def _joins(left: str, right: str) -> bool:
    return _in_word(left) and _in_word(right)


def _in_word(character: str) -> bool:
    if not (character.isalnum() or character == "_"):
        return False
    code = ord(character[0])
    if code < 0x0E00:
        return True
    # scripts written without spaces: Thai to Lao, Myanmar, Khmer, kana, Han
    return not (
        code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
        or 0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or code >= 0x20000
    )
