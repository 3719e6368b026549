"""Prompt files: a version, a system text, a question with {first} and {second}, and examples with answers.

A prompt about one text, such as one that rewrites a caption, has {first} alone.
"""

from pathlib import Path
from typing import NamedTuple

from pcclip.config import read_yaml, resolve
from pcclip.errors import PcclipError
from pcclip.runs.files import digest


class Prompt(NamedTuple):
    """One prompt file.

    Attributes:
        name: the file's name without its ending.
        hash: identifies the file's content; every row that the prompt wrote carries it.
        prefix: the chat messages before every question: the system text and the examples.
        question: the question with its slots.
    """

    name: str
    hash: str
    prefix: list[dict]
    question: str

    def messages(self, first: str, second: str) -> list[dict]:
        """The whole chat for two texts."""
        return [*self.prefix, {"role": "user", "content": self.question.format(first=first, second=second)}]


def load_prompt(name: str, slots: tuple[str, ...] = ("first", "second")) -> Prompt:
    """Load a prompt of the package by name, or one of the user's by path.

    Raises PcclipError when there is no such file, or its question has other slots than `slots`.
    """
    path = yaml_file(name, Path(__file__).parent, "prompt")
    values = read_yaml(path)
    try:
        question = values["question"]
        if any("{" + slot + "}" not in question for slot in slots):
            raise KeyError(", ".join("{" + slot + "}" for slot in slots))
        question.format(**dict.fromkeys(slots, ""))
        prefix = [{"role": "system", "content": values["system"].strip()}]
        for example in values.get("examples", []):
            prefix += [
                {"role": "user", "content": question.format(**example)},
                {"role": "assistant", "content": example["answer"].strip()},
            ]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = " ".join(repr(error).split())
        braced = " and ".join("{" + slot + "}" for slot in slots)
        raise PcclipError(
            f"{path}: a prompt for this needs version, system, question with {braced}, and "
            f"examples with {', '.join(slots)}, answer ({reason})"
        ) from None
    return Prompt(path.stem, digest(values)[:16], prefix, question)


def yaml_file(name: str, folder: Path, kind: str) -> Path:
    """The file NAME.yaml in a folder of the package, or else the user's file at the path `name`.

    `kind`, such as 'prompt', is for the message of the PcclipError that is raised when there is neither.
    """
    for path in (folder / f"{name}.yaml", resolve(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
    raise PcclipError(f"{kind} {name!r}: no such file; shipped {kind.split()[-1]}s: {known}")
