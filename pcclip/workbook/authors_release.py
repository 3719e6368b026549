"""The paper's released files, embeddings and differences, to this package's tables.

Embeddings pickle: {clip_embedding: (n, d), captions: n dicts with image_id and caption, inds: n numbers}.
Differences pickle: {indices: [(i, j)], llm_diffs: [str]}; i and j are numbers of `inds`, or rows where it is missing.

A pickle is a program. `read_pickle` runs it with an allow-list: the names that arrays and tensors need stand for the
functions of this file, which check their arguments; any other name is refused.
"""

import pickle
import pickletools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from math import prod
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pcclip.comparisons.filters import LISTS, Candidate
from pcclip.data.concepts import concept_of
from pcclip.embedding.vectors import vector_table
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import file_digest, write_csv, write_json, write_parquet

VECTORS, CAPTIONS, COMPARISONS, CARD = "vectors.parquet", "captions.csv", "comparisons.parquet", "conversion.json"
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a torch file that is no zip archive begins


def read_pickle(path: Path | str) -> Any:
    """Containers, strings, numbers, arrays and tensors of a pickle; tensors as numpy arrays (bfloat16 as float32).

    Nothing in the file is run, and nothing larger than the file is allocated.

    Raises:
        PcclipError: the pickle holds anything else, or is damaged.
    """
    try:
        content = Path(path).read_bytes()
        _check_sizes(BytesIO(content), len(content))
        return _Unpickler(BytesIO(content)).load()
    except OSError as error:
        raise PcclipError(f"{path}: cannot be read ({error.strerror}); name a pickle of the release") from None
    except _Refused as error:
        raise PcclipError(f"{path}: refused, it holds {error}, which is no plain data; do not unpickle it") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise PcclipError(f"{path}: not a whole pickle of arrays ({reason}); fetch it again") from None


class _Refused(Exception):
    """A name that is not on the allow-list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(repr(f"{module}.{name}"[:80]))
        return _Callable(_ALLOWED[module, name])


class _Callable(partial):
    """An allowed name: a pickle can call it, and change nothing about it."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a function")


