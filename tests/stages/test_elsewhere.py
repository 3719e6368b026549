"""What runs on machines of others: params/hf_job.py and docs/colab.ipynb, by a dry run."""

import json
import re
import runpy
import sys
import tomllib

import pytest
import yaml
from helpers.runs import ROOT, run_values

JOB = ROOT / "params" / "hf_job.py"


@pytest.fixture
def job(monkeypatch):
    """job(*words) runs the script in this process, without a token."""
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", [str(JOB), *map(str, words)])
        runpy.run_path(str(JOB), run_name="__main__")

    return run


def test_its_metadata_is_a_scripts():
    """PEP 723's own pattern."""
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (match,) = re.finditer(pattern, JOB.read_text())
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:] for line in match["content"].splitlines(keepends=True)
    )
    assert match["type"] == "script"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert tomllib.loads(content)["requires-python"] == project["requires-python"]


def test_a_dry_run(job, photos, tiny_model, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(run_values(photos, tiny_model, tmp_path)))
    job(file, "--to", "someone/tiny", "--dry-run")
    assert capsys.readouterr().out.splitlines()[-1].startswith("someone/tiny: would get the model of")
    file.write_text("model: nothing\n")
    with pytest.raises(SystemExit, match="^hf_job: "):
        job(file, "--to", "someone/tiny", "--dry-run")


def test_without_a_token_nothing_runs(job, tmp_path):
    message = r"^hf_job: set \$HF_TOKEN, a token that may write to the repository; nothing was run$"
    with pytest.raises(SystemExit, match=message):
        job(tmp_path / "mine.yaml", "--to", "someone/tiny")


def test_the_colab_notebook(photos, tiny_encoder, tiny_model, tmp_path, monkeypatch):
    """Ten cells; all but those of Colab itself run, with a tiny model in place of a real CLIP."""
    cells = json.loads((ROOT / "docs" / "colab.ipynb").read_text())["cells"]
    assert len(cells) == 10
    assert not any(line.startswith("for ") for cell in cells for line in cell["source"])
    monkeypatch.chdir(tmp_path)
    names = {"photos": photos}
    for cell in cells:
        if cell["cell_type"] == "code" and "colab" not in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            exec(re.sub(r'"ViT-B-32:\w+"', repr(tiny_model), source), names)
    assert (tmp_path / "ranked.png").is_file()
    assert len(names["table"]) == 24


@pytest.mark.parametrize("name", ["CITATION.cff", ".github/workflows/ci.yml"])
def test_it_is_yaml(name):
    values = yaml.safe_load((ROOT / name).read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if name == "CITATION.cff":
        assert (values["version"], values["license"]) == (project["version"], project["license"])
    else:
        steps = [step.get("run") for step in values["jobs"]["whole"]["steps"]]
        assert "bash .ci/run" in steps
        pythons = values["jobs"]["unit"]["strategy"]["matrix"]["python"]
        assert pythons == [line.split(":: ")[-1] for line in project["classifiers"] if ":: 3." in line]
