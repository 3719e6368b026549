"""The whole workbook on the tiny set: every notebook under papermill, killed and resumed, run twice, run wrongly.

The run ends by the built package, installed in an empty environment: what the command line needs is in the wheel.
"""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from helpers import killed
from helpers.runs import ROOT
from helpers.wheel import installed, python
from nbclient.exceptions import DeadKernelError
from papermill.cli import papermill

from pcclip import config as params, run
from pcclip.errors import PcclipError
from pcclip.ranking.axes import ESTIMATORS
from pcclip.runs.stage import read_manifest
from pcclip.workbook import notebooks as workbook

RECALL = ("recall_at_1", "recall_at_5", "recall_at_10")
STAGES = ["01_generate", "02_embed", "03_finetune", "04_evaluate", "05_arithmetic"]


@pytest.fixture(scope="module")
def write(photos, tiny_model, tmp_path_factory):
    """Write a parameter file for a run of its own; returns (path, run folder)."""
    from helpers.runs import run_values

    def make(**changes):
        folder = tmp_path_factory.mktemp("work")
        values = run_values(photos, tiny_model, folder)
        for key, block in changes.items():
            values[key] = {**values[key], **block} if isinstance(block, dict) else block
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(values))
        return path, folder / "outputs" / "tiny"

    return make


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The Python of an environment that has the built package."""
    pytest.importorskip("setuptools")
    return installed(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def workplace(wheel, tmp_path_factory) -> Path:
    """A folder that the wheel's `pcclip new` made, outside any checkout."""
    home = tmp_path_factory.mktemp("outside") / "work"
    python("-m", "pcclip.cli", "new", home, cwd=home.parent, program=wheel)
    return home


