"""EqBen (Wang et al., ICCV 2023): two images that differ in one thing, drawn or frames of a video, and their captions.

Its folder holds one of the authors' annotations and the images they name (https://github.com/Wangt-CN/EqBen):

    eqben_subset_10percent_final.json     [{"image0": "eqbenag/...png", "caption0": "...", "image1": ..., "caption1":
                                          ...}], with image_subset/: the tenth that they publish for validation
    all_select.json                       the same, with images/: the small set for large multimodal models
    any other .json                       lists of such pairs in objects of any depth, as the five sets have them; a
                                          caption may be a list, of which the first counts, as theirs does

Images may lie below image_subset/, images/, eqben_image_full/ or the folder itself; the frames of YouCook2 are arrays
(.npy: blue, green, red). The first folder of an image's path says which of the sets it is from (eqbenag, eqbengebc,
eqbenyoucook2, eqbenkubric_loc, eqbenkubric_attr, eqbenkubric_cnt, eqbensd): that is its part.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import entries, place, row
from pcclip.errors import PcclipError

FORM = "groups"
_SOURCE = "https://github.com/Wangt-CN/EqBen"
_KNOWN = ("eqben_subset_10percent_final.json", "all_select.json")
_FOLDERS = ("image_subset", "images", "eqben_image_full", "")


def missing(path: Path) -> list[str]:
    """Whether there are annotations, and where to get them and the images."""
    return (
        []
        if _files(path)
        else [
            f"{path}: no annotations ({_KNOWN[0]}); {_SOURCE} links to them and to the images, to be unpacked beside them"
        ]
    )


def read(path: Path) -> pd.DataFrame:
    """One row per pair of images. Raises PcclipError when a file holds none."""
    rows = []
    for file in _files(path):
        pairs = list(_pairs(entries(file, _SOURCE)))
        if not pairs:
            raise PcclipError(f"{file}: has no pairs with image0 and caption0; fetch it again from {_SOURCE}")
        for k, entry in enumerate(pairs):
            images = [entry.get("image0"), entry.get("image1")]
            texts = [
                text[0] if isinstance(text := entry.get(f"caption{side}"), list) and text else text for side in (0, 1)
            ]
            part = images[0].strip("/").split("/")[0] if isinstance(images[0], str) and "/" in images[0] else ""
            rows.append(row(f"{file.name}, pair {k + 1}", images, texts, part=part))
    return place(pd.DataFrame(rows), [path / folder for folder in _FOLDERS])


def _files(path: Path) -> list[Path]:
    known = [path / name for name in _KNOWN if (path / name).is_file()]
    return known[:1] or sorted(path.glob("*.json"))


def _pairs(values) -> Iterator[dict]:
    """The objects with an image0, however deep."""
    if isinstance(values, dict) and "image0" in values:
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _pairs(value)
