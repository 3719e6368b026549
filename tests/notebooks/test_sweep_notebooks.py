"""Sweeps run through the notebooks: what runs, what is reused, and notebook 07 on what comes out."""

import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from helpers.llm_server import serving
from helpers.runs import ROOT

from pcclip.errors import PcclipError
from pcclip.runs.stage import read_manifest
from pcclip.workbook import notebooks as workbook

FIRST, LAST = ["01_generate_comparisons", "02_embed_images"], ["03_finetune", "04_evaluate"]


def test_01_and_02_run_once_03_and_04_for_each(tiny_sweep):
    assert tiny_sweep.ran == [("tiny", name) for name in FIRST] + [
        (f"tiny/{variant}", name) for variant in ("slow", "no_twins") for name in LAST
    ]
    assert not list(tiny_sweep.folder.rglob("05_*"))
    assert not list(tiny_sweep.folder.rglob("report.html"))
    assert not list(tiny_sweep.folder.glob("*/0[12]_*/manifest.json"))
    table = pd.read_csv(tiny_sweep.folder / "sweep.csv")
    assert list(dict.fromkeys(table.variant)) == ["slow", "no twins"]
    for variant, part in table.groupby("variant"):
        own = pd.read_csv(tiny_sweep.folder / variant.replace(" ", "_") / "metrics.csv")
        pd.testing.assert_frame_equal(part[own.columns].reset_index(drop=True), own)
    finetuned = table[table.model == "finetuned"].groupby("variant").value.apply(list)
    assert finetuned["slow"] != finetuned["no twins"]


def test_run_again_it_does_nothing_and_says_so(tiny_sweep, ran, capsys):
    before = (tiny_sweep.folder / "sweep.csv").read_text()
    (tiny_sweep.folder / "sweep.csv").unlink()
    workbook.run(tiny_sweep.path)
    assert ran == []
    assert f"{tiny_sweep.folder}: nothing new to do, all finished" in capsys.readouterr().out
    assert (tiny_sweep.folder / "sweep.csv").read_text() == before


def test_another_filter_asks_nothing_again(values, tmp_path, ran):
    with serving() as server:
        values["generate"] |= {"backend": "openai", "llm": "tiny", "base_url": server.url}
        values["sweep"] = {"variants": {"ours": {}, "unfiltered": {"generate.filters": "none"}}}
        path = tmp_path / "swept.yaml"
        path.write_text(yaml.safe_dump(values))
        workbook.run(path)
    assert [name for run, name in ran if run == "tiny/unfiltered"] == FIRST + LAST
    assert set(server.asked.values()) == {1}
    assert len(server.asked) == 60
    (journal,) = (tmp_path / "outputs").rglob("answers-*.jsonl")
    assert journal.parent == tmp_path / "outputs" / "tiny" / "01_generate"


def reusing(tiny_sweep, tmp_path, run: str):
    path = tmp_path / "third.yaml"
    path.write_text(yaml.safe_dump(tiny_sweep.values | {"run": "third", "reuse": run}))
    return path


def test_a_run_that_reuses_another_runs_the_last_three(tiny_sweep, tmp_path, ran):
    folder = workbook.run(reusing(tiny_sweep, tmp_path, "tiny"))
    assert ran == [("third", name) for name in [*LAST, "05_analyze_embedding_arithmetic"]]
    assert not list(folder.glob("0[12]_*"))
    assert read_manifest(folder / "03_finetune")["inputs"].keys() >= {"01_generate", "02_embed"}


@pytest.mark.parametrize("run", ["nowhere", "tiny/slow"])
def test_what_is_reused_must_be_finished(tiny_sweep, tmp_path, ran, run):
    path = reusing(tiny_sweep, tmp_path, run)
    before = set(tiny_sweep.folder.parent.rglob("*"))
    with pytest.raises(PcclipError, match=rf"{run}/01_generate: this stage has not finished") as error:
        workbook.run(path)
    assert "\n" not in str(error.value)
    assert ran == []
    assert set(tiny_sweep.folder.parent.rglob("*")) == before


def test_the_notebook_compares_a_sweep(tiny_sweep, tmp_path):
    papermill.execute_notebook(
        ROOT / "notebooks" / "07_compare_runs.ipynb",
        tmp_path / "07.ipynb",
        progress_bar=False,
        cwd=ROOT,
        parameters={"run": "tiny", "outputs": str(tiny_sweep.folder.parent), "variant_of_reference": "slow"},
    )
    cells = [cell for cell in nbformat.read(tmp_path / "07.ipynb", 4).cells if cell.cell_type == "code"]
    shown = [" ".join(out.data) for cell in cells for out in cell.outputs if "data" in out]
    assert sum("text/html" in kinds for kinds in shown) == 4
    assert sum("image/png" in kinds for kinds in shown) == 1
    html = "".join(out.data["text/html"] for out in cells[-1].outputs)
    assert "no twins" in html
    assert "size, text minus twin" in html
