"""The command line's own work: what it writes for `rank`, and what it prints when it is interrupted."""

import re
import subprocess
import sys

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


INTERRUPTED = """
import sys
from pcclip import cli
class Late:
    def __del__(self):
        raise RuntimeError("a finaliser of another package")
def interrupted(*arguments, **options):
    raise KeyboardInterrupt
late = Late()
import pcclip.ranking.rank
pcclip.ranking.rank.rank = interrupted
sys.exit(cli.main(["rank", "photos", "--more", "x"]))
"""


def test_an_interrupted_command_prints_one_line():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "pcclip: interrupted; run the same command again to continue\n"


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


RANKED_ALONE = """
import sys
class Absent:
    def find_spec(self, name, *others):
        if name.split(".")[0] in {"papermill", "seaborn", "matplotlib", "nbclient", "ipywidgets", "anywidget", "xllamacpp"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.exit(__import__("pcclip.cli").cli.main(sys.argv[1:]))
"""


def test_ranking_needs_no_language_model_and_no_notebooks(photos, tiny_model, tmp_path):
    words = [
        "rank",
        str(photos),
        "--more",
        "big",
        "--model",
        tiny_model,
        "--sheet",
        str(tmp_path / "sheet.png"),
        "--top",
        "2",
    ]
    done = subprocess.run([sys.executable, "-c", RANKED_ALONE, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert (tmp_path / "sheet.png").is_file()
