"""The cells of the notebooks that only some runs have, and an error's single line."""

import ast
import builtins
from operator import attrgetter

import nbformat
import pandas as pd
import pytest
import torch
from helpers import diffusion
from helpers.runs import ROOT, run_values
from IPython.core.interactiveshell import InteractiveShell

from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.workbook.notebooks import sections

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEMO = ROOT / "params" / "demo.yaml"


def needs(cell) -> list[str]:
    return [tag.removeprefix("needs:") for tag in cell.metadata.get("tags", []) if tag.startswith("needs:")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_need_is_a_parameter(path):
    config = params.read(DEMO)
    for cell in nbformat.read(path, 4).cells:
        for need in needs(cell):
            attrgetter(need.partition("=")[0])(config)


def undefined(sources: list[str]) -> set[str]:
    """Names that are read and that no cell up to then has bound."""
    bound, missing = {*dir(builtins)}, set()
    for source in sources:
        nodes = list(ast.walk(ast.parse(source)))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        bound |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        bound |= {
            (a.asname or a.name).split(".")[0]
            for n in nodes
            if isinstance(n, ast.Import | ast.ImportFrom)
            for a in n.names
        }
        bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        missing |= {name.id for name in names} - bound
    return missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_section_needs_another(path):
    """Whichever single section a run has, or none, its cells bind all names that they read."""
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    for need in ["", *{need for cell in code for need in needs(cell)}]:
        kept = [cell.source for cell in code if not needs(cell) or need in needs(cell)]
        assert undefined(kept) == set(), need


def test_a_run_has_the_sections_that_it_asks_for():
    evaluate, demo = ROOT / "notebooks" / "04_evaluate.ipynb", params.read(DEMO)
    teacher = params.Matcher(spec="shapes-diffusion:0")
    taught = demo.model_copy(update={"evaluate": demo.evaluate.model_copy(update={"teacher": teacher})})
    shapes = demo.model_copy(update={"data": params.Data(source="shapes", split="official")})
    kept = {
        name: {need for cell in sections(evaluate, config).cells for need in needs(cell)}
        for name, config in {"demo": demo, "taught": taught, "shapes": shapes}.items()
    }
    assert "evaluate.attributes" in kept["demo"]
    assert not {"evaluate.teacher", "evaluate.labelled", "data.source=shapes"} & kept["demo"]
    assert kept["taught"] - kept["demo"] == {"evaluate.teacher"}
    assert kept["shapes"] - kept["demo"] == {"evaluate.compositional", "data.source=shapes"}, "any of several is enough"
    assert len(sections(evaluate, demo).cells) < len(nbformat.read(evaluate, 4).cells)


def test_a_sweeps_members_leave_out_the_playground():
    finetune, demo = ROOT / "notebooks" / "03_finetune.ipynb", params.read(DEMO)
    alone, member = (sections(finetune, demo.model_copy(update={"run": run})).cells for run in ("demo", "demo/seed=1"))
    dropped = [cell.source for cell in alone if cell not in member]
    assert len(member) == len(alone) - 4
    assert "def mine(" in "".join(dropped)
    assert undefined([cell.source for cell in member if cell.cell_type == "code"]) == set()


def test_a_heading_names_the_keys_that_bring_its_section():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    headings = [cell for cell in cells if needs(cell) and cell.source.startswith("#")]
    assert len(headings) > 10
    for cell in headings:
        assert "*Only in a run that" in cell.source
        assert not [need for need in needs(cell) if f"`{need.replace('=', ': ')}`" not in cell.source]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_score_distillation_by_hand_runs_with_a_teacher(prediction, photos, tiny_model, tiny_encoder, tmp_path, capsys):
    """The cells of 03 that only a run with `finetune.sds` has; they assert the package's own number."""
    teacher = diffusion.saved(tmp_path / "teacher", prediction=prediction, vae=prediction == "epsilon")
    values = run_values(photos, tiny_model, tmp_path)
    values["finetune"] |= {"objective": "clip", "swap": False, "sds": {"teacher": str(teacher)}}
    config = params.check(values)
    images = load_images(config)
    names = {"config": config, "images": images, "encoder": tiny_encoder, "torch": torch, "pd": pd}
    names["vectors"], _ = embed(config, images, tiny_encoder)
    cells = nbformat.read(ROOT / "notebooks" / "03_finetune.ipynb", 4).cells
    for cell in cells:
        if cell.cell_type == "code" and "finetune.sds" in needs(cell):
            exec(cell.source, names)
    assert "with another's" in capsys.readouterr().out
    assert names["own"].shape == names["wrong"].shape == (min(8, len(images.train)),)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_says_what_a_run_lacks(path):
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert not [source for source in code if "in this run" in source]


def test_an_error_is_one_line_in_a_notebook(capsys):
    shell = InteractiveShell()
    shell.run_cell("from pcclip.errors import PcclipError\ndef f():\n    raise PcclipError('set x')\nf()")
    assert capsys.readouterr().out.splitlines() == ["PcclipError: set x"]
