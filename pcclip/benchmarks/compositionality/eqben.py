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
from typing import Any

from pcclip.benchmarks.benchmark import Benchmark, Reader, json_values
from pcclip.benchmarks.compositionality import item, located, matching_set
from pcclip.errors import PcclipError

_SOURCE = "https://github.com/Wangt-CN/EqBen"
_KNOWN = ("eqben_subset_10percent_final.json", "all_select.json")
_FOLDERS = ("image_subset", "images", "eqben_image_full", "")


def read(place: Path) -> Benchmark:
    """One item per pair of images. Raises PcclipError when a file holds none."""
    items = []
    known = [place / name for name in _KNOWN if (place / name).is_file()]
    for file in known[:1] or sorted(place.glob("*.json")):
        if not (pairs := list(_pairs(json_values(file, _SOURCE)))):
            raise PcclipError(f"{file}: has no pairs with image0 and caption0; fetch it again from {_SOURCE}")
        for k, pair in enumerate(pairs):
            images, captions = [pair.get("image0"), pair.get("image1")], [pair.get("caption0"), pair.get("caption1")]
            texts = [caption[0] if isinstance(caption, list) and caption else caption for caption in captions]
            part = images[0].strip("/").split("/")[0] if isinstance(images[0], str) and "/" in images[0] else ""
            items.append(item(f"{file.name}, pair {k + 1}", images, texts, part=part))
    return matching_set("eqben", "groups", located(items, [place / folder for folder in _FOLDERS]), place)


def _pairs(values: Any) -> Iterator[dict[str, Any]]:
    """The objects with an image0, however deep."""
    if isinstance(values, dict) and "image0" in values:
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _pairs(value)


EQBEN = Reader(
    "eqben",
    read,
    {f"get annotations and images, to be unpacked beside them, through the links of {_SOURCE}": [(*_KNOWN, "*.json")]},
)
