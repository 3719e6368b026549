"""Rankings as things: words, model, estimator, examples and votes under a name, in the user's data folder.

A ranking is a file of lines that is only appended to, as `votes.VoteFile` writes it; its examples and votes name photos
by their bytes, so that it orders any folder that has them.
"""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pcclip.errors import PcclipError
from pcclip.ranking.axes import Query
from pcclip.ranking.votes import VoteFile, Words

_SUFFIX = ".jsonl"


def data_folder() -> Path:
    """The folder of what the user made: $PCCLIP_DATA, else pcclip in $XDG_DATA_HOME or ~/.local/share."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("PCCLIP_DATA") or home / "pcclip")


def names() -> list[str]:
    """The names of all rankings, sorted."""
    return sorted(unquote(path.stem) for path in (data_folder() / "rankings").glob(f"*{_SUFFIX}"))


def ranking(name: str, exists: bool = True) -> VoteFile:
    """The ranking of this name. Raises PcclipError when it is there or not, other than `exists` says."""
    name = " ".join(name.split())
    file = VoteFile(data_folder() / "rankings" / f"{quote(name, safe=' ')}{_SUFFIX}")
    if not name or len(file.path.name) > 200:
        raise PcclipError(f"a ranking needs a short name, not {name[:40]!r}")
    if exists and not file.path.is_file():
        raise PcclipError(f"no ranking {name!r}; there are: {', '.join(names()) or 'none'}")
    if not exists and file.path.exists():
        raise PcclipError(f"there is a ranking {name!r} already; choose another name, or delete that one")
    return file


def words_of(file: VoteFile) -> Words:
    """The words of a ranking. Raises PcclipError for a file without any."""
    words = file.words()
    if words is None:
        raise PcclipError(f"{file.path}: has no words, so it is no ranking; delete it, or save the ranking again")
    return words


def rename(name: str, to: str) -> None:
    """Give a ranking another name. Raises PcclipError when it is not there, or the other name is taken."""
    ranking(name).path.rename(ranking(to, exists=False).path)


def delete(name: str) -> None:
    """Delete a ranking. Raises PcclipError when it is not there."""
    ranking(name).path.unlink()


def summary(name: str) -> dict[str, Any]:
    """A ranking as one JSON-able object: name, date, words, model, estimator, examples and votes."""
    file = ranking(name)
    words = words_of(file)
    changed = datetime.fromtimestamp(file.path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    label = Query(words.more, words.less or None).label
    examples, votes = map(asdict, file.examples(label)), map(asdict, file.read(label))
    return {"name": name, "changed": changed, **asdict(words), "examples": [*examples], "votes": [*votes]}
