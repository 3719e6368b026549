"""Not a test: an attribute bank about the tiny photos, and a backend that knows how large everything in it is."""

import math

from helpers.crash import Crash
from helpers.runs import SHAPES
from pcclip.comparisons.llm import Odds, Reply
from pcclip.comparisons.sentences import from_captions

NOUNS = {"anvil": 4.0, "barn": 9.0, "crumb": 0.5, "drum": 2.0, "engine": 7.0}
SIZES = {shape: k + 1.5 for k, shape in enumerate(SHAPES)} | NOUNS
BANK = {
    "version": 1,
    "subject": "concept",
    "things": sorted(NOUNS),
    "attributes": {
        "size": {
            "split": "train",
            "stems": [
                {"text": "Beside {second}, {first} is", "more": ["big", "large"], "less": ["small"]},
                {"text": "{First} is", "more": ["huge"], "less": ["tiny"]},
            ],
            "question": "Is {first} larger than {second}?",
            "train": [["The first is larger.", "The first is smaller."]],
            "held_out": [["The first is big, the second is not.", "The second is big, the first is not."]],
        },
        "weight": {
            "split": "held_out",
            "stems": [{"text": "Beside {second}, {first} is", "more": ["heavy"], "less": ["light"]}],
            "question": "Is {first} heavier than {second}?",
            "train": [["The first is heavier.", "The first is lighter."]],
            "held_out": [],
        },
    },
}


class Judge:
    """Odds by true size, with a liking for the first of two; stops like a killed process after `stop` answers."""

    identity = "judge-1"

    def __init__(self, odds=None, stop=None):
        self.odds, self.stop, self.asked = odds or odds_of, stop, []

    def start(self):
        return self

    def choose(self, choices):
        for choice in choices:
            if len(self.asked) == self.stop:
                raise Crash
            self.asked.append(choice)
            yield choice, self.odds(choice)

    def answers(self, questions):
        for question in questions:
            yield question, Reply(from_captions(question.first, question.second), "stop")

    @property
    def texts(self):
        return [choice.text for choice in self.asked]


def subjects(text: str) -> list[str]:
    """What a text is about: the first thing, then what it is compared with."""
    words = [word.strip(",.").lower() for word in text.split()]
    found = [word for word in words if word in SIZES]
    return found[::-1]


def odds_of(choice) -> Odds:
    first, *second = subjects(choice.text)
    return Odds(SIZES[first] - SIZES[second[0]] + 5 if second else math.log(SIZES[first]), "probabilities")
