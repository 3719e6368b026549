"""MLLM-CompBench (Kil et al., NeurIPS 2024): two images, a question which has more of something, the answer.

Its folder is `dataset` as https://github.com/RaptorMai/CompBench lays it out: the folders of the sets that its images
are from, and beside them its own folders of annotations, each with one JSON file (or several that end in _val and
_test):

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
from collections import namedtuple
from pathlib import Path
from typing import Any

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, first_existing, json_rows
from pcclip.benchmarks.change_captions import described_pairs
from pcclip.errors import PcclipError

_SITE = "https://github.com/RaptorMai/CompBench"
_ANSWERS = {"left": "first", "right": "second"}
_SPLITS = {"val": "tune", "test": "test"}
_QUESTION = re.compile(
    r"\bwhich (?:has )?(?P<subject>.+?) (?P<verb>is|are|has|have|feels?|smiles?|looks?|appears?|seems?|shows?|wears?|"
    r"contains?|happens?) (?P<rest>.+?)\s*\?",
    re.IGNORECASE,
)
_PICTURES = ("image", "picture", "photo")


# name and folder of the set whose images are shown; what pairs differ in; a folder that the annotations' paths leave out;
# the question, where the annotations have none
Source = namedtuple("Source", "name folder relativity below question", defaults=("", ""))
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


def read(place: Path) -> Benchmark:
    """One item per pair; also source, relativity, kind (its type), question and answer ('first' or 'second')."""
    rows = pd.DataFrame(
        [
            {"row": f"{label}/{row}", **_item(SOURCES[label], part, entry), "label": label}
            for label in SOURCES
            if (place / label).is_dir()
            for file, part in _files(place / label)
            for row, entry in json_rows(file, _SITE)
        ]
    )
    folder = rows.label.map({label: source.folder for label, source in SOURCES.items()})
    below = rows.label.map({label: source.below for label, source in SOURCES.items()})
    for side in ("first", "second"):
        starts = (f"{place}/", f"{place}/" + folder + "/", f"{place}/" + folder + "/" + below + "/")
        rows[side] = first_existing([start + rows[side] for start in starts])
    return described_pairs("compbench", rows.drop(columns="label"), place, orientation=1)


def worded(question: str) -> tuple[str, str] | None:
    """'Which bird has more brown on it?' as a text that the first image has more, and its swapped form.

    None where the question is of another form.
    """
    if not (match := _QUESTION.search(" ".join(question.split()))):
        return None
    subject, verb, rest = match["subject"], match["verb"].lower(), match["rest"]
    if subject.lower() in _PICTURES:
        text = f"The {{}} {subject} {verb} {rest} than the {{}} {subject}."
    else:
        again = "those" if verb in ("are", "have") else "the one"
        text = f"The {subject} in the {{}} image {verb} {rest} than {again} in the {{}} image."
    return text.format("first", "second"), text.format("second", "first")


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The annotation files of one set, each with its part. Raises PcclipError when their parts are not clear."""
    files = sorted(folder.glob("*.json"))
    if len(files) == 1:
        return [(files[0], "test")]
    if not (parts := [(file, part) for file in files for part in _SPLITS if file.stem.endswith(f"_{part}")]):
        raise PcclipError(
            f"{folder}: needs one JSON file, or some that end in _val.json and _test.json, and has "
            f"{len(files)} others; get it from {_SITE}"
        )
    return parts


def _item(source: Source, part: str, entry: dict[str, Any]) -> dict[str, str]:
    first, second = (
        str(entry.get(name) or entry.get(old_name) or "").replace("\\", "/")
        for name, old_name in (("image_1", "left"), ("image_2", "right"))
    )
    question = " ".join(str(entry.get("question") or source.question).split())
    answer, kind = str(entry.get("answer") or "").strip().lower(), str(entry.get("type") or "")
    texts, reason = worded(question), ""
    if not first or not second or not answer:
        reason = "not a pair"
    elif answer not in _ANSWERS:
        reason = "neither has more" if answer in ("same", "none") else "no such answer"
    elif texts is None:
        reason = "question not understood"
    text, swapped = texts or ("", "")
    return {
        "first": first,
        "second": second,
        "text": text,
        "swapped": swapped,
        "split": _SPLITS[part],
        "part": part,
        "reason": reason,
        "source": source.name,
        "relativity": "state" if kind.lower() == "state" else source.relativity,
        "kind": kind,
        "question": question,
        "answer": _ANSWERS.get(answer, ""),
    }


def _missing(place: Path) -> list[str]:
    """Whether there are annotations, and which of the image folders that they need are not there."""
    if not (labels := [label for label in SOURCES if (place / label).is_dir()]):
        return [f"{place}: no annotations ({', '.join(SOURCES)}); get them and the images through the links of {_SITE}"]
    return [
        f"{place / SOURCES[label].folder}: not there; {_SITE} says where the images of {SOURCES[label].name} are, "
        f"or remove {place / label}"
        for label in labels
        if not (place / SOURCES[label].folder).is_dir()
    ]


COMPBENCH = Reader("compbench", read, missing_lines=_missing)
