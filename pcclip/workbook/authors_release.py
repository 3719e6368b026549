"""The paper's released files, embeddings and differences, to this package's tables and back.

Embeddings pickle: {clip_embedding: (n, d), captions: [{image_id, caption, clip_embedding}], inds: [n numbers]}.
Differences pickle: {indices: [(i, j)], llm_diffs: [str]}; i and j are numbers of `inds`, or rows where it is missing.
"""

import json
import pickle
from collections.abc import Iterable
from operator import index
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.comparisons.filters import LISTS, Candidate
from pcclip.data.concepts import concept_of
from pcclip.errors import PcclipError
from pcclip.runs.files import atomic, file_digest, read_parquet, write_json, write_parquet
from pcclip.workbook import plain_pickle

VECTORS, CAPTIONS, COMPARISONS, CARD = "vectors.parquet", "captions.csv", "comparisons.parquet", "conversion.json"


def read_embeddings(path: Path | str) -> tuple[pd.DataFrame, Float[np.ndarray, "n d"]]:
    """The captioned images, row by row (id, caption, index), and their vectors, float32, of the length they have.

    `index` is the number by which differences name the row. A file that has as many vectors as captions pairs them
    in order, as the release does; else each caption's clip_embedding is its vector's row, or the vector itself.

    Raises:
        PcclipError: not such a file, or its parts do not fit together.
    """
    data = _fields(path, "captions")
    captions = data["captions"]
    if not captions or not all(isinstance(c, dict) and {"image_id", "caption"} <= c.keys() for c in captions):
        raise PcclipError(f"{path}: captions must be dicts with image_id and caption; name the embeddings pickle")
    own = [c.get("clip_embedding") for c in captions]
    if data.get("clip_embedding") is None:
        matrix = _matrix(path, own)
    else:
        matrix = _matrix(path, data["clip_embedding"])
        if len(matrix) != len(captions):
            matrix = matrix[_numbers(path, "clip_embedding of the captions", own, range(len(matrix)))]
    numbers = np.arange(len(captions)) if data.get("inds") is None else _numbers(path, "inds", data["inds"])
    if len(numbers) != len(captions) or len(set(numbers.tolist())) != len(numbers):
        raise PcclipError(f"{path}: inds must be {len(captions)} distinct numbers, one a caption; fetch it again")
    ids, texts = ([str(caption[key]) for caption in captions] for key in ("image_id", "caption"))
    return pd.DataFrame({"id": ids, "caption": texts, "index": numbers}), matrix


def read_differences(path: Path | str, known: Iterable[int] | None = None) -> pd.DataFrame:
    """The sentences as they are in the file: first_index, second_index, raw.

    Args:
        path: the differences pickle.
        known: numbers that an index can be (`index` of `read_embeddings`); any when None.

    Raises:
        PcclipError: not such a file, lengths that differ, or an index that is not known.
    """
    data = _fields(path, "indices", "llm_diffs")
    pairs, sentences = data["indices"], data["llm_diffs"]
    if len(pairs) != len(sentences):
        raise PcclipError(f"{path}: {len(pairs)} indices for {len(sentences)} llm_diffs; fetch it again")
    whole = all(isinstance(pair, (tuple, list, np.ndarray)) and len(pair) == 2 for pair in pairs)
    if not whole or not all(isinstance(sentence, str) for sentence in sentences):
        raise PcclipError(f"{path}: needs pairs of indices and sentences; name the differences pickle")
    flat = _numbers(path, "indices", [number for pair in pairs for number in pair], known)
    return pd.DataFrame({"first_index": flat[::2], "second_index": flat[1::2], "raw": pd.Series(sentences, dtype=str)})


