"""Rank photos by an attribute: project their vectors on an axis made from words, examples and votes."""

import glob
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Embed, Generate, resolve
from pcclip.embedding.stage import FOLDER as EMBED, embed_with_tower, tower_stage
from pcclip.embedding.vectors import TABLE, Vectors, load_vectors
from pcclip.encoders import load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.images import SUFFIXES, as_text, below_title, contact_sheet, left_alone, photos_below
from pcclip.ranking import topk
from pcclip.ranking.axes import ESTIMATORS, Query, agreeing, query_axis
from pcclip.ranking.cache import embed_parts, embed_photos
from pcclip.ranking.examples import Examples, example_differences, read_examples
from pcclip.ranking.paraphrases import paraphrases
from pcclip.ranking.photo_index import PhotoIndex
from pcclip.ranking.posterior import ballot, learnt_order, rank_interval
from pcclip.ranking.saved import summary as saved_ranking
from pcclip.ranking.separation import doubt
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.runs.files import atomic, cache_folder, read_parquet
from pcclip.runs.progress import say
from pcclip.runs.stage import finished, read_manifest
from pcclip.stats.vectors import project

SHEET_PHOTOS = 60  # at most, on a contact sheet
DEVIATION = ["deviation", "best_rank", "worst_rank"]  # columns that votes and examples add


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
    ranking: str | None = None,
) -> pd.DataFrame:
    """Sort photos by an attribute, best first. Words, example photos or votes, or several of these, define the attribute.

    Args:
        photos: a folder (searched at all levels), a glob, a list of files, a run's folder such as outputs/demo, whose
            stored vectors are used, or Parquet files of vectors ('vectors/*.parquet' with the columns path, vector and
            fingerprint of notebook 02), which are streamed.
        more: what the photos at the top show, e.g. 'a large animal', encoded as 'a photo of a large animal', or a
            weighted sum such as '2:golden retriever - puppy' or 'a large animal / a small animal + a red thing'.
        less: what the photos at the bottom show; the difference of the two texts cancels what they share. Without it
            photos are ordered by likeness to `more` alone.
        model: a spec, a run's folder or a loaded model; by default the run's own finetuned model, else the small
            default, minilm-efficientnet. If finetuning changed the image tower, `rank` embeds the run's photos again
            and stores these vectors too.
        alpha: weight of a finetuned model in its average with the base.
        top: return only this many photos from the top of the order.
        sheet: also write a contact sheet (PNG) to this file: the first 60 returned photos; if `bottom` is set, photos of
            both ends.
        bottom: return only this many photos from the bottom; with `top`, both ends. Positions are of the complete order.
        estimator: how the words become a direction, see `axes.attribute_axis`.
        examples: photos with much and with little of the attribute, or a CSV or JSON-lines file with the columns path
            and side; they need not be among `photos`.
        votes: pairwise votes, or a file of them (`votes.VoteFile`), of which the votes on `more` and `less` count.
            Votes on other photos do not count.
        writer: settings of a language model that writes paraphrases for the ensemble (stored in ~/.cache/pcclip).
        ranking: the name of a ranking that was saved on the page. It sets words, estimator, examples, votes and, unless
            given, the model. `rank` prints how many of its examples and votes are on other photos.

    Prints a warning where the words separate the photos no better than nonsense, or a negation is ignored
    (`separation.doubt`).

    Returns:
        Columns position, path, score and problem. Examples and votes add deviation, the posterior standard deviation of
        the score minus the mean photo's score, and best_rank and worst_rank, the 95% interval of the position. Unreadable
        photos come last, with their problem and without a score.

    Raises:
        PcclipError: no photos, none readable, nothing to rank by or an empty text, an unknown model or estimator,
            vectors of another model, unreadable examples, or votes on none of the photos.
    """
    for name, count in (("top", top), ("bottom", bottom)):
        if count is not None and count < 1:
            raise PcclipError(f"rank: {name} = {count}; it must be 1 or more")
    if sheet and not Path(os.path.expanduser(sheet)).absolute().parent.is_dir():
        raise PcclipError(f"{Path(sheet).parent}: no such folder; make it first")
    if ranking is not None:
        if (more, less, examples, votes) != (None,) * 4:
            raise PcclipError("rank: a ranking has its own words, examples and votes; give either it or them")
        saved = saved_ranking(ranking)
        more, less, estimator = saved["more"], saved["less"] or None, saved["estimator"]
        model = model or saved["model"] or None
        votes = [Vote(**vote) for vote in saved["votes"]] or None
        examples = _examples_of(saved["examples"])
    query = _typed_query(more, less, estimator, writer, examples is not None or votes is not None)
    votes = None if votes is None else _votes_on(query, votes)
    if isinstance(examples, str | Path):
        examples = read_examples(examples)
    files, run_model = stored_vectors(photos)
    paths = [] if files else find_photos(photos)
    has_feedback = votes is not None or examples is not None
    if has_feedback:
        index = _stored_index(files) if files else PhotoIndex(paths, paths)
        _check_votes(index, votes or [], strict=ranking is None)
        if ranking is not None:
            lines = [line for line in saved["examples"] if index.row(line["example"], line["content"]) is not None]
            examples = _examples_of(lines)
            if len(lines) < len(saved["examples"]):
                say(
                    f"examples: {len(saved['examples']) - len(lines)} of {len(saved['examples'])} are photos that are not here"
                )
        example_files = _example_files(index, examples) if examples else {}
    if not isinstance(model, Encoder):
        model = load_model(str(model or run_model or "minilm-efficientnet"), alpha)
    text = None if query is None else words_axis(model, query, estimator, writer)
    sides = _example_matrices(example_files, examples, model) if examples else None
    if run_model:
        files = [_table_by_tower(files[0].parent, model)]
    unreadable: list[tuple[str, str]] = []
    if files and text is not None and not has_feedback:
        table = topk.ranked_shards(files, text, model.image_fingerprint(), top, bottom)
        _, matrix = next(topk.batches(files, len(text), model.image_fingerprint()))
    else:
        if files:
            vectors = _load_all(files, model, run_model is not None)
        else:
            vectors, unreadable = embed_photos(paths, model)
        matrix = vectors.matrix
        differences = example_differences(matrix, *sides) if sides else matrix[:0]
        learnt = learnt_order(matrix, ballot(votes or [], PhotoIndex(vectors.ids, vectors.paths)), differences, text)
        table = _ranked(vectors, learnt.scores, top, bottom)
        if has_feedback:
            table["deviation"] = learnt.deviations[table.row]
            ranks = rank_interval(learnt.scores, learnt.deviations)[:, table.row].T
            table[DEVIATION[1:]] = pd.DataFrame(ranks, dtype="Int64")  # an unreadable photo has none
            if learnt.unhelpful:
                say(learnt.unhelpful)
    if query and (reason := doubt(matrix, query, TextMemory(model))):
        say(reason)
    if sheet:
        titles = [
            f"most: {query.more}" if query else "most",
            f"least: {query.less or query.more}" if query else "least",
        ]
        with atomic(Path(sheet)) as temporary:
            ranked_sheet(table, titles, bottom or 0).save(temporary, format="PNG")
    room = None if top is None and bottom is None else max((top or 0) + (bottom or 0) - len(table), 0)
    problems = pd.DataFrame(unreadable[:room], columns=["path", "problem"], dtype=object)
    problems.insert(0, "position", np.arange(len(table) + 1, len(table) + 1 + len(problems)))
    result = pd.concat([table.assign(problem=""), problems.assign(score=np.nan)], ignore_index=True)
    return result[["position", "path", "score", "problem", *result.columns.intersection(DEVIATION)]]


