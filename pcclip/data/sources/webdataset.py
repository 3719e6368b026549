"""The `webdataset` source: tar shards of an image and a caption (.txt or .json) per key, indexed but not unpacked.

An image's path is its place in the shard; pcclip.images reads it from there. What a shard holds is kept in
~/.cache/pcclip/shards until its size or time changes: every stage asks for the table, and reading one takes long.
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

_FORMAT = 1  # raise it when what is kept of a shard changes
_IMAGES, _TEXTS = ("jpg", "jpeg", "png", "webp"), ("txt", "json")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COLUMNS = ["id", "path", "captions", "label"]


def missing(data: Data) -> list[str]:
    """Whether there are shards, and all that a range names."""
    files = shards(data.path)
    lost = [file for file in files if not os.path.isfile(file)]
    if not files:
        return [
            f"{resolve(data.path)}: no .tar shards; data.path is a folder of them or a pattern such as "
            "shards/{00000..00009}.tar"
        ]
    return [f"{lost[0]}: not there, nor are {len(lost) - 1} others of the {len(files)} shards"] if lost else []


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Index every shard. Returns the table, what was left out (path, reason), and how many of those are bad rows."""
    files, rows, left_out = shards(data.path), [], []
    for file in track(files, len(files), "shards"):
        good, bad = _index(os.path.realpath(file))
        rows += good
        left_out += bad
    return pd.DataFrame(rows, columns=_COLUMNS), pd.DataFrame(left_out, columns=["path", "reason"]), len(left_out)


def shards(path: str) -> list[str]:
    """The tar files of a folder, a pattern or a brace range; those of a range whether there or not."""
    place = str(resolve(path))
    if os.path.isdir(place):
        place = os.path.join(glob.escape(place), "*.tar")
    return [
        file
        for name in _expanded(place)
        for file in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])
        if _RANGE.search(place) or os.path.isfile(file)
    ]


def _expanded(pattern: str) -> list[str]:
    """'a{08..10}' -> a08, a09, a10; several ranges multiply."""
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    return [
        name
        for number in range(int(first), int(last) + 1)
        for name in _expanded(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")
    ]


def _index(tar: str) -> tuple[list[dict], list[dict]]:
    """Rows and faults of one shard, from the cache where it has them."""
    state = os.stat(tar)
    kept = cache_folder() / "shards" / f"{digest([_FORMAT, tar, state.st_size, state.st_mtime_ns])[:32]}.json"
    try:
        rows, bad = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        rows, bad = _read_shard(tar)
        write_json(kept, [rows, bad])
    return rows, bad


def _read_shard(tar: str) -> tuple[list[dict], list[dict]]:
    """The rows of one shard, and path and reason of what cannot be used."""
    rows, left_out = [], []
    samples, fault = _samples(tar)
    if fault:
        last = next(reversed(samples), None)
        if last and not _complete(samples[last]):
            del samples[last]  # the cut went through it
        left_out.append({"path": tar, "reason": fault})
    for key, sample in samples.items():
        row, reason = _row(tar, key, sample)
        if reason:
            left_out.append({"path": f"{tar}#{key}", "reason": reason})
        else:
            rows.append(row)
    return rows, left_out


def _samples(tar: str) -> tuple[dict[str, dict], str]:
    """Key -> kind of member -> its text, or the place of the image; and why reading stopped early, '' if it did not.

    As in the webdataset library the key ends at the first dot of the name, and what follows is the kind.
    """
    samples, bytes_there = {}, os.path.getsize(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > bytes_there:
                    return samples, "shard cut short"
                folder, name = posixpath.split(posixpath.normpath(member.name))
                stem, _, kind = name.partition(".")
                sample = samples.setdefault(posixpath.join(folder, stem), {})
                kind = "double" if kind.lower() in sample else kind.lower()
                sample[kind] = (
                    archive.extractfile(member).read()
                    if kind in _TEXTS
                    else in_tar(tar, member.offset_data, member.size, member.name)
                )
            archive.fileobj.seek(archive.offset)  # tarfile takes a damaged header for the end; the end is zeros
            return samples, "" if archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE) else (
                "shard cut short"
            )
    except (tarfile.TarError, OSError):
        return samples, "shard cut short" if samples else "not an uncompressed tar file"


def _complete(sample: dict) -> bool:
    return any(kind in sample for kind in _IMAGES) and any(kind in sample for kind in _TEXTS)


def _row(tar: str, key: str, sample: dict) -> tuple[dict | None, str]:
    """One sample as a row, or the reason why it is none."""
    image = next((sample[kind] for kind in _IMAGES if kind in sample), None)
    if image is None:
        return None, "no image"
    if "double" in sample:
        return None, "key used twice"
    try:
        facts = json.loads(sample.get("json", b"{}"))
    except ValueError:
        return None, "broken JSON"
    if not isinstance(facts, dict):
        return None, "broken JSON"
    text = sample["txt"].decode("utf8", errors="replace") if "txt" in sample else _caption(facts)
    given, label = facts.get("id"), facts.get("label")
    return {
        "id": f"{Path(tar).stem}/{key}" if given is None else str(given),
        "path": image,
        "captions": text if isinstance(text, list) else [text],
        "label": None if label is None else str(label),
    }, ""


def _caption(facts: dict) -> str | list[str] | None:
    return next((facts[key] for key in ("caption", "captions", "text") if facts.get(key)), None)
