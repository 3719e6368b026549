"""The shape of a comparison and its swapped twin."""

import pytest
from hypothesis import given, strategies as st

from pcclip.comparisons.sentences import from_captions, sides, swapped

SHAPES = {
    "The first image shows a dog, while the second image shows a cat.": ("shows a dog", "shows a cat"),
    "The first image shows a dog, whereas the second image shows a cat.": ("shows a dog", "shows a cat"),
    "The first image shows a dog and the second image shows a cat": ("shows a dog", "shows a cat"),
    "The first image shows a dog but second image shows a cat.": ("shows a dog", "shows a cat"),
    "The first image shows a dog. The second image shows a cat.": ("shows a dog", "shows a cat"),
    "The first image shows a dog!\nThe second image shows a cat!": ("shows a dog", "shows a cat"),
    "the first picture has sand, while in the second picture, a cat sleeps": ("has sand", "a cat sleeps"),
    "In the first photo a dog runs, the second photo has a cat.": ("a dog runs", "has a cat"),
    "In the first photo, there is a dog; in the second photo, there is a cat.": ("there is a dog", "there is a cat"),
    '"The first image shows a dog, while the second image shows a cat and a red ball': (
        "shows a dog",
        "shows a cat and a red ball",
    ),
    "The second image shows a cat, while the first image shows a dog.": ("shows a dog", "shows a cat"),
    "While the second photo shows a cat, the first one shows a dog": ("shows a dog", "shows a cat"),
    "In contrast to the first picture, which has a dog, the second has a cat.": ("has a dog", "has a cat"),
    "A dog is in the first image, whereas a cat is in the second image.": ("A dog is", "a cat is"),
    "A cat is seen in picture two and a dog in picture one.": ("a dog", "A cat"),
    "Of the two pictures, the former shows a dog and the latter shows a cat.": ("shows a dog", "shows a cat"),
    "Image 1: a dog. Image 2: a cat.": ("a dog", "a cat"),
    "A dog (first image) and a cat (second image).": ("A dog", "a cat"),
}
CAPTIONS = [
    "A red disc.",
    "Mars, seen from space!",
    "Wow! An owl.",
    "The Eiffel Tower",
    "Two dogs and a cat",
    "Some of Anna's first images",
    "Is this a hat?",
    "My second horse, while it sleeps.",
]


@pytest.mark.parametrize(("sentence", "expected"), SHAPES.items())
def test_sides_of_the_usual_shapes(sentence, expected):
    assert sides(sentence) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "A dog and a cat.",
        "The first image shows a dog.",
        "The second image shows a cat.",
        "The first image shows a dog and the first image shows a cat.",
        "In comparison to the second picture with a cat, the first picture has a dog.",
        "A dog is in the first image, a cat in the second image, and a bird sings.",
        "The first image, while the second image.",
        "The first image shows a dog, while the second image.",
        "They differ: the first image shows a dog, while the second image shows a cat.",
    ],
)
def test_other_shapes_have_no_sides(sentence):
    assert sides(sentence) is None
    with pytest.raises(ValueError, match="not a comparison"):
        swapped(sentence)


@pytest.mark.parametrize("sentence", SHAPES)
def test_swapping_exchanges_the_sides(sentence):
    once = swapped(sentence)
    assert [side.lower() for side in sides(once)] == [side.lower() for side in sides(sentence)[::-1]]
    assert swapped(once) == sentence


@given(st.sampled_from(CAPTIONS), st.sampled_from(CAPTIONS))
def test_the_twin_of_a_template_is_the_template_of_the_twin(first, second):
    assert swapped(from_captions(first, second)) == from_captions(second, first)


def test_captions_fit_into_a_sentence():
    assert from_captions("A red disc. ", "Mars, seen from space!!") == (
        "The first image shows a red disc, while the second image shows Mars, seen from space."
    )
    assert from_captions("The Eiffel Tower", "Wow! An owl.") == (
        "The first image shows the Eiffel Tower, while the second image shows Wow! An owl."
    )


def test_swapping_keeps_the_grammar_of_in_the_first_photo():
    twin = swapped("In the first image, a dog runs, while in the second image, a cat sleeps.")
    assert not twin.startswith("The first image a cat")


def test_a_caption_that_says_second_image():
    assert sides(from_captions("A second image of the Moon.", "A cat.")) == (
        "shows a second image of the Moon",
        "shows a cat",
    )