@pytest.fixture(scope="module")
def survivor(write, wheel, workplace):
    """A run killed with -9 in the middle of 01, then of 02, then of 03, then finished by the wheel's notebooks."""
    path, folder = write()
    command = [sys.executable, ROOT / "tests" / "helpers" / "killed.py", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[-9, ")]
    for (_, names), unfinished in zip(deaths, STAGES[:3], strict=True):
        assert f"{unfinished}/manifest.json" not in names
        left = [name for name in names if re.match(rf"{unfinished}/(partial-.*/|answers-.*\.jsonl)", name)]
        assert left, f"{unfinished}: a killed stage leaves something to resume from"
    python("-m", "pcclip.cli", "run", path, cwd=workplace, program=wheel)
    return path, folder


def test_a_workbook_outside_a_checkout(survivor, wheel, workplace, photos, tiny_model, tmp_path):
    """`pcclip new` has all files; a run is exported; photos are ranked and a run is checked in a folder without any."""
    for folder, names in (("notebooks", "*.ipynb"), ("params", "demo.yaml")):
        for file in (ROOT / folder).glob(names):
            assert (workplace / folder / file.name).read_bytes() == file.read_bytes()
    assert (survivor[1] / "report.html").is_file()
    commands = [
        ["rank", str(photos), "--more", "a big shape", "--model", tiny_model, "--top", "3", "--sheet", "a.png"],
        ["run", str(survivor[0]), "--check"],
        ["export", str(survivor[1]), "--to", "exported"],
    ]
    code = f"import pcclip, pcclip.cli; print(pcclip.__file__); print([pcclip.cli.main(c) for c in {commands}])"
    place, *lines, statuses = python("-c", code, cwd=tmp_path, program=wheel).splitlines()
    assert Path(place).is_relative_to(wheel.parent.parent)
    assert statuses == "[0, 0, 0]"
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"]
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "exported" / "open_clip_config.json").is_file()


def test_a_killed_run_ends_like_one_that_was_not(survivor, write):
    _, folder = survivor
    other_path, other = write()
    killed.main(str(other_path), "none")
    for name in ("metrics.csv", "03_finetune/curves.csv", "04_evaluate/differences.csv"):
        assert (folder / name).read_text() == (other / name).read_text()
    for stage, table in (("01_generate", "comparisons.parquet"), ("02_embed", "vectors.parquet")):
        pd.testing.assert_frame_equal(*(pd.read_parquet(f / stage / table) for f in (folder, other)))
    weights = "03_finetune/text_tower.safetensors"
    assert (folder / weights).read_bytes() == (other / weights).read_bytes()


def test_every_notebook_ran_and_showed_something(survivor):
    _, folder = survivor
    for name in workbook.NOTEBOOKS:
        cells = nbformat.read(folder / f"{name}.ipynb", 4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
        assert sum(o.output_type in ("display_data", "execute_result") for cell in code for o in cell.outputs) >= 3


def test_one_notebook_runs_by_the_command_of_the_recipes(survivor, tmp_path, monkeypatch):
    """With this run's file in place of the demo's; also the cells that the run has no use for are executed."""
    [line] = re.findall(r"^.venv/bin/papermill (.*?)\s+#", (ROOT / "docs" / "recipes.md").read_text(), re.MULTILINE)
    line = line.replace("params/demo.yaml", str(survivor[0])).replace("out.ipynb", str(tmp_path / "out.ipynb"))
    monkeypatch.chdir(ROOT)
    papermill(line.split(), standalone_mode=False)
    cells = nbformat.read(tmp_path / "out.ipynb", 4).cells
    assert len(cells) > len(nbformat.read(survivor[1] / "03_finetune.ipynb", 4).cells)
    assert "03_finetune: done already" in str(cells)


def test_every_stage_has_a_manifest(survivor):
    _, folder = survivor
    for name in STAGES:
        manifest = read_manifest(folder / name)
        assert set(manifest) >= {"key", "inputs", "model", "seed", "versions", "counts", "outputs"}
        assert not list((folder / name).glob("partial-*"))


def test_metrics_are_one_tidy_table(survivor):
    _, folder = survivor
    table = pd.read_csv(folder / "metrics.csv")
    keys = ["task", "dataset", "protocol", "model", "metric"]
    assert list(table.columns) == [*keys, "value", "ci_low", "ci_high", "n", "detectable", "tied"]
    assert set(table.model) == {"base", "finetuned", "supervised"}
    assert set(table.task) == {
        "difference_classification",
        "difference_order",
        "difference_centred",
        "zero_shot",
        "ranking",
        "specificity",
        *RECALL,
    }
    assert {name for name in table.metric if not name.endswith("_share")} == {
        "accuracy",
        "spearman",
        "pairwise_accuracy",
    }
    assert table.protocol.isna().all(), "no labelled set"
    ranked = table[table.task == "ranking"]
    asked = {f"folder/size/{estimator}" for estimator in ESTIMATORS}
    assert set(ranked[ranked.model != "supervised"].dataset) == asked
    assert set(table[table.model == "supervised"].dataset) == {"folder/size/supervised"}
    assert table.value.between(table.ci_low - 1e-9, table.ci_high + 1e-9).all()
    predictions = pd.read_parquet(folder / "04_evaluate" / "predictions.parquet")
    accuracy = predictions[predictions.task == "zero_shot"].groupby("model").correct.mean()
    for model in ("base", "finetuned"):
        value = table[(table.task == "zero_shot") & (table.model == model)].value.item()
        assert value == pytest.approx(accuracy[model], abs=1e-6)


def test_a_second_run_does_nothing_and_says_so(survivor, capsys, monkeypatch):
    path, _ = survivor
    monkeypatch.setattr(workbook, "execute", lambda *a: pytest.fail("a finished notebook was run again"))
    run(path)
    out = capsys.readouterr().out
    assert out.count("finished already, skipped") == 5
    assert "nothing new to do" in out


def test_a_single_run_ends_with_a_report(survivor, ran):
    """Written when something ran or when it is not there, and left alone otherwise."""
    path, folder = survivor
    page = folder / "report.html"
    whole = page.read_bytes()
    assert whole.lower().startswith(b"<!doctype html>")
    page.write_text("left alone")
    run(path)
    assert page.read_text() == "left alone"
    page.unlink()
    run(path)
    assert page.read_bytes() == whole
    assert ran == []
    page.write_text("stale")
    (folder / ".05_analyze_embedding_arithmetic.done.json").unlink()
    run(path)
    assert ran == [("tiny", "05_analyze_embedding_arithmetic")]
    assert page.read_bytes() == whole


def evaluating(path: Path, **changes) -> Path:
    """A parameter file beside another for a run that evaluates its model."""
    values = yaml.safe_load(path.read_text())
    for key, value in {"run": "again", "tuned": "tiny", **changes}.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    other = path.with_name(f"{values['run']}.yaml")
    other.write_text(yaml.safe_dump(values))
    return other


def kept_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_another_runs_model_is_evaluated_in_a_folder_of_its_own(survivor, ran, capsys):
    path, folder = survivor
    before, other = kept_in(folder), folder.with_name("again")
    again = evaluating(path, evaluate={"alphas": [0.5]})
    assert run(again) == other
    assert ran == [("again", "04_evaluate")]
    assert kept_in(folder) == before, "nothing of the other run was touched"
    assert {found.name for found in other.iterdir() if not found.name.startswith(".")} == {
        "04_evaluate",
        "04_evaluate.ipynb",
        "metrics.csv",
        "parameters.yaml",
        "report.html",
    }
    own, theirs = (pd.read_csv(place / "metrics.csv") for place in (other, folder))
    assert set(own.model) == {"base", "finetuned", "supervised", "alpha=0.5"}
    same = own[own.model != "alpha=0.5"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same.drop(columns="tied"), theirs.drop(columns="tied"))  # ties depend on who is there
    assert "05_arithmetic has not finished" not in (other / "report.html").read_text()
    run(again)
    assert len(ran) == 1
    assert "nothing new to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuned": "nobody"}, "outputs/nobody/01_generate: this stage has not finished; run its notebook first"),
        ({"tuned": "half"}, "outputs/half/03_finetune: this stage has not finished; run its notebook first"),
        ({"seed": 3}, "outputs/tiny/01_generate: made with other images and seed than now asked for"),
    ],
)
def test_a_model_that_cannot_be_evaluated(survivor, monkeypatch, changes, message):
    path, folder = survivor
    half = shutil.copytree(folder, folder.with_name("half"), dirs_exist_ok=True)
    (half / "03_finetune" / "manifest.json").unlink()
    monkeypatch.setattr(workbook, "execute", lambda *a: pytest.fail("work was started"))
    with pytest.raises(PcclipError, match=message) as error:
        run(evaluating(path, run="refused", **changes))
    assert "\n" not in str(error.value)
    assert not folder.with_name("refused").exists()


