"""The shape of a comparison: two sides, "The first image ..., while the second image ...", and its swapped twin."""

import re

_SIDES = re.compile(
    r"^\W*(?:in\s+)?(?:the\s+)?first\s+(?:image|photo|picture)\s*,?\s*(?P<first>.+?)"
    r"[\s,;.]*\b(?:while|whereas|and|but)?[\s,]*(?:in\s+)?(?:the\s+)?second\s+(?:image|photo|picture)\s*,?\s*"
    r"(?P<second>.+)$", re.IGNORECASE | re.DOTALL)


def sides(sentence: str) -> tuple[str, str] | None:
    """What is said of the first and of the second image, or None when the sentence has not that shape."""
    found = _SIDES.match(sentence.strip())
    if not found:
        return None
    first, second = (found[name].strip(" \n\t,;.!") for name in ("first", "second"))
    return (first, second) if first and second else None


def compare(first: str, second: str) -> str:
    """The comparison that says `first` of the first image and `second` of the second."""
    return f"The first image {first}, while the second image {second}."


def swapped(sentence: str) -> str:
    """The same comparison with the roles of the images exchanged. Raises ValueError for any other shape."""
    found = sides(sentence)
    if found is None:
        raise ValueError(f"not a comparison of a first and a second image: {sentence!r}")
    return compare(found[1], found[0])


def from_captions(first: str, second: str) -> str:
    """The template comparison: both captions in one sentence, no language model."""
    return compare(f"shows {_inside(first)}", f"shows {_inside(second)}")


def _inside(caption: str) -> str:
    """A caption fit for the middle of a sentence: no full stop, first letter lower case unless a name."""
    caption = caption.strip().rstrip(".!? ")
    head = caption.split(" ", 1)[0]
    is_article = head.lower() in ("a", "an", "the", "two", "some", "this", "our")
    return caption[:1].lower() + caption[1:] if is_article else caption
