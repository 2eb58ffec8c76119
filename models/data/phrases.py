"""Split a caption into phrases and verbs by its function words, without a model or a list of nouns."""

import re
from dataclasses import dataclass
from itertools import islice

from sds_clip.models.blind import WORD


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words(
    "a an the this that these those some any each every another both his her its their my your our "
    "one two three four five six seven eight nine ten several many few"
)
AUXILIARIES = _words(
    "is are was were be been being am has have had does do did can could will would may might must "
    "isn't aren't wasn't weren't hasn't haven't hadn't doesn't don't didn't can't cannot couldn't won't wouldn't"
)
SYMMETRIC = _words("and or next to beside near alongside together adjacent")
"""Words that join two phrases in a way that is the same in both directions."""
POSTURES = _words("sitting standing lying laying resting leaning parked seated placed positioned touching")
"""Verbs that hold for both things that a symmetric word joins, as in `a man sitting next to a woman`."""
REFERENCES = _words("it its them their him his her one other")
"""Words that refer back, so that the order of the phrases before them matters."""
OTHERS = _words(
    "of in on at by for from with without within into onto to up down off out over under above below beneath "
    "underneath behind before after beside between among across through against along around about as than "
    "inside outside near next toward towards past during while when where which who whose what there here it "
    "them him he she they we i you not no and or but nor so if very too also only just left right top bottom "
    "side front back higher lower atop upon alongside together adjacent other own photo picture image "
    "photograph view"
)
FUNCTION_WORDS = DETERMINERS | AUXILIARIES | SYMMETRIC | REFERENCES | OTHERS

MAX_WORDS = 77
"""CLIP reads no more tokens than this. The number of swaps grows with the square of the words."""

_NOUNS_IN_ING = _words(
    "thing something nothing string king ring wing building painting ceiling railing clothing awning "
    "evening morning spring wedding"
)
_SINGULAR = _words("a an this each every another one")
_COUNTS = _words("dozen couple hundred thousand")
"""Words that mean several things although they follow `a`."""
_NOUNS_IN_S = _words("lens series species news crossroads headquarters")


@dataclass(frozen=True)
class Span:
    """Words `start` to `stop` of a caption. `determined` is one earlier if a determiner precedes them."""

    start: int
    stop: int
    determined: int


@dataclass(frozen=True)
class Words:
    """A caption as its words and the gaps before, between and after them (one more gap than words)."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, caption: str) -> "Words":
        """Split off the first MAX_WORDS words; the rest is the last gap. Joined, they give the caption."""
        words = (found[0] for found in islice(WORD.finditer(caption), MAX_WORDS))
        return cls(tuple(words), tuple(WORD.split(caption, maxsplit=MAX_WORDS)))

    def lower(self, place: int) -> str:
        """Return a word in lower case, or "" outside the caption."""
        return self.words[place].lower().replace("\u2019", "'") if 0 <= place < len(self.words) else ""

    def joined(self, place: int) -> bool:
        """Return whether only white space separates a word from the one before it."""
        return 0 < place < len(self.words) and not self.gaps[place].strip()

    def is_content(self, place: int) -> bool:
        """Return whether there is a word at `place` that is not a function word."""
        return bool(self.lower(place)) and self.lower(place) not in FUNCTION_WORDS


def phrases_and_verbs(text: Words) -> tuple[list[Span], list[int]]:
    """Return runs of content words (`large red ball`) in order, and the places of verbs, which end runs."""
    verbs = [place for place in range(len(text.words)) if text.is_content(place) and _is_verb(text, place)]
    phrases: list[Span] = []
    place = 0
    while place < len(text.words):
        if not text.is_content(place) or place in verbs:
            place += 1
            continue
        start = place
        place += 1
        while text.joined(place) and text.is_content(place) and place not in verbs:
            place += 1
        determined = text.joined(start) and text.lower(start - 1) in DETERMINERS
        phrase = Span(start, place, start - determined)
        verb = _third_person(text, phrase)
        if verb is None:
            phrases.append(phrase)
            continue
        verbs.append(verb)
        phrases.append(Span(start, verb, phrase.determined))
        if verb + 1 < place:
            phrases.append(Span(verb + 1, place, verb + 1))
    return phrases, sorted(verbs)


def _third_person(text: Words, phrase: Span) -> int | None:
    """Return the verb in -s that ends a phrase about one thing, or precedes its plural object.

    Found in `a red circle sits left of`, `a man eats apples`; not in `the red circles`, `a man's hands`, `a
    dozen eggs`.
    """
    words = [text.lower(place) for place in range(phrase.start, phrase.stop)]
    plural = words[0] in _COUNTS or any(re.search(r"['\u2019]", word) for word in words)
    if plural or phrase.determined == phrase.start or text.lower(phrase.determined) not in _SINGULAR:
        return None
    if text.joined(phrase.stop) and text.lower(phrase.stop) in AUXILIARIES:
        return None
    verb = phrase.stop
    while verb - 1 > phrase.start and _ends_in_s(text.lower(verb - 1)):
        verb -= 1
    return verb if verb < phrase.stop else None


def _ends_in_s(word: str) -> bool:
    """Return whether a word ends like a verb's third person, and not like a singular noun.

    Such nouns are `glass`, `bus`, `tennis`, `canvas`, `chaos`.
    """
    return word.endswith("s") and word[-2:-1] not in ("s", "u", "i", "a", "o") and word not in _NOUNS_IN_S


def _is_verb(text: Words, place: int) -> bool:
    """Judge a word by its neighbours: `dog chases a`, `is parked on`, `man riding a`, not `a smiling man`."""
    word = text.lower(place)
    follows = text.joined(place) and text.is_content(place - 1)
    leads = text.joined(place + 1) and text.is_content(place + 1)
    if follows and text.joined(place + 1) and text.lower(place + 1) in DETERMINERS:
        return True
    participle = (word.endswith("ing") and word not in _NOUNS_IN_ING) or (
        word.endswith("ed") and len(word) > 4 and not word.endswith("eed")
    )
    return participle and (follows or not leads or text.lower(place - 1) in AUXILIARIES)
