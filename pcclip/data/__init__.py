"""Captioned image sets: one table (id, path, caption, concept, label, split and attribute columns), several sources.

A source is a function from the `data` block to a table and the rows it left out; adding one is adding it to SOURCES.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.data import folder, stamps
from pcclip.data.concepts import concept_of
from pcclip.errors import PcclipError
from pcclip.params import Config
from pcclip.stage import digest

SOURCES = {"stamps": stamps.read, "folder": folder.read}
COLUMNS = ["id", "path", "caption", "concept", "label", "split"]


@dataclass(frozen=True)
class ImageSet:
    """A captioned image set.

    Attributes:
        name: the source's name, used as the dataset's name in results.
        table: one row per usable image, columns COLUMNS and then one float column per attribute.
        left_out: path, reason of everything the source holds but this set does not.
    """

    name: str
    table: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def attributes(self) -> list[str]:
        return [column for column in self.table.columns if column not in COLUMNS]

    @property
    def held_out(self) -> pd.DataFrame:
        return self.table[self.table.split == "held_out"].reset_index(drop=True)

    @property
    def train(self) -> pd.DataFrame:
        return self.table[self.table.split == "train"].reset_index(drop=True)

    @property
    def classes(self) -> list[str]:
        """The labels, for zero-shot classification; empty unless there are at least two."""
        labels = sorted(self.table.label.dropna().unique())
        return labels if len(labels) >= 2 else []

    def identity(self) -> str:
        """Hash of the table and of each file's size and time stamp: what a stage's key needs to notice a change."""
        stats = [(p, s.st_size, s.st_mtime_ns) for p in self.table.path if (s := _stat(p))]
        return digest([self.table.to_csv(index=False), stats])


def load_images(config: Config) -> ImageSet:
    """Read the configured source and split it by concept.

    Raises:
        PcclipError: nothing usable, duplicate ids, or a larger share of bad rows than data.max_bad.
    """
    table, left_out, bad = SOURCES[config.data.source](config.data)
    if len(table) == 0:
        raise PcclipError(f"data source {config.data.source}: no usable image; left out: {_reasons(left_out)}")
    if bad > config.data.max_bad * (len(table) + bad):
        raise PcclipError(
            f"data source {config.data.source}: {bad} of {len(table) + bad} rows are bad ({_reasons(left_out)}), "
            f"more than data.max_bad = {config.data.max_bad}; mend them or raise it"
        )
    doubles = table.id[table.id.duplicated()].unique()
    if len(doubles):
        raise PcclipError(f"data source {config.data.source}: duplicate ids, e.g. {doubles[0]!r}; ids must be unique")
    doubles = table.path[table.path.duplicated()].unique()
    if len(doubles):  # one photo under two ids could be trained on and held out
        raise PcclipError(f"data source {config.data.source}: {doubles[0]} is listed twice; keep one caption per image")
    table = table.sort_values("id", ignore_index=True)
    if config.data.limit and config.data.limit < len(table):
        rows = np.random.default_rng(config.seed).choice(len(table), config.data.limit, replace=False)
        table = table.loc[np.sort(rows)].reset_index(drop=True)
    if "concept" not in table:
        table["concept"] = ""
    named = table.concept.fillna("").astype(str)
    table["concept"] = named.where(named != "", table.caption.map(concept_of))
    heads = table.concept.str.split().str[-1].fillna("")  # 'soccer ball' and 'tennis ball' stay together
    table["split"] = split_by_concept(heads, config.data.held_out, config.seed)
    if "label" not in table:
        table["label"] = None
    attributes = [c for c in table.columns if c not in COLUMNS]
    return ImageSet(config.data.source, table[COLUMNS + attributes], left_out)


def split_by_concept(concepts: pd.Series, held_out: float, seed: int) -> np.ndarray:
    """'train' or 'held_out' for each row, so that one concept is never on both sides.

    Concepts are drawn at random; `held_out` is their share (at least one on each side).
    """
    names = np.array(sorted(set(concepts)))
    if len(names) < 2:
        raise PcclipError(f"need at least two concepts to hold one out; found {list(names)}")
    size = int(np.clip(round(held_out * len(names)), 1, len(names) - 1))
    chosen = set(np.random.default_rng(seed).choice(names, size, replace=False))
    return np.where([c in chosen for c in concepts], "held_out", "train")


def _stat(path: str):
    file = Path(path)
    return file.stat() if file.exists() else None


def _reasons(left_out: pd.DataFrame) -> str:
    counts = left_out.reason.value_counts()
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "nothing"
