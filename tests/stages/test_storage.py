"""A storage by URL: shards, tables and manifests of 01 and 02 where every node sees them."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers.crash import Crash
from helpers.fake_backend import Fake

from pcclip import config as params
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Question, Reply
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed, stage as embed_stage
from pcclip.embedding.vectors import TABLE
from pcclip.errors import PcclipError
from pcclip.runs import stage
from pcclip.runs.files import atomic, names_in, read_parquet, write_json, write_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import Stage, read_manifest

pytest.importorskip("upath")
TABLES = (
    "01_generate/comparisons.parquet",
    "01_generate/left_out.parquet",
    "02_embed/vectors.parquet",
    "02_embed/bad_images.parquet",
)


@pytest.fixture(params=["memory", "file", "path"])
def storage(request, tmp_path):
    """An empty place, as a parameter names it."""
    yield {"memory": "memory://store", "file": f"file://{tmp_path}/store", "path": f"{tmp_path}/store"}[request.param]
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


IN_MEMORY = pytest.mark.parametrize("storage", ["memory"], indirect=True)


@pytest.fixture
def stored(values, tmp_path, storage):
    """Parameters of a run with the storage, on a machine of its own: stored('name')."""

    def on(machine: str):
        return params.check(
            {
                **values,
                "outputs": str(tmp_path / machine),
                "storage": storage,
                "generate": {**values["generate"], "shard": 16},
            }
        )

    return on


def both(config, model, backend=None):
    images = load_images(config)
    generate.generate(config, images, model, backend)
    return embed(config, images, model)


def contents(config) -> dict[str, bytes]:
    return {name: (config.folder / name).read_bytes() for name in TABLES}


def test_the_same_tables_and_a_copy_of_them(config, stored, tiny_encoder):
    both(config, tiny_encoder)
    both(stored("one"), tiny_encoder)
    assert contents(stored("one")) == contents(config)
    there = stored("one").stored(stored("one").folder)
    assert {name: (there / name).read_bytes() for name in TABLES} == contents(config)
    assert names_in(there / "02_embed") == {"vectors.parquet", "bad_images.parquet", "manifest.json"}
    assert read_manifest(there / "02_embed") == read_manifest(stored("one").folder / "02_embed")


@IN_MEMORY
def test_another_machine_fetches_what_is_done(stored, tiny_encoder, encoded):
    both(stored("one"), tiny_encoder)
    assert encoded.total == 24
    silent = Fake(stop=0)
    vectors, _ = both(stored("two"), tiny_encoder, silent)
    assert (encoded.total, len(vectors.ids)) == (24, 24)
    assert contents(stored("two")) == contents(stored("one"))


@IN_MEMORY
def test_a_table_that_does_not_fit_its_manifest_is_not_fetched(stored, tiny_encoder, encoded):
    embed(stored("one"), load_images(stored("one")), tiny_encoder)
    place = stored("one").stored(stored("one").folder) / "02_embed" / TABLE
    place.write_bytes(b"half of it")
    embed(stored("two"), load_images(stored("two")), tiny_encoder)
    assert encoded.total == 48


@IN_MEMORY
def test_another_machine_encodes_only_what_is_missing(stored, tiny_encoder, encoded, config):
    images = load_images(config)
    encoded.limit = 14  # in the middle of the third shard of five
    with pytest.raises(Crash):
        embed(stored("one"), images, tiny_encoder)
    encoded.total, encoded.limit = 0, float("inf")
    resumed, _ = embed(stored("two"), images, tiny_encoder)
    assert encoded.total == 14
    straight, _ = embed(config, images, tiny_encoder)
    assert (resumed.matrix == straight.matrix).all()


@IN_MEMORY
def test_another_machine_asks_only_for_the_rest(stored, tiny_encoder, config):
    images, killed, second = load_images(config), Fake(stop=23), Fake()
    with pytest.raises(Crash):
        generate.generate(stored("one"), images, tiny_encoder, killed)
    table = generate.generate(stored("two"), images, tiny_encoder, second)
    assert len(killed.asked) == 23
    assert not set(killed.asked) & set(second.asked)
    assert table.equals(generate.generate(config, images, tiny_encoder, Fake()))


@IN_MEMORY
def test_a_journal_of_a_run_without_a_storage_is_read(stored, values, tiny_encoder, tmp_path):
    images, killed, second = load_images(stored("one")), Fake(stop=23), Fake()
    with pytest.raises(Crash):
        generate.generate(stored("one").model_copy(update={"storage": None}), images, tiny_encoder, killed)
    generate.generate(stored("one"), images, tiny_encoder, second)
    assert sorted(killed.asked + second.asked) == sorted(set(killed.asked + second.asked))


def test_no_key_depends_on_where_shards_are_or_who_does_them(values, tmp_path):
    plain = params.check(values)
    other = params.check(
        {
            **values,
            "storage": f"file://{tmp_path}/x",
            "engine": "ray",
            "ray": {"workers": 7},
            "generate": {**values["generate"], "shard": 3},
        }
    )
    images = load_images(plain)
    assert generate.stage(plain, images).key == generate.stage(other, images).key
    assert embed_stage(plain, images).key == embed_stage(other, images).key


# ---- any store -------------------------------------------------------------------------------------------------------


def test_where_files_show_half_written_they_get_their_name_at_the_end(monkeypatch):
    """As sftp and hdfs do, and no object store."""
    seen, put_file = [], MemoryFileSystem.put_file

    def noted(self, source, target, **options):
        seen.append(target)
        put_file(self, source, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", noted)
    monkeypatch.setattr("pcclip.runs.files._OBJECT_STORES", set())
    folder = params.place("memory://plain")
    for text in ("one", "two"):
        with atomic(folder / "a.txt") as temporary:
            temporary.write_text(text)
            assert names_in(folder) == (set() if text == "one" else {"a.txt"})
        assert (folder / "a.txt").read_text() == text
    assert names_in(folder) == {"a.txt"}
    assert len(seen) == 2
    assert all(name.endswith(".tmp") for name in seen)


def test_what_fails_leaves_nothing(storage):
    place = params.place(storage) / "a.json"
    with pytest.raises(TypeError), atomic(place) as temporary:
        temporary.write_text("half")
        raise TypeError
    assert names_in(place.parent) == set()
    write_json(place, {"a": 1})
    assert names_in(place.parent) == {"a.json"}


def test_parquet_by_url(storage):
    import pyarrow as pa

    place = params.place(storage) / "a.parquet"
    with pytest.raises(PcclipError, match=r"a\.parquet: not there"):
        read_parquet(place)
    write_parquet(place, pa.table({"a": [1, 2], "b": ["x", "y"]}))
    assert read_parquet(place, columns=["b"]).to_pydict() == {"b": ["x", "y"]}
    place.write_bytes(place.read_bytes()[:20])
    with pytest.raises(PcclipError, match="not a whole Parquet file"):
        read_parquet(place)


def test_half_published_is_not_found(tmp_path, storage):
    """The manifest comes last there too: a run that ends before it is not done for another machine."""
    done = Stage(tmp_path / "a" / "01_x", {}, params.place(storage) / "01_x")
    with done.work():
        (done.folder / "out.txt").write_text("0123456789")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "write_json", lambda path, value: (_ for _ in ()).throw(Crash))
            with pytest.raises(Crash):
                done.finish(["out.txt"], {})
        other = Stage(tmp_path / "b" / "01_x", {}, done.storage)
        assert not other.done_or_fetched()
        assert not done.done()
        done.finish(["out.txt"], {})
    assert other.done_or_fetched()
    assert (other.folder / "out.txt").read_text() == "0123456789"
    shutil.rmtree(other.folder)
    assert not Stage(tmp_path / "b" / "01_x", {"another": "key"}, done.storage).done_or_fetched()


@pytest.mark.parametrize(("url", "says"), [("what://bucket/x", "no way to reach it"), ("s3://bucket/x", "s3fs")])
def test_a_store_that_cannot_be_reached_is_one_line(url, says):
    if find_spec("s3fs") and "s3" in says:
        pytest.skip("s3fs is here")
    with pytest.raises(PcclipError, match=says) as error:
        params.place(url)
    assert "\n" not in str(error.value)


def test_a_place_without_a_scheme_is_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    assert params.place("shared") == tmp_path / "shared"
    assert params.place("file:///nfs/shared") == Path("/nfs/shared")


def test_a_failure_of_before_in_another_part_does_not_hide_the_answer(tmp_path):
    store = tmp_path / "store"
    config = params.check({"outputs": str(tmp_path / "out"), "run": "r", "storage": str(store)})
    journal = config.folder / "01_generate" / "answers-x.jsonl"
    part = config.stored(journal.parent) / "answers-x" / "zzzz.jsonl"
    AnswerLog(part, Reply, "answers").append({"key": "k", "text": "", "finish_reason": "error: 500"})
    found = AnswerLog(journal, Reply, "answers").answer_all(
        [Question("k", "a", "b")], lambda rest: ((q, Reply("well", "stop")) for q in rest), config
    )
    assert found["k"].text == "well"
