"""SIMAT (Couairon et al., CVPR-W 2022): a photograph of 'a SUBJECT RELATION OBJECT', and one of the three exchanged.

Its folder is a clone of https://github.com/facebookresearch/SIMAT after its prepare_dataset.py, which cuts the images
out of Visual Genome:

    simat_db/transfos.csv      region_id, value, target, target_ids, norm2, is_test (and more)
    simat_db/triplets.csv      region_id, subj, rel, obj: one row per image
    simat_db/images/A cat sitting on a grass/98316.jpg
    simat_db/oscar_similarity_matrix.pt     optional: images x triplets, OSCAR's verdict whether an image shows it

target_ids is the number of the wanted triplet, in the order in which triplets.csv first names each. An image is right
where OSCAR gives it more than 0.5 for that triplet, as the authors score; without their matrix it is right where it is
of that triplet itself, which is stricter. A query counts 1 / sqrt(norm2), and the start is no answer. The test queries
are read, so that the authors' development queries stay for choosing on.
"""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pandas as pd

from pcclip.errors import PcclipError
from pcclip.runs.files import files_exist

START_IS_CANDIDATE = False
RECALLS = (1, 5, 10)
_SOURCE = "https://github.com/facebookresearch/SIMAT"
_FOLDER, _MATRIX = "simat_db", "oscar_similarity_matrix.pt"
_COLUMNS = {
    "transfos.csv": ["region_id", "value", "target", "target_ids", "norm2", "is_test"],
    "triplets.csv": ["region_id", "subj", "rel", "obj"],
}


def missing(path: Path) -> list[str]:
    """Which tables are not in the folder, whether its images are, and where to get them."""
    lacking = [name for name in _COLUMNS if not (path / _FOLDER / name).is_file()]
    lines = []
    if lacking:
        lines.append(f"{path / _FOLDER}: no {', '.join(lacking)}; clone {_SOURCE}")
    if not (path / _FOLDER / "images").is_dir():
        lines.append(f"{path / _FOLDER / 'images'}: not there; run prepare_dataset.py of {_SOURCE} with Visual Genome")
    return lines


def read(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raises PcclipError when a table has other columns, or the matrix is not of these images."""
    triplets, asked = (_table(path / _FOLDER / name) for name in ("triplets.csv", "transfos.csv"))
    words = triplets.subj + " " + triplets.rel + " " + triplets.obj
    codes, names = pd.factorize(words)
    ids = triplets.region_id.astype(str)
    images = pd.DataFrame(
        {"id": ids, "gallery": "simat", "path": f"{path / _FOLDER / 'images'}/A " + words + "/" + ids + ".jpg"}
    )
    right = _right(path / _FOLDER / _MATRIX, ids.to_numpy(), codes, len(names))
    asked = asked[asked.is_test.astype(str) == "True"].reset_index(drop=True)
    wanted, norm2 = (pd.to_numeric(asked[column], errors="coerce") for column in ("target_ids", "norm2"))
    wanted = wanted.where(wanted.isin(range(len(names))), -1).astype(int)
    known = (wanted >= 0) & asked.region_id.astype(str).isin(set(ids)) & (norm2 > 0)
    return images, pd.DataFrame(
        {
            "row": [f"transfos.csv, line {k + 2}" for k in asked.index],
            "start": asked.region_id.astype(str),
            "right": [right[k] if k >= 0 else () for k in wanted],
            "text": asked.target.astype(str),
            "before": asked.value.astype(str),
            "gallery": "simat",
            "members": [()] * len(asked),
            "weight": 1 / np.sqrt(norm2.clip(lower=1e-9)),
            "reason": np.where(known, "", "unknown image or triplet"),
        }
    )


def _right(matrix: Path, ids: np.ndarray, codes: np.ndarray, count: int) -> list[tuple[str, ...]]:
    """The images that are right for each triplet."""
    if not files_exist(pd.Series([str(matrix)]))[0]:
        return [tuple(ids[codes == k]) for k in range(count)]
    import torch

    try:
        scores = torch.load(matrix, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise PcclipError(
            f"{matrix}: cannot be read ({type(error).__name__}); fetch it again from {_SOURCE}, or remove it"
        ) from None
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (len(ids), count):
        raise PcclipError(
            f"{matrix}: should be a tensor of {len(ids)} images x {count} triplets; fetch it and "
            f"triplets.csv from one commit of {_SOURCE}, or remove it"
        )
    return [tuple(ids[rows]) for rows in (scores > 0.5).numpy().T]


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: not a table ({' '.join(str(error).split())}); clone {_SOURCE} again") from None
    if lacking := [column for column in _COLUMNS[path.name] if column not in table]:
        raise PcclipError(f"{path}: has no column {lacking[0]!r}; clone {_SOURCE} again")
    return table
