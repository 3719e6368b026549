"""The first cell of a notebook: `parameters`, the name of a parameter file, and `changes`, values in place of the file's.

    parameters = "params/demo.yaml"
    changes = {"seed": 1, "finetune.lr": 1e-4}

`papermill NOTEBOOK OUT -f FILE` puts FILE's own keys into the notebook, in a cell that begins with "# Parameters". They
replace both lines: what FILE leaves out has the package's default, as in `pcclip run FILE`.
"""

import ast
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from pcclip.config import Config, check, load_yaml, read_yaml, resolve
from pcclip.encoders import check_name
from pcclip.errors import PcclipError
from pcclip.runs.progress import papermill_commands
from pcclip.workbook.sweep import member_folders, set_value

_OWN_FOLDER = ("seed", "model", "data", "generate", "embed", "finetune")  # blocks whose change makes another run


def from_notebook(variables: dict[str, Any]) -> Config:
    """The run that a notebook's first cell describes. `variables` is the notebook's globals(), with IPython's `In`.

    A change of what 01 to 03 read makes a run with a folder of its own, below the file's run: outputs/demo/seed=1.
    Changed settings of 03 alone use the 01 and 02 of the file's run. A change of `run` names the folder itself.

    Raises:
        PcclipError: a mistake in the parameters, a file with a sweep, or an unknown model.
    """
    names = _put_in(variables.get("In", []))
    if own := names - {"parameters", "changes"}:
        if own != names:
            raise PcclipError(f"papermill: {', '.join(sorted(own))} beside parameters or changes; put it into changes")
        _check_files_of_papermill()
        config = _one_run({name: variables[name] for name in variables if name in own}, "papermill's parameters")
    else:
        config = _changed(str(variables["parameters"]), variables["changes"])
    check_name(config.model)
    return config


def _put_in(cells: Sequence[str]) -> set[str]:
    """Names that papermill has put into the notebook, whose cells so far are given."""
    cell = next((cell for cell in reversed(cells) if cell.startswith("# Parameters\n")), "")
    return {
        name.id for name in ast.walk(ast.parse(cell)) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }


def _check_files_of_papermill() -> None:
    """Read again the files of `papermill -f`, which has kept the last of several equal keys. Raises PcclipError."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-f", "--parameters_file", action="append", default=[])
    for folder, words in papermill_commands():
        for file in parser.parse_known_args(words)[0].parameters_file:
            read_yaml(folder / file)


def _changed(file: str, changes: Any) -> Config:
    if not isinstance(changes, dict):
        raise PcclipError(f"changes = {changes!r}: give keys and values, such as {{'seed': 1, 'finetune.lr': 1e-4}}")
    values = load_yaml(resolve(file))
    config = _one_run(values, file)
    for key, value in changes.items():
        set_value(values, str(key), value, "changes")
    changed = _one_run(values, "changes")
    moved = {key: value for key, value in changes.items() if key.split(".")[0] in _OWN_FOLDER}
    if "run" in changes or not moved or changed == config:
        return changed
    folders = member_folders(config.run, moved, "", {})
    source = config.reuse or config.tuned or config.run  # of the 01 and 02 that changes of 03 alone leave as they are
    reuse = source if folders["reuse"] == config.run else folders["reuse"]
    return changed.model_copy(update={**folders, "reuse": reuse, "tuned": None})


def _one_run(values: dict[str, Any], where: str) -> Config:
    if "sweep" in values:
        raise PcclipError(f"{where}: sweep: a notebook is one run; use `pcclip run`, or leave the sweep out")
    return check(values, where)
