"""A backend that answers by a function of the captions."""

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
