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

from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, find, find_needed, json_rows
from pcclip.benchmarks.compositionality import item, located, matching_set
from pcclip.errors import PcclipError
from pcclip.runs.files import load_json

_SOURCE = "https://huggingface.co/datasets/facebook/winoground"
_TAGS = "https://github.com/ajd12342/why-winoground-hard"
_EXAMPLES, _IMAGES = ("data/examples.jsonl", "examples.jsonl"), ("data/images/", "images/")


def read(place: Path) -> Benchmark:
    """One item per example. Raises PcclipError when a file is not what it should be."""
    items, tags = [], _assigned_tags(place)
    for row, entry in json_rows(find_needed(place, *_EXAMPLES), _SOURCE):
        collapsed = entry.get("collapsed_tag")
        subsets = [collapsed] if isinstance(collapsed, str) else []
        subsets += (tags.get(str(entry.get("id"))) or ["No Tag"]) if tags else []
        images, texts = ([entry.get(f"{kind}_{k}") for k in (0, 1)] for kind in ("image", "caption"))
        items.append(item(row, images, texts, tags=tuple(subsets)))
    table = located(items, [find_needed(place, *_IMAGES)], ("", ".png", ".jpg"))
    return matching_set("winoground", "groups", table, place)


def _assigned_tags(place: Path) -> dict[str, list[str]]:
    """The tags of Diwan et al. for each example by its id; {} where the file is not there."""
    file = find(place, "new_tag_assignments.json", "tag_assignments.json")
    if file is None:
        return {}
    assigned = load_json(file, f"fetch it again from {_TAGS}")
    if not isinstance(assigned, dict) or not all(isinstance(tags, str | list) for tags in assigned.values()):
        raise PcclipError(f"{file}: not a JSON object of tags by example; fetch it again from {_TAGS}")
    return {key: [tags] if isinstance(tags, str) else list(map(str, tags)) for key, tags in assigned.items()}


WINOGROUND = Reader(
    "winoground",
    read,
    {
        f"accept the terms of {_SOURCE} and download it": [_EXAMPLES],
        f"download data/images.zip of {_SOURCE} and unpack it": [_IMAGES],
    },
)