def test_a_damaged_result_is_made_again(survivor, monkeypatch):
    path, folder = survivor
    table = folder / "05_arithmetic" / "items.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    asked = []
    monkeypatch.setattr(workbook, "execute", lambda notebook, *a: asked.append(notebook.stem))
    with pytest.raises(PcclipError, match="without finishing its stage"):
        run(path)
    table.write_bytes(whole)
    assert asked == ["05_analyze_embedding_arithmetic"]


def test_the_finetuned_run_is_a_model_and_a_photo_set(survivor):
    import pcclip

    _, folder = survivor
    table = pcclip.rank(folder, more="a red shape", less="a blue shape")
    assert len(table) == 24
    assert table.score.is_monotonic_decreasing
    base = pcclip.rank(folder, more="a red shape", less="a blue shape", model=str(folder), alpha=0.0)
    assert list(base.score) != list(table.score)


def test_two_runs_in_one_folder(write):
    path, folder = write()
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(PcclipError, match="another run is at work here"):
        run(path)


def test_no_stage_builds_on_another_split(survivor):
    """A changed seed holds other concepts out: what 03 trained on must not be evaluated as held out."""
    from pcclip.evaluation import stage as report

    path, _ = survivor
    other = params.read(path).model_copy(update={"seed": 3})
    with pytest.raises(PcclipError, match="made with other images and seed than now asked for"):
        report.stage(other)


def test_template_sentences_are_not_called_an_llms(survivor):
    """04's own cell does not know 01's backend; the table of sentences does."""
    _, folder = survivor
    assert not any("llm" in name for name in pd.read_csv(folder / "metrics.csv").dataset)


