"""Run the notebooks of a parameter file through papermill, in order, skipping what is finished.

A notebook counts as finished when its stage has a manifest with today's key and the notebook itself ended well, which
is written beside it last. The executed notebook is never asked: a killed kernel looks like success in it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcclip import arithmetic, embed
from pcclip.check import check
from pcclip.comparisons import generate
from pcclip.data import ImageSet, load_images
from pcclip.errors import PcclipError
from pcclip.evaluate import report
from pcclip.finetune import trainer
from pcclip.params import Config, root
from pcclip.progress import BATCH, say
from pcclip.stage import Stage, digest, disk_errors, file_digest, write_json
from pcclip.sweep import Member, collect, parents, read_sweep

NOTEBOOKS: dict[str, Callable[[Config, ImageSet], Stage]] = {
    "01_generate_comparisons": generate.stage,
    "02_embed_images": embed.stage,
    "03_finetune": trainer.stage,
    "04_evaluate": report.stage,
    "05_analyze_embedding_arithmetic": arithmetic.stage,
}


def run(params_file: str | Path, check_only: bool = False) -> Path:
    """Run the five notebooks with one parameter file. Returns the run's folder.

    Everything named in the file is checked before any work: parameters, image set, model, prompt, GGUF. With `reuse`
    01 and 02 are another run's; with `tuned` 03 is too, and only 04 is run. A file with a `sweep` runs 01 to 04 of
    each member and collects all metrics. Of a single run a report is written at the end.

    Raises:
        PcclipError: a bad parameter or missing file; another run in the same folder; a notebook that failed.
    """
    members = read_sweep(params_file)
    swept, plan = members[0].swept, _plan(members)
    if check_only:
        check(plan, params_file)
        return members[0].config.home
    for config, _ in plan:
        _check_names(config)
    if members[0].config.reuse and not swept:
        trainer.stage(members[0].config)  # what is reused has finished
    if members[0].config.tuned:
        report.stage(members[0].config)
    home = members[0].config.home
    with _alone(home):
        worked = sum(_run_notebooks(config, names, str(params_file)) for config, names in plan)
        if swept:
            collect(members, home)
        elif worked or not (members[0].config.folder / report.PAGE).is_file():
            from pcclip.evaluate import html  # draws figures: a run that is finished need not know how

            say(f"report: {html.write(members[0].config, members[0].config.folder)}")
    say(f"{home}: " + (f"{worked} notebooks run" if worked else "nothing new to do, all finished"))
    return members[0].config.folder


def _plan(members: list[Member]) -> list[tuple[Config, list[str]]]:
    """Each run with its notebooks: 01 and 02 that members share first; a sweep has no 05."""
    first, later = list(NOTEBOOKS)[:2], list(NOTEBOOKS)[2:4 if members[0].swept else 5]
    return ([(config, first) for config in parents(members)]
            + [(member.config, _notebooks(member.config, first, later)) for member in members])


def _notebooks(config: Config, first: list[str], later: list[str]) -> list[str]:
    """Which are run: of another run's finetuned model only the evaluation."""
    if config.tuned:
        return ["04_evaluate"]
    return later if config.reuse else first + later


def _check_names(config: Config) -> None:
    """Everything a run names is there. Raises PcclipError before any work is done."""
    images = load_images(config)
    report.check_attributes(config, images)
    if lines := report.lacking(config):
        raise PcclipError("\n".join(lines))
    arithmetic.check_changes(config, images)
    if not (config.reuse or config.tuned):
        for stage in (generate.stage, embed.stage):
            stage(config, images)


def _run_notebooks(config: Config, names: list[str], source: str) -> int:
    """Run what is not finished of one run. Returns how many notebooks ran."""
    images = load_images(config)
    say(f"{source}: {len(images.table)} images, {len(images.left_out)} left out, results in {config.folder}")
    config.folder.mkdir(parents=True, exist_ok=True)
    return sum(_run_notebook(name, NOTEBOOKS[name], config, images) for name in names)


@contextmanager
def _alone(folder: Path):
    """Hold the run's lock, so that two runs never work in one folder."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise PcclipError(f"{folder}: another run is at work here; wait for it, or change `run`") from None
        try:
            yield
        finally:
            lock.release()


def _run_notebook(name: str, stage_of: Callable, config: Config, images: ImageSet) -> bool:
    """Execute one notebook unless it is finished. Returns whether it ran."""
    source, executed = root() / "notebooks" / f"{name}.ipynb", config.folder / f"{name}.ipynb"
    mark = config.folder / f".{name}.done.json"
    stage = stage_of(config, images)
    key = digest([stage.key, file_digest(source)])
    if stage.done() and executed.is_file() and _marked(mark) == key:
        say(f"{name}: finished already, skipped")
        return False
    for later in list(NOTEBOOKS)[list(NOTEBOOKS).index(name):]:  # what was shown before no longer holds
        (config.folder / f"{later}.ipynb").unlink(missing_ok=True)
        (config.folder / f".{later}.done.json").unlink(missing_ok=True)
    started = time.monotonic()
    say(f"{name}: started")
    _execute(source, executed, config.model_dump())
    if not stage_of(config, images).done():
        raise PcclipError(f"{name}: the notebook ended without finishing its stage; see {executed}")
    write_json(mark, {"key": key})
    say(f"{name}: finished in {time.monotonic() - started:.0f} s")
    return True


def _execute(notebook: Path, executed: Path, parameters: dict) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ[BATCH] = "1"  # for the kernel: log lines, no bars
    try:
        papermill.execute_notebook(
            notebook, executed, parameters, cwd=root(), progress_bar=False, log_output=False,
            stdout_file=sys.stdout, stderr_file=sys.stderr, request_save_on_cell_execute=False,
            extra_arguments=["--IPKernelApp.log_level=40"])
    except papermill.PapermillExecutionError as error:
        if error.ename == "PcclipError":
            raise PcclipError(f"{notebook.stem}: {error.evalue}") from None
        raise PcclipError(f"{notebook.stem}: {error.ename}: {error.evalue} (traceback in {executed})") from None
    except DeadKernelError:
        raise PcclipError(f"{notebook.stem}: its kernel died (out of memory?); run again to continue") from None
    except FileNotFoundError as error:
        raise PcclipError(f"{notebook}: not there ({error}); run pcclip inside its checkout") from None
    finally:
        os.environ.pop(BATCH)


def _marked(mark: Path) -> str | None:
    try:
        return json.loads(mark.read_text(encoding="utf8"))["key"]
    except (OSError, ValueError, KeyError):
        return None
