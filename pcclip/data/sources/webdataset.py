"""The `webdataset` source: tar shards of an image and a caption (.txt or .json) per key, indexed but not unpacked.

An image's path is its place in the shard; pcclip.images reads it from there. A shard's index is kept in
~/.cache/pcclip/shards until the shard's size or time changes: every stage asks for the table, and indexing takes long.
"""

import glob
import json
import os
import posixpath
import re
import tarfile
from contextlib import suppress
from itertools import chain, product
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.captions import decoded
from pcclip.data.rows import sort_out
from pcclip.images import in_tar
from pcclip.runs.files import cache_folder, digest, from_json, write_json
from pcclip.runs.progress import track

_FORMAT = 5  # raise it when the contents of an index change
_IMAGES, _TEXTS = ("jpg", "jpeg", "png", "webp"), ("txt", "json")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_FAULTS = {"shard cut short", "not an uncompressed tar file"}  # of a shard; any number of its samples may be lost
_COLUMNS = ["id", "path", "captions", "label", "reason"]


def missing(data: Data) -> list[str]:
    """A line where there are no shards, or some that a range names are absent."""
    files = shards(data.path or "")
    absent = [file for file in files if not os.path.isfile(file)]
    if not files:
        return [
            f"{resolve(data.path or '')}: no .tar shards; data.path is a folder of them or a pattern such as "
            "shards/{00000..00009}.tar"
        ]
    return [f"{absent[0]}: not there, nor are {len(absent) - 1} others of the {len(files)} shards"] if absent else []


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Index every shard. Returns the table, the rows left out (path, reason), and how many of them are bad."""
    files = shards(data.path or "")
    samples = [_index(os.path.realpath(file)) for file in track(files, len(files), "shards")]
    usual = max((len(rows) for rows in samples if not _FAULTS & {row["reason"] for row in rows}), default=0)
    for rows in samples:
        if rows and rows[0]["reason"] in _FAULTS:
            rows += [rows[0]] * (usual - len(rows))  # what it lacks of as many samples as the fullest shard has
    table = pd.DataFrame([row for rows in samples for row in rows], columns=_COLUMNS)
    return sort_out(table, table.pop("reason"))


def shards(path: str) -> list[str]:
    """The tar files of a folder, a pattern or a brace range; a range names absent files too."""
    pattern = str(resolve(path))
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    return [
        file
        for name in _expanded(pattern)
        for file in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])
        if _RANGE.search(pattern) or os.path.isfile(file)
    ]


def _expanded(pattern: str) -> list[str]:
    """'a{08..10}' -> a08, a09, a10; several ranges multiply."""
    texts, firsts, lasts = (_RANGE.split(pattern)[k::3] for k in range(3))
    numbers = [[f"{n:0{len(a)}d}" for n in range(int(a), int(b) + 1)] for a, b in zip(firsts, lasts, strict=True)]
    return ["".join(chain(*zip(texts, (*row, ""), strict=True))) for row in product(*numbers)]


def _index(tar: str) -> list[dict]:
    """The rows of one shard, from the cache where it has them."""
    state = os.stat(tar)
    index = cache_folder() / "shards" / f"{digest([_FORMAT, tar, state.st_size, state.st_mtime_ns])[:32]}.json"
    with suppress(OSError, ValueError, TypeError):  # an absent or damaged index is made again
        rows, checksum = json.loads(index.read_bytes())
        if checksum == digest(rows):
            return rows
    rows = _read_shard(tar)
    write_json(index, [rows, digest(rows)])
    return rows


def _read_shard(tar: str) -> list[dict]:
    """The rows of one shard; a row that cannot be used has a reason, and its place in the shard as its path."""
    samples, lost_share, fault = _samples(tar)
    if fault:
        last = next(reversed(samples), None)
        if last and not _complete(samples[last]):
            del samples[last]  # the cut went through it
    rows = [_row(tar, key, sample) for key, sample in samples.items()]
    faults = [fault] * bool(fault) + ["lost in a damaged shard"] * _lost(tar, samples, lost_share)
    return [*({"path": tar, "label": None, "reason": reason} for reason in faults), *rows]


def _lost(tar: str, samples: dict[str, dict], lost_share: float) -> int:
    """How many samples of a shard cannot be reached: by img2dataset's count beside it, else by the bytes lost."""
    try:
        count = json.loads(Path(f"{tar.removesuffix('.tar')}_stats.json").read_bytes())["successes"]
    except (OSError, ValueError, KeyError, TypeError):
        count = 0
    complete = sum(map(_complete, samples.values()))
    by_bytes = max(round(lost_share * len(samples)), 1) - len(samples) + complete if lost_share else 0
    return max(by_bytes, count - len(samples) if isinstance(count, int) else 0, 0)


