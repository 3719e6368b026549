"""Images ordered by attributes: attribute axes are judged on them beside the run's own images.

A set has values of images, or pairs that people have ordered. Values: Benchmark.values, and images with the columns id,
path, split and group (the class whose value an image has, '' where images have values of their own). Pairs:
Benchmark.items with part ('' or the authors' name), attribute, first, second (ids), more (one of ORDER: which
has more; equal or undecided) and split; a pair may be in several parts. texts.csv has the texts for the attributes.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, benchmark_of_items
from pcclip.config import Attribute, Relative

FAMILY, ORDER = "relative_attributes", ("first", "second", "equal")


def ordered_pairs(name: str, pairs: pd.DataFrame, below: Path) -> Benchmark:
    """The set of ordered pairs (first and second are paths; row, reason as in benchmark_of_items), twins left out."""
    twice = (pairs.reason == "") & (pairs["first"] == pairs["second"])
    pairs = pairs.assign(reason=pairs.reason.mask(twice, "one image twice"))
    return benchmark_of_items(Benchmark(name, FAMILY, pd.DataFrame(), pairs), below)


def draw(benchmark: Benchmark, settings: Relative, seed: int) -> Benchmark:
    """At most settings.limit test and settings.tune_limit tune images, or pairs of each part and attribute."""
    sizes, rng = {"tune": settings.tune_limit, "test": settings.limit}, np.random.default_rng(seed)
    pairs = benchmark.values is None
    columns = ["part", "attribute", "split"] if pairs else ["split"]
    chosen = []
    for key, rows in benchmark.scored.groupby(columns, sort=False).indices.items():
        size = sizes[key[-1] if pairs else key]
        chosen.append(rows if size is None or size >= len(rows) else rng.choice(rows, size, replace=False))
    kept = np.sort(np.concatenate(chosen))
    return benchmark.with_items(benchmark.items.iloc[kept]) if pairs else benchmark.rows(kept)


def shipped_texts(name: str) -> dict[str, Attribute]:
    """The texts of a set's attributes that texts.csv has, by attribute; {} where there are none."""
    table = pd.read_csv(Path(__file__).parent / "texts.csv", dtype=str)
    return {
        row.attribute: Attribute(
            more=f"a photo of {row.high}",
            less=f"a photo of {row.low}",
            comparison=f"The first image shows {row.more}, while the second image shows {row.less}.",
            comparison_swapped=f"The first image shows {row.less}, while the second image shows {row.more}.",
        )
        for row in table[table.set == name].itertuples()
    }


def plain_name(name: str) -> str:
    """An attribute's name in small letters: 'VisibleForehead' and 'size-large' become visible_forehead, size_large."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")
