"""Captioned image sets: one table (id, path, caption, concept, label, split and attribute columns), several sources.

A source is a module with two functions of the `data` block: `missing`, a line for each thing that is absent with the
place to get it, and `read`, which returns a table, the rows it left out and how many of those are bad. It may also have
`to_fetch`, see below. A new source is a module that is added to SOURCES; docs/data.md describes each.
"""

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pcclip.config import Config, Data
from pcclip.data.captions import all_captions, caption_lists, caption_of_each
from pcclip.data.concepts import concept_of, head_noun
from pcclip.data.rows import reasons, sort_out
from pcclip.data.sources import coco, cub, folder, huggingface, karpathy, stamps, toy_scenes, webdataset
from pcclip.errors import PcclipError
from pcclip.images import file_of
from pcclip.runs.files import stamp
from pcclip.runs.progress import say
from pcclip.stats.random_streams import stream

SOURCES = {
    "stamps": stamps,
    "folder": folder,
    "coco": coco,
    "cub": cub,
    "karpathy": karpathy,
    "webdataset": webdataset,
    "huggingface": huggingface,
    "shapes": toy_scenes,
}
SIDES = ("train", "held_out")
COLUMNS = ["id", "path", "caption", "concept", "label", "split"]


class ImageSet:
    """A captioned image set.

    Attributes:
        name: the source's name, used as the dataset's name in results.
        table: one row per usable image, columns COLUMNS and then one float column per attribute.
        left_out: path, reason of every image of the source that this set does not have.
        captions: id, caption of all captions of all images in the table; by default the table's own.
    """

    def __init__(
        self, name: str, table: pd.DataFrame, left_out: pd.DataFrame, captions: pd.DataFrame | None = None
    ) -> None:
        self.name, self.table, self.left_out = name, table, left_out
        self.captions = table[["id", "caption"]] if captions is None else captions

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
        """Hash of the table, all captions and each file's size and time stamp, for the keys of stages."""
        stats = [size_and_time for file in self._files if len(size_and_time := stamp(file)) > 1]
        sha256 = self._tables_sha256.copy()
        sha256.update(f",{json.dumps(stats, separators=(',', ':'))}]".encode())
        return sha256.hexdigest()

    @cached_property
    def _files(self) -> list[str]:
        return list(dict.fromkeys(map(file_of, self.table.path)))  # a shard of 10,000 images is one file

    @cached_property
    def _tables_sha256(self) -> Any:
        """SHA-256 fed with the table and the captions: every stage asks for the identity, and this part takes long."""
        tables = ",".join(json.dumps(table.to_csv(index=False)) for table in (self.table, self.captions))
        return hashlib.sha256(f"[{tables}".encode())

    def __getstate__(self) -> dict:
        """The attributes without the unfinished hash, which cannot be sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "_tables_sha256"}


def missing(data: Data) -> list[str]:
    """A line for each thing that the source needs and cannot fetch: its name, address and size; [] if none."""
    return SOURCES[data.source].missing(data)


def to_fetch(data: Data) -> list[str]:
    """A line for each thing that `load_images` would fetch: its name, and its size where known; [] if none."""
    return getattr(SOURCES[data.source], "to_fetch", lambda data: [])(data)


def load_images(config: Config) -> ImageSet:
    """Read the configured source, choose a caption for each image, split and limit.

    Raises:
        PcclipError: something missing, nothing usable, duplicate ids, or a larger share of bad rows than data.max_bad.
    """
    data = config.data
    table, texts, left_out = _read(data)
    _refuse_duplicates(table, data.source)
    table = table.sort_values("id")
    table["caption"] = caption_of_each(texts, table["id"], data.captions, config.seed)
    table["concept"] = _concepts(table)
    table["split"] = _split(table, config)
    table = limited(table, {"train": data.limit, "held_out": data.held_out_limit}, config.seed)
    table["label"] = table.get("label")
    texts = texts[texts.index.isin(table.index)]
    captions = pd.DataFrame({"id": table["id"][texts.index], "caption": texts}).sort_values(
        "id", kind="stable", ignore_index=True
    )
    attributes = [c for c in table.columns if c not in (*COLUMNS, "captions")]
    return ImageSet(data.source, table[COLUMNS + attributes].reset_index(drop=True), left_out, captions)


def units(images: ImageSet, data: Data) -> dict[str, str]:
    """What intervals draw, by image id: its concept where whole concepts are held out, else the image itself.

    The photos of a concept share one truth, such as a body mass or a class. 'soccer ball' and 'tennis ball', which the
    split keeps together, are two.
    """
    by_concept = data.split == "concept" or not set(images.train.concept) & set(images.held_out.concept)
    return dict(zip(images.table["id"], images.table["concept" if by_concept else "id"], strict=True))


def _read(data: Data) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """The usable rows, all their captions (with the rows' index) and the rows left out (path, reason)."""
    if absent := missing(data):
        raise PcclipError(f"data source {data.source}: {'; '.join(absent)}")
    table, left_out, bad = SOURCES[data.source].read(data)
    garbled = table.index.isin(
        caption_lists(table)
        .explode()
        .loc[
            lambda texts: (
                ~(texts.map(lambda text: isinstance(text, str) and "\0" not in text).astype(bool) | texts.isna())
            )
        ]
        .index
    )
    texts = all_captions(table[~garbled])
    reason = pd.Series("no caption", index=table.index).mask(table.index.isin(texts.index), "")
    table, uncaptioned, without = sort_out(table, reason.mask(garbled, "caption is no text"))
    left_out, bad = pd.concat([left_out, uncaptioned], ignore_index=True), bad + without
    texts = all_captions(table)
    if len(table) == 0:
        raise PcclipError(f"data source {data.source}: no usable image; left out: {reasons(left_out) or 'nothing'}")
    if bad > data.max_bad * (len(table) + bad):
        raise PcclipError(
            f"data source {data.source}: {bad} of {len(table) + bad} rows are bad ({reasons(left_out)}), "
            f"more than data.max_bad = {data.max_bad}; mend them or raise it"
        )
    return table, texts, left_out


def _refuse_duplicates(table: pd.DataFrame, source: str) -> None:
    problems = {
        "id": "duplicate ids, e.g. {!r}; ids must be unique",
        "path": "{} is listed twice; keep one caption per image",  # two ids could be trained on and held out
    }
    for column, problem in problems.items():
        duplicates = table[column][table[column].duplicated()]
        if len(duplicates):
            raise PcclipError(f"data source {source}: {problem.format(duplicates.iloc[0])}")


def _concepts(table: pd.DataFrame) -> pd.Series:
    """The source's concepts, and the caption's head noun where it names none."""
    named = table.get("concept", pd.Series("", table.index)).fillna("").astype(str)
    return named.where(named != "", table.caption.map(concept_of))


def _split(table: pd.DataFrame, config: Config) -> np.ndarray | pd.Series:
    if config.data.split == "official":
        return official(table, config.data.source)
    heads = table.concept.str.split().str[-1].fillna("")  # 'soccer ball' and 'tennis ball' stay together
    guesses = zip(map(head_noun, table.caption), table.concept, strict=True)
    unsure = pd.Series([noun == concept and not sure for (noun, sure), concept in guesses], table.index, dtype=bool)
    if unsure.any():
        say(f"split: {unsure.mean():.1%} of the captions name no sure subject; these images are held out one by one")
        heads = heads.mask(unsure, "\0" + table["id"])
    return split_by_concept(heads, config.data.held_out, config.seed)


def split_by_concept(concepts: pd.Series, held_out: float, seed: int) -> np.ndarray:
    """'train' or 'held_out' for each row, so that no concept is on both sides.

    Concepts are drawn at random; `held_out` is the share of concepts (at least one on each side).
    Raises PcclipError for fewer than two concepts.
    """
    names = np.array(sorted(set(concepts)))
    if len(names) < 2:
        raise PcclipError(f"need at least two concepts to hold one out; found {list(names)}")
    size = int(np.clip(round(held_out * len(names)), 1, len(names) - 1))
    drawn = set(stream("held-out concepts", seed).choice(names, size, replace=False))
    return np.where([concept in drawn for concept in concepts], "held_out", "train")


def official(table: pd.DataFrame, source: str) -> pd.Series:
    """The split of the set's authors. Raises PcclipError when the table has none, or a side is empty."""
    if "split" not in table:
        raise PcclipError(f"data source {source}: has no official split; set data.split: concept")
    if empty := [side for side in SIDES if side not in set(table.split)]:
        raise PcclipError(f"data source {source}: no {empty[0]} image in its official split; set data.split: concept")
    return table.split


def limited(table: pd.DataFrame, sizes: dict[str, int | None], seed: int) -> pd.DataFrame:
    """At most `sizes` rows of each side, drawn at random and left in order; None keeps all."""
    kept = []
    for side, size in sizes.items():
        rows = np.flatnonzero(table.split == side)
        if size and size < len(rows):
            rows = stream("limited images", seed).choice(rows, size, replace=False)
        kept.append(rows)
    return table.iloc[np.sort(np.concatenate(kept))]
