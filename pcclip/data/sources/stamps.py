"""The `stamps` source: photographs of Tux Paint's stamp collection (Debian tuxpaint-stamps-default, GPL-2).

Found in /usr/share, else fetched with apt into a cache (no root needed once the package lists are there). Photographs
are kept; drawings, toys and symbols are left out by folder and by the short list stamps_exceptions.csv, which also
names the subject where a caption's head noun would not do. stamps_facts.csv has what is known of their subjects, each
value with its line in a source of sources.csv: body_mass (kg), top_speed (km/h), lifespan (years, the longest known),
litter_size (young or eggs), gestation (days, or those of incubation), sleep (hours a day), legs, energy (kcal in 100 g).
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.rows import sort_out
from pcclip.errors import PcclipError
from pcclip.runs.files import cache_folder, disk_errors, move_folder
from pcclip.runs.progress import say

PACKAGE = "tuxpaint-stamps-default"
SYSTEM = Path("/usr/share/tuxpaint/stamps")
HELP = (
    f"the stamps are in Debian's and Ubuntu's package {PACKAGE} (161 MB): `sudo apt-get install {PACKAGE}`; "
    "elsewhere unpack its .deb and set data.path to its usr/share/tuxpaint/stamps folder"
)
_NO_APT = f"stamps not found in {SYSTEM} and this system has no apt-get; {HELP}"
_FOLDERS = {
    "cartoon": "drawing",
    "toys": "toy",
    "plastic": "toy",
    "symbols": "symbol",
    "roadsigns": "symbol",
    "flags": "symbol",
    "body_parts": "symbol",
}
_CLASSES = {
    "animals": "animal",
    "clothes": "piece of clothing",
    "food": "food",
    "music": "musical instrument",
    "household": "household item",
    "medical": "medical item",
    "military": "military equipment",
    "naturalforces": "natural force",
    "people": "person",
    "plants": "plant",
    "seasonal": "holiday decoration",
    "space": "thing in space",
    "sports": "sports equipment",
    "town": "thing in town",
    "vehicles": "vehicle",
}
_HERE = Path(__file__).parent.parent / "facts"


def missing(data: Data) -> list[str]:
    """A line where data.path is no folder or, without it, where the stamps are absent and cannot be fetched."""
    if data.path:
        return [] if resolve(data.path).is_dir() else [f"{resolve(data.path)}: no such folder; {HELP}"]
    return [] if SYSTEM.is_dir() or _cached().is_dir() or _can_fetch() else [_NO_APT]


def to_fetch(data: Data) -> list[str]:
    """A line for the Debian package, unless the stamps are here."""
    return [] if data.path or SYSTEM.is_dir() or _cached().is_dir() else [f"{PACKAGE}, 161 MB, with apt"]


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Find or fetch the stamps. Returns the table, the rows left out (path, reason), and 0 bad rows."""
    stamps = resolve(data.path) if data.path else find()
    exceptions = pd.read_csv(_HERE / "stamps_exceptions.csv").set_index("stamp").fillna("")
    facts = pd.read_csv(_HERE / "stamps_facts.csv").pivot(index="stamp", columns="fact", values="value")
    rows = []
    for png in sorted(stamps.rglob("*.png")):
        stamp = png.relative_to(stamps).with_suffix("").as_posix()
        exception = exceptions.loc[stamp] if stamp in exceptions.index else {"leave_out": "", "concept": ""}
        text = png.with_suffix(".txt")
        caption = text.read_text("utf8", "replace").split("\n")[0].strip() if text.is_file() else ""
        mirrored = "mirror image" if stamp.endswith("_mirror") else ""
        by_folder = next((_FOLDERS[folder] for folder in stamp.split("/")[:-1] if folder in _FOLDERS), mirrored)
        reason = by_folder or ("" if caption else "no caption") or exception["leave_out"]
        rows.append(
            {
                "id": stamp,
                "path": stamp if reason else str(png),
                "caption": caption,
                "concept": exception["concept"],
                "label": None if reason else _label(stamp),
                "reason": reason,
            }
        )
    table = pd.DataFrame(rows, columns=["id", "path", "caption", "concept", "label", "reason"])
    table, left_out, _ = sort_out(table, table.pop("reason"))
    if table.empty:
        raise PcclipError(f"{stamps}: no stamps in it; {HELP}")
    return table.join(facts, on="id"), left_out, 0


def _label(stamp: str) -> str | None:
    """A stamp's class: its top folder in plain words. Hobbies are no class of things, but for music."""
    folder, subfolder = stamp.split("/")[:2]
    return _CLASSES.get(subfolder) if folder == "hobbies" else _CLASSES.get(folder, folder)


def find() -> Path:
    """The stamps folder: the system's, else the cache's, else fetched into the cache."""
    if SYSTEM.is_dir():
        return SYSTEM
    if not _cached().is_dir():
        fetch(_cached())
    return _cached()


def fetch(target: Path) -> None:
    """Download the Debian package and unpack it to `target`, all or nothing. Raises PcclipError with HELP."""
    if not _can_fetch():
        raise PcclipError(_NO_APT)
    say(f"fetching {PACKAGE} (161 MB) into {target.parent}")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            if not _apt(["download", PACKAGE], scratch):
                own = _own_lists(scratch)  # a fresh machine has no package lists, and refreshing those needs root
                _apt([*own, "update"], scratch)
                _apt([*own, "download", PACKAGE], scratch)
            if not (debs := sorted(Path(scratch).glob("*.deb"))):
                raise PcclipError(f"apt-get could not download {PACKAGE}; {HELP}")
            unpacked = subprocess.run(["dpkg-deb", "-x", str(debs[0]), f"{scratch}/tree"], capture_output=True)
            if unpacked.returncode or not Path(f"{scratch}/tree{SYSTEM}").is_dir():
                raise PcclipError(f"{debs[0].name}: dpkg-deb could not unpack {PACKAGE}; {HELP}")
            move_folder(Path(f"{scratch}/tree{SYSTEM}"), target)


def _cached() -> Path:
    return cache_folder() / "stamps"


def _can_fetch() -> bool:
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def _apt(arguments: list[str], folder: str) -> bool:
    return subprocess.run(["apt-get", "-q", *arguments], cwd=folder, capture_output=True).returncode == 0


def _own_lists(folder: str) -> list[str]:
    """apt options that keep package lists and cache below `folder`, where any user may write."""
    for name in ("lists/partial", "cache/archives/partial"):
        Path(folder, name).mkdir(parents=True)
    return ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
