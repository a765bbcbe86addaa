"""What is noticed of a text without keeping any of it: its language, and which of 32 buckets its words fall into."""

import re
from zlib import crc32

BUCKETS = 32
_MOST = 2000  # characters that are looked at
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = (  # first and last code point of the letters that tell a language or script by themselves
    ("ru", 0x0400, 0x04FF),
    ("el", 0x0370, 0x03FF),
    ("he", 0x0590, 0x05FF),
    ("ar", 0x0600, 0x06FF),
    ("hi", 0x0900, 0x097F),
    ("th", 0x0E00, 0x0E7F),
    ("ja", 0x3040, 0x30FF),
    ("ko", 0xAC00, 0xD7AF),
    ("zh", 0x4E00, 0x9FFF),
)
# Words that hardly any sentence does without, and that few other languages have.
_FUNCTION_WORDS = {
    "en": "the and is are you my what how when where with for this that can have not was it of to do i",
    "de": "der die das und ist nicht ich wie wo mit ein eine für mein meine kann auf den zu wann warum es",
    "fr": "le la les et est pas je vous mon ma une un des où comment quand avec pour que dans ce sur",
    "es": "el los las es mi mis una un por con para cómo dónde cuándo qué no está puedo del y se",
    "it": "il lo gli è non mio mia una un per con come dove quando che sono posso della di e",
    "pt": "o os as é não meu minha uma um por com para como onde quando que está posso da do e",
    "nl": "de het een is niet ik mijn hoe waar wanneer met voor van kan op en zijn dat te wat",
}
_VOTES: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _one in _words.split():
        _VOTES.setdefault(_one, []).append(_language)

UNKNOWN = "und"
LANGUAGES = (UNKNOWN, *_FUNCTION_WORDS, *(name for name, _, _ in _SCRIPTS))  # append only: their places are stored


def language_of(text: str) -> str:
    """The language of `text` by its script, or by its function words; `und` where they do not tell.

    It is a coarse guess, made to be the same for like texts: what counts is that its shares change when the languages do.
    """
    text = text[:_MOST]
    if not text.isascii():
        counts: dict[str, int] = {}
        for character in text:
            code = ord(character)
            if code >= 0x0370:
                for name, low, high in _SCRIPTS:
                    if low <= code <= high:
                        counts[name] = counts.get(name, 0) + 1
                        break
        letters = sum(map(str.isalpha, text))
        if counts.get("ja"):
            counts["ja"] += counts.pop("zh", 0)  # Japanese is written with both
        if counts and 2 * max(counts.values()) >= letters:
            return max(counts, key=lambda name: counts[name])
    votes: dict[str, int] = {}
    for word in _WORD.findall(text.lower()):
        for language in _VOTES.get(word, ()):
            votes[language] = votes.get(language, 0) + 1
    if not votes:
        return UNKNOWN
    best = max(votes.values())
    leaders = [name for name in votes if votes[name] == best]
    return leaders[0] if len(leaders) == 1 else UNKNOWN


def words_of(text: str) -> int:
    """Which buckets the words of `text` fall into, as bits: words of four letters and more, and pairs of letters where words are not spaced.

    Hashing words into buckets keeps the topic of many texts and tells none of one (feature hashing, Weinberger et al. 2009).
    """
    bits = 0
    for word in _WORD.findall(text[:_MOST].lower()):
        if word[0] >= "\u0e00":  # Thai, Japanese, Chinese, Korean
            for at in range(max(1, len(word) - 1)):
                bits |= 1 << crc32(word[at : at + 2].encode()) % BUCKETS
        elif len(word) > 3:
            bits |= 1 << crc32(word.encode()) % BUCKETS
    return bits
