"""The `shapes` source: pictures of two coloured shapes, one left of, right of, above or below the other.

A scene follows from a seed and a number alone, so the 7th held-out scene of seed 0 is the same everywhere. A fifth of
the combinations (two objects, in whichever order) is held out: no training scene of that seed has them. data.part is
the seed. The pictures are kept in one tar file in ~/.cache/pcclip/shapes.
"""

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from pcclip.config import Data
from pcclip.images import in_tar
from pcclip.runs.files import atomic, cache_folder, digest
from pcclip.stats.random_streams import stream

_TRAIN, _HELD_OUT = 4000, 1000  # pictures, where the parameters do not say
FORMAT = 1  # raise it when pictures, captions or the training of a toy model change: the models are trained anew
SIDE = 32  # pixels
COLOURS = {
    "red": (214, 39, 40),
    "blue": (30, 70, 220),
    "green": (34, 139, 54),
    "yellow": (240, 215, 30),
    "black": (15, 15, 15),
    "purple": (130, 40, 170),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # from the second to the first
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
OBJECTS = list(product(COLOURS, SHAPES))
PAIRS = [(a, b) for a, b in combinations(OBJECTS, 2) if a[0] != b[0]]  # combinations: two objects of different colours
HELD_OUT = 0.2  # share of the combinations
SPLITS = ("train", "held_out", "tune")  # tune: the combinations of train in other pictures
_BACKGROUND = (246, 246, 246)
_FINE = 4  # drawn this many times larger, then averaged
Object = tuple[str, str]  # colour, shape


@dataclass(frozen=True)
class Scene:
    """Two objects of two colours; `places` are their centres and radii in pixels: (x, y, radius) of each."""

    first: Object
    second: Object
    relation: str
    places: tuple[tuple[float, float, float], tuple[float, float, float]]

    @property
    def caption(self) -> str:
        return caption(self.first, self.relation, self.second)

    @property
    def swapped(self) -> str:
        """The caption with the roles exchanged: wrong, and made of the same words."""
        return caption(self.second, self.relation, self.first)

    @property
    def combination(self) -> str:
        """Which two objects, in whichever order."""
        return "+".join(sorted(f"{colour}-{shape}" for colour, shape in (self.first, self.second)))


def caption(first: Object, relation: str, second: Object) -> str:
    """'a red circle left of a blue square'."""
    return f"a {' '.join(first)} {relation} a {' '.join(second)}"


def scene(seed: int, split: str, number: int) -> Scene:
    """Scene `number` of a split: 'train' and 'tune' have the same combinations, 'held_out' has the others."""
    rng = stream("toy scene", seed, SPLITS.index(split), number)
    pairs = _combinations(seed)["held_out" if split == "held_out" else "train"]
    objects = pairs[rng.integers(len(pairs))]
    first, second = objects if rng.integers(2) else objects[::-1]
    relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
    return Scene(first, second, relation, _places(relation, rng))


def mirrored(scene: Scene) -> Scene:
    """The scene with its objects exchanged: the picture that `scene.swapped` describes."""
    return Scene(scene.second, scene.first, scene.relation, scene.places)


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of SIDE x SIDE pixels."""
    image = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), _BACKGROUND)
    pen = ImageDraw.Draw(image)
    for (colour, shape), (x, y, radius) in zip((scene.first, scene.second), scene.places, strict=True):
        _draw_shape(pen, shape, (x * _FINE, y * _FINE, radius * _FINE), COLOURS[colour])
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def pictures(scenes: list[Scene]) -> UInt8[np.ndarray, "n 32 32 3"]:
    """The scenes' pictures as one array."""
    return np.stack([np.asarray(draw(scene)) for scene in scenes])


@cache
def _combinations(seed: int) -> dict[str, list[tuple[Object, Object]]]:
    order = stream("toy combinations", seed, len(SPLITS)).permutation(len(PAIRS))
    held_out = round(HELD_OUT * len(PAIRS))
    return {"held_out": [PAIRS[k] for k in order[:held_out]], "train": [PAIRS[k] for k in order[held_out:]]}


def _places(relation: str, rng: np.random.Generator) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Two places that do not touch, clearly apart along the relation's axis and nearly level across it."""
    radii = rng.uniform(4.0, 6.0, size=2)
    gap, across = radii.sum() + rng.uniform(2.0, 4.0), rng.uniform(-2.0, 2.0)
    step = np.array(RELATIONS[relation], dtype=float)
    apart = gap * step + across * (1 - np.abs(step))  # from the second centre to the first
    offsets = np.stack([apart / 2, -apart / 2])
    middle = SIDE / 2 - 0.5 + rng.uniform(-2.0, 2.0, size=2)
    first, second = ((float(x), float(y), float(r)) for (x, y), r in zip(middle + offsets, radii, strict=True))
    return first, second


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, place: tuple[float, float, float], fill: tuple) -> None:
    x, y, r = place
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        pen.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
    else:
        pen.polygon([(x, y - r), (x - r, y + 0.8 * r), (x + r, y + 0.8 * r)], fill=fill)


# ---- the source ------------------------------------------------------------------------------------------------------


def missing(data: Data) -> list[str]:
    """Nothing is ever missing."""
    return []


def published(data: Data) -> dict[str, tuple[int, int]]:
    """(images, captions) of each side."""
    return {"train": (data.limit or _TRAIN,) * 2, "held_out": (data.held_out_limit or _HELD_OUT,) * 2}


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Draw data.limit training and data.held_out_limit held-out pictures. Nothing is left out."""
    scenes = {
        f"{split}/{number:06}": scene(int(data.part or 0), split, number)
        for split, (count, _) in published(data).items()
        for number in range(count)
    }
    table = pd.DataFrame(
        {
            "id": list(scenes),
            "path": picture_paths(list(scenes.values())),
            "caption": [scene.caption for scene in scenes.values()],
            "concept": [scene.combination for scene in scenes.values()],
            "split": [name.partition("/")[0] for name in scenes],
        }
    )
    return table, pd.DataFrame(columns=["path", "reason"]), 0


def picture_paths(scenes: Sequence[Scene]) -> list[str]:
    """Paths of the scenes' pictures in a tar file, which is drawn unless it exists."""
    tar = cache_folder() / "shapes" / f"pictures-{digest([FORMAT, PIL.__version__, scenes])[:16]}.tar"
    if not tar.is_file():
        with atomic(tar) as temporary:
            _write(temporary, scenes)
        os.utime(tar, (0, 0))  # a tar drawn again is then the same file to stages, whose keys hold its time stamp
    with tarfile.open(tar) as file:
        return [in_tar(str(tar), member.offset_data, member.size, member.name) for member in file]


def _write(path: Path, scenes: Sequence[Scene]) -> None:
    with tarfile.open(path, "w") as file:
        for number, scene in enumerate(scenes):
            png = BytesIO()
            draw(scene).save(png, "png")
            member = tarfile.TarInfo(f"{number:06}.png")
            member.size = png.tell()
            png.seek(0)
            file.addfile(member, png)
