"""The `karpathy` source: Flickr8k, Flickr30k or COCO as Karpathy and Fei-Fei (2015) split them."""

from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.rows import FOLDER_NOT_THERE, file_reasons, root_of, sort_out
from pcclip.errors import PcclipError
from pcclip.runs.files import read_json

_JSON = "http://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_FOLDERS = ["images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "train2014", "val2014"]
_SPLITS = {"train": "train", "restval": "train", "test": "held_out"}


def missing(data: Data) -> list[str]:
    """A line for the JSON file and one for the image folder, where it is absent."""
    path, images = root_of(data), _images(data)
    lines = {
        f"{path}: not there; download {_JSON} and set data.path to one of its dataset_*.json": path.is_file(),
        f"{path.parent}: no image folder ({', '.join(_FOLDERS)}) beside the captions; unpack the set's "
        "images there or set data.images; docs/data.md says where they come from": images,
        f"{images}: no such folder; set data.images to the folder of the set's images": not images or images.is_dir(),
    }
    return [line for line, is_there in lines.items() if not is_there]


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Returns the table, the rows left out (path, reason), and how many are bad; the val split is not bad."""
    path, images = root_of(data), (_images(data) or root_of(data).parent).resolve()
    entries = read_json(path, ["images"])["images"]
    try:
        table = pd.DataFrame(
            {
                "file": [
                    f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry["filename"]
                    for entry in entries
                ],
                "captions": [[sentence["raw"] for sentence in entry["sentences"]] for entry in entries],
                "part": [entry["split"] for entry in entries],
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PcclipError(f"{path}: not one of Karpathy's files (no {error}); download {_JSON}") from None
    table["id"] = table.file.str.rsplit(".", n=1).str[0]
    table["path"] = f"{images}/" + table.file
    table["split"] = table.part.map(_SPLITS)
    reason = file_reasons(images, table.file)
    absent = tuple(name for name in ("train2014/", "val2014/") if not (images / name).is_dir())
    reason = reason.mask(table.file.str.startswith(absent), FOLDER_NOT_THERE)
    reason[table.split.isna()] = table.part.astype(str) + " split"
    return sort_out(table.drop(columns=["file", "part"]), reason)


def _images(data: Data) -> Path | None:
    """The folder that the entries' names are relative to; None when no usual one is there."""
    if data.images:
        return resolve(data.images)
    beside = root_of(data).parent
    folder = next((name for name in _FOLDERS if (beside / name).is_dir()), None)
    if folder is None or folder.endswith("2014"):  # COCO's entries name their own folder
        return beside if folder else None
    return beside / folder
