"""A ranking by an attribute in words as a task of MTEB, so that its runner scores any image-text model that it knows.

import mteb
from pcclip.evaluation.mteb_task import attribute_ranking

task = attribute_ranking("BodyMass", photos, "a large animal", "a small animal")  # photos: columns path and value
mteb.evaluate(mteb.get_model("openai/clip-vit-base-patch32"), [task])
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pcclip.config import Evaluate
from pcclip.errors import PcclipError
from pcclip.stats.rank_measures import pairwise_accuracy, spearman
from pcclip.torchvision_shim import declare_missing

if TYPE_CHECKING:
    from datasets import Dataset

_MEASURES = {"spearman": spearman, "pairwise_accuracy": pairwise_accuracy}


def scores(items: pd.DataFrame) -> dict[str, float]:
    """Spearman's correlation and pairwise accuracy of score and reference, each with its 95% bootstrap interval."""
    values: dict[str, float] = {}
    for name, measure in _MEASURES.items():
        estimate = measure(items, Evaluate.model_fields["bootstrap"].default, 0)
        values |= dict(zip([name, f"{name}_low", f"{name}_high"], [estimate.value, *estimate.interval], strict=True))
    return values


def attribute_ranking(name: str, photos: pd.DataFrame, more: str, less: str) -> Any:
    """The task: photos are ordered by cosine with `more` minus cosine with `less`, and compared with known values.

    Args:
        name: of the task in MTEB's results.
        photos: one row a photo, with columns path and value.
        more: a text for the photos of a high value.
        less: a text for those of a low one.

    Returns:
        An mteb.AbsTask; its main score is Spearman's correlation.

    Raises:
        PcclipError: mteb is not installed.
    """
    declare_missing()
    try:
        from datasets import Dataset, Image
        from mteb._evaluators import ZeroShotClassificationEvaluator
        from mteb.abstasks import AbsTask
        from mteb.abstasks.task_metadata import TaskMetadata
    except ImportError:
        raise PcclipError("attribute_ranking needs mteb: pip install mteb") from None

    class AttributeRanking(AbsTask):
        metadata = TaskMetadata(
            name=name,
            dataset={"path": name, "revision": "local"},
            description=f"Order photos from '{more}' to '{less}', compared with known values.",
            type="ZeroShotClassification",
            category="i2t",
            modalities=["image", "text"],
            eval_langs=["eng-Latn"],
            main_score="spearman",
        )

        def load_data(self, *ignored: Any, **options: Any) -> None:
            table = Dataset.from_dict({"image": list(map(str, photos.path)), "value": list(map(float, photos.value))})
            self.dataset = {"test": table.cast_column("image", Image(mode="RGB"))}
            self.data_loaded = True

        def _evaluate_subset(self, model: Any, data_split: "Dataset", **options: Any) -> dict[str, float]:
            evaluator = ZeroShotClassificationEvaluator(
                data_split.select_columns(["image"]),
                "image",
                [more, less],
                task_metadata=self.metadata,
                **{key: options[key] for key in ("hf_split", "hf_subset", "timer")},
            )
            cosines = evaluator(model, encode_kwargs=options["encode_kwargs"], num_proc=options.get("num_proc"))
            up, down = np.asarray(cosines).T
            return scores(pd.DataFrame({"score": up - down, "reference": list(data_split["value"])}))

        def _calculate_descriptive_statistics_from_split(self, split: str, **options: Any) -> Any:
            return {"num_samples": len(photos)}

    return AttributeRanking()
