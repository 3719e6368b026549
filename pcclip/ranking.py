"""Rank photos by an attribute in words: project their vectors on an axis made from the words."""

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.axes import text_axis
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import Vectors, encode_readable, load_vectors
from pcclip.errors import PcclipError
from pcclip.images import SUFFIXES, contact_sheet
from pcclip.models import load_model
from pcclip.models.encoder import DualEncoder
from pcclip.params import resolve
from pcclip.progress import Meter
from pcclip.stage import atomic, finished

PROMPT = "a photo of {}"


def rank(
    photos: str | Path | Sequence[str | Path], more: str, less: str | None = None,
    model: str | DualEncoder | None = None, alpha: float = 1.0, top: int | None = None,
    sheet: str | Path | None = None,
) -> pd.DataFrame:
    """Order photos from the most to the least of an attribute.

    Args:
        photos: a folder (searched through), a glob, a list of files, or a run's folder such as outputs/demo, whose
            stored vectors are used.
        more: what the top looks like, e.g. 'a large animal'; read as 'a photo of a large animal'.
        less: what the bottom looks like; the difference of the two texts cancels what they share. Without it the
            photos are ordered by likeness to `more` alone.
        model: a spec, a run's folder or a loaded model; by default the run's own finetuned model, else the embedded
            minilm-efficientnet.
        alpha: weight averaging of a finetuned model with its base.
        top: return only this many.
        sheet: also write a contact sheet (PNG) of them, at most the first 60, to this file.

    Returns:
        Columns position, path, score, problem; unreadable photos come last with their problem and no score.

    Raises:
        PcclipError: no photos, none readable, empty text, unknown model, or vectors of another model.
    """
    for text in (more, less):
        if text is not None and not text.strip():
            raise PcclipError("rank: the attribute text is empty; say what more (and less) of it looks like")
    if top is not None and top < 1:
        raise PcclipError(f"rank: top = {top}; it must be 1 or more")
    run = run_folder(photos)
    paths = [] if run else find_photos(photos)
    if not isinstance(model, DualEncoder):
        model = load_model(str(model or run or "minilm-efficientnet"), alpha)
    vectors, bad = (load_vectors(run / EMBED, model), []) if run else embed_photos(paths, model)
    ranked = order(vectors, axis(model, more, less))
    problems = pd.DataFrame(bad, columns=["path", "problem"])
    both = pd.concat([ranked.assign(problem=""), problems.assign(score=np.nan)], ignore_index=True)
    both.insert(0, "position", np.arange(1, len(both) + 1))
    if sheet:
        _write_sheet(ranked.head(min(top or 60, 60)), Path(sheet))
    both = both if top is None else both.head(top)
    return both[["position", "path", "score", "problem"]]


def _write_sheet(ranked: pd.DataFrame, path: Path) -> None:
    names = [f"{Path(p).stem} {s:+.3f}" for p, s in zip(ranked.path, ranked.score, strict=True)]
    with atomic(path) as temporary:
        contact_sheet(list(ranked.path), names).save(temporary, format="PNG")


def axis(model: DualEncoder, more: str, less: str | None = None) -> np.ndarray:
    """The axis (d,) that points from `less` to `more`."""
    return text_axis(model, PROMPT.format(more.strip()), PROMPT.format(less.strip()) if less else None)


def order(vectors: Vectors, direction: np.ndarray) -> pd.DataFrame:
    """path and score, best first; equal scores keep the order of the vectors."""
    scores = vectors.matrix @ direction
    best = np.argsort(-scores, kind="stable")
    return pd.DataFrame({"path": [vectors.paths[i] for i in best], "score": scores[best]})


def run_folder(photos) -> Path | None:
    """The folder of the run that `photos` names, or None."""
    if not isinstance(photos, str | Path):
        return None
    for folder in (Path(photos), resolve(photos)):
        if (folder / EMBED).is_dir():
            finished(folder / EMBED)
            return folder
    return None


def find_photos(photos: str | Path | Sequence[str | Path]) -> list[str]:
    """Files of a folder (all levels), of a glob, or of a list, sorted; by suffix unless they were listed."""
    place = Path(photos).expanduser() if isinstance(photos, str | Path) else None
    if place is None:
        found = [str(path) for path in photos]
    elif place.is_file():
        found = [str(place)]
    elif place.is_dir():
        found = sorted(str(p) for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
    else:
        found = sorted(p for p in glob.glob(str(place), recursive=True) if Path(p).suffix.lower() in SUFFIXES)
    if not found:
        raise PcclipError(f"{photos}: no photos there; give a folder, a glob in quotes, or a run's folder")
    return found


def embed_photos(paths: Sequence[str], model: DualEncoder) -> tuple[Vectors, list[tuple[str, str]]]:
    """Vectors of the readable photos, and (path, problem) of the others. Raises PcclipError when none is readable."""
    matrix, good, broken = encode_readable(paths, model, Meter(len(paths), "photos"), batch_size=16, workers=4)
    bad = [(paths[i], why) for i, why in broken]
    if not good:
        raise PcclipError(f"none of the {len(paths)} photos can be read, e.g. {bad[0][0]}: {bad[0][1]}")
    chosen = [paths[i] for i in good]
    return Vectors(chosen, chosen, matrix), bad
