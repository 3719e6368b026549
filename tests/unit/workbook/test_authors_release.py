"""The paper's released files: read without running what they hold, to tables; hostile pickles are refused."""

import copyreg
import io
import json
import os
import pickle
import subprocess
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as npst

from pcclip.cli import main
from pcclip.comparisons.filters import side_by_side
from pcclip.errors import PcclipError
from pcclip.workbook.authors_release import convert, read_differences, read_embeddings, read_pickle

LONG = "The first image shows a {} on a table, while the second image shows a {} in a park."
SENTENCES = [LONG.format("cat", "dog"), "#1: " + LONG.format("dog", "bird") + "\nNote that", "#include <a.h>", "short"]
PAIRS = [(70, 50), (50, 90), (90, 70), (70, 90)]
MATRIX = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
CAPTIONS = ['A cat, "black".', "A dog\nin a park.", "NA"]
INDS = [70, 50, 90]


def embeddings(vectors=None, own=(0, 1, 2), inds=INDS, ids=(9, 12, 7)) -> dict:
    captions = [
        {"image_id": i, "id": 5, "caption": c, "clip_embedding": o} for i, c, o in zip(ids, CAPTIONS, own, strict=True)
    ]
    data = {"clip_embedding": torch.from_numpy(MATRIX) if vectors is None else vectors, "captions": captions}
    return data if inds is None else {**data, "inds": inds}


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture
def files(tmp_path):
    return (
        write(tmp_path / "clip.pkl", embeddings()),
        write(tmp_path / "diffs.pkl", {"indices": PAIRS, "llm_diffs": SENTENCES}),
    )


# plain data

NUMBERS = npst.integer_dtypes() | npst.floating_dtypes(sizes=(16, 32, 64)) | npst.unicode_string_dtypes(max_len=4)
ARRAYS = npst.arrays(NUMBERS, npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=ARRAYS, protocol=st.integers(3, 4), order=st.sampled_from("CF"))
def test_numpy_comes_back(tmp_path, value, protocol, order):
    value = np.array(value, order=order)
    back = read_pickle(write(tmp_path / "a.pkl", value, protocol))
    assert back.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
    assert back.shape == value.shape
    np.testing.assert_array_equal(back, value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=PLAIN, protocol=st.integers(3, 5))
