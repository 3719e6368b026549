"""Oxford 102 Flowers (Nilsback and Zisserman 2008): 8,189 photos, labels and split in MATLAB files.

The official training and validation images (trnid and valid, ten per class and each) are for tuning; the test images
are tstid, 6,149, as in the papers. The files hold no class names: CLASSES are the authors' 102, by label.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat

from pcclip.benchmarks.classification import LabelledSet, of_paths, place_of
from pcclip.benchmarks.matlab import UNREADABLE
from pcclip.errors import PcclipError

_HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_FOLDERS = ["", "flowers-102"]
_SPLITS = {"trnid": "tune", "valid": "tune", "tstid": "test"}
CLASSES = [
    name.strip()
    for name in """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia, cautleya spicata,
japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus,
toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia,
bromelia, blanket flower, trumpet creeper, blackberry lily""".split(",")
]
_RELEASED = {"colt's foot": "colts foot", "pink-yellow dahlia": "pink-yellow dahlia?"}


def missing(root: Path) -> list[str]:
    """What of images, labels and split is not there."""
    place, found = place_of(root, _FOLDERS, "jpg"), []
    if not (place / "jpg").is_dir():
        found.append(f"{place}: no jpg/; download {_HOME}/102flowers.tgz (345 MB) and unpack it there")
    lost = [name for name in ("imagelabels.mat", "setid.mat") if not (place / name).is_file()]
    if lost:
        found.append(
            f"{place}: no {', '.join(lost)}; download {' and '.join(f'{_HOME}/{name}' for name in lost)} "
            "(under 1 MB) and put them there"
        )
    return found


def read(root: Path) -> LabelledSet:
    """Raises PcclipError when the MATLAB files cannot be read, or lack their fields."""
    place = place_of(root, _FOLDERS, "jpg").resolve()
    labels = dict(enumerate(_field(place / "imagelabels.mat", "labels") - 1, start=1))
    table = pd.DataFrame(
        [(number, split) for part, split in _SPLITS.items() for number in _field(place / "setid.mat", part)],
        columns=["number", "split"],
    )
    table["id"] = table.number.map("image_{:05d}".format)
    table["path"] = f"{place}/jpg/" + table["id"] + ".jpg"
    table["label"] = table.number.map(labels).where(lambda label: label.between(0, len(CLASSES) - 1))
    return of_paths("flowers", table, CLASSES, [_RELEASED.get(name, name) for name in CLASSES])


def _field(path: Path, name: str) -> np.ndarray:
    """A row of whole numbers in a MATLAB file."""
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name]).ravel().astype(np.int64)
    except UNREADABLE as error:
        raise PcclipError(
            f"{path}: no field {name!r} that can be read ({error}); download {_HOME}/{path.name} again"
        ) from None
