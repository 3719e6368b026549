"""The ends of a ranking against a full stable sort, in memory and from Parquet files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pcclip.errors import PcclipError
from pcclip.ranking import topk
from pcclip.ranking.topk import best_rows, ranked, ranked_shards
from pcclip.stats.vectors import project


def scores(n: int, seed: int = 0) -> np.ndarray:
    """With many ties, at the cuts, too."""
    return np.random.default_rng(seed).integers(0, max(n // 3, 1), n).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 7, 200])
@pytest.mark.parametrize(("top", "bottom"), [(None, None), (1, None), (None, 1), (3, 2), (5, 5), (300, None), (4, 300)])
def test_the_ends_are_those_of_a_stable_sort(n, top, bottom):
    for seed in range(5):
        given = scores(n, seed)
        order = np.argsort(-given, kind="stable")
        kept = [i < (top or 0) or i >= n - (bottom or 0) or top is bottom is None for i in range(n)]
        assert list(best_rows(given, top, bottom)) == list(order[kept])


def test_positions_are_those_in_the_whole_order():
    table = ranked(np.array([0.1, 0.5, -0.2, 0.3, 0.0], np.float32), 2, 1)
    assert table.to_dict("list") == {"position": [1, 2, 5], "row": [1, 3, 2], "score": pytest.approx([0.5, 0.3, -0.2])}
    assert list(ranked(np.arange(4.0), bottom=2).position) == [3, 4]
    assert list(ranked(np.arange(4.0), 3, 3).position) == [1, 2, 3, 4]


@pytest.fixture
def shards(tmp_path):
    """70 vectors of width 6 in three files, with ties; the files and the matrix."""
    matrix = np.random.default_rng(0).integers(-2, 3, (70, 6)).astype(np.float32)
    files = []
    for k, rows in enumerate(np.split(np.arange(70), [30, 31])):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix[rows].ravel()), 6)
        files.append(tmp_path / f"{k}.parquet")
        pq.write_table(
            pa.table(
                {
                    "path": [f"p{i}" for i in rows],
                    "vector": vectors,
                    "fingerprint": pa.array(["f"] * len(rows)).dictionary_encode(),
                }
            ),
            files[-1],
            row_group_size=8,
        )
    return files, matrix


@pytest.mark.parametrize(("top", "bottom"), [(None, None), (4, None), (None, 4), (5, 3), (60, 60)])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_shards_are_ranked_as_one_matrix(shards, monkeypatch, top, bottom, batch):
    monkeypatch.setattr(topk, "BATCH", batch)
    files, matrix = shards
    direction = np.array([1, 2, 0, -1, 0, 1], np.float32)
    table = ranked_shards(files, direction, "f", top, bottom)
    expected = ranked(matrix @ direction, top, bottom)
    assert list(table.path) == [f"p{i}" for i in expected.row]
    assert list(table.position) == list(expected.position)
    np.testing.assert_allclose(table.score, expected.score)


def test_a_row_group_is_not_held_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(topk, "BATCH", 1024)
    matrix = np.random.default_rng(0).normal(size=(80_000, 128)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), 128)
    pq.write_table(pa.table({"path": [""] * len(matrix), "vector": vectors}), tmp_path / "v.parquet")
    before, held = pa.total_allocated_bytes(), []
    for paths, part in topk.batches([tmp_path / "v.parquet"], 128, None):
        held.append(pa.total_allocated_bytes() - before)
        del paths, part
    assert max(held) < matrix.nbytes / 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "not a whole Parquet file"),
        (lambda path: pq.write_table(pa.table({"path": ["a"]}), path), "no column 'fingerprint'"),
    ],
)
def test_files_that_cannot_be_ranked(shards, spoil, message):
    files, _ = shards
    spoil(files[1])
    with pytest.raises(PcclipError, match=message):
        ranked_shards(files, np.ones(6, np.float32), "f", 2)


def test_vectors_of_another_model(shards):
    with pytest.raises(PcclipError, match="vectors of another model than g"):
        ranked_shards(shards[0], np.ones(6, np.float32), "g", 2)
    with pytest.raises(PcclipError, match="vectors of width 6, not 5"):
        ranked_shards(shards[0], np.ones(5, np.float32), "f", 2)


@pytest.mark.parametrize(
    ("vectors", "kind", "message"),
    [
        ([[1.0, 2.0], None], pa.list_(pa.float32(), 2), r"(width 0, not 2 \(row 1\)|of size=2)"),
        ([[1.0, 2.0], [1.0], [2.0, 3.0, 4.0]], pa.list_(pa.float64()), r"width 1, not 2 \(row 1\)"),
        ([[1.0, 2.0], [1.0, float("nan")]], pa.list_(pa.float32(), 2), "row 1 holds values that are no numbers"),
        ([[1.0, float("inf")], [1.0, None]], pa.list_(pa.float32()), "row 0 holds values that are no numbers"),
        (["1 2", "2 3"], pa.string(), "holds string, not lists of numbers"),
        ([["a", "b"]], pa.list_(pa.string()), "not lists of numbers"),
    ],
)
def test_vectors_of_odd_shape(tmp_path, vectors, kind, message):
    table = pa.table({"path": list("abc")[: len(vectors)], "vector": pa.array(vectors, kind)})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(PcclipError, match=rf"v\.parquet: .*{message}.*(run notebook 02|delete it)"):
        ranked_shards([tmp_path / "v.parquet"], np.ones(2, np.float32))


def test_a_vector_without_a_path(tmp_path):
    vectors = pa.array([[1.0, 2.0], [2.0, 1.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"path": ["a.jpg", None], "vector": vectors}), tmp_path / "v.parquet")
    with pytest.raises(PcclipError, match=r"v\.parquet: has a row without a path"):
        ranked_shards([tmp_path / "v.parquet"], np.ones(2, np.float32))


def test_no_vectors(tmp_path):
    empty = pa.FixedSizeListArray.from_arrays(pa.array(np.empty(0, np.float32)), 6)
    pq.write_table(pa.table({"path": pa.array([], pa.string()), "vector": empty}), tmp_path / "e.parquet")
    with pytest.raises(PcclipError, match=r"e\.parquet: no vectors there"):
        ranked_shards([tmp_path / "e.parquet"], np.ones(6, np.float32))


def test_projecting_many_rows_is_the_product(monkeypatch):
    monkeypatch.setattr("pcclip.stats.vectors._BLOCK", 16)
    rng = np.random.default_rng(0)
    for n in (0, 31, 33, 100):
        matrix, axis = rng.normal(size=(n, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
        np.testing.assert_allclose(project(matrix, axis), matrix @ axis, atol=1e-6)
