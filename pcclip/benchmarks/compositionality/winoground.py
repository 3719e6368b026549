"""Winoground (Thrush et al., CVPR 2022): two images, two captions of the same words in another order.

Its folder is that of https://huggingface.co/datasets/facebook/winoground (its terms have to be accepted there), with
the images unpacked; `data` may be left out:

    data/examples.jsonl          {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "...",
                                 "caption_1": "...", "tag": "Adjective-Age", "secondary_tag": "",
                                 "num_main_preds": 1, "collapsed_tag": "Relation"} on each of 400 lines
    data/images/ex_0_img_0.png   of data/images.zip
    new_tag_assignments.json     {"3": ["Ambiguously Correct"], "5": [], ...}, optional: the tags of Diwan et al.
                                 (EMNLP 2022), https://github.com/ajd12342/why-winoground-hard; an item without any is
                                 'No Tag'. tag_assignments.json will do as well

The collapsed tag (Object, Relation, Both) and Diwan's tags are subsets; they are called as the files call them.
"""

import json
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import entries, found, place, row
from pcclip.errors import PcclipError

FORM = "groups"
_SOURCE = "https://huggingface.co/datasets/facebook/winoground"
_TAGS = "https://github.com/ajd12342/why-winoground-hard"
_EXAMPLES, _IMAGES = ("examples.jsonl", "data/examples.jsonl"), ("images", "data/images")
_ASSIGNED = ("new_tag_assignments.json", "tag_assignments.json")


def missing(path: Path) -> list[str]:
    """Whether the examples and the images are there, and where to get them."""
    lines = []
    if found(path, _EXAMPLES) is None:
        lines.append(f"{path / _EXAMPLES[1]}: not there; accept the terms of {_SOURCE} and download it")
    if found(path, _IMAGES) is None:
        lines.append(f"{path / _IMAGES[1]}: not there; download data/images.zip of {_SOURCE} and unpack it")
    return lines


def read(path: Path) -> pd.DataFrame:
    """One row per example. Raises PcclipError when a file is not what it should be."""
    file, tags = found(path, _EXAMPLES), _assigned(path)
    rows = []
    for k, entry in enumerate(entries(file, _SOURCE)):
        entry = entry if isinstance(entry, dict) else {}
        subsets = [entry["collapsed_tag"]] if isinstance(entry.get("collapsed_tag"), str) else []
        subsets += (tags.get(str(entry.get("id"))) or ["No Tag"]) if tags else []
        rows.append(
            row(
                f"{file.name}, line {k + 1}",
                [entry.get("image_0"), entry.get("image_1")],
                [entry.get("caption_0"), entry.get("caption_1")],
                tags=subsets,
            )
        )
    return place(pd.DataFrame(rows), [found(path, _IMAGES)], ("", ".png", ".jpg"))


def _assigned(path: Path) -> dict[str, list[str]]:
    """Diwan's tags of each example by its id; {} where the file is not there."""
    file = found(path, _ASSIGNED)
    if file is None:
        return {}
    try:
        given = json.loads(file.read_text(encoding="utf8"))
        return {key: [tags] if isinstance(tags, str) else [str(tag) for tag in tags] for key, tags in given.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise PcclipError(f"{file}: not a JSON object of tags by example; fetch it again from {_TAGS}") from None
