"""The shape of a comparison: "The first image ..., while the second image ...", its two sides, and its swapped twin."""

import re

_PICTURE = r"(?:image|photo|picture)\b\s*,?\s*"
_LINK = r"(?:while|whereas|and|but)\b\s*,?\s*"
_SIDES = re.compile(
    rf"^\W*(?:in\s+)?(?:the\s+)?first\s+{_PICTURE}(?P<first>.+?)"
    rf"(?:\s*[,;.]\s*(?:{_LINK})?|\s+{_LINK}|\s+(?=(?:in\s+)?the\s+second))"
    rf"(?:in\s+)?(?:the\s+)?second\s+{_PICTURE}(?P<second>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_EDGES = " \n\t,;.!"


def sides(sentence: str) -> tuple[str, str] | None:
    """The text about the first image and the text about the second, or None for a sentence of another shape."""
    spans = _spans(sentence)
    if spans is None:
        return None
    (a, b), (c, d) = spans
    return sentence[a:b], sentence[c:d]


def swapped(sentence: str) -> str:
    """The same comparison with the roles of the images exchanged. Raises ValueError for any other shape."""
    spans = _spans(sentence)
    if spans is None:
        raise ValueError(f"not a comparison of a first and a second image: {sentence!r}")
    (a, b), (c, d) = spans
    return sentence[:a] + sentence[c:d] + sentence[b:c] + sentence[a:b] + sentence[d:]


def from_captions(first: str, second: str) -> str:
    """The template comparison: both captions in one sentence, without a language model."""
    return f"The first image shows {_inside(first)}, while the second image shows {_inside(second)}."


def _spans(sentence: str) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Start and end of the two sides, without the punctuation around them."""
    match = _SIDES.match(sentence)
    if not match:
        return None
    first, second = (_trimmed(match[name], match.start(name)) for name in ("first", "second"))
    return (first, second) if first[0] < first[1] and second[0] < second[1] else None


def _trimmed(text: str, start: int) -> tuple[int, int]:
    left = len(text) - len(text.lstrip(_EDGES))
    return start + left, start + max(left, len(text.rstrip(_EDGES)))


def _inside(caption: str) -> str:
    """A caption for the middle of a sentence: no full stop, the first letter in lower case if an article begins it."""
    caption = caption.strip().rstrip(".!? ")
    begins_with_article = caption.split(" ", 1)[0].lower() in ("a", "an", "the", "two", "some", "this", "our")
    return caption[:1].lower() + caption[1:] if begins_with_article else caption
