"""Run the notebooks of a parameter file through papermill, in order, skipping what is finished.

A notebook counts as finished when its stage has a manifest with today's key and the notebook itself ended well, which
is written beside it last. The executed notebook is never asked: a killed kernel looks like success in it. One that
shows nothing for a while is said to be at work, with its memory and its last line.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import stage as generate
from pcclip.config import Config, root
from pcclip.data.image_set import ImageSet, load_images
from pcclip.embedding import stage as embed
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as report
from pcclip.finetuning import stage as trainer
from pcclip.runs.files import digest, disk_errors, file_digest, write_json
from pcclip.runs.progress import BATCH, Heartbeat, say
from pcclip.runs.stage import Stage
from pcclip.workbook.check import check
from pcclip.workbook.sweep import TABLE, Member, collect, parents, read_sweep

NOTEBOOKS: dict[str, Callable[[Config, ImageSet], Stage]] = {
    "01_generate_comparisons": generate.stage,
    "02_embed_images": embed.stage,
    "03_finetune": trainer.stage,
    "04_evaluate": report.stage,
    "05_analyze_embedding_arithmetic": arithmetic.stage,
}
NEEDS = {  # the notebooks whose stages each one builds on
    "01_generate_comparisons": (),
    "02_embed_images": (),
    "03_finetune": ("01_generate_comparisons", "02_embed_images"),
    "04_evaluate": ("03_finetune",),
    "05_analyze_embedding_arithmetic": ("03_finetune",),
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
    swept, plan = members[0].swept, planned(members)
    if check_only:
        check(plan, params_file)
        return members[0].config.home
    check_names(plan)
    home = members[0].config.home
    with _alone(home / ".lock"):
        worked = sum(_run_notebooks(config, names, str(params_file)) for config, names in plan)
        if swept or worked or not result(members).is_file():
            conclude(members)
    say(f"{home}: " + (f"{worked} notebooks run" if worked else "nothing new to do, all finished"))
    return members[0].config.folder


def result(members: list[Member]) -> Path:
    """What a parameter file ends with: a sweep's table of metrics, a single run's report."""
    return members[0].config.home / TABLE if members[0].swept else members[0].config.folder / report.PAGE


def conclude(members: list[Member]) -> None:
    """Write `result` of runs whose notebooks have finished."""
    if members[0].swept:
        collect(members, members[0].config.home)
        return
    from pcclip.evaluation import report as html  # draws figures: a run that is finished need not know how

    say(f"report: {html.write(members[0].config, members[0].config.folder)}")


def planned(members: list[Member]) -> list[tuple[Config, list[str]]]:
    """Each run with its notebooks: 01 and 02 that members share first; a sweep has no 05."""
    first, later = list(NOTEBOOKS)[:2], list(NOTEBOOKS)[2 : 4 if members[0].swept else 5]
    return [(config, first) for config in parents(members)] + [
        (member.config, _notebooks(member.config, first, later)) for member in members
    ]


def _notebooks(config: Config, first: list[str], later: list[str]) -> list[str]:
    """Which are run: of another run's finetuned model only the evaluation."""
    if config.tuned:
        return ["04_evaluate"]
    return later if config.reuse else first + later


def check_names(plan: list[tuple[Config, list[str]]]) -> None:
    """Everything that the runs name is there. Raises PcclipError before any work is done."""
    for config, _ in plan:
        _check_names(config)
    made = {config.run for config, names in plan if "02_embed_images" in names}
    for config, _ in plan:
        if config.reuse and config.reuse not in made:
            trainer.stage(config)  # what is reused has finished
        if config.tuned:
            report.stage(config)


def _check_names(config: Config) -> None:
    images = load_images(config)
    report.check_attributes(config, images)
    if lines := report.lacking(config):
        raise PcclipError("\n".join(lines))
    arithmetic.check(config, images)
    if not (config.reuse or config.tuned):
        for stage in (generate.stage, embed.stage):
            stage(config, images)


def _run_notebooks(config: Config, names: list[str], source: str) -> int:
    """Run what is not finished of one run. Returns how many notebooks ran."""
    images = load_images(config)
    say(f"{source}: {len(images.table)} images, {len(images.left_out)} left out, results in {config.folder}")
    return sum(run_notebook(config, name, images) for name in names)


@contextmanager
def _alone(file: Path):
    """Hold a lock, so that two runs never work in one folder, nor a run and the job of one of its notebooks."""
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise PcclipError(f"{file.parent}: another run is at work here; wait for it, or change `run`") from None
        try:
            yield
        finally:
            lock.release()


def run_notebook(config: Config, name: str, images: ImageSet | None = None) -> bool:
    """Execute one notebook of a run unless it is finished. Returns whether it ran.

    Raises:
        PcclipError: the notebook or its kernel failed, its stage is not finished after it, or another one is at work.
    """
    images = images or load_images(config)
    source, executed = root() / "notebooks" / f"{name}.ipynb", config.folder / f"{name}.ipynb"
    with _alone(config.folder / f".{name}.lock"):
        if finished(config, name, images):
            say(f"{name}: finished already, skipped")
            return False
        for stale in _and_later(name):  # what was shown before no longer holds
            (config.folder / f"{stale}.ipynb").unlink(missing_ok=True)
            _mark(config, stale).unlink(missing_ok=True)
        stage, started = NOTEBOOKS[name](config, images), time.monotonic()
        key = _key(stage, source)
        say(f"{name}: started")
        _execute(source, executed, config.model_dump(exclude={"slurm"}))
        if not NOTEBOOKS[name](config, images).done():
            raise PcclipError(f"{name}: the notebook ended without finishing its stage; see {executed}")
        write_json(_mark(config, name), {"key": key})
    say(f"{name}: finished in {time.monotonic() - started:.0f} s")
    return True


def finished(config: Config, name: str, images: ImageSet | None = None) -> bool:
    """Whether a notebook's stage has the manifest of today's inputs and the notebook ended well.

    Raises PcclipError when a stage that it builds on has not finished.
    """
    stage, mark = NOTEBOOKS[name](config, images), _mark(config, name)
    key = _key(stage, root() / "notebooks" / f"{name}.ipynb")
    return stage.done() and (config.folder / f"{name}.ipynb").is_file() and _marked(mark) == key


def _and_later(name: str) -> list[str]:
    """A notebook and those that build on it, also by way of others."""
    found = [name]
    for later, needs in NEEDS.items():
        if set(needs) & set(found):
            found.append(later)
    return found


def _key(stage: Stage, source: Path) -> str:
    return digest([stage.key, file_digest(source)])


def _mark(config: Config, name: str) -> Path:
    return config.folder / f".{name}.done.json"


def _execute(notebook: Path, executed: Path, parameters: dict) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ[BATCH] = "1"  # for the kernel: log lines, no bars
    beat = Heartbeat(notebook.stem)
    try:
        with beat:
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                cwd=root(),
                progress_bar=False,
                log_output=False,
                stdout_file=beat.stream(sys.stdout),
                stderr_file=beat.stream(sys.stderr),
                request_save_on_cell_execute=False,
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "PcclipError":
            raise PcclipError(f"{notebook.stem}: {error.evalue}") from None
        raise PcclipError(f"{notebook.stem}: {error.ename}: {error.evalue} (traceback in {executed})") from None
    except DeadKernelError:
        had = f"; it had {beat.most}" * bool(beat.most)
        raise PcclipError(f"{notebook.stem}: its kernel died (out of memory?{had}); run again to continue") from None
    except RuntimeError as error:  # of jupyter_client
        if type(error).__module__.startswith("submitit"):  # its job was told to end
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
