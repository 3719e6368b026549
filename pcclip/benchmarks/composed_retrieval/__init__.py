"""Composed image retrieval: an image, a text of what should be different, and a gallery that is searched.

Benchmark.images has the columns id, path and gallery (the name of the gallery an image belongs to). Benchmark.items are
queries: start (an id), right (a tuple of ids, any of which is the answer), text, before (the words that the text
replaces, or ''), gallery, members (a tuple of ids that are searched once more by themselves, or ()) and weight. Only
queries whose answers are public and that are no training queries are read.
"""

from dataclasses import replace

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, at_most, benchmark_of_images
from pcclip.config import PublicSet

FAMILY = "composed_retrieval"


def queries_of(template: Benchmark, queries: pd.DataFrame) -> Benchmark:
    """The set with these queries; images and queries that cannot be used are left out.

    Args:
        template: the set without items.
        queries: the columns of the items but for before, members and weight where these are '', () and 1; row (the
            name of the row in reports) and reason ('' where it can be used). Queries whose start or every answer is
            missing are left out too.
    """
    benchmark = benchmark_of_images(template)
    defaults = {"before": "", "members": [()] * len(queries), "weight": 1.0}
    queries = queries.assign(**{name: value for name, value in defaults.items() if name not in queries})
    present = set(zip(benchmark.images["id"], benchmark.images.gallery, strict=True))
    answers = [
        tuple(image for image in right if (image, gallery) in present)
        for right, gallery in zip(queries.right, queries.gallery, strict=True)
    ]
    started = [pair in present for pair in zip(queries.start, queries.gallery, strict=True)]
    usable = pd.Series(started, index=queries.index) & (pd.Series(answers, index=queries.index).str.len() > 0)
    reason = queries.reason.mask((queries.reason == "") & ~usable, "missing file")
    left_out = pd.DataFrame({"path": queries["row"], "reason": reason})[reason != ""]
    kept = queries.assign(right=answers)[reason == ""].drop(columns=["row", "reason"])
    return replace(
        benchmark,
        items=kept.reset_index(drop=True),
        left_out=pd.concat([left_out, benchmark.left_out.drop_duplicates()], ignore_index=True),
    )


def draw(benchmark: Benchmark, settings: PublicSet, seed: int) -> Benchmark:
    """At most settings.limit queries, in order, and all galleries."""
    return benchmark.with_items(at_most(benchmark.items, settings.limit, seed))
