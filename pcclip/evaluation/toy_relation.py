"""Who is where, asked of the drawn pictures of data.source shapes, in the forms of the compositional benchmarks.

On held-out combinations: `relation`, the caption against the one with the roles exchanged (a red square left of a blue
circle, a blue circle left of a red square; chance 1/2), and with the picture that the other one is true of
Winoground's scores and GroupMatch (relation_text, _image, _group, _group_match). `object` is the control, the caption
against one in which an object has another colour or another shape: what must not be lost.

Where a model fails, `relation_probe` says which side does not know: a linear map fitted to the training pictures'
vectors (dataset shapes/images) or to their captions' (shapes/texts) tells where each colour is, and on held-out
combinations it is right where that fits the scene better than the exchanged one (chance 1/2).
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.benchmarks.compositionality import CompositionalSet
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.data.sources import toy_drawing as draw
from pcclip.data.sources.toy_scenes import kept, published
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation.predictions import Predictions
from pcclip.finetuning.both_towers import BASELINE
from pcclip.stats import metrics as statistics

SOURCE, PAIRS = "shapes", "relation_groups"
_PENALTY = 1e-3  # of the probe, as a share of the vectors' mean variance


def sets(config: Config) -> dict[str, CompositionalSet]:
    """The sets of the held-out pictures, by the name of their vectors; none where data.source is not shapes."""
    if config.data.source != SOURCE:
        return {}
    seed, count = int(config.data.part or 0), published(config.data)["held_out"][0]
    scenes = [draw.scene(seed, "held_out", number) for number in range(count)]
    swapped = [draw.mirrored(scene) for scene in scenes]
    right = {"text_0": [scene.caption for scene in scenes]}
    twin = right | {"text_1": [scene.swapped for scene in scenes]}
    along = ["across" if draw.RELATIONS[scene.relation][0] else "upright" for scene in scenes]
    changed = [_changed(seed, number, scene) for number, scene in enumerate(scenes)]
    other = right | {"text_1": [text for text, _ in changed]}
    return {
        "relation": _assembled("relation", "choices", [scenes], twin, along),
        PAIRS: _assembled("relation", "groups", [scenes, swapped], twin, along),
        "object": _assembled("object", "choices", [scenes], other, [what for _, what in changed]),
    }


def probe(
    config: Config, images: ImageSet, vectors: Vectors, which: str, model: Encoder, predictions: Predictions
) -> None:
    """Add how well order can be read from one model's image vectors and from its texts'; nothing of other sources."""
    if config.data.source != SOURCE:
        return
    sides = [vectors.of(side) for side in (images.train, images.held_out)]
    truths = [_steps([_scene(config, name) for name in side["id"]]) for side in sides]
    drawn, names = pd.factorize(np.array([_scene(config, name).combination for name in sides[1]["id"]], dtype=object))
    seen = [vectors.matrix[vectors.rows(side["id"])] for side in sides]
    read = [model.encode_texts(list(side.caption)) for side in sides]
    for name, (taught, asked) in (("images", seen), ("texts", read)):
        score = (_fitted(taught, truths[0], asked) * truths[1]).sum(axis=1)
        predictions.add(
            "relation_probe",
            f"{SOURCE}/{name}",
            which,
            pd.DataFrame({"first": drawn, "second": drawn, "score": score, "reference": 0.0, "correct": score > 0}),
            list(names),
        )


def gained(config: Config, predictions: pd.DataFrame) -> pd.DataFrame:
    """What the teacher taught beyond the captions alone: finetuned minus `captions`, paired, as statistics.compare.

    Empty where this run has no drawn pictures, or no row `captions` (finetune.sds.baseline).
    """
    asked = predictions[predictions.task.str.fullmatch("(relation|object).*")]
    if config.data.source != SOURCE or BASELINE not in set(asked.model):
        return pd.DataFrame()
    return statistics.compare(asked, "finetuned", BASELINE, config.evaluate.bootstrap, config.seed)


def _scene(config: Config, name: str) -> draw.Scene:
    """The scene of an image by its id, SPLIT/NUMBER."""
    split, number = name.split("/")
    return draw.scene(int(config.data.part or 0), split, int(number))


def _steps(scenes: list[draw.Scene]) -> Float[np.ndarray, "n t"]:
    """For each colour the step to it from the other object, x and y; 0 where it is not there."""
    found, names = np.zeros((len(scenes), len(draw.COLOURS), 2)), list(draw.COLOURS)
    for row, scene in enumerate(scenes):
        for sign, (colour, _) in ((1, scene.first), (-1, scene.second)):
            found[row, names.index(colour)] = sign * np.array(draw.RELATIONS[scene.relation])
    return found.reshape(len(scenes), -1)


def _fitted(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n t"], new: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "m t"]:
    """Ridge regression of y on x, at the vectors `new`."""
    middle, x = x.mean(axis=0), (x - x.mean(axis=0)).astype(float)
    products = x.T @ x
    penalty = _PENALTY * np.trace(products) / len(products)
    weights = np.linalg.solve(products + penalty * np.eye(len(products)), x.T @ (y - y.mean(axis=0)))
    return (new - middle) @ weights + y.mean(axis=0)


def _changed(seed: int, number: int, scene: draw.Scene) -> tuple[str, str]:
    """The caption with another colour or shape for one of the objects, which is then neither; and which it is."""
    rng = np.random.default_rng([seed, number])
    objects, which, what = [scene.first, scene.second], rng.integers(2), rng.integers(2)
    colour, shape = objects[which]
    there = {one[what] for one in objects}
    new = rng.choice([name for name in (draw.SHAPES if what else draw.COLOURS) if name not in there])
    objects[which] = (colour, str(new)) if what else (str(new), shape)
    return draw.caption(objects[0], scene.relation, objects[1]), "shape" if what else "colour"


def _assembled(
    name: str, form: str, shown: list[list[draw.Scene]], texts: dict[str, list[str]], tags: list[str]
) -> CompositionalSet:
    """Picture k of an item is of scene k of each list of `shown`. What intervals draw anew are combinations: pictures
    of one are not independent."""
    ids = [[f"{number:06}-{which}" for number in range(len(scenes))] for which, scenes in enumerate(shown)]
    every = [one for part in ids for one in part]
    images = pd.DataFrame(
        {
            "id": every,
            "path": kept([scene for part in shown for scene in part]),
            "box": None,
            "photo": [scene.combination for part in shown for scene in part],
        }
    )
    items = pd.DataFrame(
        {
            **{f"image_{which}": part for which, part in enumerate(ids)},
            **texts,
            "part": "",
            "group": "",
            "tags": [(tag,) for tag in tags],
        }
    )
    return CompositionalSet(name, form, images, items, pd.DataFrame(columns=["path", "reason"]))
