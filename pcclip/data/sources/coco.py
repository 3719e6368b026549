"""The `coco` source: COCO captions (Chen et al. 2015), 2017 or 2014, as its archives unpack."""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.rows import file_reasons, root_of, sort_out
from pcclip.errors import PcclipError
from pcclip.runs.files import read_json
from pcclip.runs.progress import say

_SITE = "http://images.cocodataset.org"
_SPLITS = {"train": "train", "val": "held_out"}


_PUBLISHED = {  # images, captions, size of the archive
    "train2017": (118_287, 591_753, "18 GB"),
    "val2017": (5_000, 25_014, "1 GB"),
    "train2014": (82_783, 414_113, "13 GB"),
    "val2014": (40_504, 202_654, "6 GB"),
}


def missing(data: Data) -> list[str]:
    """Absent files of the training set, or of both sets where the official split needs them; val alone will do else."""
    return [line for side in _needed(data) for line in _missing(data, f"{side}{_year(data)}")]


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Read train, and val where it exists. Returns the table, the rows left out (path, reason), and the bad ones."""
    sides = [side for side in _SPLITS if not _missing(data, f"{side}{_year(data)}")]
    table = pd.concat([_read(data, side) for side in sides], ignore_index=True)
    return sort_out(table, table.pop("reason"))


def _needed(data: Data) -> list[str]:
    if data.split == "official":
        return ["train", "val"]
    return ["val"] if _missing(data, f"train{_year(data)}") and not _missing(data, f"val{_year(data)}") else ["train"]


def _missing(data: Data, name: str) -> list[str]:
    captions, images = _places(data, name)
    annotations, photos = f"{_SITE}/annotations/annotations_trainval{_year(data)}.zip", f"{_SITE}/zips/{name}.zip"
    lines = {
        f"{captions}: not there; download {annotations} (241 MB) and unpack it in {captions.parent.parent}": captions.is_file(),
        f"{images}: not there; download {photos} ({_PUBLISHED[name][2]}) and unpack it in {images.parent}": images.is_dir(),
    }
    return [line for line, is_there in lines.items() if not is_there]


def _read(data: Data, side: str) -> pd.DataFrame:
    name = f"{side}{_year(data)}"
    path, images = _places(data, name)
    values = read_json(path, ["images", "annotations"])
    captions: dict[int, list[str]] = defaultdict(list)
    try:
        for annotation in values["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        files = pd.Series([image["file_name"] for image in values["images"]], dtype=str)
        lists = [captions[image["id"]] for image in values["images"]]
    except (KeyError, TypeError) as error:
        raise PcclipError(f"{path}: not a COCO captions file (no {error}); unpack the annotations again") from None
    images_published, captions_published, _ = _PUBLISHED[name]
    if (len(files), len(values["annotations"])) != (images_published, captions_published):
        say(
            f"coco: {name} has {len(files)} images and {len(values['annotations'])} captions here; "
            f"the whole set has {images_published} and {captions_published}"
        )
    return pd.DataFrame(
        {
            "id": f"{name}/" + files.str.rsplit(".", n=1).str[0],
            "path": f"{images}/" + files,
            "captions": lists,
            "split": _SPLITS[side],
            "reason": file_reasons(images, files),
        }
    )


def _places(data: Data, name: str) -> tuple[Path, Path]:
    """The captions file and the image folder of e.g. train2017."""
    root = root_of(data)
    return root / "annotations" / f"captions_{name}.json", resolve(data.images or root).resolve() / name


def _year(data: Data) -> str:
    return data.part or "2017"
