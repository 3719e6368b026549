"""Sentence structures: ways to say the same comparison, so that a text tower learns meaning and not order of mention.

A structure is a template with a noun phrase for each image. Some are trained on (finetune.structures), the others are
only evaluated (evaluate.structures). They vary which image is mentioned first, whether its marker stands before or
after its content, the marker's words, and how the two halves are joined.
"""

import re
from typing import Literal, NamedTuple

from pcclip.comparisons.sentences import ENDING_VERB, inside, sides

_BEGINNINGS = ("a", "an", "the", "two", "three", "some", "several", "many")  # of noun phrases
_BEFORE = re.compile(
    r"^(?:shows|depicts|displays|presents|contains|features|has|there\s+is|there\s+are|is\s+of|is|are)\s+",
    re.IGNORECASE,
)


class Structure(NamedTuple):
    """A template with {first} and {second}, noun phrases for the two images, and where it is used."""

    name: str
    split: Literal["trained", "held_out"]
    template: str

    def sentence(self, first: str, second: str) -> str:
        """The comparison of two noun phrases in this structure, with a capital at its beginning."""
        text = self.template.format(first=first, second=second)
        return text[:1].upper() + text[1:]


_TRAINED = {
    "forward": "the first image shows {first}, while the second image shows {second}.",
    "reversed": "the second image shows {second}, while the first image shows {first}.",
    "while_second": "while the second photo shows {second}, the first photo shows {first}.",
    "two_sentences": "the first picture is of {first}. The second picture is of {second}.",
    "two_sentences_reversed": "the second picture is of {second}. The first picture is of {first}.",
    "there_is": "in the first image there is {first}; in the second image there is {second}.",
    "there_is_reversed": "in the second image there is {second}; in the first image there is {first}.",
    "compared": "compared with the second image, which shows {second}, the first image shows {first}.",
    "unlike": "unlike the first photo, which shows {first}, the second photo shows {second}.",
    "marker_after": "{first} can be seen in the first image, while {second} can be seen in the second image.",
    "marker_after_reversed": "{second} can be seen in the second image, while {first} can be seen in the first image.",
    "passive": "{first} is shown by the first photo and {second} by the second.",
    "passive_reversed": "{second} is shown by the second photo and {first} by the first.",
    "numbered": "image 1: {first}. Image 2: {second}.",
    "numbered_reversed": "image 2: {second}. Image 1: {first}.",
    "number_words": "photo one shows {first} and photo two shows {second}.",
    "number_words_reversed": "photo two shows {second} and photo one shows {first}.",
    "number_after": "{first} can be seen in photo one and {second} in photo two.",
    "number_after_reversed": "{second} can be seen in photo two and {first} in photo one.",
    "former": "of the two images, the former shows {first} and the latter shows {second}.",
    "latter": "of the two images, the latter shows {second} and the former shows {first}.",
    "one": "the first one has {first}, the second one has {second}.",
    "one_reversed": "the second one has {second}, the first one has {first}.",
    "respectively": "the first and the second photo show {first} and {second}, respectively.",
    "respectively_reversed": "the second and the first photo show {second} and {first}, respectively.",
    "respectively_after": "{first} and {second} are shown by the first and the second photo, respectively.",
    "respectively_after_reversed": "{second} and {first} are shown by the second and the first photo, respectively.",
}
_HELD_OUT = {
    "depicts": "the first photograph depicts {first}, whereas the second photograph depicts {second}.",
    "depicts_reversed": "the second photograph depicts {second}, whereas the first photograph depicts {first}.",
    "image_two": "image two shows {second}; image one shows {first}.",
    "you_can_see": "you can see {second} in the second picture but {first} in the first picture.",
    "in_comparison": "in comparison to the second picture with {second}, the first picture has {first}.",
    "the_latter": "the latter photo has {second}; the former photo has {first}.",
    "appears": "{first} appears in picture one, {second} appears in picture two.",
    "appears_reversed": "{second} appears in picture two, {first} appears in picture one.",
    "in_this_order": "{first} and {second} are in the first and the second image, respectively.",
    "in_this_order_reversed": "{second} and {first} are in the second and the first image, respectively.",
    "brackets": "{second} (second image) and {first} (first image).",
    "as_for": "as for the second, it is {second}; the first is {first}.",
    "instead": "instead of {second} as in the second image, the first image contains {first}.",
}
STRUCTURES = [
    *(Structure(name, "trained", template) for name, template in _TRAINED.items()),
    *(Structure(name, "held_out", template) for name, template in _HELD_OUT.items()),
]
TRAINED = [structure for structure in STRUCTURES if structure.split == "trained"]


def noun_phrases(sentence: str) -> tuple[str, str] | None:
    """What a sentence says of the first and of the second image, as noun phrases for a template.

    None where a side is no plain "shows ..." or "... is in", such as "The first image was taken at night".
    """
    both = sides(sentence)
    if both is None:
        return None
    phrases = [ENDING_VERB.sub("", _BEFORE.sub("", side)) for side in both]
    if any(
        len(phrase) == len(side) and side.split(" ", 1)[0].lower() not in _BEGINNINGS
        for phrase, side in zip(phrases, both, strict=True)
    ):
        return None
    return inside(phrases[0]), inside(phrases[1])


def rewritten(sentence: str) -> list[str]:
    """The sentence as written, followed by the same comparison in each trained structure.

    A sentence without two noun phrases is repeated, so that every sentence has the same number of forms.
    """
    phrases = noun_phrases(sentence)
    return [sentence, *(structure.sentence(*phrases) if phrases else sentence for structure in TRAINED)]
