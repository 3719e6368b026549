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
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.captions import decoded
from pcclip.images import in_tar
from pcclip.runs.files import cache_folder, digest, write_json
from pcclip.runs.progress import track

_FORMAT = 3  # raise it when the contents of an index change
_IMAGES, _TEXTS = ("jpg", "jpeg", "png", "webp"), ("txt", "json")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COLUMNS = ["id", "path", "captions", "label"]


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
    files, rows, left_out = shards(data.path or ""), [], []
    for file in track(files, len(files), "shards"):
        good, bad = _index(os.path.realpath(file))
        rows += good
        left_out += bad
    return pd.DataFrame(rows, columns=_COLUMNS), pd.DataFrame(left_out, columns=["path", "reason"]), len(left_out)


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
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [
        name
        for number in range(int(first), int(last) + 1)
        for name in _expanded(f"{before}{number:0{len(first)}d}{after}")
    ]


def _index(tar: str) -> tuple[list[dict], list[dict]]:
    """The rows of one shard and the rows left out, from the cache where it has them."""
    state = os.stat(tar)
    index = cache_folder() / "shards" / f"{digest([_FORMAT, tar, state.st_size, state.st_mtime_ns])[:32]}.json"
    with suppress(OSError, ValueError, TypeError):  # an absent or damaged index is made again
        rows, bad, checksum = json.loads(index.read_bytes())
        if checksum == digest([rows, bad]):
            return rows, bad
    rows, bad = _read_shard(tar)
    write_json(index, [rows, bad, digest([rows, bad])])
    return rows, bad


def _read_shard(tar: str) -> tuple[list[dict], list[dict]]:
    """The rows of one shard, and the rows left out (path, reason)."""
    rows: list[dict] = []
    samples, lost_share, fault = _samples(tar)
    if fault:
        last = next(reversed(samples), None)
        if last and not _complete(samples[last]):
            del samples[last]  # the cut went through it
    left_out = [{"path": tar, "reason": fault}] * bool(fault)
    left_out += [{"path": tar, "reason": "lost in a damaged shard"}] * _lost(tar, samples, lost_share)
    for key, sample in samples.items():
        row, reason = _row(tar, key, sample)
        if row is None:
            left_out.append({"path": f"{tar}#{key}", "reason": reason})
        else:
            rows.append(row)
    return rows, left_out


def _lost(tar: str, samples: dict[str, dict], lost_share: float) -> int:
    """How many samples of a shard cannot be reached: by img2dataset's count beside it, else by the bytes lost."""
    try:
        count = json.loads(Path(f"{tar.removesuffix('.tar')}_stats.json").read_bytes())["successes"]
    except (OSError, ValueError, KeyError, TypeError):
        count = 0
    incomplete = sum(not _complete(sample) for sample in samples.values())
    by_bytes = max(round(lost_share * len(samples)), 1) - incomplete if lost_share else 0
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
        unread += _damaged(file, end, size)
        file.seek(max(size - tarfile.BLOCKSIZE, 0))
        at_end = file.read() == bytes(tarfile.BLOCKSIZE)  # a whole archive ends in zeros
    if not samples and unread:
        return samples, 0.0, "not an uncompressed tar file"
    return samples, unread / max(read, 1) if at_end else 0.0, "" if at_end else "shard cut short"


def _damaged(file: BinaryIO, start: int, end: int) -> int:
    """Bytes between two members, or behind the last, if they are not the zeros that may be there."""
    file.seek(start)
    return end - start if any(file.read(max(end - start, 0))) else 0


def _complete(sample: dict) -> bool:
    return any(kind in sample for kind in _IMAGES) and any(kind in sample for kind in _TEXTS)


def _row(tar: str, key: str, sample: dict) -> tuple[dict | None, str]:
    """One sample as a row, or None and the reason why it cannot be used."""
    image = next((sample[kind] for kind in _IMAGES if kind in sample), None)
    if image is None:
        return None, "no image"
    if "double" in sample:
        return None, "key used twice"
    try:
        metadata = json.loads(decoded(sample.get("json", b"{}"))[0])
    except ValueError:
        return None, "broken JSON"
    if not isinstance(metadata, dict):
        return None, "broken JSON"
    text = (
        decoded(sample["txt"])[0]
        if "txt" in sample
        else next((metadata[key] for key in ("caption", "captions", "text") if metadata.get(key)), None)
    )
    name, label = metadata.get("id"), metadata.get("label")
    return {
        "id": f"{Path(tar).stem}/{key}" if name is None else str(name),
        "path": image,
        "captions": text if isinstance(text, list) else [text],
        "label": None if label is None else str(label),
    }, ""
