"""The paper's own base model beside figures that others published, where params/parity_clip.yaml has been run."""

import pandas as pd
import pytest
from helpers.runs import ROOT

from pcclip.evaluation import published

TABLE = ROOT / "outputs" / "parity_clip" / "04_evaluate" / published.TABLE
pytestmark = pytest.mark.skipif(not TABLE.is_file(), reason="params/parity_clip.yaml has not been run in this checkout")


def test_the_base_agrees_with_published_figures():
    table = pd.read_csv(TABLE)
    measured = table[table.ours.notna()]
    assert len(measured), "no set of params/parity_clip.yaml was at hand"
    comparable = measured[measured.note.isna()]  # the note says where the protocols differ
    assert comparable.agrees.all(), comparable[~comparable.agrees].to_string()
