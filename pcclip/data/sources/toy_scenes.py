"""The `shapes` source: pictures of two coloured shapes drawn here, as many as are asked for (toy_drawing.py).

data.part is the seed of the pictures. The combinations that toy_drawing.py holds out are the held-out side, which no model of
pcclip.shapes with that seed was trained on. The pictures are kept in one tar file in ~/.cache/pcclip/shapes.
"""

import os
import tarfile
from collections.abc import Sequence
from io import BytesIO

import pandas as pd
import PIL

from pcclip.config import Data
from pcclip.data.sources import toy_drawing as draw
from pcclip.images import in_tar
from pcclip.runs.files import atomic, cache_folder, digest

_TRAIN, _HELD_OUT = 4000, 1000  # pictures, where the parameters do not say


def missing(data: Data) -> list[str]:
    """Nothing is ever missing."""
    return []


def published(data: Data) -> dict[str, tuple[int, int]]:
    return {"train": (data.limit or _TRAIN,) * 2, "held_out": (data.held_out_limit or _HELD_OUT,) * 2}


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Draw data.limit training and data.held_out_limit held-out pictures. Nothing is left out."""
    scenes = {
        f"{split}/{number:06}": draw.scene(int(data.part or 0), split, number)
        for split, (count, _) in published(data).items()
        for number in range(count)
    }
    table = pd.DataFrame(
        {
            "id": list(scenes),
            "path": kept(list(scenes.values())),
            "caption": [one.caption for one in scenes.values()],
            "concept": [one.combination for one in scenes.values()],
            "split": [name.partition("/")[0] for name in scenes],
        }
    )
    return table, pd.DataFrame(columns=["path", "reason"]), 0


def kept(scenes: Sequence[draw.Scene]) -> list[str]:
    """Paths of their pictures, drawn into a tar file unless it is there."""
    tar = cache_folder() / "shapes" / f"pictures-{digest([draw.FORMAT, PIL.__version__, scenes])[:16]}.tar"
    if not tar.is_file():
        with atomic(tar) as temporary:
            _write(temporary, scenes)
        os.utime(tar, (0, 0))  # drawn again it is the same file, to the stages that look at its time
    with tarfile.open(tar) as file:
        return [in_tar(str(tar), one.offset_data, one.size, one.name) for one in file]


def _write(path, scenes: Sequence[draw.Scene]) -> None:
    with tarfile.open(path, "w") as file:
        for number, scene in enumerate(scenes):
            png = BytesIO()
            draw.draw(scene).save(png, "png")
            about = tarfile.TarInfo(f"{number:06}.png")
            about.size = png.tell()
            png.seek(0)
            file.addfile(about, png)
