"""EuroSAT (Helber et al. 2019), RGB: 27,000 Sentinel-2 tiles of ten kinds of land, one folder each.

Its authors give no split. The test images are the tenth that the released code draws: the last of a permutation by
torch with seed 0 over the files in alphabetical order.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pcclip.benchmarks.classification import LabelledSet, of_paths, place_of

CLASSES = {  # folder, as the released code names the class -> what it is, in the words of CLIP's prompts
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
_FOLDERS = ["", "2750", "EuroSAT_RGB", "eurosat/2750"]  # as the archives unpack, torchvision's included
_ARCHIVE = "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip (95 MB)"
_TRAIN_SHARE, _SEED = 0.9, 0


def missing(root: Path) -> list[str]:
    """Which folders of classes are not there."""
    place = place_of(root, _FOLDERS, *CLASSES)
    lost = [name for name in CLASSES if not (place / name).is_dir()]
    return [f"{place}: no {', '.join(lost)}; download {_ARCHIVE} and unpack it in {root}"] if lost else []


def read(root: Path) -> LabelledSet:
    """All its images."""
    place = place_of(root, _FOLDERS, *CLASSES).resolve()
    files = [
        (f"{name}/{file}", label)
        for label, name in enumerate(CLASSES)
        for file in sorted(path.name for path in (place / name).glob("*.jpg"))
    ]
    ids, labels = zip(*files, strict=True) if files else ((), ())
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(_SEED)).numpy()
    split = np.full(len(ids), "tune", dtype=object)
    split[order[int(len(ids) * _TRAIN_SHARE) :]] = "test"
    table = pd.DataFrame({"id": ids, "path": [f"{place}/{name}" for name in ids], "label": labels, "split": split})
    return of_paths("eurosat", table, list(CLASSES.values()), list(CLASSES))
