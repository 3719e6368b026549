"""engine: ray, on a cluster of two workers that is started here: the local engine's tables, whatever is killed.

With $RAY_ADDRESS the tests use that cluster, whose nodes must see this machine's temporary folder.
"""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml
from helpers.crash import Crash
from helpers.fake_backend import Fake
from helpers.runs import ROOT

from pcclip import config as params
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Question
from pcclip.config import Ray
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed, stage
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet
from pcclip.runs.log import question_groups
from pcclip.runs.ray_cluster import cluster, over_shards

SETTINGS = Ray(workers=2, retries=1, address=os.environ.get("RAY_ADDRESS"))
TABLES = (
    "01_generate/comparisons.parquet",
    "01_generate/left_out.parquet",
    "02_embed/vectors.parquet",
    "02_embed/bad_images.parquet",
)


# ---- without a cluster -----------------------------------------------------------------------------------------------

LOCALLY = """
import sys
from pcclip import config as params, load_model
from pcclip.comparisons import stage as generate
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
config = params.read(sys.argv[1])
images, model = load_images(config), load_model(config.model)
generate.generate(config, images, model)
embed(config, images, model)
assert generate.stage(config, images).done()
assert not {'ray', 'upath'} & set(sys.modules)
"""


def test_the_local_engine_never_imports_ray(params_file):
    subprocess.run([sys.executable, "-c", LOCALLY, params_file], cwd=ROOT, check=True)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("pcclip.runs.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(PcclipError, match=r"pip install 'pcclip\[ray\]'"), cluster(Ray()):
        pass


def test_workers_cannot_share_the_memory_of_one_process(values):
    with pytest.raises(PcclipError, match=r"memory:// is inside one process"):
        params.check({**values, "engine": "ray", "storage": "memory://store"})


def test_groups_of_questions_are_those_of_all_whoever_has_asked():
    questions = [Question(f"{k}", "a", "b") for k in range(7)]
    every = question_groups(questions, {}, 3)
    assert [[q.key for q in group] for group in every.values()] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    first, _, third = every
    assert question_groups(questions, {"1": None, "3": None, "4": None, "5": None}, 3) == {
        first: [questions[0], questions[2]],
        third: [questions[6]],
    }


def test_the_rays_demo_is_the_demo():
    demo, rays = (params.read(ROOT / "params" / f"{name}.yaml") for name in ("demo", "demo_ray"))
    assert (rays.engine, rays.ray.workers) == ("ray", 2)
    moved = rays.generate.model_copy(update={key: getattr(demo.generate, key) for key in ("in_flight", "shard")})
    questions = rays.evaluate.model_copy(update={key: getattr(demo.evaluate, key) for key in ("questions", "fixed")})
    elsewhere = {"run": demo.run, "engine": demo.engine, "ray": demo.ray, "generate": moved, "evaluate": questions}
    assert rays.run != demo.run
    assert rays.model_copy(update=elsewhere) == demo


# ---- with one --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(one_cluster):
    """Two workers' room, for all tests of the file."""
    pytest.importorskip("ray")
    with one_cluster, cluster(SETTINGS):
        yield


class Does:
    """A worker that notes each call in a file of the shard's name, and does what the shard says."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, what: list[str]) -> None:
        notes = self.folder / name
        calls = len(notes.read_text().split()) if notes.is_file() else 0
        with notes.open("a") as file:
            file.write(f"{os.getpid()} ")
        todo = what[min(calls, len(what) - 1)]
        if todo == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if todo == "raises":
            raise RuntimeError("a poisoned\nrow")
        if todo == "says":
            raise PcclipError("mend this")
        (self.folder / f"{name}.done").touch()


@pytest.fixture(scope="module")
def poisoned(nodes, tmp_path_factory):
    """Of a run in which all that can happen to a shard happens: the message, the folder, how often each was begun."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker has this file
    folder = tmp_path_factory.mktemp("shards")
    shards = {f"well-{k}": ["ends"] for k in range(6)} | {
        "killed-once": ["killed", "ends"],
        "raises-once": ["raises", "ends"],
        "killed-always": ["killed"],
        "raises-always": ["raises"],
        "says": ["says"],
    }
    try:
        with pytest.raises(PcclipError) as error:
            over_shards(list(shards), shards.__getitem__, partial(Does, folder), SETTINGS, "shards")
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    begun = {path.name: len(path.read_text().split()) for path in folder.iterdir() if not path.suffix}
    return str(error.value), folder, begun


def test_only_the_shard_is_done_again_and_all_others_are_kept(poisoned):
    _, folder, begun = poisoned
    assert {name for name in begun if (folder / f"{name}.done").is_file()} == {
        *(f"well-{k}" for k in range(6)),
        "killed-once",
        "raises-once",
    }
    assert all(begun[f"well-{k}"] == 1 for k in range(6))
    assert (begun["killed-once"], begun["raises-once"]) == (2, 2)


def test_a_shard_that_fails_for_good_is_named_in_one_line(poisoned):
    message, _, begun = poisoned
    assert (begun["killed-always"], begun["raises-always"], begun["says"]) == (2, 2, 1)
    assert "shards: 3 of 11 shards failed for good" in message
    assert "\n" not in message


@pytest.fixture
def rays(values, tmp_path):
    """Parameters of the tiny run with engine: ray, in small shards, and a photo that cannot be read."""
    import shutil

    shutil.copytree(values["data"]["path"], tmp_path / "photos")
    (tmp_path / "photos" / "bar-red.png").write_bytes(b"no picture")
    values["data"] |= {"path": str(tmp_path / "photos")}
    values["generate"] |= {"shard": 16}
    return {**values, "run": "rays", "engine": "ray", "ray": SETTINGS.model_dump()}


def both(given: dict, model, backend=None) -> dict[str, bytes]:
    """Contents of the tables of 01 and 02."""
    config = params.check(given)
    images = load_images(config)
    generate.generate(config, images, model, backend)
    embed(config, images, model)
    return {name: (config.folder / name).read_bytes() for name in TABLES}


def test_the_same_tables_as_the_local_engines(nodes, rays, values, tiny_encoder, encoded, capsys, tmp_path):
    found = both({**rays, "storage": f"file://{tmp_path}/store"}, tiny_encoder)
    assert encoded.total == 0, "the workers encode"
    told = capsys.readouterr().out
    assert "comparisons: 2 shards by" in told
    assert "images: 5 shards by" in told
    assert found == both(values, tiny_encoder)
    assert found == {name: (tmp_path / "store" / "rays" / name).read_bytes() for name in TABLES}


@pytest.mark.cluster
def test_what_the_local_engine_has_done_is_done(nodes, rays, values, tiny_encoder, encoded, capsys):
    config, killed, encoded.limit = params.check({**rays, "engine": "local"}), Fake(stop=20), 12
    images = load_images(config)
    with pytest.raises(Crash):
        generate.generate(config, images, tiny_encoder, killed)
    with pytest.raises(Crash):
        embed(config, images, tiny_encoder)
    assert len(list(stage(config).shards.glob("vectors-*"))) == 2
    capsys.readouterr()
    found = both(rays, tiny_encoder)
    assert "images: 3 shards by" in capsys.readouterr().out
    encoded.limit = float("inf")
    journal = config.folder / "01_generate"
    lines = [line for path in journal.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 60, "nothing is asked twice"
    assert found == both(values, tiny_encoder)


DIES = """
import sys; sys.path.insert(0, 'tests')
import yaml
from helpers.killed import die_at_call
from pcclip import config as params, load_model
from pcclip.runs import ray_cluster as engine
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
config = params.read(sys.argv[1])
die_at_call(engine.Meter, 'add', 3)
import ray
images, model = load_images(config), load_model(config.model)
with engine.cluster(config.ray):
    print(ray._private.worker._global_node.get_session_dir_path(), flush=True)
    embed(config, images, model)
"""


@pytest.mark.cluster
def test_a_killed_driver_leaves_its_shards_and_no_process(rays, values, tiny_encoder, encoded, tmp_path, one_cluster):
    pytest.importorskip("ray")
    path, config = tmp_path / "rays.yaml", params.check(rays)
    path.write_text(yaml.safe_dump(rays | {"ray": {"workers": 1}}))
    with one_cluster:
        died = subprocess.run([sys.executable, "-c", DIES, path], cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = [read_parquet(path).num_rows for path in stage(config).shards.glob("vectors-*")]
    assert 3 <= len(done) <= 5
    [session] = [Path(line).name for line in died.stdout.splitlines() if "/session_" in line]
    until = time.monotonic() + 30
    while left := [p.pid for p in psutil.process_iter(["cmdline"]) if session in " ".join(p.info["cmdline"] or [])]:
        assert time.monotonic() < until, left
        time.sleep(0.2)
    found = both({**rays, "engine": "local"}, tiny_encoder)
    assert encoded.total == 23 - sum(done)
    assert found == both(values, tiny_encoder)
