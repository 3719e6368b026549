"""Pictures of two coloured shapes, one left of, right of, above or below the other, in any number.

A scene is drawn from a seed and a number alone, so the 7th held-out scene of seed 0 is the same everywhere. A fifth of
the combinations (two objects, in whichever order) is held out: no training scene of that seed has them.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

FORMAT = 1  # raise it when pictures, captions or the training of either model change: both are then trained anew
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
PAIRS = [(a, b) for a, b in combinations(OBJECTS, 2) if a[0] != b[0]]  # the combinations: objects of two colours
HELD_OUT = 0.2  # share of the combinations
SPLITS = ("train", "held_out", "tune")  # tune: combinations of train, pictures of its own
_BACKGROUND = (246, 246, 246)
_FINE = 4  # drawn so many times larger, then averaged
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
    return f"a {' '.join(first)} {relation} a {' '.join(second)}"


def scene(seed: int, split: str, number: int) -> Scene:
    """Scene `number` of a split: 'train' and 'tune' have the same combinations, 'held_out' has the others."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    pairs = _combinations(seed)["held_out" if split == "held_out" else "train"]
    objects = pairs[rng.integers(len(pairs))]
    first, second = objects if rng.integers(2) else objects[::-1]
    relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
    return Scene(first, second, relation, _places(relation, rng))


def mirrored(of: Scene) -> Scene:
    """The same places with the objects exchanged: the picture that `of.swapped` is true of."""
    return Scene(of.second, of.first, of.relation, of.places)


def draw(of: Scene) -> Image.Image:
    """RGB, SIDE x SIDE."""
    image = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), _BACKGROUND)
    pen = ImageDraw.Draw(image)
    for (colour, shape), (x, y, radius) in zip((of.first, of.second), of.places, strict=True):
        _DRAWN[shape](pen, x * _FINE, y * _FINE, radius * _FINE, COLOURS[colour])
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def pictures(scenes: list[Scene]) -> UInt8[np.ndarray, "n 32 32 3"]:
    return np.stack([np.asarray(draw(one)) for one in scenes])


@cache
def _combinations(seed: int) -> dict[str, list[tuple[Object, Object]]]:
    order = np.random.default_rng([seed, len(SPLITS)]).permutation(len(PAIRS))
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
    return tuple((float(x), float(y), float(r)) for (x, y), r in zip(middle + offsets, radii, strict=True))


def _circle(pen, x, y, r, fill):
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _square(pen, x, y, r, fill):
    pen.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)


def _triangle(pen, x, y, r, fill):
    pen.polygon([(x, y - r), (x - r, y + 0.8 * r), (x + r, y + 0.8 * r)], fill=fill)


_DRAWN = {"circle": _circle, "square": _square, "triangle": _triangle}
