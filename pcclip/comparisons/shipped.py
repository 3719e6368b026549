"""Data files that come with the package (prompts, attribute banks), or one of the user's in their place."""

from pathlib import Path

from pcclip.config import resolve
from pcclip.errors import PcclipError


def find(name: str, folder: Path, kind: str) -> Path:
    """The file of a shipped `kind` ('prompt', 'attribute bank') by name, or the user's by path. Raises PcclipError."""
    shipped = folder / f"{name}.yaml"
    path = shipped if shipped.is_file() else resolve(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise PcclipError(f"{kind} {name!r}: no such file; shipped {kind.split()[-1]}s: {known}")
    return path
