"""Captioned image sets: one table (id, path, caption, concept, label, split and attribute columns), several sources.

A source is a module with two functions of the `data` block: `missing`, the lines that say what is not there and where
to get it, and `read`, which returns a table, the rows it left out and how many of those are bad. Where there is
something to say it also has `to_fetch` and `published`, see below. Adding one is adding it to SOURCES. README.md says
what each of them reads.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from pcclip.config import Config, Data
from pcclip.data.captions import chosen, tidied
from pcclip.data.concepts import concept_of
from pcclip.data.rows import reasons
from pcclip.data.sources import coco, cub, folder, karpathy, stamps
from pcclip.data.sources import huggingface as hub
from pcclip.data.sources import toy_scenes as shapes
from pcclip.data.sources import webdataset as shards
from pcclip.data.split import limited, official, split_by_concept
from pcclip.errors import PcclipError
from pcclip.images import file_of

SOURCES = {
    "stamps": stamps,
    "folder": folder,
    "coco": coco,
    "cub": cub,
    "karpathy": karpathy,
    "webdataset": shards,
    "huggingface": hub,
    "shapes": shapes,
}
COLUMNS = ["id", "path", "caption", "concept", "label", "split"]


@dataclass(frozen=True)
class ImageSet:
    """A captioned image set.

    Attributes:
        name: the source's name, used as the dataset's name in results.
        table: one row per usable image, columns COLUMNS and then one float column per attribute.
        left_out: path, reason of everything the source holds but this set does not.
        captions: id, caption of all captions of all images in the table; by default the table's own.
    """

    name: str
    table: pd.DataFrame
    left_out: pd.DataFrame
    captions: pd.DataFrame | None = None

    def __post_init__(self):
        if self.captions is None:
            object.__setattr__(self, "captions", self.table[["id", "caption"]])

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
        """Hash of the table, all captions and each file's size and time stamp: what a stage's key must notice."""
        stats = [(file, *stat) for file in self._files if (stat := _stat(file))]
        whole = self._told.copy()
        whole.update(f",{json.dumps(stats, separators=(',', ':'))}]".encode())
        return whole.hexdigest()

    @cached_property
    def _files(self) -> list[str]:
        return list(dict.fromkeys(map(file_of, self.table.path)))  # a shard of 10,000 images is one file

    @cached_property
    def _told(self):
        """What SHA-256 has seen of the table and the captions, which every stage asks for and which take long."""
        told = ",".join(json.dumps(table.to_csv(index=False)) for table in (self.table, self.captions))
        return hashlib.sha256(f"[{told}".encode())

    def __getstate__(self) -> dict:
        """For copies in other processes: half a hash has none."""
        return {name: value for name, value in vars(self).items() if name != "_told"}


def missing(data: Data) -> list[str]:
    """One line for each thing the source needs and cannot fetch by itself: what, from where, how much; [] if none."""
    return SOURCES[data.source].missing(data)


def to_fetch(data: Data) -> list[str]:
    """One line for each thing that `load_images` would fetch by itself: what, and how much where known; [] if none."""
    return getattr(SOURCES[data.source], "to_fetch", lambda data: [])(data)


def published(data: Data) -> dict[str, tuple[int, int]]:
    """(images, captions) of each side of the set as its authors published it; {} where it is the user's own."""
    return getattr(SOURCES[data.source], "published", lambda data: {})(data)


def load_images(config: Config) -> ImageSet:
    """Read the configured source, choose a caption for each image, split and limit.

    Raises:
        PcclipError: something missing, nothing usable, duplicate ids, or a larger share of bad rows than data.max_bad.
    """
    data = config.data
    table, texts, left_out = _read(data)
    _refuse_doubles(table, data.source)
    table = table.sort_values("id")
    table["caption"] = chosen(texts, table["id"], data.captions, config.seed)
    table["concept"] = _concepts(table)
    table["split"] = _split(table, config)
    table = limited(table, {"train": data.limit, "held_out": data.held_out_limit}, config.seed)
    if "label" not in table:
        table = table.assign(label=None)
    texts = texts[texts.index.isin(table.index)]
    captions = pd.DataFrame({"id": table["id"][texts.index], "caption": texts}).sort_values(
        "id", kind="stable", ignore_index=True
    )
    attributes = [c for c in table.columns if c not in (*COLUMNS, "captions")]
    return ImageSet(data.source, table[COLUMNS + attributes].reset_index(drop=True), left_out, captions)


def _read(data: Data) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """The usable rows, all their captions (the index says of which row) and what was left out."""
    lacking = missing(data)
    if lacking:
        raise PcclipError(f"data source {data.source}: {'; '.join(lacking)}")
    table, left_out, bad = SOURCES[data.source].read(data)
    texts = tidied(table)
    mute = table.path[~table.index.isin(texts.index)]
    left_out = pd.concat([left_out, pd.DataFrame({"path": mute, "reason": "no caption"})], ignore_index=True)
    table, bad = table.drop(index=mute.index), bad + len(mute)
    if len(table) == 0:
        raise PcclipError(f"data source {data.source}: no usable image; left out: {reasons(left_out) or 'nothing'}")
    if bad > data.max_bad * (len(table) + bad):
        raise PcclipError(
            f"data source {data.source}: {bad} of {len(table) + bad} rows are bad ({reasons(left_out)}), "
            f"more than data.max_bad = {data.max_bad}; mend them or raise it"
        )
    return table, texts, left_out


def _refuse_doubles(table: pd.DataFrame, source: str) -> None:
    doubles = table["id"][table["id"].duplicated()]
    if len(doubles):
        raise PcclipError(f"data source {source}: duplicate ids, e.g. {doubles.iloc[0]!r}; ids must be unique")
    doubles = table.path[table.path.duplicated()]
    if len(doubles):  # one photo under two ids could be trained on and held out
        raise PcclipError(f"data source {source}: {doubles.iloc[0]} is listed twice; keep one caption per image")


def _concepts(table: pd.DataFrame) -> pd.Series:
    """The source's concepts, and by rule where it names none."""
    if "concept" not in table:
        return table.caption.map(concept_of)
    named = table.concept.fillna("").astype(str)
    return named.where(named != "", table.caption.map(concept_of))


def _split(table: pd.DataFrame, config: Config):
    if config.data.split == "official":
        return official(table, config.data.source)
    heads = table.concept.str.split().str[-1].fillna("")  # 'soccer ball' and 'tennis ball' stay together
    return split_by_concept(heads, config.data.held_out, config.seed)


def _stat(file: str) -> tuple[int, int] | None:
    """Bytes and time stamp (ns)."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
