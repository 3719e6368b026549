"""Which object is where, on the drawn pictures of data.source shapes, in the forms of the compositional benchmarks.

On held-out combinations: `relation`, the caption against the one with the roles exchanged (a red square left of a blue
circle, a blue circle left of a red square; chance 1/2), and with the picture that the other caption describes
Winoground's scores and GroupMatch (relation_text, _image, _group, _group_match). `object` is the control, the caption
against one in which an object has another colour or another shape: an ability that must not be lost.
"""

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.compositionality import FAMILY
from pcclip.config import Config
from pcclip.data.sources import toy_scenes as draw
from pcclip.data.sources.toy_scenes import picture_paths, published
from pcclip.finetuning.both_towers import BASELINE
from pcclip.stats.metrics import compare

SOURCE, PAIRS = "shapes", "relation_groups"


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


def gained(config: Config, predictions: pd.DataFrame) -> pd.DataFrame:
    """What the teacher taught beyond the captions alone: finetuned minus `captions`, paired, as stats.metrics.compare.

    Empty where this run has no drawn pictures, or no row `captions` (finetune.sds.baseline).
    """
    items = predictions[predictions.task.str.fullmatch("(relation|object).*")]
    if config.data.source != SOURCE or BASELINE not in set(items.model):
        return pd.DataFrame()
    return compare(items, "finetuned", BASELINE, config.evaluate.bootstrap, config.seed)


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