def words_axis(
    model: Encoder, query: Query, estimator: str = "two_prompt", writer: Generate | None = None
) -> Float[np.ndarray, " d"]:
    """The unit direction of typed words; with a `writer` the ensemble includes its paraphrases.

    Paraphrases are used whose own direction agrees with the typed words. Raises PcclipError for an unknown estimator,
    a writer with another estimator than the ensemble, or a writer that cannot write.
    """
    if writer is None:
        return query_axis(model, query, estimator)
    if estimator != "ensemble":
        raise PcclipError(f"estimator {estimator!r} uses no paraphrases; choose ensemble")
    written = paraphrases(query, writer, cache_folder())
    used = agreeing(model, query, written)
    say(f"paraphrases: {len(used)} of {len(written)} used: {'; '.join(' / '.join(pair) for pair in used)}")
    return query_axis(model, query, estimator, used)


def order(vectors: Vectors, direction: Float[np.ndarray, " d"]) -> pd.DataFrame:
    """Columns path and score, best first; equal scores keep the order of the vectors."""
    return _ranked(vectors, project(vectors.matrix, direction), None, None)[["path", "score"]]


def _typed_query(
    more: str | None, less: str | None, estimator: str, writer: Generate | None, has_feedback: bool
) -> Query | None:
    """The typed words, if any. Raises PcclipError for arguments that make no sense for any photos."""
    if estimator not in ESTIMATORS:
        raise PcclipError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
    if more is not None:
        return Query(more, less)
    if less is not None:
        raise PcclipError("rank: `less` needs `more`; say what the photos at the top show")
    if not has_feedback:
        raise PcclipError(
            "rank: nothing to rank by; say what the photos at the top show (`more`), or give examples or votes"
        )
    if writer is not None or estimator != "two_prompt":
        raise PcclipError("rank: `estimator` and `writer` need words; say what the photos at the top show (`more`)")
    return None


