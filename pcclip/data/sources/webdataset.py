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
from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.images import in_tar
from pcclip.runs.files import cache_folder, digest, write_json
from pcclip.runs.progress import track

_FORMAT = 1  # raise it when the contents of an index change
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
    try:
        rows, bad = json.loads(index.read_bytes())
    except (OSError, ValueError):
        rows, bad = _read_shard(tar)
        write_json(index, [rows, bad])
    return rows, bad


def _read_shard(tar: str) -> tuple[list[dict], list[dict]]:
    """The rows of one shard, and the rows left out (path, reason)."""
    rows: list[dict] = []
    left_out: list[dict] = []
    samples, fault = _samples(tar)
    if fault:
        last = next(reversed(samples), None)
        if last and not _complete(samples[last]):
            del samples[last]  # the cut went through it
        left_out.append({"path": tar, "reason": fault})
    for key, sample in samples.items():
        row, reason = _row(tar, key, sample)
        if row is None:
            left_out.append({"path": f"{tar}#{key}", "reason": reason})
        else:
            rows.append(row)
    return rows, left_out


def _samples(tar: str) -> tuple[dict[str, dict], str]:
    """Key -> kind of member -> its text or the image's place in the tar; and why reading stopped early, or ''.

    As in the webdataset library the key ends at the first dot of the name, and the kind follows the dot.
    """
    samples: dict[str, dict] = {}
    size = os.path.getsize(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > size:
                    return samples, "shard cut short"
                folder, name = posixpath.split(posixpath.normpath(member.name))
                stem, _, kind = name.partition(".")
                sample = samples.setdefault(posixpath.join(folder, stem), {})
                kind = "double" if kind.lower() in sample else kind.lower()
                content = archive.extractfile(member) if kind in _TEXTS else None
                if content is None:
                    sample[kind] = in_tar(tar, member.offset_data, member.size, member.name)
                else:
                    sample[kind] = content.read()
            archive.fileobj.seek(archive.offset)  # tarfile takes a damaged header for the end; the end is zeros
            at_end = archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
            return samples, "" if at_end else "shard cut short"
    except (tarfile.TarError, OSError):
        return samples, "shard cut short" if samples else "not an uncompressed tar file"


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
        metadata = json.loads(sample.get("json", b"{}"))
    except ValueError:
        return None, "broken JSON"
    if not isinstance(metadata, dict):
        return None, "broken JSON"
    text = sample["txt"].decode("utf8", errors="replace") if "txt" in sample else _caption(metadata)
    name, label = metadata.get("id"), metadata.get("label")
    return {
        "id": f"{Path(tar).stem}/{key}" if name is None else str(name),
        "path": image,
        "captions": text if isinstance(text, list) else [text],
        "label": None if label is None else str(label),
    }, ""


def _caption(metadata: dict) -> str | list[str] | None:
    return next((metadata[key] for key in ("caption", "captions", "text") if metadata.get(key)), None)
