"""Seconds until pcclip is ready: the command line, the import, a finished run looked at again, a notebook's kernel.

    python speed/startup.py [--params params/demo.yaml] [--notebooks 5] [--rounds 3] [--install] [--json]

`ratio` is how much sooner `pcclip --help` ends than a program that imports everything at once would. A run is looked at
again only where it has finished: in a copy of its folder, so that nothing of it changes. A notebook's overhead is its
kernel's start and its own import lines, without the models that it loads. `install` counts what ranking brings into an
environment that has torch; with --install pip installs just that into an empty folder, downloads included.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distribution, requires
from pathlib import Path
from statistics import median

import yaml
from measure import in_turn, peak_memory, ratio, seconds_of, show
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, file_digest
from pcclip.workbook import notebooks as workbook

TARGETS = {"help": 0.3, "import": 0.5, "recheck": 5.0, "notebook": 3.0}  # seconds
EVERYTHING = (
    "from pcclip.torchvision_shim import declare_missing; declare_missing(); import open_clip, pandas, "
    "transformers, papermill, pcclip.plots, pcclip.workbook.notebooks, pcclip.evaluation.report, scipy.stats"
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", default="params/demo.yaml")
    parser.add_argument("--notebooks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--install", action="store_true", help="install too, which needs a package index")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    def python(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, cwd=params.root(), stdout=subprocess.DEVNULL)

    seconds = in_turn(
        options.rounds,
        everything=lambda: python("-c", EVERYTHING),
        help=lambda: python("-m", "pcclip.cli", "--help"),
        **{"import": lambda: python("-c", "import pcclip")},
    )
    found = {name: median(seconds[name]) for name in ("help", "import", "everything")}
    with tempfile.TemporaryDirectory() as folder:
        copied = finished_copy(Path(params.resolve(options.params)), Path(folder))
        looks = options.rounds if copied else 0
        again = in_turn(looks, run=lambda: python("-m", "pcclip.cli", "run", str(copied)))["run"]
        found["recheck"] = median(again) if again else None
    notebooks = {name: overhead(notebook_of(name)) for name in list(workbook.NOTEBOOKS)[: options.notebooks]}
    found["notebook"] = max(notebooks.values(), default=None)
    show(
        {
            "benchmark": "startup",
            "rounds": options.rounds,
            "cores": os.cpu_count(),
            "ratio": ratio(seconds["everything"], seconds["help"]),
            **{f"{name}_seconds": value for name, value in found.items()},
            "import_milliseconds": median(import_milliseconds() for _ in range(options.rounds)),
            "install": installation(options.install),
            "notebook_overheads": notebooks,
            "target_seconds": TARGETS,
            "over_target": [name for name, most in TARGETS.items() if found[name] is not None and found[name] > most],
            "not_measured": [name for name in TARGETS if found[name] is None],
            "peak_memory_mib": peak_memory(),
        },
        options.json,
    )


def import_milliseconds() -> float:
    """Of `import pcclip` alone, in an interpreter that runs already."""
    code = "from time import perf_counter as now; start = now(); import pcclip; print(1e3 * (now() - start))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=params.root(), capture_output=True, text=True)
    return float(done.stdout)


def closure(*names: str) -> set[str]:
    """The installed packages that some packages need, themselves included, without extras."""
    needed: set[str] = set()
    todo = list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in needed:
            continue
        needed.add(name)
        requirements = map(Requirement, requires(name) or [])
        todo += [each.name for each in requirements if not each.marker or each.marker.evaluate({"extra": ""})]
    return needed


def installation(install: bool) -> dict[str, float | None]:
    """Packages and megabytes that ranking adds to an environment with torch; seconds of pip, where it is asked for."""
    project = tomllib.loads((params.root() / "pyproject.toml").read_text(encoding="utf8"))["project"]
    needed = closure(*(Requirement(line).name for line in project["dependencies"]))
    added = sorted(needed - closure("torch", "torchvision"))
    files = [Path(str(file.locate())) for name in added for file in distribution(name).files or []]
    megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    seconds = None
    if install:
        pins = [f"{name}=={distribution(name).version}" for name in added]
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *pins]
            seconds = seconds_of(lambda: subprocess.run(pip, check=True))
    return {"packages": len(added), "megabytes": round(megabytes), "seconds": seconds}


def finished_copy(file: Path, folder: Path) -> Path | None:
    """A parameter file of a copy of the run, whose notebooks have all finished; None where they have not."""
    values = params.load_yaml(file)
    if "sweep" in values or not (run := params.check(values)).folder.is_dir():
        return None
    shutil.copytree(run.folder, folder / "outputs" / run.run)
    copied = folder / file.name
    copied.write_text(yaml.safe_dump({**values, "outputs": str(folder / "outputs")}))
    config = params.read(copied)
    try:
        images = load_images(config)
        for name, stage_of in workbook.NOTEBOOKS.items():
            stage, mark = stage_of(config, images), json.loads((config.folder / f".{name}.done.json").read_text())
            if not stage.done() or mark["key"] != digest([stage.key, file_digest(notebook_of(name))]):
                return None
    except (PcclipError, FileNotFoundError):
        return None
    return copied


def notebook_of(name: str) -> Path:
    return params.root() / "notebooks" / f"{name}.ipynb"


def overhead(notebook: Path) -> float:
    """Seconds from nothing to a kernel that has imported what the notebook's cells import."""
    from jupyter_client.manager import start_new_kernel

    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    lines = [ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]

    def start() -> None:
        manager, client = start_new_kernel(
            startup_timeout=300, cwd=str(params.root()), extra_arguments=["--IPKernelApp.log_level=40"]
        )
        try:
            reply = client.execute_interactive("\n".join(lines), timeout=300, output_hook=lambda message: None)
            if reply["content"]["status"] != "ok":
                raise SystemExit(f"{notebook.name}: its imports fail: {reply['content']['evalue']}")
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)

    return seconds_of(start)


if __name__ == "__main__":
    main()