def convert(embeddings: Path | str, differences: Path | str, folder: Path | str) -> dict:
    """Both pickles to tables in `folder`; returns the counts of its conversion.json.

    vectors.parquet (id, path, vector) is as stage 02 writes it, but paths are empty and there is no fingerprint: the
    file does not say which model made it. captions.csv has a line per caption. comparisons.parquet has the raw
    sentence, the cleaned one, and the verdict of the rules as released.
    """
    import pyarrow as pa

    folder = Path(folder)
    images, matrix = read_embeddings(embeddings)
    image = pd.factorize(images["id"])[0]
    rows = np.unique(image, return_index=True)[1]  # where each image comes first
    if not np.allclose(matrix, matrix[rows[image]], atol=1e-2 * np.abs(matrix).max()):
        raise PcclipError(f"{embeddings}: captions of one image_id have different vectors; ids must name one image")
    table = _comparisons(images, read_differences(differences, images["index"]))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix[rows].ravel()), matrix.shape[1])
    write_parquet(
        folder / VECTORS,
        pa.table(
            {
                "id": pa.array(images["id"].iloc[rows], pa.string()),
                "path": pa.array([""] * len(rows)),
                "vector": vectors,
            }
        ),
    )
    with atomic(folder / CAPTIONS) as temporary:
        images.to_csv(temporary, index=False)
    write_parquet(folder / COMPARISONS, table)
    counts = {
        "images": len(rows),
        "captions": len(images),
        "width": matrix.shape[1],
        "comparisons": len(table),
        "kept": int((table.verdict == "kept").sum()),
    }
    write_json(
        folder / CARD,
        {
            "format": 1,
            "counts": counts,
            "rules": "as_released",
            "sources": {Path(path).name: file_digest(path) for path in (embeddings, differences)},
            "outputs": {name: file_digest(folder / name) for name in (VECTORS, CAPTIONS, COMPARISONS)},
        },
    )
    return counts


def write_released(folder: Path | str, embeddings: Path | str, differences: Path | str) -> list[Path]:
    """The tables of `convert` back to both pickles, and beside them to files that need no pickle.

    Those are .safetensors (clip_embedding) with .jsonl (a line per row: image_id, caption, index), and .jsonl (a line
    per comparison). Returns what was written. Raises PcclipError when the folder is not one that `convert` wrote, or
    a pickle is there already.
    """
    from safetensors.torch import save_file
    from torch import from_numpy

    folder, embeddings, differences = Path(folder), Path(embeddings), Path(differences)
    for path in (embeddings, differences):
        if path.exists():
            raise PcclipError(f"{path}: is there already and would be lost; name a new file")
    images, matrix, table = _tables(folder)
    numbers = images["index"].tolist()
    number = dict(zip(zip(images["id"], images.caption, strict=True), numbers, strict=True))
    sides = [
        [number[key] for key in zip(table[side], table[f"{side}_caption"], strict=True)] for side in ("first", "second")
    ]
    captions = [{"image_id": _as_number(row.id), "caption": row.caption} for row in images.itertuples()]
    tensor = from_numpy(matrix)
    written = {
        embeddings: {
            "clip_embedding": tensor,
            "inds": numbers,
            "captions": [{**caption, "clip_embedding": row} for row, caption in enumerate(captions)],
        },
        differences: {"indices": list(zip(*sides, strict=True)), "llm_diffs": table.raw.tolist()},
    }
    for path, content in written.items():
        with atomic(path) as temporary, open(temporary, "wb") as file:
            pickle.dump(content, file, protocol=4)
    with atomic(embeddings.with_suffix(".safetensors")) as temporary:
        save_file({"clip_embedding": tensor}, temporary)
    lines = {
        embeddings: [{**c, "index": i} for c, i in zip(captions, numbers, strict=True)],
        differences: table.to_dict("records"),
    }
    for path, rows in lines.items():
        with atomic(path.with_suffix(".jsonl")) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return [*written, embeddings.with_suffix(".safetensors"), *(path.with_suffix(".jsonl") for path in lines)]