class _Dtype:
    """A dtype of numbers, strings or objects. numpy's own takes any state, even one that reads outside its data."""

    def __init__(self, code: str, *flags: bool):
        if not re.fullmatch(r"[biufcUSO]\d{1,6}", code):
            raise ValueError(f"dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose data must fill its shape exactly."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, data = state
        filled = isinstance(data, list) if dtype.dtype.hasobject else True
        size = 1 if dtype.dtype.hasobject else dtype.dtype.itemsize
        _check(filled and prod(shape) * size == len(data), "data that do not fill their array")
        super().__setstate__((version, shape, dtype.dtype, is_fortran, data))


def _empty_array(kind: Any, shape: Any, code: Any) -> _Array:
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


def _storage(content: bytes) -> Any:
    """torch keeps a file of its own inside the pickle; weights_only refuses everything but numbers in it."""
    _check(content.startswith(_LEGACY_TORCH), "a storage that is none")
    stream = BytesIO(content)
    for part in ("magic", "protocol", "system", "storage"):
        _check_sizes(stream, len(content), numbers=part == "storage")
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(repr(name[1]) if name else "a storage that is none") from None


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    _check(prod(size) <= flat.numel(), "a tensor larger than its storage")
    tensor = flat.as_strided(size, stride, offset)  # checks that it stays inside the storage
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _check(fits: bool, fault: str) -> None:
    if not fits:
        raise pickle.UnpicklingError(fault)


def _check_sizes(stream: BytesIO, limit: int, numbers: bool = False) -> None:
    """Read one pickle's instructions: no place in its memo, and where `numbers` no integer, may be over `limit`."""
    for opcode, argument, _ in pickletools.genops(stream):
        if isinstance(argument, int) and (numbers or "PUT" in opcode.name):
            _check(argument <= limit, f"{opcode.name} {argument} in {limit} bytes")


_ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): _empty_array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("_core", "core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("_core", "core")},
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


def read_embeddings(path: Path | str) -> tuple[pd.DataFrame, Float[np.ndarray, "n d"]]:
    """The captioned images, row by row (id, caption, index), and their vectors, float32, of the length they have.

    `index` is the number by which differences name the row.

    Raises:
        PcclipError: not such a file, or its parts do not fit together.
    """
    with _as_released(path) as data:
        matrix = np.stack([vector.reshape(-1) for vector in data["clip_embedding"]]).astype(np.float32)
        captions = [{"id": str(c["image_id"]), "caption": str(c["caption"])} for c in data["captions"]]
        numbers = _whole(data["inds"] if "inds" in data else range(len(captions)))
        table = pd.DataFrame(captions).assign(index=numbers)
        if len(table) != len(matrix) or table["index"].duplicated().any():
            raise ValueError(f"{len(captions)} captions need as many vectors and distinct inds")
        if not np.isfinite(matrix).all():
            raise ValueError("clip_embedding has values that are not finite")
    return table, matrix


def read_differences(path: Path | str, known: Iterable[int]) -> pd.DataFrame:
    """The sentences as they are in the file: first_index, second_index, raw.

    Args:
        path: the differences pickle.
        known: numbers that an index can be (`index` of `read_embeddings`).

    Raises:
        PcclipError: not such a file, lengths that differ, or an index that is not known.
    """
    with _as_released(path) as data:
        sentences = [text for text in data["llm_diffs"] if isinstance(text, str)]
        pairs = _whole([number for first, second in data["indices"] for number in (first, second)]).reshape(-1, 2)
        if not len(pairs) == len(sentences) == len(data["llm_diffs"]):
            raise ValueError(f"{len(pairs)} indices for {len(sentences)} sentences in llm_diffs")
        if unknown := set(pairs.ravel().tolist()) - set(known):
            raise ValueError(f"indices name {min(unknown)}, which the embeddings do not have")
    return pd.DataFrame(pairs, columns=["first_index", "second_index"]).assign(raw=pd.Series(sentences, dtype=str))


@contextmanager
def _as_released(path: Path | str) -> Iterator[dict]:
    """The pickle's dict. Whatever the block raises because the file has another form is one line."""
    data = read_pickle(path)
    try:
        yield data
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise PcclipError(
            f"{path}: not as released ({type(error).__name__}: {one_line(error)}); name the embeddings first, then the "
            "differences, of one release"
        ) from None


def _whole(values: Iterable) -> np.ndarray:
    return np.array([index(value) for value in values], dtype=np.int64)


def convert(embeddings: Path | str, differences: Path | str, folder: Path | str) -> dict:
    """Both pickles to tables in `folder`; returns the counts of its conversion.json.

    vectors.parquet (id, path, vector) is as stage 02 writes it, but paths are empty and there is no fingerprint: the
    file does not say which model made it. captions.csv has a line per caption. comparisons.parquet has the raw
    sentence, the cleaned one, and the verdict of the rules as released.
    """
    folder = Path(folder)
    images, matrix = read_embeddings(embeddings)
    image = pd.factorize(images["id"])[0]
    rows = np.unique(image, return_index=True)[1]  # where each image comes first
    if not np.allclose(matrix, matrix[rows[image]], atol=1e-2 * np.abs(matrix).max()):
        raise PcclipError(f"{embeddings}: captions of one image_id have different vectors; ids must name one image")
    table = _comparisons(images, read_differences(differences, images["index"]))
    write_parquet(folder / VECTORS, vector_table(images.iloc[rows].assign(path=""), matrix[rows]))
    write_csv(folder / CAPTIONS, images)
    write_parquet(folder / COMPARISONS, table)
    counts = {
        "images": len(rows),
        "captions": len(images),
        "width": matrix.shape[1],
        "comparisons": len(table),
        "kept": int((table.verdict == "kept").sum()),
    }
    sources = {path.name: file_digest(path) for path in map(Path, (embeddings, differences))}
    outputs = {name: file_digest(folder / name) for name in (VECTORS, CAPTIONS, COMPARISONS)}
    write_json(
        folder / CARD,
        {"format": 1, "counts": counts, "rules": "as_released", "sources": sources, "outputs": outputs},
    )
    return counts


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
    fields = ["sentence", "finish_reason", "first_caption", "second_caption", "first_concept", "second_concept", "raw"]
    table["verdict"] = [
        rules.judge(Candidate(**row, tokens=0, context_length=0))[0]
        for row in table.rename(columns={"difference": "sentence"})[fields].to_dict("records")
    ]
    return table
