"""Rank photos by an attribute: project their vectors on an axis made from words, examples and votes."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.config import Embed, Generate, resolve
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.embedding.stage import embed_with_tower, encode_by_all, tower_stage
from pcclip.embedding.vectors import TABLE, Vectors, load_vectors
from pcclip.encoders import load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.images import SUFFIXES, contact_sheet
from pcclip.ranking import topk
from pcclip.ranking.axes import ESTIMATORS, Query, agreeing, example_differences, query_axis
from pcclip.ranking.examples import Examples, read_examples
from pcclip.ranking.paraphrases import paraphrases
from pcclip.ranking.posterior import VoteAxis, vote_axis
from pcclip.ranking.votes import Vote, VoteFile, ballot
from pcclip.runs.files import atomic, cache_folder
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import finished, read_manifest
from pcclip.stats.vectors import project

_SHEET = 60  # photos on a contact sheet


def rank(
    photos: str | Path | Sequence[str | Path],
    more: str | None = None,
    less: str | None = None,
    model: str | Encoder | None = None,
    alpha: float = 1.0,
    top: int | None = None,
    sheet: str | Path | None = None,
    *,
    bottom: int | None = None,
    estimator: str = "two_prompt",
    examples: Examples | str | Path | None = None,
    votes: Sequence[Vote] | str | Path | None = None,
    writer: Generate | None = None,
) -> pd.DataFrame:
    """Order photos from the most to the least of an attribute, asked for in words, by examples, by votes or all three.

    Args:
        photos: a folder (searched through), a glob, a list of files, a run's folder such as outputs/demo, whose
            stored vectors are used, or Parquet files of vectors ('vectors/*.parquet'; columns path, vector,
            fingerprint as 02 writes them), which are streamed.
        more: what the top looks like, e.g. 'a large animal'; read as 'a photo of a large animal'.
        less: what the bottom looks like; the difference of the two texts cancels what they share. Without it the
            photos are ordered by likeness to `more` alone.
        model: a spec, a run's folder or a loaded model; by default the run's own finetuned model, else the embedded
            minilm-efficientnet. Where finetuning changed the image tower, too, a run's photos are embedded by that
            once, beside the stored vectors.
        alpha: weight averaging of a finetuned model with its base.
        top: return only this many of the best.
        sheet: also write a contact sheet (PNG) of those returned to this file, at most 60: the first, or with bottom
            those at both ends.
        bottom: return (also) this many of the worst, at their places in the whole order.
        estimator: how the words become an axis, see `axes.attribute_axis`.
        examples: photos of the most and of the least, or a CSV or JSON-lines file of them (columns path, side); they
            need not be among `photos`.
        votes: pairwise votes, or their JSON-lines file (`votes.VoteFile`), which gives those on more and less. Without
            words, or where no vote names its attribute, all count.
        writer: a language model's settings; it writes paraphrases for the ensemble (kept in ~/.cache/pcclip).

    Returns:
        Columns position, path, score, problem, and with examples or votes deviation, the score's uncertainty among the
        others (posterior standard deviation); unreadable photos come last with their problem and no score.

    Raises:
        PcclipError: no photos, none readable, nothing asked or an empty text, an unknown model or estimator, vectors of
            another model, examples that cannot be read, or votes on none of the photos.
    """
    query = _asked(more, less, top, bottom, estimator, examples, votes, writer)
    cast = None if votes is None else _votes(votes, query)
    shown = examples if examples is None or isinstance(examples, Examples) else read_examples(examples)
    stored, own_model = stored_vectors(photos)
    paths = [] if stored else find_photos(photos)
    if not isinstance(model, Encoder):
        model = load_model(str(model or own_model or "minilm-efficientnet"), alpha)
    words = None if query is None else words_axis(model, query, estimator, writer)
    if own_model:
        stored = [_own_table(stored[0].parent, model)]
    bad = []
    if stored and shown is None and cast is None:
        table = topk.ranked_shards(stored, words, model.image_fingerprint(), top, bottom)
    else:
        vectors, bad = (_loaded(stored, model, bool(own_model)), []) if stored else embed_photos(paths, model)
        table = _ordered(vectors, words, _posterior(vectors, words, shown, cast, model), top, bottom)
    if sheet:
        _write_sheet(table, Path(sheet), top or 0, bottom or 0)
    room = None if top is None and bottom is None else max((top or 0) + (bottom or 0) - len(table), 0)
    problems = pd.DataFrame(bad[:room], columns=["path", "problem"])
    problems.insert(0, "position", np.arange(len(table) + 1, len(table) + 1 + len(problems)))
    both = pd.concat([table.assign(problem=""), problems.assign(score=np.nan)], ignore_index=True)
    return both[["position", "path", "score", "problem", *(["deviation"] if "deviation" in both else [])]]


def words_axis(
    model: Encoder, query: Query, estimator: str = "two_prompt", writer: Generate | None = None
) -> Float[np.ndarray, " d"]:
    """The unit axis of what was typed; with a `writer` the ensemble has its paraphrases, too.

    Of the paraphrases those are used whose own direction goes along with that of the words that were typed. Raises
    PcclipError: no such estimator, a writer for another one, or a writer that cannot write.
    """
    if writer is None:
        return query_axis(model, query, estimator)
    if estimator != "ensemble":
        raise PcclipError(f"estimator {estimator!r} uses no paraphrases; choose ensemble")
    written = paraphrases(query.more, query.less, writer, cache_folder())
    used = agreeing(model, query, written)
    say(f"paraphrases: {len(used)} of {len(written)} used: {'; '.join(' / '.join(pair) for pair in used)}")
    return query_axis(model, query, estimator, used)


def order(vectors: Vectors, direction: Float[np.ndarray, " d"]) -> pd.DataFrame:
    """path and score, best first; equal scores keep the order of the vectors."""
    return _ordered(vectors, direction, None, None, None)[["path", "score"]]


def _asked(more, less, top, bottom, estimator, examples, votes, writer) -> Query | None:
    """What was typed, if anything. Raises PcclipError for what makes no sense whatever the photos are."""
    for name, value in (("top", top), ("bottom", bottom)):
        if value is not None and value < 1:
            raise PcclipError(f"rank: {name} = {value}; it must be 1 or more")
    if estimator not in ESTIMATORS:
        raise PcclipError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
    if more is None and less is not None:
        raise PcclipError("rank: less without more; say what more of it looks like")
    if more is None and examples is None and votes is None:
        raise PcclipError("rank: nothing to rank by; say what more of it looks like, or give examples or votes")
    if more is None and (writer is not None or estimator != "two_prompt"):
        raise PcclipError("rank: an estimator or paraphrases without words; say what more of it looks like")
    return None if more is None else Query(more, less)


def _votes(votes: Sequence[Vote] | str | Path, query: Query | None) -> list[Vote]:
    """The votes on what is asked. Raises PcclipError where a file has none, or only on other attributes, or it does
    not follow which are meant."""
    if not isinstance(votes, str | Path):
        return list(votes)
    file = VoteFile(votes)
    about = file.attributes()
    if not about:
        raise PcclipError(f"{file.path}: no votes there")
    if len(about) == 1 and (query is None or "" in about):
        return file.read()
    if query is None or query.label not in about:
        names = ", ".join(f"{name!r} ({count})" for name, count in about.items())
        raise PcclipError(f"{file.path}: has votes on {names}; ask for one of these with the same words")
    return file.read(attribute=query.label)


def _posterior(
    vectors: Vectors, words: np.ndarray | None, shown: Examples | None, cast: list[Vote] | None, model: Encoder
) -> VoteAxis | None:
    """What words, examples and votes say together; None where there are only words."""
    if shown is None and cast is None:
        return None
    votes = ballot(cast or [], vectors.matrix, vectors.ids, vectors.paths)
    if votes.unknown:
        say(f"votes: {votes.unknown} of {len(cast)} are on photos that are not here")
        if votes.unknown == len(cast):
            raise PcclipError("votes: none is on these photos; give the photos that were voted on")
    differences, outcomes = votes.differences, votes.outcomes
    if shown is not None:
        told = example_differences(
            vectors.matrix, *(_vectors_of(names, vectors, model) for names in (shown.most, shown.least))
        )
        differences, outcomes = np.concatenate([differences, told]), np.append(outcomes, np.ones(len(told)))
    return vote_axis(differences, outcomes, words, vectors.matrix)


def _vectors_of(names: Sequence[str], vectors: Vectors, model: Encoder) -> Float[np.ndarray, "m d"]:
    """Vectors of examples by id or path; those of other photos are made. Raises PcclipError for an unreadable one."""
    row = {os.path.abspath(path): i for i, path in enumerate(vectors.paths)} | vectors.row
    rows = [row.get(name, row.get(os.path.abspath(os.path.expanduser(name)))) for name in names]
    found = np.empty((len(names), vectors.matrix.shape[1]), np.float32)
    for k, i in enumerate(rows):
        if i is not None:
            found[k] = vectors.matrix[i]
    if new := [k for k, i in enumerate(rows) if i is None]:
        files, settings = [os.path.expanduser(names[k]) for k in new], Embed(batch_size=16, workers=4)
        [made], _, bad = encode_by_all(files, [model], Meter(len(new), "examples"), settings)
        if bad:
            raise PcclipError(f"example {names[new[bad[0][0]]]}: {bad[0][1]}; name one of the photos, or another file")
        found[new] = made
    return found


def _ordered(
    vectors: Vectors, words: np.ndarray | None, posterior: VoteAxis | None, top: int | None, bottom: int | None
) -> pd.DataFrame:
    """Columns position, path, score and, with a posterior, deviation."""
    matrix = vectors.matrix
    table = topk.ranked(project(matrix, words if posterior is None else posterior.axis), top, bottom)
    table["path"] = [vectors.paths[i] for i in table.row]
    if posterior is not None:  # in the score's unit: that of an axis of length one
        spread = posterior.deviations(matrix[table.row] - matrix.mean(axis=0))
        table["deviation"] = spread / posterior.length
    return table.drop(columns="row")


def _write_sheet(ranked: pd.DataFrame, path: Path, top: int, bottom: int) -> None:
    if len(ranked) > _SHEET:  # of two ends half each, unless one is shorter
        last = min(bottom, max(_SHEET // 2, _SHEET - top))
        ranked = pd.concat([ranked.head(_SHEET - last), ranked.tail(last)])
    names = [f"{Path(p).stem} {s:+.3f}" for p, s in zip(ranked.path, ranked.score, strict=True)]
    with atomic(path) as temporary:
        contact_sheet(list(ranked.path), names, numbers=list(ranked.position)).save(temporary, format="PNG")


# ---- the photos


def stored_vectors(photos) -> tuple[list[Path], str | None]:
    """Parquet files of vectors that `photos` names, and the model of the run they are of, if it is a run.

    Raises PcclipError for a run that has not embedded its photos, or whose reused stage is not to be found.
    """
    if not isinstance(photos, str | Path):
        return [], None
    if Path(photos).suffix == ".parquet":
        found = sorted(glob.glob(str(Path(photos).expanduser()), recursive=True))
        if not found:
            raise PcclipError(f"{photos}: no such file of vectors")
        return [Path(path) for path in found], None
    for folder in (Path(photos).expanduser(), resolve(photos)):
        embedded = _stage_of(folder, EMBED)
        if embedded:
            finished(embedded)
            return [embedded / TABLE], str(_stage_of(folder, FINETUNE) or folder)
    return [], None


def _stage_of(run: Path, stage: str) -> Path | None:
    """The folder of a run's stage: its own, or that of the run whose stage it reuses, known by the files' hashes."""
    if (run / stage).is_dir():
        return run / stage
    told = [read_manifest(manifest.parent) for manifest in sorted(run.glob("0[0-9]_*/manifest.json"))]
    wanted = next((manifest["inputs"][stage] for manifest in told if manifest and stage in manifest["inputs"]), None)
    if wanted is None:
        return None
    for place in list(run.resolve().parents)[:3]:  # beside the run, or beside the sweep it is a member of
        for candidate in (place / stage, *sorted(place.glob(f"*/{stage}"))):
            manifest = read_manifest(candidate)
            if manifest and {name: file["sha256"] for name, file in manifest["outputs"].items()} == wanted:
                return candidate
    raise PcclipError(f"{run}: it reuses the {stage} of a run that is not beside it; give that run's folder")


def _own_table(embedded: Path, model: Encoder) -> Path:
    """The table of a run's vectors by this model's image tower; made first where finetuning changed the one of 02."""
    made_by = finished(embedded)["model"]
    if made_by != model.tuned_from or made_by == model.image_fingerprint():
        return embedded / TABLE  # which is refused when it is of another base
    this = tower_stage(embedded, model)
    if not this.done():
        embed_with_tower(embedded, model, Embed())
    return this.folder / TABLE


def _loaded(files: list[Path], model: Encoder, of_a_run: bool) -> Vectors:
    """All vectors of a run, or of Parquet files by path."""
    if of_a_run or (files[0].name == TABLE and files[0].parent.name == EMBED):
        return load_vectors(files[0].parent, model)
    parts = list(topk.batches(files, model.width, model.image_fingerprint()))
    names = [name for paths, _ in parts for name in paths]
    if not names:
        raise PcclipError(f"{files[0]}: no vectors there; embed photos first (notebook 02)")
    return Vectors(names, names, np.concatenate([matrix for _, matrix in parts]))


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


def embed_photos(paths: Sequence[str], model: Encoder) -> tuple[Vectors, list[tuple[str, str]]]:
    """Vectors of the readable photos, and (path, problem) of the others. Raises PcclipError when none is readable."""
    settings = Embed(batch_size=16, workers=4)
    [matrix], good, broken = encode_by_all(paths, [model], Meter(len(paths), "photos"), settings)
    bad = [(paths[i], why) for i, why in broken]
    if not good:
        raise PcclipError(f"none of the {len(paths)} photos can be read, e.g. {bad[0][0]}: {bad[0][1]}")
    chosen = [paths[i] for i in good]
    return Vectors(chosen, chosen, matrix), bad
