"""Backends that answer by a function of the captions."""

from helpers.crash import Crash
from pcclip.comparisons.llm import Reply, Template
from pcclip.comparisons.sentences import from_captions


class Fake(Template):
    """Answers by a function of the captions; stops like a killed process when `stop` answers were given."""

    identity = "template-1"  # it stands in for the backend of the parameters

    def __init__(self, write=from_captions, stop=None, finish="stop"):
        self.write, self.stop, self.finish, self.asked = write, stop, finish, []

    def answers(self, questions):
        for question in questions:
            if len(self.asked) == self.stop:
                raise Crash
            self.asked.append(question.key)
            yield question, Reply(self.write(question.first, question.second), self.finish)


class Writer(Template):
    """Compares by the template, and writes one caption anew by a function that returns a Reply."""

    identity = "writer-1"

    def __init__(self, write=lambda caption: Reply(f"A picture of {caption[2:-1]} on white.", "stop")):
        self.write, self.asked = write, []

    def answers(self, questions):
        for question in questions:
            if question.second:
                yield question, Reply(from_captions(question.first, question.second), "stop")
                continue
            self.asked.append(question.first)
            yield question, self.write(question.first)
