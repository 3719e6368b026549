"""The first cell of a notebook: by hand, changed, and with papermill -f, where it means what `pcclip run` means."""

from types import SimpleNamespace

import psutil
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


def put_in(**values) -> dict:
    """A notebook's variables after papermill's cell; those before it are the notebook's own."""
    cell = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return {"parameters": DEMO, "changes": {"rank.more": "x"}, "In": ["", "x", cell, "y"], "_": 3, "x": 1, **values}


LEFT_OUT = ["data", "generate", "finetune", "evaluate", "arithmetic", "rank", "model"]


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        *((path, None) for path in FILES),
        *((path, LEFT_OUT[k % len(LEFT_OUT)]) for k, path in enumerate(FILES)),
        *((FILES[0], name) for name in LEFT_OUT[1:]),
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_papermill_with_a_file_is_pcclip_run_with_it(tmp_path, monkeypatch, path, left_out):
    """Whatever the file leaves out: nothing comes from the notebook's own cell."""
    monkeypatch.setattr("pcclip.workbook.first_cell.check_name", lambda spec: None)
    without = {left_out, "finetune"} if left_out == "generate" else {left_out}  # 03 may need what 01 was to write
    values = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in without}
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump(values))
    notebook = put_in(**values)
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
        ({"parameters": DEMO, "changes": 3}, "changes = 3: give keys and values"),
        (put_in(run="x", sweep={}), "sweep: a notebook is one run"),
        (put_in(run="x", sed=3), "sed: unknown key; did you mean seed"),
        (put_in(sed=3), "sed: unknown key; did you mean seed"),
        (put_in(finetune=3), "finetune = 3: Input should be a valid dictionary"),
        (put_in(seed="abc"), "seed = 'abc': Input should be a valid integer"),
        (put_in(parameters=DEMO, seed=3), "papermill: seed beside parameters or changes; put it into changes"),
        (put_in(changes={}, sed=3, run="x"), "papermill: run, sed beside parameters or changes"),
    ],
)
def test_a_mistake_stops_the_first_cell(notebook, message):
    with pytest.raises(PcclipError, match=message):
        from_notebook(notebook)


@pytest.mark.parametrize(
    "flags", [["-f", "p.yaml"], ["--parameters_file=p.yaml", "-p", "seed", "1"], ["-y", "x", "-fp.yaml"]]
)
def test_papermill_with_a_doubled_key_stops(monkeypatch, tmp_path, flags):
    """papermill itself keeps the last of the two; the first cell reads the file that the command names."""
    (tmp_path / "p.yaml").write_text("run: x\nmodel: shapes-clip\nfinetune:\n  lr: 0.1\n  lr: 0.2\n")
    command = ["python", "/usr/bin/papermill", "in.ipynb", "out.ipynb", *flags]
    parent = SimpleNamespace(cwd=lambda: str(tmp_path), cmdline=lambda: command)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parents=lambda: [parent]))
    with pytest.raises(PcclipError, match=r"p.yaml: .*the key 'lr' is in line 4 and again in line 5"):
        from_notebook(put_in(run="x", model="shapes-clip", finetune={"lr": 0.2}))


def test_variables_of_a_notebooks_other_cells_are_no_parameters():
    """Nor in a notebook of papermill's that is run again by hand."""
    assert from_notebook({"parameters": DEMO, "changes": {}, "seed": 7, "In": ["", "seed = 7"]}).seed == 0
    assert (
        from_notebook(put_in(run="x", model="shapes-clip") | {"seed": 7}).seed
        == params.Config.model_fields["seed"].default
    )
    assert from_notebook(put_in(parameters=DEMO, changes={"seed": 1}) | {"run": "y"}).run == "demo/seed=1"
