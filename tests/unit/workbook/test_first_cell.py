"""The first cell of a notebook: by hand, changed, and with papermill -f, where it means what `pcclip run` means."""

import pytest
import yaml
from helpers.runs import ROOT

from pcclip import config as params
from pcclip.errors import PcclipError
from pcclip.workbook.first_cell import from_notebook

DEMO = "params/demo.yaml"
FILES = [path for path in sorted((ROOT / "params").glob("*.yaml")) if "sweep:" not in path.read_text()]


def cell(**changes) -> params.Config:
    """The run of a notebook whose reader changed some values; `__` stands for a dot."""
    return from_notebook({"parameters": DEMO, "changes": {key.replace("__", "."): v for key, v in changes.items()}})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("left_out", [None, "data", "generate", "finetune", "evaluate", "arithmetic", "rank", "model"])
def test_papermill_with_a_file_is_pcclip_run_with_it(tmp_path, monkeypatch, path, left_out):
    """Whatever the file leaves out: nothing comes from the notebook's own cell."""
    monkeypatch.setattr("pcclip.workbook.first_cell.check_name", lambda spec: None)
    values = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != left_out}
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump(values))
    notebook = {
        "parameters": DEMO,
        "changes": {"rank.more": "x"},
        "__name__": "__main__",
        "In": ["x"],
        "_": 3,
        **values,
    }
    assert from_notebook(notebook) == params.read(file)
    assert from_notebook({"parameters": str(file), "changes": {}}) == params.read(file)


@pytest.mark.parametrize(
    ("changes", "run", "reuse"),
    [
        ({}, "demo", None),
        ({"seed": 0}, "demo", None),
        ({"rank__more": "a fast animal", "evaluate__pairs": 20}, "demo", None),
        ({"seed": 1}, "demo/seed=1", None),
        ({"finetune__lr": 1e-4}, "demo/lr=0.0001", "demo"),
        ({"seed": 1, "finetune__lr": 1e-4}, "demo/seed=1/lr=0.0001", "demo/seed=1"),
        ({"seed": 1, "run": "mine"}, "mine", None),
    ],
)
def test_changed_results_have_a_folder_of_their_own(changes, run, reuse):
    config = cell(**changes)
    assert (config.run, config.reuse) == (run, reuse)
    demo, expected = params.read(ROOT / DEMO), {key: value for key, value in changes.items() if "__" not in key}
    for key, value in changes.items():
        block, _, name = key.partition("__")
        if name:
            expected[block] = getattr(demo, block).model_copy(update={name: value})
    assert config == demo.model_copy(update={**expected, "run": run, "reuse": reuse})


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        ({"parameters": DEMO, "changes": {"finetune.epoch": 1}}, "changes: finetune.epoch: .* did you mean epochs"),
        ({"parameters": DEMO, "changes": {"seed.x": 1}}, "changes: seed.x: seed has no keys below it"),
        ({"parameters": DEMO, "changes": {"model": "ViT-Z-1"}}, "unknown model 'ViT-Z-1'"),
        ({"parameters": "params/nowhere.yaml", "changes": {}}, "params/nowhere.yaml: cannot read the file"),
        ({"parameters": "params/study.yaml", "changes": {}}, "params/study.yaml: sweep: a notebook is one run"),
        ({"run": "x", "sweep": {}}, "sweep: a notebook is one run"),
        ({"run": "x", "sed": 3}, "sed: unknown key; did you mean seed"),
    ],
)
def test_a_mistake_stops_the_first_cell(notebook, message):
    with pytest.raises(PcclipError, match=message):
        from_notebook(notebook)
