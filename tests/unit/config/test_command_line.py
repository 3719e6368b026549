"""The command line's own work: what it writes for `rank`, its version, and a new workbook."""

import re

import pandas as pd
import pytest

from pcclip import cli


@pytest.fixture
def ranked(monkeypatch):
    """`pcclip.rank` gives two photos whose names look like formulas."""
    table = pd.DataFrame(
        {"position": [1, 2], "path": ["=1+2.jpg", "a.jpg"], "score": [0.5, -0.5], "problem": ["", "@x"]}
    )
    monkeypatch.setattr("pcclip.ranking.rank.rank", lambda *arguments, **options: table)


def test_a_spreadsheet_executes_no_cell(ranked, tmp_path):
    assert cli.main(["rank", "photos", "--csv", str(tmp_path / "t.csv")]) == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["position,path,score,problem", "1,'=1+2.jpg,0.5,", "2,a.jpg,-0.5,'@x"]


def test_no_folder_is_made_for_a_mistyped_file(ranked, tmp_path, capsys):
    file = tmp_path / "no" / "such" / "x.csv"
    assert cli.main(["rank", "photos", "--csv", str(file)]) == 1
    assert capsys.readouterr().err == f"pcclip: {file.parent}: no such folder; make it first\n"
    assert not list(tmp_path.iterdir())


def test_the_version_names_the_build(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert not stopped.value.code
    assert re.fullmatch(r"pcclip \d+\.\d+\.\d+( \([0-9a-f]{7,}(-dirty)?\))?\n", capsys.readouterr().out)


def test_a_new_workbook(tmp_path, capsys):
    assert cli.main(["new", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "params" / "demo.yaml").is_file()
    assert len(list((tmp_path / "mine" / "notebooks").glob("*.ipynb"))) == 7
    assert cli.main(["new", str(tmp_path / "mine")]) == 1
    assert "is there already" in capsys.readouterr().err
