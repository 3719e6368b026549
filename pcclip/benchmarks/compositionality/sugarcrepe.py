"""SugarCrepe (Hsieh et al., NeurIPS 2023): COCO images with their caption and a fluent, plausible wrong one.

Its folder is https://github.com/RAIVNLab/sugar-crepe with COCO's val2017 in it:

    data/add_att.json            {"0": {"filename": "000000085329.jpg", "caption": "...", "negative_caption": "..."},
                                 ...}, keys may skip; also add_obj, replace_att, replace_obj, replace_rel, swap_att and
                                 swap_obj, and `data` may be left out
    val2017/000000085329.jpg     or in images/val2017/ or images/

SugarCrepe++ (Dumpala et al., NeurIPS 2024) has two right captions in different words, and a wrong one near the first.
Its folder is https://github.com/Sri-Harsha/scpp, laid out alike, with "caption2" and without the two kinds add_att and
add_obj. A few of its wrong captions are the right one word for word; as in the released scorer, nobody can be right
about these. The kinds of change are the parts of both.
"""

from functools import partial
from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, find_needed, json_rows
from pcclip.benchmarks.compositionality import item, located, matching_set

_SOURCES = {
    "sugarcrepe": "https://github.com/RAIVNLab/sugar-crepe",
    "sugarcrepe_pp": "https://github.com/Sri-Harsha/scpp",
}
_REPLACED_OR_SWAPPED = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
_PARTS = {"sugarcrepe": ("add_att", "add_obj", *_REPLACED_OR_SWAPPED), "sugarcrepe_pp": _REPLACED_OR_SWAPPED}
_CAPTIONS = {
    "sugarcrepe": ("caption", "negative_caption"),
    "sugarcrepe_pp": ("caption", "caption2", "negative_caption"),
}
_FOLDERS = ("val2017/", "images/val2017/", "images/")


def _read(name: str, place: Path) -> Benchmark:
    """One item per caption of the set `name`. Raises PcclipError when a file is not what it should be."""
    items = []
    for part in _PARTS[name]:
        for row, entry in json_rows(find_needed(place, *_files(part)), _SOURCES[name]):
            captions = [entry.get(caption) for caption in _CAPTIONS[name]]
            items.append(item(row, [entry.get("filename")], captions, part=part, group=part))
    form = "choices" if name == "sugarcrepe" else "triples"
    return matching_set(name, form, located(items, [place / folder for folder in _FOLDERS]), place)


def _files(part: str) -> tuple[str, str]:
    return f"data/{part}.json", f"{part}.json"


def _reader(name: str) -> Reader:
    needs: dict[str, list[str | tuple[str, ...]]] = {
        f"get data of {_SOURCES[name]}": [_files(part) for part in _PARTS[name]],
        "download http://images.cocodataset.org/zips/val2017.zip and unpack it there": [_FOLDERS],
    }
    return Reader(name, partial(_read, name), needs)


SUGARCREPE, SUGARCREPE_PP = _reader("sugarcrepe"), _reader("sugarcrepe_pp")
