"""The real stage 01 of a tiny run, with a backend that answers at once and notes what it was asked."""

from dataclasses import dataclass, field
from pathlib import Path

from pcclip.comparisons import stage as comparisons
from pcclip.comparisons.llm import Reply, Template
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.encoders.dual_encoder import Encoder
from pcclip.runs.log import AnswerLog


@dataclass
class ComparisonsRun(Template):
    """Stage 01 in a folder; `asked` are the keys of the questions that it asked, in order."""

    folder: Path
    config: Config
    images: ImageSet
    model: Encoder
    asked: list[str] = field(default_factory=list)

    def __call__(self) -> dict[str, bytes]:
        """Do what is not done. Returns the outputs' contents by name."""
        comparisons.generate(self._own_config, self.images, self.model, self)
        folder = self._own_config.folder / comparisons.FOLDER
        return {name: (folder / name).read_bytes() for name in (comparisons.TABLE, comparisons.LEFT_OUT)}

    @property
    def log(self) -> AnswerLog:
        """The log of the stage's answers; there is one, whose name is made of all that an answer depends on."""
        names = [path.name for path in self._own_config.journals.glob("answers-*.jsonl")]
        return AnswerLog(self._own_config.journals / (names[0] if names else "none"), Reply, "comparisons")

    def answers(self, questions):
        """Answer, as a backend."""
        for question in questions:
            self.asked.append(question.key)
            yield question, Reply(from_captions(question.first, question.second), "stop")

    @property
    def _own_config(self) -> Config:
        return self.config.model_copy(update={"outputs": str(self.folder)})
