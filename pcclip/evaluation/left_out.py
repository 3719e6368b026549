"""Rows and images that stages could not use, counted by reason, each with one path that was looked for."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pcclip.comparisons.stage import LEFT_OUT
from pcclip.config import Config
from pcclip.data.rows import counted
from pcclip.embedding.stage import BAD, left_out
from pcclip.evaluation.benchmarks import Sets
from pcclip.runs.stage import read_output

TABLE, _COMPOSED = "left_out.csv", "composed_left_out.parquet"  # of stage 04 and of stage 05
_COLUMNS = ["stage", "dataset", "reason", "rows", "example"]


def of_sets(config: Config, sets: Sets) -> pd.DataFrame:
    """What the public sets lack and the images that cannot be read, once they are embedded.

    Columns dataset, reason, rows, example.
    """
    return pd.concat([left_out(config, benchmarks) for benchmarks in sets.values()])


def of_stages(folders: Iterable[Path]) -> pd.DataFrame:
    """What the finished stages in `folders` could not use: stage, dataset, reason, rows, example."""
    parts = [pd.DataFrame(columns=_COLUMNS, dtype=object)]
    for folder in folders:
        for name in (LEFT_OUT, BAD, TABLE, _COMPOSED):
            if (folder / name).is_file():
                rows = read_output(folder, name)
                counts = rows if "rows" in rows else counted(rows.assign(dataset="own images"))
                parts.append(counts.assign(stage=folder.name))
    return pd.concat(parts, ignore_index=True)[_COLUMNS]