def _samples(tar: str) -> tuple[dict[str, dict], float, str]:
    """Key -> kind of member -> its text or the image's place in the tar; bytes lost per byte read; and '' or a fault.

    As in the webdataset library the key ends at the first dot of the name, and the kind follows the dot. Reading goes
    on behind a damaged header at the next whole one.
    """
    samples: dict[str, dict] = {}
    size, end, unread, read = os.path.getsize(tar), 0, 0, 0
    with open(tar, "rb") as file:
        try:
            with tarfile.open(tar, "r:", ignore_zeros=True) as archive:
                for member in archive:
                    unread += _damaged(file, end, member.offset)
                    if member.offset_data + member.size > size:
                        return samples, 0.0, "shard cut short"
                    end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    read += end - member.offset
                    if not member.isfile():
                        continue
                    folder, name = posixpath.split(posixpath.normpath(member.name))
                    stem, _, kind = name.partition(".")
                    sample = samples.setdefault(posixpath.join(folder, stem), {})
                    kind = "double" if kind.lower() in sample else kind.lower()
                    content = archive.extractfile(member) if kind in _TEXTS else None
                    sample[kind] = (
                        content.read() if content else in_tar(tar, member.offset_data, member.size, member.name)
                    )
        except (tarfile.TarError, OSError):
            pass  # an unreadable rest is counted like any other damage
        unread += _damaged(file, end, -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE)
        file.seek(max(size - tarfile.BLOCKSIZE, 0))
        at_end = file.read() == bytes(tarfile.BLOCKSIZE)  # a whole archive ends in zeros
    if not samples and unread:
        return samples, 0.0, "not an uncompressed tar file"
    return samples, unread / max(read, 1) if at_end else 0.0, "" if at_end else "shard cut short"


def _damaged(file: BinaryIO, start: int, end: int) -> int:
    """Bytes between two members, or behind the last, if they are not the zeros that end an archive and fill its record."""
    file.seek(start)
    gap = max(end - start, 0)
    fills = gap <= 2 * tarfile.BLOCKSIZE or (gap < 2 * tarfile.RECORDSIZE and end % tarfile.RECORDSIZE == 0)
    return 0 if fills and not any(file.read(gap)) else gap


def _complete(sample: dict) -> bool:
    return any(kind in sample for kind in _IMAGES) and any(kind in sample for kind in _TEXTS)


def _row(tar: str, key: str, sample: dict) -> dict:
    """One sample as a row, or the reason why it cannot be used."""
    image = next((sample[kind] for kind in _IMAGES if kind in sample), None)
    metadata: Any = None
    with suppress(ValueError):
        metadata = from_json(decoded(sample.get("json", b"{}"))[0])
    checks = {
        "no image": image is None,
        "key used twice": "double" in sample,
        "broken JSON": not isinstance(metadata, dict),
    }
    if reason := next((reason for reason, fails in checks.items() if fails), ""):
        return {"path": f"{tar}#{key}", "label": None, "reason": reason}
    captions = (metadata[name] for name in ("caption", "captions", "text") if metadata.get(name))
    text = decoded(sample["txt"])[0] if "txt" in sample else next(captions, None)
    name, label = metadata.get("id"), metadata.get("label")
    return {
        "id": f"{Path(tar).stem}/{key}" if name is None else str(name),
        "path": image,
        "captions": text if isinstance(text, list) else [text],
        "label": None if label is None else str(label),
        "reason": "",
    }
