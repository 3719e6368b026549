"""Images with class labels: zero-shot classification and what builds on it, with true class names.

Benchmark.images has the columns id, path, label (an index into `classes`) and split ('tune', of the official training
or validation images, or 'test').
"""

from dataclasses import replace

import numpy as np

from pcclip.benchmarks.benchmark import Benchmark, benchmark_of_images
from pcclip.config import Labelled

FAMILY, SPLITS = "classification", ("tune", "test")


def labelled_files(template: Benchmark) -> Benchmark:
    """The set without images that have no label (NaN), no file, or a reason in the column `reason` where there is one."""
    images, known = template.images, template.images.get("reason", "")
    reason = np.where(images.label.isna() & (known == ""), "no class", known)
    benchmark = benchmark_of_images(replace(template, images=images.assign(reason=reason)))
    benchmark.images["label"] = benchmark.images.label.astype(int)
    return benchmark


def draw(benchmark: Benchmark, settings: Labelled, seed: int) -> Benchmark:
    """At most settings.limit test and settings.tune_limit tune images, in order: the classes in proportion."""
    sizes = {"tune": settings.tune_limit, "test": settings.limit}
    chosen = [_proportional(benchmark, split, sizes[split], seed) for split in SPLITS]
    return benchmark.rows(np.sort(np.concatenate(chosen)))


def _proportional(benchmark: Benchmark, split: str, size: int | None, seed: int) -> np.ndarray:
    """At most `size` rows of a split: the classes in proportion, and no class left out while there is room."""
    rows = np.flatnonzero(benchmark.images["split"] == split)
    if size is None or size >= len(rows):
        return rows
    rows = np.random.default_rng(seed).permutation(rows)
    labels = benchmark.images.label.iloc[rows]
    of_class = labels.groupby(labels.to_numpy())
    place = of_class.cumcount() / of_class.transform("size")  # of a row within its class, from 0 to 1
    return rows[np.argsort(place.to_numpy(), kind="stable")[:size]]
