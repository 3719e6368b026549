"""Which object is where, on the drawn pictures of data.source shapes, in the forms of the compositional benchmarks.

On held-out combinations: `relation`, the caption against the one with the roles exchanged (a red square left of a blue
circle, a blue circle left of a red square; chance 1/2), and with the picture that the other caption describes
Winoground's scores and GroupMatch (relation_text, _image, _group, _group_match). `object` is the control, the caption
against one in which an object has another colour or another shape: an ability that must not be lost.

Where a model fails, `relation_probe` says which side does not know: a linear map fitted to the training pictures'
vectors (dataset shapes/images) or to their captions' (shapes/texts) predicts where each colour is, and on held-out
combinations it is right where the prediction fits the scene better than the exchanged one (chance 1/2).
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import Ridge

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.compositionality import FAMILY
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.data.sources import toy_scenes as draw
from pcclip.data.sources.toy_scenes import picture_paths, published
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation.predictions import Predictions, item_table
from pcclip.finetuning.both_towers import BASELINE
from pcclip.stats.metrics import compare

SOURCE, PAIRS = "shapes", "relation_groups"
_PENALTY = 1e-3  # of the probe, as a share of the vectors' mean variance


def load(config: Config) -> dict[str, Benchmark]:
    """The sets of the held-out pictures, by the name of their vectors; none where data.source is not shapes."""
    if config.data.source != SOURCE:
        return {}
    seed, count = int(config.data.part or 0), published(config.data)["held_out"][0]
    scenes = [draw.scene(seed, "held_out", number) for number in range(count)]
    mirrored = [draw.mirrored(scene) for scene in scenes]
    captions = [scene.caption for scene in scenes]
    exchanged = [scene.swapped for scene in scenes]
    directions = ["across" if draw.RELATIONS[scene.relation][0] else "upright" for scene in scenes]
    changed, changes = zip(*(_changed(seed, number, scene) for number, scene in enumerate(scenes)), strict=True)
    return {
        "relation": _benchmark("relation", [scenes], [captions, exchanged], directions),
        PAIRS: _benchmark("relation", [scenes, mirrored], [captions, exchanged], directions),
        "object": _benchmark("object", [scenes], [captions, list(changed)], list(changes)),
    }


def probe(
    config: Config, images: ImageSet, vectors: Vectors, model: tuple[str, Encoder], predictions: Predictions
) -> None:
    """Add how well the relation can be read from one model's image vectors and from its texts' vectors.

    Nothing is added where data.source is not shapes. `model` is a name with its encoder.
    """
    if config.data.source != SOURCE:
        return
    sides = [vectors.of(side) for side in (images.train, images.held_out)]
    train_steps, steps = (_steps([_scene(config, name) for name in side["id"]]) for side in sides)
    drawn, names = pd.factorize(np.array([_scene(config, name).combination for name in sides[1]["id"]], dtype=object))
    features = {
        "images": [vectors.matrix[vectors.rows(side["id"])] for side in sides],
        "texts": [model[1].encode_texts(list(side.caption)) for side in sides],
    }
    for name, (train, held_out) in features.items():
        score = (_predicted_steps(train, train_steps, held_out) * steps).sum(axis=1)
        items = item_table(drawn, drawn, score, 0.0, score > 0)
        predictions.add(("relation_probe", f"{SOURCE}/{name}", ""), model[0], items, list(names))


def gained(config: Config, predictions: pd.DataFrame) -> pd.DataFrame:
    """What the teacher taught beyond the captions alone: finetuned minus `captions`, paired, as stats.metrics.compare.

    Empty where this run has no drawn pictures, or no row `captions` (finetune.sds.baseline).
    """
    items = predictions[predictions.task.str.fullmatch("(relation|object).*")]
    if config.data.source != SOURCE or BASELINE not in set(items.model):
        return pd.DataFrame()
    return compare(items, "finetuned", BASELINE, config.evaluate.bootstrap, config.seed)


def _scene(config: Config, name: str) -> draw.Scene:
    """The scene of an image by its id, SPLIT/NUMBER."""
    split, number = name.split("/")
    return draw.scene(int(config.data.part or 0), split, int(number))


def _steps(scenes: list[draw.Scene]) -> Float[np.ndarray, "n t"]:
    """For each colour the step to it from the other object, x and y; 0 where the scene lacks the colour."""
    steps, names = np.zeros((len(scenes), len(draw.COLOURS), 2)), list(draw.COLOURS)
    for row, scene in enumerate(scenes):
        for sign, (colour, _) in ((1, scene.first), (-1, scene.second)):
            steps[row, names.index(colour)] = sign * np.array(draw.RELATIONS[scene.relation])
    return steps.reshape(len(scenes), -1)


def _predicted_steps(
    train: Float[np.ndarray, "n d"], steps: Float[np.ndarray, "n t"], held_out: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "m t"]:
    """Ridge regression of the steps on the training vectors, at the held-out vectors."""
    x = train.astype(float)
    penalty = _PENALTY * len(x) * x.var(axis=0).mean()
    return Ridge(alpha=penalty).fit(x, steps).predict(held_out.astype(float))


def _changed(seed: int, number: int, scene: draw.Scene) -> tuple[str, str]:
    """The caption with another colour or shape for one object, which neither object has; and 'colour' or 'shape'."""
    rng = np.random.default_rng([seed, number])
    objects, changed, feature = [scene.first, scene.second], rng.integers(2), rng.integers(2)
    colour, shape = objects[changed]
    present = {each[feature] for each in objects}
    new = str(rng.choice([name for name in (draw.SHAPES if feature else draw.COLOURS) if name not in present]))
    objects[changed] = (colour, new) if feature else (new, shape)
    return draw.caption(objects[0], scene.relation, objects[1]), "shape" if feature else "colour"


def _benchmark(name: str, shown: list[list[draw.Scene]], texts: list[list[str]], tags: list[str]) -> Benchmark:
    """Picture k of an item is of scene k of each list of `shown`, text k of each list of `texts`.

    What intervals draw anew are combinations: pictures of one are not independent.
    """
    ids = [[f"{number:06}-{k}" for number in range(len(scenes))] for k, scenes in enumerate(shown)]
    scenes = [scene for part in shown for scene in part]
    images = pd.DataFrame(
        {
            "id": [image for part in ids for image in part],
            "path": picture_paths(scenes),
            "photo": [scene.combination for scene in scenes],
        }
    )
    items = pd.DataFrame(
        {
            **{f"image_{k}": part for k, part in enumerate(ids)},
            **{f"text_{k}": part for k, part in enumerate(texts)},
            "part": "",
            "group": "",
            "tags": [(tag,) for tag in tags],
        }
    )
    return Benchmark(name, FAMILY, images, items, form="groups" if len(shown) == 2 else "choices", max_bad=0.0)