def test_containers_come_back(tmp_path, value, protocol):
    assert read_pickle(write(tmp_path / "a.pkl", value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize(
    "value",
    [
        np.array([["a", None], [(1, 2), "b"]], dtype=object),
        np.float32(1.5),
        np.int64(3),
        MATRIX[:, ::2],
        torch.from_numpy(MATRIX).T,
        torch.from_numpy(MATRIX)[1:2, 3:],
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.ones(2, requires_grad=True),
    ],
    ids=range(9),
)
@pytest.mark.filterwarnings("error")
def test_objects_scalars_and_tensors_come_back_as_numpy(tmp_path, value, protocol):
    back = read_pickle(write(tmp_path / "a.pkl", value, protocol))
    assert isinstance(back, np.ndarray | np.generic)
    assert np.array_equal(back, value.detach().float().numpy() if isinstance(value, torch.Tensor) else value)


def test_a_tensor_of_a_gpu_comes_to_the_cpu(tmp_path):
    """As pickled on a GPU: the inner file names cuda:0."""
    content = pickle.dumps(torch.from_numpy(MATRIX), 4)
    start = content.index(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    inner = content[start : content.index(b"\x94", content.index(MATRIX.tobytes()) + MATRIX.nbytes)]
    moved = inner.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert moved != inner
    call = tensor_of(Calls(torch.storage._load_from_bytes, moved), (3, 8), (8, 1))
    assert np.array_equal(read_pickle(write(tmp_path / "a.pkl", call)), MATRIX)


# hostile and damaged pickles


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


class Calls:
    """Pickled as a call: the classic payload."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensor_of(storage, size: tuple, stride: tuple, offset: int = 0) -> Calls:
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


class Malicious(Calls):
    def __init__(self, trace):
        super().__init__(os.system, f"touch {trace}")


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str, trace) -> bytes:
    """Protocol 4, which allows a dotted name: module.name(command)."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(f"touch {trace}") + b"\x85R."


def legacy(value) -> bytes:
    """A torch file of the kind that pickles of tensors have inside."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def inner_storage(trace) -> Calls:
    """A tensor whose own file inside the pickle is the payload."""
    return tensor_of(Calls(torch.storage._load_from_bytes, legacy(Malicious(trace))), (1,), (1,))


class Late:
    def __init__(self, trace):
        self.trace = trace

    def __reduce_ex__(self, protocol):
        return copyreg._reconstructor, (Late, object, None), {"trace": str(self.trace)}


PAYLOADS = {
    "system": (Malicious, "system"),
    "eval": (lambda t: Calls(eval, f"__import__('os').system('touch {t}')"), "eval"),
    "exec": (lambda t: Calls(exec, f"open({str(t)!r}, 'w')"), "exec"),
    "getattr": (lambda t: Calls(getattr, Malicious(t), "x"), "getattr"),
    "subprocess": (lambda t: Calls(subprocess.Popen, ["touch", str(t)]), "Popen"),
    "in a caption": (lambda t: embeddings(own=(0, Malicious(t), 2)), "system"),
    "in an object array": (lambda t: np.array([1, Malicious(t)], dtype=object), "system"),
    "as a dict key": (lambda t: {Malicious(t): 1}, "system"),
    "inner storage": (inner_storage, "system"),
    "torch.load": (lambda t: Calls(torch.load, str(t)), "load"),
    "numpy.load": (lambda t: Calls(np.load, str(t)), "load"),
    "reconstructor": (Late, "_reconstructor"),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_refused_by_name_and_does_not_run(tmp_path, name):
    make, refused = PAYLOADS[name]
    for protocol in (3, 4):
        path = write(tmp_path / "bad.pkl", make(tmp_path / "trace"), protocol)
        with pytest.raises(PcclipError, match=rf"bad\.pkl: refused.*{refused}") as error:
            read_pickle(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("numpy", "os.system"),
        ("torch", "serialization.os.system"),
        ("numpy", "core.multiarray._reconstruct"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("collections", "_sys.exit"),
        ("numpy\nos", "system"),
        ("collections", "OrderedDict.__init__.__globals__"),
    ],
)
def test_dotted_names_are_refused(tmp_path, module, name):
    (tmp_path / "bad.pkl").write_bytes(stack_global(module, name, tmp_path / "trace"))
    with pytest.raises(PcclipError, match="refused") as error:
        read_pickle(tmp_path / "bad.pkl")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trace").exists()


def test_the_payloads_would_run(tmp_path):
    """Else the tests above say nothing."""
    pickle.loads(pickle.dumps(Malicious(tmp_path / "a")))
    pickle.loads(stack_global("torch", "serialization.os.system", tmp_path / "b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


STORAGE = torch.storage.TypedStorage(wrap_storage=torch.ones(2).untyped_storage(), dtype=torch.float32, _internal=True)
SMALL = legacy(torch.ones(300)._typed_storage())  # its length is a two-byte integer
HUGE = SMALL.replace(b"M\x2c\x01Nt", b"\x8a\x06\0\0\0\0\0\x01Nt")
DAMAGE = {
    "empty": b"",
    "text": b"no pickle",
    "cut": pickle.dumps(embeddings())[:-40],
    "persistent id": b"\x80\x04" + text("x") + b"Q.",
    "attributes of a global": b"\x80\x02cnumpy\nndarray\n}" + b"X\x01\x00\x00\x00aK\x01sb.",
    "attributes of a class": b"\x80\x02ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
    "slots of a global": b"\x80\x02cnumpy\ndtype\nN}X\x09\x00\x00\x00_functionK\x01s\x86b.",
    "a type that is called": pickle.dumps(Calls(np.ndarray, (2,))),
    "a structured dtype": pickle.dumps(np.zeros(2, dtype=[("a", "i4")])),
    "a tensor larger than its storage": pickle.dumps(tensor_of(STORAGE, (9,), (1,))),
    "a tensor of one number a billion times": pickle.dumps(tensor_of(STORAGE, (10**9,), (0,))),
    "a tensor that begins too late": pickle.dumps(tensor_of(STORAGE, (2,), (1,), offset=1)),
    "a storage of a zip archive": pickle.dumps(Calls(torch.storage._load_from_bytes, b"PK\x03\x04")),
    "a storage of a terabyte": pickle.dumps(Calls(torch.storage._load_from_bytes, HUGE)),
    "a memo of four billion places": b"\x80\x02]r\xff\xff\xff\xff.",
    "a string of a terabyte": b"\x80\x04\x8d\0\0\0\0\0\x01\0\0abc.",
    "an array with too little": pickle.dumps(np.ones(4), 3).replace(b"K\x04\x85", b"K\x09\x85"),
    "objects as numbers": pickle.dumps(np.array([1, 2], dtype=object), 3).replace(b"]q", b"}q"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_no_pickle_of_arrays(tmp_path, name):
    (tmp_path / "bad.pkl").write_bytes(DAMAGE[name])
    with pytest.raises(PcclipError, match=r"bad\.pkl: not a whole pickle") as error:
        read_pickle(tmp_path / "bad.pkl")
    assert "\n" not in str(error.value)


def test_lists_that_hold_themselves_or_unfold_without_end_are_no_vectors(tmp_path):
    own: list = []
    own.append(own)
    double: list = [1.0]
    for _ in range(60):
        double = [double, double]
    for nested in (own, double):
        with pytest.raises(PcclipError, match="not as released"):
            read_embeddings(write(tmp_path / "nested.pkl", embeddings(vectors=[nested] * 3)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), protocol=st.sampled_from([3, 4]))
def test_a_changed_byte_is_read_or_refused_in_one_line(tmp_path, place, byte, protocol):
    content = bytearray(pickle.dumps(embeddings(), protocol))
    content[place % len(content)] = byte
    (tmp_path / "changed.pkl").write_bytes(content)
    try:
        read_pickle(tmp_path / "changed.pkl")
    except PcclipError as error:
        assert_one_line(error)


def test_no_file(tmp_path):
    with pytest.raises(PcclipError, match=r"none\.pkl: cannot be read"):
        read_pickle(tmp_path / "none.pkl")


# embeddings


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"vectors": MATRIX},
        {"vectors": MATRIX[:, None]},
        {"vectors": list(torch.from_numpy(MATRIX).split(1))},
        {"vectors": list(MATRIX)},
        {"inds": np.array(INDS)},
        {"ids": (np.int64(9), "12", 7)},
        {"vectors": torch.from_numpy(MATRIX.astype(np.float64))},
    ],
    ids=str,
)
def test_read_embeddings(tmp_path, change):
    images, matrix = read_embeddings(write(tmp_path / "clip.pkl", embeddings(**change)))
    assert list(images["id"]) == ["9", "12", "7"]
    assert list(images.caption) == CAPTIONS
    assert list(images["index"]) == INDS
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, MATRIX)


def test_without_inds_a_row_is_its_number(tmp_path):
    images, _ = read_embeddings(write(tmp_path / "clip.pkl", embeddings(inds=None)))
    assert list(images["index"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "TypeError"),
        ({"indices": [], "llm_diffs": []}, "KeyError: 'clip_embedding'"),
        ({"captions": [], "clip_embedding": MATRIX}, "as many vectors"),
        ({"captions": [{"caption": "x"}], "clip_embedding": MATRIX}, "KeyError: 'image_id'"),
        (embeddings(vectors=MATRIX[:2]), "as many vectors"),
        (embeddings(vectors=[MATRIX[0], MATRIX[1, :3], MATRIX[2]]), "same shape"),
        (embeddings(vectors=MATRIX * np.nan), "not finite"),
        (embeddings(vectors="vectors"), "AttributeError"),
        (embeddings(inds=[1, 2]), "ValueError"),
        (embeddings(inds=[1, 2, 2]), "distinct inds"),
        (embeddings(inds=["a", "b", "c"]), "TypeError"),
    ],
    ids=range(11),
)
def test_embeddings_that_are_none(tmp_path, content, message):
    with pytest.raises(PcclipError, match=rf"clip\.pkl: .*{message}") as error:
        read_embeddings(write(tmp_path / "clip.pkl", content))
    assert "\n" not in str(error.value)


# differences


@pytest.mark.parametrize(
    "pairs",
    [PAIRS, [list(p) for p in PAIRS], np.array(PAIRS), torch.tensor(PAIRS), [tuple(map(np.int64, p)) for p in PAIRS]],
    ids=range(5),
)
def test_read_differences(tmp_path, pairs):
    path = write(tmp_path / "diffs.pkl", {"indices": pairs, "llm_diffs": SENTENCES})
    table = read_differences(path, INDS)
    assert list(zip(table.first_index, table.second_index, strict=True)) == PAIRS
    assert list(table.raw) == SENTENCES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (embeddings(), "KeyError: 'llm_diffs'"),
        ({"llm_diffs": SENTENCES}, "KeyError: 'indices'"),
        ({"indices": PAIRS[1:], "llm_diffs": SENTENCES}, "3 indices for 4"),
        ({"indices": [(1, 2, 3)], "llm_diffs": ["x"]}, "ValueError"),
        ({"indices": [1], "llm_diffs": ["x"]}, "TypeError"),
        ({"indices": [(70, 50)], "llm_diffs": [3]}, "1 indices for 0 sentences"),
        ({"indices": [(70, 0.5)], "llm_diffs": ["x"]}, "TypeError"),
        ({"indices": [(70, 2**70)], "llm_diffs": ["x"]}, "OverflowError"),
        ({"indices": [(70, 51)], "llm_diffs": ["x"]}, "indices name 51, which the embeddings do not have"),
    ],
    ids=range(9),
)
def test_differences_that_are_none(tmp_path, content, message):
    with pytest.raises(PcclipError, match=rf"diffs\.pkl: .*{message}"):
        read_differences(write(tmp_path / "diffs.pkl", content), INDS)


# tables


def test_convert_writes_the_tables(files, tmp_path, tiny_encoder):
    counts = convert(*files, tmp_path / "out")
    assert counts == {"images": 3, "captions": 3, "width": 8, "comparisons": 4, "kept": 2}
    vectors = pd.read_parquet(tmp_path / "out" / "vectors.parquet")
    assert list(vectors.columns) == ["id", "path", "vector"]
    assert list(vectors["id"]) == ["9", "12", "7"]
    np.testing.assert_array_equal(np.stack(vectors.vector), MATRIX)
    captions = pd.read_csv(tmp_path / "out" / "captions.csv", dtype=str, keep_default_na=False)
    assert list(captions.caption) == CAPTIONS
    table = pd.read_parquet(tmp_path / "out" / "comparisons.parquet")
    assert list(zip(table["first"], table["second"], strict=True)) == [("9", "12"), ("12", "7"), ("7", "9"), ("9", "7")]
    assert list(table.second_caption) == [CAPTIONS[k] for k in (1, 2, 0, 2)]
    assert list(table.verdict) == ["kept", "kept", "no_code", "sixty"]
    assert list(table.raw) == SENTENCES
    assert table.difference[1] == LONG.format("dog", "bird")
    assert side_by_side(table, tiny_encoder).to_numpy().sum() == 4
    card = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert card["counts"] == counts
    assert set(card["sources"]) == {"clip.pkl", "diffs.pkl"}


def test_several_captions_of_one_image(tmp_path, files):
    data = embeddings(vectors=MATRIX[[0, 1, 0]], ids=(9, 12, 9))
    path = write(tmp_path / "several.pkl", data)
    assert convert(path, files[1], tmp_path / "out")["images"] == 2
    assert list(pd.read_parquet(tmp_path / "out" / "vectors.parquet")["id"]) == ["9", "12"]
    with pytest.raises(PcclipError, match="different vectors"):
        convert(write(path, embeddings(ids=(9, 12, 9))), files[1], tmp_path / "out")


# command line


def test_convert_on_the_command_line(files, tmp_path, capsys):
    assert main(["convert", *map(str, files), "--to", str(tmp_path / "out")]) == 0
    assert "comparisons 4, kept 2" in capsys.readouterr().out
    assert main(["convert", *map(str, reversed(files)), "--to", str(tmp_path / "out")]) == 1
    assert "name the embeddings first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", *map(str, files)])
