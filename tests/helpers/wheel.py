"""Not a test: the built package in an environment of its own, and commands of its Python."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from helpers.runs import ROOT

BUILD = "import sys; from setuptools import build_meta; build_meta.build_{0}(sys.argv[1])"


def python(*arguments, cwd, program=sys.executable):
    """What a Python prints that knows nothing of this checkout. A failure fails the test."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PCCLIP", "COV"))}
    done = subprocess.run([str(program), *map(str, arguments)], cwd=cwd, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def installed(work: Path) -> Path:
    """The Python of an environment with the wheel that was built out of the sdist, beside this environment's libraries."""
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