def _votes_on(query: Query | None, votes: Sequence[Vote] | str | Path) -> list[Vote]:
    """The votes on the query. Raises PcclipError for a file without votes, or whose votes are on other attributes."""
    if not isinstance(votes, str | Path):
        return list(votes)
    file = VoteFile(votes)
    if not (attributes := file.attributes()):
        raise PcclipError(f"{file.path}: no votes there")
    if len(attributes) == 1 and (query is None or "" in attributes):
        return file.read()
    if query is None or query.label not in attributes:
        names = ", ".join(f"{name!r} ({count})" for name, count in attributes.items())
        raise PcclipError(f"{file.path}: has votes on {names}; ask for one of these with the same words")
    return file.read(attribute=query.label)


def _stored_index(files: Sequence[Path]) -> PhotoIndex:
    """The photos of stored vectors, by their ids and paths."""
    tables = [read_parquet(file, ["id", "path"] if file.name == TABLE else ["path"]) for file in files]
    paths = [path for table in tables for path in table["path"].to_pylist()]
    return PhotoIndex([name for table in tables for name in table.column(0).to_pylist()], paths)


def _examples_of(lines: Sequence[Mapping[str, Any]]) -> Examples | None:
    """The examples of a saved ranking; None without any."""
    most, least = ([line["example"] for line in lines if line["likes"] == sign] for sign in (1, -1))
    return Examples(most, least, {line["example"]: line["content"] for line in lines}) if lines else None


def _check_votes(index: PhotoIndex, votes: Sequence[Vote], strict: bool) -> None:
    """Say how many votes are on other photos. Raises PcclipError when all are and `strict`."""
    if unknown := ballot(votes, index).unknown:
        say(f"votes: {unknown} of {len(votes)} are on photos that are not here")
        if strict and unknown == len(votes):
            raise PcclipError("votes: none is on these photos; give the photos that were voted on")


def _example_files(index: PhotoIndex, examples: Examples) -> dict[str, str]:
    """The file of each example. Raises PcclipError for one that is neither a file nor among the photos."""
    files = {}
    for name in (*examples.most, *examples.least):
        row, path = index.row(name, examples.contents.get(name, "")), os.path.abspath(os.path.expanduser(name))
        if row is None and not os.path.isfile(path):
            raise PcclipError(f"example {name}: neither a file nor one of the photos; give its path")
        files[name] = path if row is None else index.paths[row]
    return files


def _example_matrices(files: Mapping[str, str], examples: Examples, model: Encoder) -> list[Float[np.ndarray, "m d"]]:
    """Vectors of the examples of both sides. Raises PcclipError for one that cannot be read."""
    names: list[str] = list(files)
    vectors: dict[str, np.ndarray] = {}
    for part in embed_parts(list(files.values()), model):
        for row, reason in part.problems:
            raise PcclipError(f"example {names[row]}: {reason}; name one of the photos, or another file")
        vectors |= {names[row]: vector for row, vector in zip(part.rows, part.matrix, strict=True)}
    sides = ([vectors[name] for name in side] for side in (examples.most, examples.least))
    return [np.array(side, np.float32).reshape(-1, model.width) for side in sides]


def _ranked(vectors: Vectors, scores: Float[np.ndarray, " n"], top: int | None, bottom: int | None) -> pd.DataFrame:
    """Columns position, row, score and path."""
    table = topk.ranked(scores, top, bottom)
    # a text column has no room for names that are not UTF-8
    table["path"] = pd.Series([vectors.paths[row] for row in table.row], dtype=object)
    return table


