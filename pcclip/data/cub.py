"""The `cub` source: Caltech-UCSD Birds 200-2011 with the ten captions per image of Reed et al. (CVPR 2016)."""

from pathlib import Path

import pandas as pd

from pcclip.data.files import there
from pcclip.data.rows import sort_out
from pcclip.errors import PcclipError
from pcclip.params import Data, resolve

_BIRDS = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz (1.1 GB)"
_CAPTIONS = "cvpr2016_cub.tar.gz (linked from https://github.com/reedscot/cvpr2016)"
_TABLES = {"images.txt": "file", "image_class_labels.txt": "class", "train_test_split.txt": "is_training"}
_CLASSES = "classes.txt"
_IMAGES = {"train": 5_994, "held_out": 5_794}
_CAPTIONS_EACH = 10


def missing(data: Data) -> list[str]:
    """What of the birds and of their captions is not there."""
    root, lines = resolve(data.path), []
    lacking = [name for name in (*_TABLES, _CLASSES) if not (root / name).is_file()]
    lacking += ["images/"] if not (root / "images").is_dir() else []
    if lacking:
        lines.append(f"{root}: no {', '.join(lacking)}; download {_BIRDS} and set data.path to its CUB_200_2011")
    if _texts(root) is None:
        lines.append(f"{root}: no text_c10 in it or beside it; download {_CAPTIONS} and unpack it beside {root}")
    return lines


def published(data: Data) -> dict[str, tuple[int, int]]:
    """Images and captions of each side of the whole set."""
    return {side: (count, _CAPTIONS_EACH * count) for side, count in _IMAGES.items()}


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Returns the table, what was left out (path, reason), and how many of those are bad rows."""
    root = resolve(data.path).resolve()
    table = pd.concat([_column(root / name, column) for name, column in _TABLES.items()], axis=1)
    classes = _column(root / _CLASSES, "class")["class"].map(_readable)
    label = table["class"].map({str(number): name for number, name in classes.items()})
    split = table.is_training.map({"1": "train", "0": "held_out"})
    files, texts = table.file.fillna(""), _texts(root)
    stems = files.str.removesuffix(".jpg")
    captions = [_captions(texts / f"{stem}.txt") for stem in stems]
    table = pd.DataFrame({"id": stems, "path": f"{root}/images/" + files, "captions": captions, "concept": label,
                          "label": label, "split": split}).reset_index(drop=True)
    reason = pd.Series("", index=table.index)
    reason[~there(table.path)] = "missing file"
    reason[table.concept.isna()] = "no class"
    reason[table.split.isna()] = "no split"
    return sort_out(table, reason)


def _column(path: Path, name: str) -> pd.DataFrame:
    """The column of a file of lines 'number value', by number."""
    try:
        return pd.read_csv(path, sep=" ", names=["number", name], index_col="number", dtype={name: str})
    except (ValueError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: not lines of a number and a value ({error}); unpack {_BIRDS} again") from None


def _texts(root: Path) -> Path | None:
    """The folder of the captions."""
    places = [base / name for base in (root, root.parent) for name in ("text_c10", "cvpr2016_cub/text_c10")]
    return next((place for place in places if place.is_dir()), None)


def _captions(path: Path) -> list[str]:
    return path.read_text(encoding="utf8", errors="replace").splitlines() if path.is_file() else []


def _readable(name: str) -> str:
    """'001.Black_footed_Albatross' -> 'black footed albatross'."""
    return name.split(".", 1)[-1].replace("_", " ").lower()
