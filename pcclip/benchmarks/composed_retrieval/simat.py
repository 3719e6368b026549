"""SIMAT (Couairon et al., CVPR-W 2022): a photograph of 'a SUBJECT RELATION OBJECT', and one of the three exchanged.

Its folder is a clone of https://github.com/facebookresearch/SIMAT after its prepare_dataset.py, which cuts the images
out of Visual Genome:

    simat_db/transfos.csv      region_id, value, target, target_ids, norm2, is_test (and more)
    simat_db/triplets.csv      region_id, subj, rel, obj, dataset_id: one row per image
    simat_db/images/images/98316.png     or, as older versions have it, images/A cat sitting on a grass/98316.jpg
    simat_db/oscar_similarity_matrix.pt     optional: images, numbered by dataset_id, x triplets: OSCAR's verdict
                                         whether an image shows it

target_ids is the number of the wanted triplet, in the order of their first rows in triplets.csv. An image is right
where OSCAR gives it more than 0.5 for that triplet, as the authors score; without their matrix it is right where it is
of that triplet itself, which is stricter. A query counts 1 / sqrt(norm2), and the start is no answer. The test queries
are read, so that the authors' development queries stay for choosing on.
"""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, find, first_existing, read_table
from pcclip.benchmarks.composed_retrieval import FAMILY, queries_of
from pcclip.errors import PcclipError

_SOURCE = "https://github.com/facebookresearch/SIMAT"
_AGAIN = f"clone {_SOURCE} again"


def read(place: Path) -> Benchmark:
    """The test queries. Raises PcclipError when a table has other columns, or the matrix is not of these images."""
    folder = place / "simat_db"
    triplets = read_table(folder / "triplets.csv", ["region_id", "subj", "rel", "obj"], _AGAIN)
    columns = ["region_id", "value", "target", "target_ids", "norm2", "is_test"]
    queries = read_table(folder / "transfos.csv", columns, _AGAIN)
    words = triplets.subj + " " + triplets.rel + " " + triplets.obj
    codes, names = pd.factorize(words)
    ids = triplets.region_id.astype(str)
    paths = first_existing(
        [f"{folder}/images/images/" + ids + ".png", f"{folder}/images/A " + words + "/" + ids + ".jpg"]
    )
    images = pd.DataFrame({"id": ids, "path": paths, "gallery": "simat"})
    right = _right_images(folder, triplets, codes, len(names))
    queries = queries[queries.is_test.astype(str) == "True"].reset_index(drop=True)
    target, norm2 = (pd.to_numeric(queries[column], errors="coerce") for column in ("target_ids", "norm2"))
    target = target.where(target.isin(range(len(names))), -1).astype(int)
    start = queries.region_id.astype(str)
    table = pd.DataFrame(
        {
            "row": [f"transfos.csv, line {k + 2}" for k in queries.index],
            "start": start,
            "right": [right[k] if k >= 0 else () for k in target],
            "text": queries.target.astype(str),
            "before": queries.value.astype(str),
            "gallery": "simat",
            "weight": 1 / np.sqrt(norm2.clip(lower=1e-9)),
            "reason": np.where((target >= 0) & start.isin(set(ids)) & (norm2 > 0), "", "unknown image or triplet"),
        }
    )
    return queries_of(Benchmark("simat", FAMILY, images, recalls=(1, 5, 10), start_is_candidate=False), table)


def _right_images(folder: Path, triplets: pd.DataFrame, codes: np.ndarray, count: int) -> list[tuple[str, ...]]:
    """The images that are right for each of `count` triplets; `codes` are the triplets of the images."""
    ids, matrix = triplets.region_id.astype(str).to_numpy(), find(folder, "oscar_similarity_matrix.pt")
    if matrix is None:
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
    if "dataset_id" not in triplets or set(triplets.dataset_id) != set(range(len(ids))):
        raise PcclipError(
            f"{folder / 'triplets.csv'}: has no dataset_id from 0 on, which numbers {matrix.name}; {_AGAIN}"
        )
    return [tuple(ids[rows]) for rows in (scores[triplets.dataset_id.tolist()] > 0.5).numpy().T]


SIMAT = Reader(
    "simat",
    read,
    {
        f"clone {_SOURCE}": ["simat_db/transfos.csv", "simat_db/triplets.csv"],
        f"run prepare_dataset.py of {_SOURCE} with Visual Genome": ["simat_db/images/"],
    },
)
