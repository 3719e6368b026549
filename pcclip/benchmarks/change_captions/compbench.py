"""MLLM-CompBench (Kil et al., NeurIPS 2024): two images, a question which of them has more of something, the answer.

Its folder is `dataset` as https://github.com/RaptorMai/CompBench lays it out: the folders of the sets that its images
are from, and beside them those of its annotations, each with one JSON file (or several that end in _val and _test):

    st_label/*.json   [{"image_1": "release_dataset/images/large church/a.jpg", "image_2": ..., "type": "Size",
                        "question": "Which church is larger?", "answer": "Left"}]
    transformed_states/release_dataset/images/large church/a.jpg

As many of the sets of SOURCES are read as have their annotations there. "Left" means that the first image has more. The
texts are made of the questions: "The church in the first image is larger than the one in the second image.", true where
the answer is Left, and its swapped form; so the orientation is +1, for a text that the answer may contradict. Pairs
with another answer ("Same") have no side to them and are left out. The multiple-choice sets (MagicBrush, Spot-the-Diff,
Q-Bench2) have no answer of this kind and are not read. A single file is all test.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.change_captions.reading import first_there, json_list
from pcclip.errors import PcclipError

ORIENTATION = 1
NO_FAULT = {"neither has more"}
_SITE = "https://github.com/RaptorMai/CompBench"
_ANSWERS = {"left": "first", "right": "second"}
_SPLITS = {"_val": "tune", "_test": "test"}
_QUESTION = re.compile(
    r"\bwhich (?:has )?(?P<subject>.+?) (?P<verb>is|are|has|have|feels?|smiles?|looks?|appears?|seems?|shows?|wears?|"
    r"contains?|happens?) (?P<rest>.+?)\s*\?",
    re.IGNORECASE,
)
_PICTURES = ("image", "picture", "photo")


@dataclass(frozen=True)
class Source:
    """One of the sets: where its images are, what its pairs differ in, and its question where the file has none."""

    name: str
    folder: str
    relativity: str
    below: str = ""  # a folder in `folder` that the file's paths leave out
    question: str = ""


SOURCES = {
    "st_label": Source("MIT-States", "transformed_states", "attribute"),
    "fashion_label": Source("Fashionpedia", "fashionpedia", "attribute"),
    "vaw_label": Source("VAW", "vaw", "attribute"),
    "cub_label": Source("CUB-200-2011", "cub_200_2011", "attribute"),
    "Wildfish_label": Source("Wildfish", "wildfish", "attribute"),
    "celebA_label": Source("CelebA", "celeba", "emotion"),
    "fer2013_label": Source("FER-2013", "fer-2013", "emotion"),
    "soccernet_label": Source("SoccerNet", "soccernet", "temporality", "val", "Which frame happens earlier?"),
    "car_label": Source(
        "CompCars", "comp_cars", "temporality", "", "Which car is newer in terms of its model year or release year?"
    ),
    "depth_label": Source("NYU-Depth V2", "nyu_depth_v2", "spatiality"),
    "vqav2_label": Source("VQAv2", "vqav2", "quantity", "counting_images"),
}


def missing(path: Path) -> list[str]:
    """Whether there are annotations, and which of the image folders that they need are not there."""
    labels = [label for label in SOURCES if (path / label).is_dir()]
    if not labels:
        return [f"{path}: no annotations ({', '.join(SOURCES)}); get them and the images through the links of {_SITE}"]
    return [
        f"{path / SOURCES[label].folder}: not there; {_SITE} says where the images of {SOURCES[label].name} are, "
        f"or remove {path / label}"
        for label in labels
        if not (path / SOURCES[label].folder).is_dir()
    ]


def read(path: Path) -> pd.DataFrame:
    """One row per pair; also source, relativity, kind (its type), question and answer ('first' or 'second')."""
    table = pd.DataFrame(
        [
            _row(label, file, part, k, entry)
            for label in SOURCES
            if (path / label).is_dir()
            for file, part in _files(path / label)
            for k, entry in enumerate(json_list(file, _SITE))
        ]
    )
    folder = table.label.map({label: source.folder for label, source in SOURCES.items()})
    below = table.label.map({label: source.below for label, source in SOURCES.items()})
    for side in ("first", "second"):
        table[side] = first_there(
            [
                f"{path}/" + table[side],
                f"{path}/" + folder + "/" + table[side],
                f"{path}/" + folder + "/" + below + "/" + table[side],
            ]
        )
    return table.drop(columns="label")


def worded(question: str) -> tuple[str, str] | None:
    """'Which bird has more brown on it?' as a text that the first image has more, and its swapped form; None if not."""
    found = _QUESTION.search(" ".join(question.split()))
    if not found:
        return None
    subject, verb, rest = found["subject"], found["verb"].lower(), found["rest"]
    if subject.lower() in _PICTURES:
        return tuple(
            f"The {one} {subject} {verb} {rest} than the {other} {subject}."
            for one, other in (("first", "second"), ("second", "first"))
        )
    again = "those" if verb in ("are", "have") else "the one"
    return tuple(
        f"The {subject} in the {one} image {verb} {rest} than {again} in the {other} image."
        for one, other in (("first", "second"), ("second", "first"))
    )


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The annotation files of one set, each with its part. Raises PcclipError when they cannot be told apart."""
    files = sorted(folder.glob("*.json"))
    if len(files) == 1:
        return [(files[0], "test")]
    split = [(file, part.strip("_")) for file in files for part in _SPLITS if file.stem.endswith(part)]
    if not split:
        raise PcclipError(
            f"{folder}: needs one JSON file, or some that end in _val.json and _test.json, and has "
            f"{len(files)} others; get it from {_SITE}"
        )
    return split


def _row(label: str, file: Path, part: str, k: int, entry) -> dict:
    source, entry = SOURCES[label], entry if isinstance(entry, dict) else {}
    first, second = (
        str(entry.get(name) or entry.get(old) or "").replace("\\", "/")
        for name, old in (("image_1", "left"), ("image_2", "right"))
    )
    question = " ".join(str(entry.get("question") or source.question).split())
    answer, kind = str(entry.get("answer") or "").strip(), str(entry.get("type") or "")
    texts = worded(question)
    reason = ""
    if not first or not second or not answer:
        reason = "not a pair"
    elif answer.lower() not in _ANSWERS:
        reason = "neither has more" if answer.lower() in ("same", "none") else "no such answer"
    elif texts is None:
        reason = "question not understood"
    return {
        "row": f"{label}/{file.name}, entry {k + 1}",
        "first": first,
        "second": second,
        "text": texts[0] if texts else "",
        "swapped": texts[1] if texts else "",
        "split": _SPLITS[f"_{part}"],
        "part": part,
        "reason": reason,
        "label": label,
        "source": source.name,
        "relativity": "state" if kind.lower() == "state" else source.relativity,
        "kind": kind,
        "question": question,
        "answer": _ANSWERS.get(answer.lower(), ""),
    }