def test_photos_with_a_caption_and_nothing_else(write, photos, tmp_path, ran):
    """No labels, no attributes, no changes asked for: every notebook still has something to show."""
    bare = tmp_path / "bare"
    bare.mkdir()
    table = pd.read_csv(photos / "captions.csv")[["path", "caption"]]
    table["caption"] = table.caption.str.replace(".", " for 5$ or $6_^.")
    table.to_csv(bare / "captions.csv", index=False)
    for photo in photos.glob("*.png"):
        (bare / photo.name).write_bytes(photo.read_bytes())
    path, folder = write(data={"path": str(bare)}, evaluate={"attributes": {}})
    run(path)
    assert [notebook for _, notebook in ran] == list(workbook.NOTEBOOKS)
    assert set(pd.read_csv(folder / "metrics.csv").task) == {
        "difference_classification",
        "difference_order",
        "difference_centred",
        *RECALL,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arithmetic": {"changes": [{"start": "unicorn", "text": "x"}]}},
            "arithmetic.changes: folder has no 'unicorn'",
        ),
        (
            {
                "evaluate": {
                    "attributes": {"weight": dict.fromkeys(("more", "less", "comparison", "comparison_swapped"), "x")}
                }
            },
            "evaluate.attributes.weight: folder has no such attribute; it has: size",
        ),
        ({"model": "ViT-Z-1"}, "unknown model 'ViT-Z-1'"),
        ({"generate": {"backend": "llama_cpp", "gguf": "nowhere.gguf"}}, "generate.gguf = nowhere.gguf: no such file"),
        ({"generate": {"prompt": "poetry"}}, "prompt 'poetry': no such file"),
        ({"generate": {"filters": ["length", "beauty"]}}, "unknown rule 'beauty'"),
        ({"data": {"path": "/nowhere"}}, "/nowhere: no captions.csv"),
    ],
)
def test_what_is_named_must_exist_before_any_work(write, monkeypatch, changes, message):
    path, folder = write(**changes)
    monkeypatch.setattr(workbook, "execute", lambda *a: pytest.fail("work was started"))
    with pytest.raises(PcclipError, match=message.replace(".", r"\.")):
        run(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from pcclip.errors import PcclipError\nraise PcclipError('mend this')", "^broken: mend this$"),
        ("1 / 0", r"^broken: ZeroDivisionError: division by zero \(traceback in .*out.ipynb\)$"),
    ],
)
def test_an_error_in_a_notebook_is_one_line(tmp_path, source, message):
    cells = [nbformat.v4.new_code_cell("run = 0", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(source)]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(PcclipError, match=message):
        workbook.execute(tmp_path / "broken.ipynb", tmp_path / "out.ipynb", {})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DeadKernelError("Kernel died"), "its kernel died"),
        (RuntimeError("Kernel died before replying to kernel_info"), "its kernel did not start .Kernel died before"),
    ],
)
def test_a_dead_kernel_reads_as_a_failure(write, monkeypatch, error, message):
    path, folder = write()

    def die(*arguments, **options):
        raise error

    monkeypatch.setattr("papermill.execute_notebook", die)
    with pytest.raises(PcclipError, match=f"^01_generate_comparisons: {message}"):
        run(path)
    assert not list(folder.glob("*.ipynb"))


def test_a_kernel_is_heard_of_until_it_is_killed(tmp_path, monkeypatch, capsys):
    """A real one, which is silent for a while; an executed notebook would look like a success."""
    killed = "import os, time\nprint('half way', flush=True)\ntime.sleep(1.5)\nos.kill(os.getpid(), 9)"
    cells = [nbformat.v4.new_code_cell(killed), nbformat.v4.new_code_cell("print('never')")]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nbformat.write(notebook, tmp_path / "killed.ipynb")
    monkeypatch.setattr(workbook, "Heartbeat", partial(workbook.Heartbeat, seconds=0.1))
    with pytest.raises(PcclipError, match=r"^killed: its kernel died \(out of memory\?; it had up to 0\.\d GB\)"):
        workbook.execute(tmp_path / "killed.ipynb", tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"killed: at work for \d+ s, 0\.\d GB; it last said: half way", told[-1])
    assert "never" not in told


def test_jobs_of_one_notebook_do_not_work_at_once(write, monkeypatch):
    path, folder = write()
    monkeypatch.setattr(workbook, "execute", lambda *a: pytest.fail("work was started"))
    folder.mkdir(parents=True)
    config = params.read(path)
    with FileLock(folder / ".02_embed_images.lock"), pytest.raises(PcclipError, match="another run is at work here"):
        workbook.run_notebook(config, "02_embed_images")


def test_a_notebook_takes_down_what_was_shown_of_those_that_build_on_it(write, monkeypatch):
    """And of no other: 01 and 02 may run at the same time."""
    path, folder = write()
    folder.mkdir(parents=True)
    for name in workbook.NOTEBOOKS:
        (folder / f"{name}.ipynb").write_text("shown")
    monkeypatch.setattr(workbook, "execute", lambda *a: None)
    with pytest.raises(PcclipError, match="without finishing its stage"):
        workbook.run_notebook(params.read(path), "02_embed_images")
    assert [file.stem for file in folder.glob("*.ipynb")] == ["01_generate_comparisons"]


def test_a_process_that_starts_kernels_shows_no_bars():

    from pcclip.runs import progress

    assert not progress.interactive()
