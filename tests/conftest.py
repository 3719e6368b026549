"""Fixtures: a tiny generated photo set, a tiny open_clip model with random weights, and a run's parameters."""

import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from filelock import FileLock
from helpers.crash import Crash
from helpers.runs import BIRDS, COLOURS, SHAPES, draw, run_values
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads only get in each other's way


@pytest.fixture(scope="session", autouse=True)
def _no_disk_is_waited_for():
    """The power stays on; helpers/power_cut.py notes the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of 24 pictures with captions.csv: path, caption, label, size."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["path,caption,label,size"]
    for k, shape in enumerate(SHAPES):
        for colour in COLOURS:
            name = f"{shape}-{colour}.png"
            draw(shape, colour, folder / name)
            rows.append(f"{name},A {colour} {shape}.,{'round' if k % 2 == 0 else 'angular'},{k + 1}.5")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """The spec of a tiny ViT in open_clip's own format: a config and safetensors in a local directory."""
    from pcclip.torchvision_shim import declare_missing

    declare_missing()
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny_clip")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    torch.manual_seed(0)
    model = open_clip.CLIP(**{**config, "vision_cfg": config["vision_cfg"], "text_cfg": config["text_cfg"]})
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture
def values(photos, tiny_model, tmp_path) -> dict:
    """Parameters of a run that takes seconds."""
    return run_values(photos, tiny_model, tmp_path)


@pytest.fixture
def config(values):
    from pcclip import config as params

    return params.check(values)


@pytest.fixture(scope="session")
def tiny_sweep(photos, tiny_model, tmp_path_factory) -> SimpleNamespace:
    """A sweep of two late variants, run: its file, the values without the sweep, its folder, which notebooks ran where.

    The attribute has the name that a study shows.
    """
    from helpers.in_process import execute

    from pcclip import config as params
    from pcclip.workbook import notebooks as workbook

    work, ran = tmp_path_factory.mktemp("sweep"), []
    given = run_values(photos, tiny_model, work)
    given["evaluate"]["attributes"] = {"body_mass": {**given["evaluate"]["attributes"]["size"], "column": "size"}}
    sweep = {"variants": {"slow": {"finetune.lr": 1e-4}, "no twins": {"finetune.swap": False}}}
    path = work / "swept.yaml"
    path.write_text(yaml.safe_dump(given | {"sweep": sweep}, sort_keys=False))

    def noted(notebook, executed, parameters, config=None):
        execute(notebook, executed, parameters)
        ran.append((params.read(parameters["parameters"]).run, notebook.stem))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbook, "execute", noted)
        workbook.run(path)
    return SimpleNamespace(path=path, values=given, folder=work / "outputs" / "tiny", ran=ran)


@pytest.fixture
def params_file(values, tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model):
    from pcclip import load_model

    return load_model(tiny_model)


@pytest.fixture
def fresh_encoder(tiny_model):
    """A tiny model of its own, for tests that train it."""
    from pcclip import load_model

    return load_model(tiny_model)


@pytest.fixture
def encoded(monkeypatch) -> SimpleNamespace:
    """Counts the images that go through any encoder; set `limit` to interrupt after that many."""
    from pcclip.encoders.dual_encoder import Encoder

    counter, encode_pixels = SimpleNamespace(total=0, limit=float("inf")), Encoder.encode_pixels

    def counted(self, pixels):
        if counter.total >= counter.limit:
            raise Crash
        counter.total += len(pixels)
        return encode_pixels(self, pixels)

    monkeypatch.setattr(Encoder, "encode_pixels", counted)
    return counter


@pytest.fixture
def birds(tmp_path) -> Path:
    """CUB_200_2011 with five birds of three kinds, and no captions."""
    root, classes = tmp_path / "CUB_200_2011", sorted({folder for folder, _, _ in BIRDS})
    root.mkdir()
    for name, values in {
        "classes.txt": classes,
        "images.txt": [f"{folder}/{bird}.jpg" for folder, bird, _ in BIRDS],
        "image_class_labels.txt": [classes.index(folder) + 1 for folder, _, _ in BIRDS],
        "train_test_split.txt": [is_training for _, _, is_training in BIRDS],
    }.items():
        (root / name).write_text("".join(f"{k} {value}\n" for k, value in enumerate(values, 1)))
    for folder, bird, _ in BIRDS:
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / "images" / folder / f"{bird}.jpg")
    return root


@pytest.fixture(scope="session")
def one_cluster() -> FileLock:
    """Held while a test has a Ray cluster: two of them on two cores give each other up."""
    return FileLock(Path(tempfile.gettempdir(), "pcclip-tests-ray.lock"))


def pytest_collection_modifyitems(items):
    """The files that take longest first: one begun last would leave the other processes with nothing to do."""
    slow = (
        "test_workbook test_benchmarks test_ray_engine test_browser test_paper test_text_tower test_distributed "
        "test_sweep_notebooks test_check test_docs test_image_tower test_submit test_both_towers test_inputs test_runs "
        "test_rank test_compositional test_evaluate_labelled test_processes test_rank_notebook test_export"
    ).split()
    items.sort(key=lambda item: slow.index(item.path.stem) if item.path.stem in slow else len(slow))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def quick(monkeypatch):
    """No waiting between retries, and no key of the developer's."""
    monkeypatch.setattr("pcclip.comparisons.llm.openai_server._FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, str]]:
    """Notebooks are run in this process; (run, notebook) of those that were."""
    from helpers.in_process import execute

    from pcclip import config as params
    from pcclip.workbook import notebooks as workbook

    found = []

    def noted(notebook, executed, parameters, config=None):
        execute(notebook, executed, parameters)
        found.append((params.read(parameters["parameters"]).run, notebook.stem))

    monkeypatch.setattr(workbook, "execute", noted)
    return found
