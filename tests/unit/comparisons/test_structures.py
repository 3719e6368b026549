"""Sentence structures: each can be read back, and its twin exchanges the images but not the order of mention."""

import pytest
from hypothesis import given, strategies as st

from pcclip.comparisons.sentences import sides, swapped
from pcclip.comparisons.structures import STRUCTURES, TRAINED, noun_phrases, rewritten

PHRASES = ["a large dog with a tail", "an owl", "two men in a boat", "the Eiffel Tower", "some red and green apples"]
READABLE = [structure for structure in STRUCTURES if sides(structure.sentence("a dog", "a cat"))]


def test_most_structures_are_read_back():
    """The others join both images in one phrase ("A and B ..., respectively"), which no parser can cut for certain."""
    assert {structure.name for structure in TRAINED} - {structure.name for structure in READABLE} == {
        "respectively",
        "respectively_reversed",
        "respectively_after",
        "respectively_after_reversed",
    }
    assert len(READABLE) >= 30


@given(st.sampled_from(READABLE), st.sampled_from(PHRASES), st.sampled_from(PHRASES))
def test_a_twin_exchanges_the_images_in_the_same_order_of_mention(structure, first, second):
    sentence = structure.sentence(first, second)
    assert noun_phrases(sentence) == (first, second)
    assert swapped(sentence) == structure.sentence(second, first)
    assert swapped(swapped(sentence)) == sentence


def test_a_held_out_structure_is_never_trained():
    names = [structure.name for structure in STRUCTURES]
    assert len(set(names)) == len(names)
    trained = {structure.sentence("a dog", "a cat") for structure in TRAINED}
    assert not trained & {s.sentence("a dog", "a cat") for s in STRUCTURES if s.split == "held_out"}


def test_a_written_sentence_is_rewritten_in_every_trained_structure():
    sentence = "The first image shows a small owl, while the second image shows two wrenches."
    forms = rewritten(sentence)
    assert forms[0] == sentence
    assert len(forms) == 1 + len(TRAINED)
    assert forms[2] == "The second image shows two wrenches, while the first image shows a small owl."
    assert rewritten(swapped(sentence))[2] == (
        "The second image shows a small owl, while the first image shows two wrenches."
    )


@pytest.mark.parametrize(
    "sentence",
    ["The first image was taken at night, while the second image glows.", "They differ.", "The first image is dark."],
)
def test_a_sentence_without_noun_phrases_is_kept_as_written(sentence):
    assert set(rewritten(sentence)) == {sentence}
