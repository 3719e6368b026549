"""The shape of a comparison: two sides, "The first image ..., while the second image ...", and its swapped twin."""

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
    """What is said of the first and of the second image, or None when the sentence has not that shape."""
    spans = _spans(sentence)
    return tuple(sentence[start:end] for start, end in spans) if spans else None


def swapped(sentence: str) -> str:
    """The same comparison with the roles of the images exchanged. Raises ValueError for any other shape."""
    spans = _spans(sentence)
    if spans is None:
        raise ValueError(f"not a comparison of a first and a second image: {sentence!r}")
    (a, b), (c, d) = spans
    return sentence[:a] + sentence[c:d] + sentence[b:c] + sentence[a:b] + sentence[d:]


def from_captions(first: str, second: str) -> str:
    """The template comparison: both captions in one sentence, no language model."""
    return f"The first image shows {_inside(first)}, while the second image shows {_inside(second)}."


def _spans(sentence: str) -> list[tuple[int, int]] | None:
    """Where in the sentence the two sides are, without the punctuation around them."""
    found = _SIDES.match(sentence)
    if not found:
        return None
    spans = []
    for name in ("first", "second"):
        text, start = found[name], found.start(name)
        left = len(text) - len(text.lstrip(_EDGES))
        spans.append((start + left, start + max(left, len(text.rstrip(_EDGES)))))
    return spans if all(start < end for start, end in spans) else None


def _inside(caption: str) -> str:
    """A caption fit for the middle of a sentence: no full stop, first letter lower case unless a name."""
    caption = caption.strip().rstrip(".!? ")
    head = caption.split(" ", 1)[0]
    is_article = head.lower() in ("a", "an", "the", "two", "some", "this", "our")
    return caption[:1].lower() + caption[1:] if is_article else caption
