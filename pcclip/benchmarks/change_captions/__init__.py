"""Pairs of images with a text about their difference: which text belongs to the pair, or which image has more.

Benchmark.items has one row per pair and text: first, second (ids), text, swapped (the same text with the images' roles
exchanged, '' where the set's texts have none), split ('tune', of the official training or validation pairs, or 'test'),
part (the authors' own split) and the set's own columns; with a column answer ('first' or 'second'), the set asks which
image has more.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, at_most, benchmark_of_items
from pcclip.config import Changes

FAMILY = "change_captions"


def described_pairs(name: str, rows: pd.DataFrame, below: Path, orientation: int) -> Benchmark:
    """The set of the rows (first and second are paths; row, reason and `below` as in benchmark_of_items)."""
    return benchmark_of_items(Benchmark(name, FAMILY, pd.DataFrame(), rows, orientation=orientation), below)


def draw(benchmark: Benchmark, settings: Changes, seed: int) -> Benchmark:
    """The test pairs, at most settings.limit, in order."""
    pairs = benchmark.items[benchmark.items["split"] == "test"]
    return benchmark.with_items(at_most(pairs, settings.limit, seed))
