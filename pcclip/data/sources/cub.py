"""The `cub` source: Caltech-UCSD Birds 200-2011 with the ten captions per image of Reed et al. (CVPR 2016)."""

from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.rows import sort_out
from pcclip.errors import PcclipError
from pcclip.runs.files import files_exist

_BIRDS = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz (1.1 GB)"
_CAPTIONS = "cvpr2016_cub.tar.gz (linked from https://github.com/reedscot/cvpr2016)"
_TABLES = {"images.txt": "file", "image_class_labels.txt": "class", "train_test_split.txt": "is_training"}
_CLASSES = "classes.txt"
_IMAGES = {"train": 5_994, "held_out": 5_794}
_CAPTIONS_EACH = 10


def missing(data: Data) -> list[str]:
    """What of the birds and of their captions is not there."""
    root = resolve(data.path)
    lines = [f"{line} and set data.path to its CUB_200_2011" for line in missing_birds(root)]
    if _texts(root) is None:
        lines.append(f"{root}: no text_c10 in it or beside it; download {_CAPTIONS} and unpack it beside {root}")
    return lines


def missing_birds(root: Path) -> list[str]:
    """What of the birds themselves is not in `root`, a CUB_200_2011: at most one line, which names the download."""
    lacking = [name for name in (*_TABLES, _CLASSES) if not (root / name).is_file()]
    lacking += ["images/"] if not (root / "images").is_dir() else []
    return [f"{root}: no {', '.join(lacking)}; download {_BIRDS}"] if lacking else []


def published(data: Data) -> dict[str, tuple[int, int]]:
    """Images and captions of each side of the whole set."""
    return {side: (count, _CAPTIONS_EACH * count) for side, count in _IMAGES.items()}


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Returns the table, what was left out (path, reason), and how many of those are bad rows."""
    root = resolve(data.path).resolve()
    table, names, reason = birds(root)
    label, texts = table["class"].map(dict(names.map(readable))), _texts(root)
    captions = [_captions(texts / f"{stem}.txt") for stem in table["id"]]
    return sort_out(table.drop(columns="class").assign(captions=captions, concept=label, label=label), reason)


def birds(root: Path) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """The images of `root`, a CUB_200_2011: id, path, class (its number, as text), split ('train' or 'held_out').

    Returns them, the names of classes.txt by number, and why a row cannot be used, '' where it can. Raises PcclipError
    when a file is not as published.
    """
    table = pd.concat([_column(root / name, column) for name, column in _TABLES.items()], axis=1)
    names = _column(root / _CLASSES, "class")["class"].rename(index=str)
    split = table.is_training.map({"1": "train", "0": "held_out"})
    files = table.file.fillna("")
    table = pd.DataFrame(
        {
            "id": files.str.removesuffix(".jpg"),
            "path": f"{root}/images/" + files,
            "class": table["class"],
            "split": split,
        }
    ).reset_index(drop=True)
    reason = pd.Series("", index=table.index)
    reason[~files_exist(table.path)] = "missing file"
    reason[~table["class"].isin(names.index)] = "no class"
    reason[table.split.isna()] = "no split"
    return table, names, reason


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


def readable(name: str) -> str:
    """'001.Black_footed_Albatross' -> 'black footed albatross'."""
    return name.split(".", 1)[-1].replace("_", " ").lower()
