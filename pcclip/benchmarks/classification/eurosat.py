"""EuroSAT (Helber et al. 2019), RGB: 27,000 Sentinel-2 tiles of ten kinds of land, one folder each.

Its authors give no split. The test images are the tenth that the released code draws: the last of a permutation by
torch with seed 0 over torchvision's ImageFolder, files in alphabetical order.
"""

from pathlib import Path

import pandas as pd
import torch

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.torchvision_shim import declare_missing

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
_TRAIN_SHARE = 0.9


def read(place: Path) -> Benchmark:
    """All its images."""
    declare_missing()
    from torchvision.datasets import ImageFolder

    images = pd.DataFrame(ImageFolder(place).samples, columns=["path", "label"])
    images["id"] = images.path.str.removeprefix(f"{place}/")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).numpy()
    images["split"] = "tune"
    images.loc[order[int(len(images) * _TRAIN_SHARE) :], "split"] = "test"
    return labelled_files(Benchmark("eurosat", FAMILY, images, classes=list(CLASSES.values()), released=list(CLASSES)))


EUROSAT = Reader(
    "eurosat",
    read,
    {
        "download https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip (95 MB) and unpack it there": [
            f"{name}/" for name in CLASSES
        ]
    },
    folders=("", "2750", "EuroSAT_RGB", "eurosat/2750"),  # as the archives unpack, torchvision's included
)
