"""Change captioning in stage 04: does the difference of two images find the text that a person wrote about it?

Task change_retrieval: the right text among wrong ones. Task which_has_more: of sets that ask which image has more.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.config import Config
from pcclip.embedding.stage import embedded_sets
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import retrieval
from pcclip.evaluation.predictions import Predictions
from pcclip.runs.progress import say

DISTRACTORS = 9  # wrong texts beside the right one


def check(benchmark: Benchmark) -> None:
    """Raises PcclipError when a pair has fewer than DISTRACTORS other texts."""
    pairs = benchmark.items
    for form, kept in [] if "answer" in pairs else _forms(pairs):
        try:
            own = pairs[kept]
            retrieval.check_distractors(own["first"], own["second"], own["text"], DISTRACTORS)
        except PcclipError as error:
            raise PcclipError(f"evaluate.changes.{benchmark.name}, {form}: {error}") from None


def score(
    config: Config, benchmarks: Mapping[str, Benchmark], encoders: Mapping[str, Encoder], predictions: Predictions
) -> None:
    """Score every model on every set."""
    for name, benchmark, vectors in embedded_sets(config, benchmarks, encoders):
        pairs = benchmark.items
        pairs = pairs[vectors.has(pairs["first"], pairs["second"])].reset_index(drop=True)
        say(f"{name}: {len(pairs)} test pairs")
        first, second = vectors.rows(pairs["first"]), vectors.rows(pairs["second"])
        for model, encoder in encoders.items():
            matrix = vectors.seen_by(model).matrix
            if "answer" in pairs:
                described = retrieval.DescribedPairs(first, second, list(pairs.text), list(pairs.swapped))
                tables = retrieval.worded_verdicts(
                    encoder.encode_texts, matrix, described, (pairs.answer == "first").to_numpy()
                )
                for form, items in zip(("one_sided", "antisymmetric"), tables, strict=True):
                    predictions.add(("which_has_more", f"{name}/{form}", ""), model, items, vectors.ids)
                continue
            for form, kept in _forms(pairs):
                described = retrieval.DescribedPairs(
                    first[kept],
                    second[kept],
                    list(pairs.text[kept]),
                    twins=list(pairs.swapped[kept]) if form == "antisymmetric" else None,
                    orientation=benchmark.orientation,
                )
                items = retrieval.retrieval_items(encoder.encode_texts, matrix, described, DISTRACTORS, config.seed)
                predictions.add(
                    ("change_retrieval", f"{name}/{form}/1 of {DISTRACTORS + 1}", ""), model, items, vectors.ids
                )


def _forms(pairs: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """The forms of retrieval, each with the mask of its pairs: all pairs, and the pairs with a swapped text."""
    swapped = (pairs.swapped != "").to_numpy()
    return [("one_sided", np.ones(len(pairs), dtype=bool)), *([("antisymmetric", swapped)] if swapped.any() else [])]
