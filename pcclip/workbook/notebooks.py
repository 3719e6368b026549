"""Run the notebooks of a parameter file through papermill, in order, skipping those that are finished.

A notebook is finished when its stage has a manifest with today's key and a mark beside the executed notebook holds that
key too; the mark is written last, when the notebook has ended well. The executed notebook itself proves nothing: where
a kernel was killed, it looks like a success.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import stage as comparisons
from pcclip.config import Config, root, shipped
from pcclip.data.image_set import ImageSet, load_images
from pcclip.embedding import stage as embedding
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as evaluation
from pcclip.finetuning import stage as finetuning
from pcclip.runs.files import atomic, digest, file_digest, sync, write_json
from pcclip.runs.progress import BATCH, Heartbeat, say
from pcclip.runs.stage import Stage, alone
from pcclip.workbook.check import check, refuse
from pcclip.workbook.sweep import NEEDS, TABLE, Member, collect, planned, read_sweep

if TYPE_CHECKING:
    from nbformat import NotebookNode

_IN_A_JOB = [  # Slurm warns every process of a job: the kernel would die of it, and a preempted job end as failed
    "--IPKernelApp.exec_lines=import signal; "
    "[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)]"
]
_BUSY = "another run is at work here; wait for it, or change `run`"  # no two runs in one folder, nor a run and a job
_NEEDS = "needs:"  # begins the tag of a cell that only some runs have
PARAMETERS = "parameters.yaml"  # in the run's folder; the first cell of an executed notebook names it
NOTEBOOKS: dict[str, Callable[[Config, ImageSet | None], Stage]] = dict(
    zip(
        NEEDS,
        (comparisons.stage, embedding.stage, finetuning.stage, evaluation.stage, arithmetic.stage),
        strict=True,
    )
)


def run(params_file: str | Path, check_only: bool = False) -> Path:
    """Run the five notebooks with one parameter file. Returns the run's folder.

    Everything that the file names is checked before any work. With `reuse` 01 and 02 are another run's; with `tuned`
    03 is another run's too, and only 04 is run. A file with a `sweep` runs 01 to 04 of each member and collects all
    metrics in one table; a single run ends with a report.

    Raises:
        PcclipError: a bad parameter or missing file; another run in the same folder; a notebook that failed.
    """
    members = read_sweep(params_file)
    home, folder = members[0].config.home, members[0].config.folder
    if check_only:
        check(params_file)
        return home
    runs = planned(members)
    check_names(runs)
    with alone(home / ".lock", _BUSY):
        executed = 0
        for config, names in runs:
            images = load_images(config)
            say(
                f"{params_file}: {len(images.table)} images, {len(images.left_out)} left out, results in {config.folder}"
            )
            executed += sum(run_notebook(config, name, images) for name in names)
        if members[0].swept or executed or not result(members).is_file():
            conclude(members)
    say(f"{home}: " + (f"{executed} notebooks run" if executed else "nothing new to do, all finished"))
    return folder


def result(members: list[Member]) -> Path:
    """The last file that a parameter file leads to: a sweep's table of metrics, a single run's report."""
    return members[0].config.home / TABLE if members[0].swept else members[0].config.folder / evaluation.PAGE


def conclude(members: list[Member]) -> None:
    """Write `result`, once the notebooks have finished."""
    if members[0].swept:
        collect(members, members[0].config.home)
    else:
        from pcclip.evaluation import report  # draws figures: a finished run need not load matplotlib

        say(f"report: {report.write(members[0].config, members[0].config.folder)}")


def check_names(runs: list[tuple[Config, list[str]]]) -> None:
    """Raise PcclipError, before any work is done, unless everything that the runs name is there."""
    for config, names in runs:
        images = load_images(config)
        refuse(config, names, images)
        if lines := evaluation.lacking(config):
            raise PcclipError("\n".join(lines))
        if not (config.reuse or config.tuned):
            comparisons.stage(config, images)
            embedding.stage(config, images)
    embedded_here = {config.run for config, names in runs if "02_embed_images" in names}
    for config, _ in runs:
        if config.reuse and config.reuse not in embedded_here:
            finetuning.stage(config)  # the stages that it reuses have finished
        if config.tuned:
            evaluation.stage(config)


def run_notebook(config: Config, name: str, images: ImageSet | None = None) -> bool:
    """Execute one notebook of a run unless it is finished. Returns whether it ran.

    Raises:
        PcclipError: the notebook or its kernel failed, its stage is not finished after it, or another one is at work.
    """
    images = images or load_images(config)
    source, executed = shipped("notebooks") / f"{name}.ipynb", config.folder / f"{name}.ipynb"
    with alone(config.folder / f".{name}.lock", _BUSY):
        if finished(config, name, images):
            say(f"{name}: finished already, skipped")
            return False
        for stale in _and_later(name):  # outputs that were shown before no longer hold
            (config.folder / f"{stale}.ipynb").unlink(missing_ok=True)
            _mark(config, stale).unlink(missing_ok=True)
        stage, started = NOTEBOOKS[name](config, images), time.monotonic()
        key, parameters = _key(stage, source), config.folder / PARAMETERS
        with atomic(parameters) as temporary:  # every value that the run's notebooks read
            temporary.write_text(yaml.safe_dump(config.model_dump(exclude={"slurm"}), sort_keys=False), encoding="utf8")
        say(f"{name}: started")
        execute(source, executed, {"parameters": str(parameters), "changes": {}}, config)
        if not NOTEBOOKS[name](config, images).done():
            raise PcclipError(f"{name}: the notebook ended without finishing its stage; see {executed}")
        sync(executed)
        write_json(_mark(config, name), {"key": key})
    say(f"{name}: finished in {time.monotonic() - started:.0f} s")
    return True


def finished(config: Config, name: str, images: ImageSet | None = None) -> bool:
    """Whether a notebook's stage has the manifest of today's inputs and the notebook ended well.

    Raises PcclipError when a stage that it builds on has not finished.
    """
    stage, file = NOTEBOOKS[name](config, images), f"{name}.ipynb"
    return (
        stage.done()
        and (config.folder / file).is_file()
        and _marked(_mark(config, name)) == _key(stage, shipped("notebooks") / file)
    )


def _and_later(name: str) -> list[str]:
    """A notebook and those that build on it, directly or not."""
    names = [name]
    for later, needs in NEEDS.items():
        if set(needs) & set(names):
            names.append(later)
    return names


def _key(stage: Stage, source: Path) -> str:
    return digest([stage.key, file_digest(source)])


def _mark(config: Config, name: str) -> Path:
    return config.folder / f".{name}.done.json"


def sections(notebook: Path, config: Config) -> "NotebookNode":
    """The notebook without the cells that a run has no use for.

    A cell tagged `needs:evaluate.teacher` needs that parameter to be set, one tagged `needs:data.source=shapes` needs
    that value; a cell with several such tags needs any of them. A sweep's members leave out cells tagged `single-run`.
    """
    import nbformat

    node = nbformat.read(notebook, as_version=4)
    needs = [[tag for tag in cell.metadata.get("tags", []) if tag.startswith(_NEEDS)] for cell in node.cells]
    node.cells = [
        cell
        for cell, tags in zip(node.cells, needs, strict=True)
        if (not tags or any(_met(tag.removeprefix(_NEEDS), config) for tag in tags))
        and not ("single-run" in cell.metadata.get("tags", []) and config.folder != config.home)
    ]
    return node


def _met(need: str, config: Config) -> bool:
    key, _, wanted = need.partition("=")
    value = attrgetter(key)(config)
    return str(value) == wanted if wanted else bool(value)


def execute(notebook: Path, executed: Path, parameters: dict, config: Config | None = None) -> None:
    """Run one notebook under papermill, with a config only its `sections`. Raises PcclipError when it failed."""
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError:
        raise PcclipError("running notebooks needs papermill: pip install 'pcclip[workbook]'") from None

    os.environ[BATCH] = "1"  # for the kernel: log lines, no bars
    beat = Heartbeat(notebook.stem)
    try:
        with beat:
            papermill.execute_notebook(
                sections(notebook, config) if config else notebook,
                executed,
                parameters,
                cwd=root(),
                progress_bar=False,
                log_output=False,
                stdout_file=beat.stream(sys.stdout),
                stderr_file=beat.stream(sys.stderr),
                request_save_on_cell_execute=False,
                extra_arguments=["--IPKernelApp.log_level=40", *(_IN_A_JOB if "SLURM_JOB_ID" in os.environ else [])],
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "PcclipError":
            raise PcclipError(f"{notebook.stem}: {error.evalue}") from None
        raise PcclipError(f"{notebook.stem}: {error.ename}: {error.evalue} (traceback in {executed})") from None
    except DeadKernelError:
        memory = f"; it had {beat.most}" if beat.most else ""
        raise PcclipError(f"{notebook.stem}: its kernel died (out of memory?{memory}); run again to continue") from None
    except RuntimeError as error:  # of jupyter_client
        if type(error) is not RuntimeError:  # submitit's own, raised while the cluster ends its job
            raise
        raise PcclipError(f"{notebook.stem}: its kernel did not start ({error}); run again") from None
    except FileNotFoundError as error:
        raise PcclipError(f"{notebook}: not there ({error}); run pcclip inside its checkout") from None
    finally:
        os.environ.pop(BATCH)


def _marked(mark: Path) -> str | None:
    try:
        return json.loads(mark.read_text(encoding="utf8"))["key"]
    except (OSError, ValueError, KeyError):
        return None
