"""Prompts are files: a version, a system line, a question with {first} and {second}, and worked examples.

A prompt for rewriting one caption has {first} alone.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from pcclip.comparisons.shipped import find
from pcclip.errors import PcclipError
from pcclip.runs.files import digest


@dataclass(frozen=True)
class Prompt:
    """One prompt file. `hash` names its content in every row it wrote."""

    name: str
    hash: str
    prefix: list[dict]  # chat messages that come before every question
    question: str

    def messages(self, first: str, second: str) -> list[dict]:
        """The chat that asks how an image with caption `first` differs from one with caption `second`."""
        return [*self.prefix, {"role": "user", "content": self.question.format(first=first, second=second)}]


def load_prompt(name: str, slots: tuple[str, ...] = ("first", "second")) -> Prompt:
    """Load a shipped prompt by name, or one of the user's by path; its question has exactly `slots`. PcclipError."""
    path = find(name, Path(__file__).parent, "prompt")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
        question = values["question"]
        if any("{" + slot + "}" not in question for slot in slots):
            raise KeyError(", ".join("{" + slot + "}" for slot in slots))
        question.format(**dict.fromkeys(slots, ""))
        prefix = [{"role": "system", "content": values["system"].strip()}]
        for example in values.get("examples", []):
            prefix.append({"role": "user", "content": question.format(**example)})
            prefix.append({"role": "assistant", "content": example["answer"].strip()})
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(repr(error).split())
        braced = " and ".join("{" + slot + "}" for slot in slots)
        raise PcclipError(
            f"{path}: a prompt for this needs version, system, question with {braced}, and "
            f"examples with {', '.join(slots)}, answer ({reason})"
        ) from None
    return Prompt(path.stem, digest(values)[:16], prefix, question)
