"""The built package, installed in an empty environment: what the command line needs is in the wheel, and in the sdist."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import yaml
from helpers.runs import ROOT, run_values

pytest.importorskip("setuptools")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{0}(sys.argv[1])"


def python(*arguments, cwd, program=sys.executable):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PCCLIP", "COV"))}
    done = subprocess.run([str(program), *map(str, arguments)], cwd=cwd, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of an environment with the wheel that was built out of the sdist, beside this environment's libraries."""
    work = tmp_path_factory.mktemp("wheel")
    names = ["pcclip", "notebooks", "params", "pyproject.toml", "README.md", "LICENSE"]
    (work / "source").mkdir()
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, work / "source" / name)
    python("-c", BUILD.format("sdist"), work, cwd=work / "source")
    (sdist,) = work.glob("pcclip-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    python("-c", BUILD.format("wheel"), work, cwd=unpacked)
    (wheel,) = work.glob("pcclip-*.whl")
    python("-m", "venv", "--without-pip", work / "env", cwd=work)
    program = work / "env" / "bin" / "python"
    python("-m", "pip", "--python", program, "install", "-q", "--no-deps", "--no-index", wheel, cwd=work)
    (site,) = (work / "env" / "lib").glob("python*/site-packages")
    libraries = [sysconfig.get_path("purelib"), *filter(None, os.environ.get("PCCLIP_TEST_LIBRARIES", "").split(":"))]
    (site / "libraries.pth").write_text(
        "\n".join(libraries)
    )  # nothing is downloaded; their own .pth files are not read
    return program


def test_it_is_the_wheel_that_is_imported(installed, tmp_path):
    place = python("-c", "import pcclip; print(pcclip.__file__)", cwd=tmp_path, program=installed)
    assert Path(place.strip()).is_relative_to(installed.parent.parent)


def test_photos_are_ranked_outside_a_checkout(installed, photos, tiny_model, tmp_path):
    arguments = [
        "rank",
        photos,
        "--more",
        "a big shape",
        "--model",
        tiny_model,
        "--top",
        "3",
        "--sheet",
        tmp_path / "a.png",
    ]
    assert len(python("-m", "pcclip.cli", *arguments, cwd=tmp_path, program=installed).splitlines()) == 3
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("workbook", [True, False])
def test_a_tiny_run_outside_a_checkout(installed, photos, tiny_model, tmp_path, workbook):
    """In a folder that `pcclip new` made, by its own notebooks; and in an empty one, by those in the wheel."""
    home = tmp_path / "work"
    if workbook:
        python("-m", "pcclip.cli", "new", home, cwd=tmp_path, program=installed)
        assert len(list((home / "notebooks").glob("*.ipynb"))) == len(list((ROOT / "notebooks").glob("*.ipynb")))
        assert (home / "params" / "demo.yaml").read_bytes() == (ROOT / "params" / "demo.yaml").read_bytes()
    else:
        home.mkdir()
    values = run_values(photos, tiny_model, tmp_path) | {"outputs": "outputs"}
    values["finetune"] |= {"epochs": 1, "keep_epochs": []}
    (home / "tiny.yaml").write_text(yaml.safe_dump(values))
    command = ["run", "tiny.yaml"] if workbook else ["run", "tiny.yaml", "--check"]
    python("-m", "pcclip.cli", *command, cwd=home, program=installed)
    if workbook:
        assert (home / "outputs" / "tiny" / "report.html").is_file()
        to = tmp_path / "exported"
        python("-m", "pcclip.cli", "export", "outputs/tiny", "--to", to, cwd=home, program=installed)
        assert (to / "open_clip_config.json").is_file()
