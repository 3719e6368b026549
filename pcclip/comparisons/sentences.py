"""A comparison's sentence: which words speak of which image, and its twin, in which the images are exchanged.

A marker is a phrase that names an image: "the first image", "photo two", "the latter". The words about an image stand
after its marker ("The second photo shows a cat") or before it ("A cat is in the second photo").
"""

import re
from typing import NamedTuple

_IMAGE = r"(?:image|photograph|photo|picture)"
_MARKER = re.compile(
    rf"(?:\b(?:in|by|of|on)\s+)?\b(?:the\s+(?P<ordinal>first|second|former|latter)(?:\s+(?:{_IMAGE}|one)\b)?"
    rf"|(?:the\s+)?{_IMAGE}\s+(?P<number>one|two|1|2)\b)"
    rf"|\((?P<bracket>first|second)\s+{_IMAGE}\)",
    re.IGNORECASE,
)
_FIRST = {"first", "former", "one", "1"}
_LINK = r"(?:while|whereas|and|but|yet)\b"
_OPENING = re.compile(  # words that may stand before a marker that is followed by its content
    rf"^\W*(?:(?:while|whereas|unlike|as\s+for|of\s+the\s+two(?:\s+{_IMAGE}s)?"
    r"|(?:in\s+)?(?:compared|comparison|contrast)(?:\s+(?:to|with))?)\W*)?$",
    re.IGNORECASE,
)
# Runs of white space are taken whole (\s*+) and from their first character on, so that a match takes linear time.
_PICTURE = r"(?:image|photo|picture)\b\s*+,?+\s*+"
_FORWARD = re.compile(  # the paper's structure, where captions may hold markers of their own
    rf"^\W*+(?:in\s++)?(?:the\s++)?first\s++{_PICTURE}(?P<first>.+?)"
    rf"(?<!\s)(?:\s*+[,;.]\s*+(?:{_LINK}\s*+,?+\s*+)?|\s++{_LINK}\s*+,?+\s*+|\s++(?=(?:in\s++)?the\s++second))"
    rf"(?:in\s++)?(?:the\s++)?second\s++{_PICTURE}(?P<second>.+)$",
    re.IGNORECASE | re.DOTALL,
)
LONGEST = 2000  # characters of a sentence: several times what any text tower reads; tokenizers take long for more
_EDGES = " \n\t,;:.!"
_LEADING = re.compile(rf"(?:(?:{_LINK}|which\b)\s*)+", re.IGNORECASE)
_TRAILING = re.compile(rf"(?:[\s,;:.!]+(?:{_LINK}|in|by|of))+$", re.IGNORECASE)
_PREDICATE = re.compile(  # a side's first word, by what it can change places with
    r"(?:(?P<verb>shows|depicts|displays|presents|contains|features|has|is|are)|(?P<it>it)|(?P<there>there)"
    r"|(?P<you>you|we|one)|(?P<with>with))\b",
    re.IGNORECASE,
)
ENDING_VERB = re.compile(
    r"\s+(?:is|are|appears?|can\s+be\s+seen)(?:\s+(?:shown|seen|depicted|visible))?$", re.IGNORECASE
)
_DETERMINERS = "a an the two three four some several many this these that those our my".split()


class Span(NamedTuple):
    """Characters start to end - 1 of a sentence."""

    start: int
    end: int


def sides(sentence: str) -> tuple[str, str] | None:
    """The words about the first image and the words about the second, or None where they cannot be told apart."""
    spans = _side_spans(sentence)
    return spans and (sentence[slice(*spans[0])], sentence[slice(*spans[1])])


def swapped(sentence: str) -> str:
    """The twin: the same sentence with the words about the two images exchanged, in the same order of mention.

    Raises ValueError for a sentence without two sides.
    """
    spans = _side_spans(sentence)
    if spans is None:
        raise ValueError(f"not a comparison of a first and a second image: {sentence!r}")
    (a, b), (c, d) = sorted(spans)
    front, back = sentence[c:d], sentence[a:b]
    if all(side.split(" ", 1)[0].lower() in _DETERMINERS for side in (front, back)):
        front, back = _with_first_letter_of(front, back), _with_first_letter_of(back, front)
    return sentence[:a] + front + sentence[b:c] + back + sentence[d:]


def from_captions(first: str, second: str) -> str:
    """The template comparison: both captions in one sentence, without a language model."""
    return f"The first image shows {inside(first)}, while the second image shows {inside(second)}."


def inside(caption: str) -> str:
    """A caption for the middle of a sentence: no full stop, the first letter in lower case if an article begins it."""
    caption = caption.strip().rstrip(".!? ")
    return caption[:1].lower() + caption[1:] if begins_with_article(caption) else caption


def begins_with_article(text: str) -> bool:
    """Whether the first word is an article, or another word that is written small within a sentence."""
    return text.split(" ", 1)[0].lower() in ("a", "an", "the", "two", "some", "this", "our")


def _side_spans(sentence: str) -> tuple[Span, Span] | None:
    """Where the words about the first and the second image stand, without the punctuation around them."""
    if match := _FORWARD.match(sentence):
        first, second = (_without_edges(sentence, *match.span(name)) for name in ("first", "second"))
        return (first, second) if first.start < first.end and second.start < second.end else None
    if len(sentence) > LONGEST:
        return None
    markers = list(_MARKER.finditer(sentence))
    of_first = [(marker["ordinal"] or marker["number"] or marker["bracket"]).lower() in _FIRST for marker in markers]
    if sorted(of_first) != [False, True]:
        return None
    (a, b), (c, d) = (marker.span() for marker in markers)
    if _OPENING.match(sentence[:a]):
        early, late = _trimmed(sentence, b, c), _trimmed(sentence, d, len(sentence))
    else:
        early, late = _trimmed(sentence, 0, a), _trimmed(sentence, b, c)
        verbs = [ENDING_VERB.search(sentence[slice(*span)]) for span in (early, late)]
        if verbs[0] and not verbs[1]:  # "A dog is seen in photo one and a cat in photo two": the verb is of both
            early = Span(early.start, early.start + verbs[0].start())
        if sentence[d:].strip(_EDGES + "\"')"):
            return None  # words after the last marker belong to nobody
    kinds = [_PREDICATE.match(sentence, *span) for span in (early, late)]
    if early.start >= early.end or late.start >= late.end or len({kind and kind.lastgroup for kind in kinds}) > 1:
        return None  # words that cannot change places: "has a dog" and "with a cat"
    return (early, late) if of_first[0] else (late, early)


def _trimmed(sentence: str, start: int, end: int) -> Span:
    """The span without punctuation and link words at its ends."""
    start, end = _without_edges(sentence, start, end)
    if link := _TRAILING.search(sentence, start, end):
        start, end = _without_edges(sentence, start, link.start())
    if link := _LEADING.match(sentence, start, end):
        start = link.end()
    return Span(start, max(start, end))


def _without_edges(sentence: str, start: int, end: int) -> Span:
    """The span without white space and punctuation at its ends."""
    text = sentence[start:end]
    left = len(text) - len(text.lstrip(_EDGES))
    return Span(start + left, start + max(left, len(text.rstrip(_EDGES))))


def _with_first_letter_of(text: str, model: str) -> str:
    """`text` with its first letter in upper or lower case as in `model`."""
    return (text[:1].upper() if model[:1].isupper() else text[:1].lower()) + text[1:]
