"""The `cub` source: Caltech-UCSD Birds 200-2011 with the ten captions per image of Reed et al. (CVPR 2016)."""

from pathlib import Path

import pandas as pd

from pcclip.config import Data
from pcclip.data.captions import decoded
from pcclip.data.rows import file_reasons, root_of, sort_out
from pcclip.errors import PcclipError

_BIRDS = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz (1.1 GB)"
_CAPTIONS = "cvpr2016_cub.tar.gz (linked from https://github.com/reedscot/cvpr2016)"
_TABLES = {"images.txt": "file", "image_class_labels.txt": "class", "train_test_split.txt": "is_training"}
_CLASSES = "classes.txt"


def missing(data: Data) -> list[str]:
    """A line for the images and one for the captions, where they are absent."""
    root = root_of(data)
    lines = [f"{line} and set data.path to its CUB_200_2011" for line in missing_birds(root)]
    without = f"{root}: no text_c10 in it or beside it; download {_CAPTIONS} and unpack it beside {root}"
    return lines if _texts(root) else [*lines, without]


def missing_birds(root: Path) -> list[str]:
    """At most one line: the files that `root`, a CUB_200_2011, lacks, and the download."""
    absent = [name for name in (*_TABLES, _CLASSES) if not (root / name).is_file()]
    absent += ["images/"] if not (root / "images").is_dir() else []
    return [f"{root}: no {', '.join(absent)}; download {_BIRDS}"] if absent else []


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Returns the table, the rows left out (path, reason), and how many of them are bad."""
    root = root_of(data).resolve()
    table, names, reason = birds(root)
    label, texts = table["class"].map(dict(names.map(readable))), _texts(root)
    files = [(texts or root) / f"{stem}.txt" for stem in table["id"]]
    captions = [decoded(file.read_bytes())[0].splitlines() if file.is_file() else [] for file in files]
    return sort_out(table.drop(columns="class").assign(captions=captions, concept=label, label=label), reason)


def birds(root: Path) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """The images of `root`, a CUB_200_2011.

    Returns:
        The table: id, path, class (its number, as text), split ('train' or 'held_out'); the names of classes.txt by
        number; and for each row the reason why it cannot be used, '' where it can.

    Raises:
        PcclipError: a file is not as published.
    """
    table = pd.concat([_column(root / name, column) for name, column in _TABLES.items()], axis=1).reset_index(drop=True)
    names = _column(root / _CLASSES, "class")["class"].rename(index=str)
    files = table.file.fillna("")
    table = pd.DataFrame(
        {
            "id": files.str.removesuffix(".jpg"),
            "path": f"{root}/images/" + files,
            "class": table["class"],
            "split": table.is_training.map({"1": "train", "0": "held_out"}),
        }
    )
    reason = file_reasons(root / "images", files)
    reason[~table["class"].isin(names.index)] = "no class"
    reason[table.split.isna()] = "no split"
    return table, names, reason


def _column(path: Path, name: str) -> pd.DataFrame:
    """One column, `name`, indexed by number, of a file with lines 'number value'."""
    try:
        return pd.read_csv(path, sep=" ", names=["number", name], index_col="number", dtype={name: str})
    except (ValueError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: not lines of a number and a value ({error}); unpack {_BIRDS} again") from None


def _texts(root: Path) -> Path | None:
    """The folder of the captions, in `root` or beside it; None where there is none."""
    folders = [base / name for base in (root, root.parent) for name in ("text_c10", "cvpr2016_cub/text_c10")]
    return next((folder for folder in folders if folder.is_dir()), None)


def readable(name: str) -> str:
    """'001.Black_footed_Albatross' -> 'black footed albatross'."""
    return name.split(".", 1)[-1].replace("_", " ").lower()