def ranked_sheet(table: pd.DataFrame, titles: Sequence[str], bottom: int = 0) -> Image.Image:
    """A contact sheet of at most 60 photos, the last `bottom` of the table under a title of their own.

    Of more than 60, 30 are from each end, or more if the other end has fewer.

    Args:
        table: columns position, path, score and possibly caption, best first.
        titles: of the top, and of the bottom where there is one.
    """
    last = min(bottom, len(table), max(SHEET_PHOTOS // 2, SHEET_PHOTOS - len(table) + bottom))
    first = min(SHEET_PHOTOS, len(table)) - last
    sheets = []
    for part, title in zip((table.head(first), table.tail(last)), titles, strict=False):
        names = part.get("caption", part.path.map(lambda path: Path(path).stem))
        captions = [f"{name} {score:+.3f}" for name, score in zip(names, part.score, strict=True)]
        if len(part):
            photos = contact_sheet(list(part.path), captions, numbers=list(part.position))
            sheets.append(below_title(photos, title))
    page = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    for sheet, end in zip(sheets, accumulate(sheet.height for sheet in sheets), strict=True):
        page.paste(sheet, (0, end - sheet.height))
    return page


# ---- the photos


def stored_vectors(photos: str | Path | Sequence[str | Path]) -> tuple[list[Path], str | None]:
    """The Parquet files of vectors that `photos` names, and for a run also the model that ranks it.

    Raises PcclipError for a run that has not embedded its photos, or whose reused stage cannot be found.
    """
    if not isinstance(photos, str | Path):
        return [], None
    if Path(photos).suffix == ".parquet":
        if not (paths := sorted(glob.glob(str(Path(os.path.expanduser(photos))), recursive=True))):
            raise PcclipError(f"{photos}: no such file of vectors")
        return [Path(path) for path in paths], None
    for folder in (Path(os.path.expanduser(photos)), resolve(photos)):
        if embedded := _stage_folder(folder, EMBED):
            finished(embedded)
            return [embedded / TABLE], str(_stage_folder(folder, FINETUNE) or folder)
    return [], None


def _stage_folder(run: Path, stage: str) -> Path | None:
    """The folder of a run's stage: its own, or the reused one of another run, recognised by its files' hashes."""
    if (run / stage).is_dir():
        return run / stage
    manifests = [read_manifest(file.parent) for file in sorted(run.glob("0[0-9]_*/manifest.json"))]
    inputs = [manifest["inputs"] for manifest in manifests if manifest]
    hashes = next((names[stage] for names in inputs if stage in names), None)
    if hashes is None:
        return None
    for place in list(run.resolve().parents)[:3]:  # beside the run, or beside the sweep that it is a member of
        for candidate in (place / stage, *sorted(place.glob(f"*/{stage}"))):
            manifest = read_manifest(candidate)
            if manifest and {name: file["sha256"] for name, file in manifest["outputs"].items()} == hashes:
                return candidate
    raise PcclipError(f"{run}: it reuses the {stage} of a run that is not beside it; give that run's folder")


def _table_by_tower(embedded: Path, model: Encoder) -> Path:
    """The table of a run's vectors by the model's image tower, made first where finetuning changed that tower."""
    stored_tower = finished(embedded)["model"]
    if stored_tower != model.tuned_from or stored_tower == model.image_fingerprint():
        return embedded / TABLE  # reading it fails where the model has another base
    tower = tower_stage(embedded, model)
    if not tower.done():
        embed_with_tower(embedded, model, Embed())
    return tower.folder / TABLE


def _load_all(files: Sequence[Path], model: Encoder, is_run: bool) -> Vectors:
    """All vectors of a run, with its ids, or of Parquet files, with paths as ids."""
    if is_run or (len(files) == 1 and files[0].name == TABLE and files[0].parent.name == EMBED):
        return load_vectors(files[0].parent, model)
    parts = list(topk.batches(files, model.width, model.image_fingerprint()))
    if not (paths := [path for names, _ in parts for path in names]):
        raise PcclipError(f"{files[0]}: no vectors there; embed photos first (notebook 02)")
    return Vectors(paths, paths, np.concatenate([matrix for _, matrix in parts]))


def find_photos(photos: str | Path | Sequence[str | Path]) -> list[str]:
    """Sorted image files of a folder (all levels) or of a glob; one file or a list of files as given.

    Raises PcclipError when there are none.
    """
    others: Counter[str] = Counter()
    if not isinstance(photos, str | Path):
        paths = [as_text(str(path)) for path in photos]
    elif (place := Path(os.path.expanduser(photos))).is_dir():
        paths, others = photos_below(place)
    elif place.is_file():
        paths = [as_text(str(place))]
    else:
        files = [path for path in glob.glob(str(place), recursive=True) if os.path.isfile(path)]
        paths = sorted(as_text(path) for path in files if Path(path).suffix.lower() in SUFFIXES)
        others = Counter(Path(path).suffix.lower() for path in files if Path(path).suffix.lower() not in SUFFIXES)
    unread = left_alone(others)
    if not paths:
        hint = f"it has {unread}" if unread else "give a folder, a glob in quotes, or a run's folder"
        raise PcclipError(f"{photos}: no photos there; {hint}")
    if unread:
        say(f"{photos}: skipped {unread}")
    return paths