def _comparisons(images: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """The differences with ids, captions, cleaned sentence and verdict; columns as filters.judged reads them."""
    rules, by_index = LISTS["as_released"], images.set_index("index")
    table = pd.DataFrame(index=differences.index)
    for side in ("first", "second"):
        rows = by_index.loc[differences[f"{side}_index"]]
        table[side], table[f"{side}_caption"] = rows["id"].to_numpy(), rows.caption.to_numpy()
        concepts = {caption: concept_of(caption) for caption in rows.caption.unique()}
        table[f"{side}_concept"] = table[f"{side}_caption"].map(concepts)
    table["raw"], table["finish_reason"] = differences.raw, "stop"
    table["difference"] = differences.raw.map(rules.clean)
    table["verdict"] = [
        rules.judge(
            Candidate(
                r.difference,
                r.finish_reason,
                r.first_caption,
                r.second_caption,
                r.first_concept,
                r.second_concept,
                0,
                0,
                r.raw,
            )
        )[0]
        for r in table.itertuples()
    ]
    return table


def _tables(folder: Path) -> tuple[pd.DataFrame, Float[np.ndarray, "n d"], pd.DataFrame]:
    """What `convert` wrote: captions, their vectors row by row, comparisons."""
    missing = [name for name in (VECTORS, CAPTIONS, COMPARISONS) if not (folder / name).is_file()]
    if missing:
        raise PcclipError(f"{folder}: no {missing[0]}; name a folder that `pcclip convert --to` wrote")
    images = pd.read_csv(folder / CAPTIONS, dtype={"id": str, "caption": str, "index": int}, keep_default_na=False)
    vectors = read_parquet(folder / VECTORS)
    matrix = vectors["vector"].combine_chunks().flatten().to_numpy().reshape(vectors.num_rows, -1)
    row = {image: i for i, image in enumerate(vectors["id"].to_pylist())}
    return images, matrix[images["id"].map(row)], read_parquet(folder / COMPARISONS).to_pandas()


def _fields(path: Path | str, *names: str) -> dict:
    data = plain_pickle.read(path)
    missing = [
        name
        for name in names
        if not isinstance(data, dict) or not isinstance(data.get(name), (list, tuple, np.ndarray))
    ]
    if missing:
        raise PcclipError(f"{path}: has no list {missing[0]!r}; name the embeddings pickle first, then the differences")
    return data


def _matrix(path: Path | str, vectors) -> Float[np.ndarray, "n d"]:
    """From an array (n, d) or (n, 1, d), or a sequence of n vectors (d,) or (1, d)."""
    try:
        matrix = np.stack([np.asarray(vector, dtype=np.float32).reshape(-1) for vector in vectors])
    except (TypeError, ValueError) as error:
        raise PcclipError(f"{path}: clip_embedding is no matrix ({error}); fetch it again") from None
    if matrix.shape[1] < 2 or not np.isfinite(matrix).all():
        raise PcclipError(
            f"{path}: clip_embedding has vectors of width {matrix.shape[1]} or values that are not "
            "finite; fetch it again"
        )
    return matrix


def _numbers(path: Path | str, what: str, values: Iterable, known: Iterable[int] | None = None) -> np.ndarray:
    """`values` as integers, all of them in `known`."""
    try:
        numbers = np.array([index(value) for value in values], dtype=np.int64).reshape(-1)
    except (TypeError, OverflowError):
        raise PcclipError(f"{path}: {what} must be whole numbers; fetch it again") from None
    unknown = [] if known is None else sorted(set(numbers.tolist()) - set(known))
    if unknown:
        raise PcclipError(
            f"{path}: {what} name {unknown[0]}, which the embeddings do not have ({len(unknown)} such "
            "numbers); use the two files of one release"
        )
    return numbers


def _as_number(image: str) -> int | str:
    """An image id as the release has it: a number where it is one."""
    return int(image) if image.isdecimal() and str(int(image)) == image else image
