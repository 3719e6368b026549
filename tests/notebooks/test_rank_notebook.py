"""Notebook 06 under papermill."""

import nbformat
from helpers.runs import ROOT

from pcclip import config as params
from pcclip.workbook import notebooks as workbook


def test_papermill_makes_a_static_sheet(values, photos, tmp_path):
    config = params.check({**values, "rank": {"photos": str(photos), "more": "something red"}})
    executed = tmp_path / "out.ipynb"
    workbook.execute(ROOT / "notebooks" / "06_rank_images.ipynb", executed, config.model_dump())
    notebook = nbformat.read(executed, 4)
    shown = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert shown.count("image/png") >= 2, "the sheet and the histogram"
    assert "application/vnd.jupyter.widget-view+json" not in shown
    assert "widgets" not in notebook.metadata
    assert executed.stat().st_size < 1_000_000
