"""The `huggingface` source: a data set of the `datasets` library, by its hub name or in a local folder.

The images' bytes are written as they are into the cache, once; images that are files already stay where they are.
Nothing is downloaded unless data.download is true.
"""

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pandas as pd

from pcclip.config import Data
from pcclip.data.rows import root_of, sort_out
from pcclip.errors import PcclipError, one_line
from pcclip.images import SUFFIXES
from pcclip.runs.files import cache_folder, disk_errors
from pcclip.runs.progress import track

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:\w[\w.-]*)?")  # owner/name:configuration
_USUAL = {
    "image": ["image", "img", "jpg", "png", "picture", "photo"],
    "text": ["caption", "captions", "text", "texts", "sentences", "sentence", "alt_text", "raw", "description"],
}
_MAGIC = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def missing(data: Data) -> list[str]:
    """A line that says why the set cannot be opened here; a set that may be downloaded is not missing."""
    folder = root_of(data)
    if find_spec("datasets") is None:
        return ["source 'huggingface' needs the `datasets` library: pip install 'pcclip[paper]'"]
    if not folder.is_dir() and not _NAME.fullmatch(data.path or ""):
        return [f"{folder}: no such folder, and not a data set's name on the hub; set data.path to one of the two"]
    if folder.is_dir() or data.download:
        return []
    try:
        _open(data)
    except PcclipError as error:
        return [str(error)]
    return []


def to_fetch(data: Data) -> list[str]:
    """A line for the set, where data.download allows to fetch it and it is not in the cache."""
    if data.download and missing(data.model_copy(update={"download": False})):
        return [f"data set {data.path}, from the hub"]
    return []


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Open the set and unpack its images. Returns the table, the rows left out (path, reason), and how many are bad."""
    import datasets

    dataset = _open(data)
    columns = _columns(dataset.features, data)
    folder = cache_folder() / "huggingface" / dataset._fingerprint
    names = getattr(dataset.features.get(columns.get("label")), "names", None)
    dataset = dataset.select_columns(list(dict.fromkeys(columns.values())))
    try:
        dataset = dataset.cast_column(columns["image"], datasets.Image(decode=False))  # bytes and paths
    except (NotImplementedError, TypeError, ValueError) as error:
        raise PcclipError(f"column {columns['image']!r} holds no images ({one_line(error)})") from None
    places = (folder, root_of(data), datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE)
    roots, rows = tuple(f"{os.path.realpath(place)}{os.sep}" for place in places), []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, values in enumerate(track(dataset, len(dataset), "images of the set")):
            row = {kind: values[column] for kind, column in columns.items()}
            path, reason = _file(row["image"], folder, f"{number:07d}")
            if not (reason or data.absolute_paths or os.path.realpath(path).startswith(roots)):
                reason = "outside the set (data.absolute_paths)"
            rows.append(
                {
                    "id": str(row.get("id", f"{number:07d}")),
                    "path": f"{data.path} row {number}" if reason else path,
                    "captions": row["text"] if isinstance(row["text"], list) else [row["text"]],
                    "label": _label(row.get("label"), names),
                    "reason": reason,
                }
            )
    table = pd.DataFrame(rows, columns=["id", "path", "captions", "label", "reason"])
    return sort_out(table, table.pop("reason"))


def _open(data: Data) -> Any:
    """The chosen part of the set as a datasets.Dataset. Raises PcclipError."""
    import datasets
    import huggingface_hub

    folder, online = root_of(data), data.download
    saved = any((folder / file).is_file() for file in ("state.json", "dataset_dict.json"))
    name, _, config = (str(folder), "", "") if folder.is_dir() else (data.path or "").partition(":")
    try:
        with (  # both libraries read these switches at every request
            patch.object(
                huggingface_hub.constants, "HF_HUB_OFFLINE", huggingface_hub.constants.HF_HUB_OFFLINE or not online
            ),
            patch.object(datasets.config, "HF_HUB_OFFLINE", datasets.config.HF_HUB_OFFLINE or not online),
        ):
            if not saved:
                return datasets.load_dataset(name, config or None, split=data.part or "train")
            dataset = datasets.load_from_disk(name)
            return dataset if isinstance(dataset, datasets.Dataset) else dataset[data.part or "train"]
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        by_hand = f"load it once by hand with datasets.load_dataset({name!r})"
        hint = f"; nothing is downloaded unless data.download is true, or {by_hand}"
        raise PcclipError(
            f"{data.path}: cannot be opened as a data set ({one_line(error)}){'' if folder.is_dir() or online else hint}"
        ) from None


def _columns(features: dict, data: Data) -> dict[str, str]:
    """The columns of image and text, and of label and id where known."""
    import datasets

    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    return {
        "image": _column("image", features, data, lambda feature: isinstance(feature, datasets.Image)),
        "text": _column("text", features, data, _is_text),
        **({"label": classes[0]} if classes else {}),
        **{kind: _column(kind, features, data, bool) for kind in data.columns},
    }


def _column(kind: Literal["image", "text", "id", "label"], features: dict, data: Data, fits: Callable) -> str:
    """The column that the parameters name for `kind`; else the one that fits by type, or by its usual name."""
    known = ", ".join(features)
    if name := data.columns.get(kind):
        if name not in features:
            raise PcclipError(f"data.columns.{kind} = {name!r}: {data.path} has no such column; it has {known}")
        return name
    fitting = [name for name, feature in features.items() if fits(feature)]
    best = [name for name in _USUAL[kind] if name in fitting] or (fitting if len(fitting) == 1 else [])
    if not best:
        raise PcclipError(f"{data.path}: cannot tell which column is the {kind} ({known}); set data.columns.{kind}")
    return best[0]


def _is_text(feature: Any) -> bool:
    """True for a string, or a list of strings."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "dtype", None) in ("string", "large_string") and type(inner).__name__ == "Value"


def _file(image: dict | None, folder: Path, name: str) -> tuple[str, str]:
    """The path of an image, which is its own file or its bytes written to `folder`; and '' or why there is no image."""
    if not image or not (image["bytes"] or image["path"]):
        return "", "no image"
    if not image["bytes"]:
        return os.path.realpath(image["path"]), "" if os.path.isfile(image["path"]) else "missing file"
    target = folder / f"{name}{_suffix(image)}"
    if not target.is_file() or target.read_bytes() != image["bytes"]:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.write_bytes(image["bytes"])  # a power cut may spoil it: it is compared with the set's at each reading
        os.replace(temporary, target)
    return str(target), ""


def _suffix(image: dict) -> str:
    by_content = (suffix for magic, suffix in _MAGIC.items() if image["bytes"].startswith(magic))
    own = Path(image["path"] or "").suffix.lower()
    return own if own in SUFFIXES else next(by_content, ".image")


def _label(value: Any, names: list[str] | None) -> str | None:
    """The name of a class; -1 and None are no label."""
    known = value is not None and not (names and value < 0)
    return (names[value] if names else str(value)) if known else None
