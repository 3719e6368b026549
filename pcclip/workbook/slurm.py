"""Run the notebooks of a parameter file as jobs of a cluster, through submitit: one for each, none before its time.

Slurm keeps the order: a job waits for those it builds on (afterok) and is cancelled when one of them fails. On this
machine ("local", to try it out) the order is kept here. Whether a job did its work is told by its stage's manifest and
the notebook's mark, never by what submitit pickles, which is not read here. A job that Slurm preempts or that is out
of time is queued again and continues where it was.
"""

import os
import shutil
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pcclip.config import Config, Slurm, root
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.runs.files import disk_errors, file_digest
from pcclip.runs.progress import say
from pcclip.workbook.notebooks import NEEDS, NOTEBOOKS, check_names, conclude, finished, planned, result, run_notebook
from pcclip.workbook.sweep import Member, read_sweep

FOLDER = "jobs"  # of logs and of what submitit writes, in the run's folder
END = "end"  # the job that writes a sweep's table or a run's report
_BLOCKS = dict(zip(NOTEBOOKS, ("generate", "embed", "finetune", "evaluate", "arithmetic"), strict=True))
_SECONDS = {"local": 0.2, "slurm": 30.0}  # between looks at the jobs


@dataclass(frozen=True)
class Job:
    """One notebook of one run, or the END of a file; `after` are the jobs it builds on."""

    run: str
    notebook: str
    config: Config = field(compare=False, repr=False)
    after: tuple["Job", ...] = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.run}/{self.notebook}"


@dataclass(frozen=True)
class Work:
    """What a job does, on whatever machine it starts; submitit calls it again when the job was queued again."""

    root: str  # of the workbook
    params: str  # the parameter file as it was when the job was submitted
    run: str
    notebook: str

    def __call__(self) -> None:
        """Raises SystemExit with one line when the notebook failed, so that the job fails."""
        os.environ["PCCLIP_ROOT"] = self.root
        try:
            members = read_sweep(self.params)
            if self.notebook == END:
                conclude(members)
            else:
                [config] = [config for config, _ in planned(members) if config.run == self.run]
                run_notebook(config, self.notebook)
        except PcclipError as error:
            raise SystemExit(f"pcclip: {error}") from None

    def checkpoint(self):
        """For submitit: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(params_file: str | Path, to: Literal["slurm", "local"], wait: bool = False) -> list[str]:
    """Submit what is not finished of a parameter file and print each job with its id and log. Returns the ids.

    Slurm is not waited for unless `wait`; on this machine it is, as the jobs are started one after the other.

    Args:
        params_file: as for `run`; everything it names is checked first, and jobs read a copy of it.
        to: where the jobs run.
        wait: return when all have ended.

    Raises:
        PcclipError: what `run` raises; no submitit or Slurm here; and, of jobs that were waited for, those that failed.
    """
    if find_spec("submitit") is None:
        raise PcclipError("--submit needs submitit: `pip install 'pcclip[slurm]'`")
    members = read_sweep(params_file)
    check_names(planned(members))
    jobs, home = to_do(members), members[0].config.home
    if not jobs:
        say(f"{home}: nothing new to do, all finished")
        return []
    folder = home / FOLDER
    copy = _copied(Path(params_file), folder)
    result(members).unlink(missing_ok=True)  # of work that is to be done again
    say(f"{params_file}: {len(jobs)} jobs, logs in {folder}")
    if to == "local":
        return _one_by_one(jobs, copy, folder, result(members))
    ids = {}
    for job in jobs:
        ids[job] = _started(job, copy, folder, to, [ids[one].job_id for one in job.after])
    if wait:
        _look_after(ids, result(members))
    else:
        say(
            f"squeue --me shows them; srun --dependency=afterany:{ids[jobs[-1]].job_id} true ends when they have, as "
            "does --wait"
        )
    return [submitted.job_id for submitted in ids.values()]


def to_do(members: list[Member]) -> list[Job]:
    """The jobs of what is not finished, each after those it builds on.

    What builds on something unfinished is not finished either, whatever its manifest says. Members of a sweep ask one
    after the other: they share a journal, so that nothing is asked twice.
    """
    jobs, asked = {}, ()
    for config, names in planned(members):
        images = load_images(config)
        for name in names:
            after = tuple(job for need in NEEDS[name] if (job := jobs.get((_made_in(config, need), need))))
            if after or not _is_finished(config, name, images):
                alone = name == "01_generate_comparisons"
                jobs[config.run, name] = Job(config.run, name, config, (*after, *asked) if alone else after)
                asked = (jobs[config.run, name],) if alone else asked
    if not jobs and result(members).is_file():
        return []
    first = members[0].config
    home = first if not members[0].swept else first.model_copy(update={"run": first.run.split("/")[0]})
    return [*jobs.values(), Job(home.run, END, home, tuple(jobs.values()))]


def _made_in(config: Config, notebook: str) -> str:
    """The run that holds what a notebook of this one builds on."""
    if notebook in ("01_generate_comparisons", "02_embed_images"):
        return config.reuse or config.tuned or config.run
    return config.tuned or config.run


def _is_finished(config: Config, name: str, images) -> bool:
    try:
        return finished(config, name, images)
    except PcclipError:  # what it builds on is not there yet
        return False


def _copied(params_file: Path, folder: Path) -> Path:
    """The parameter file among the jobs, under a name of its content: it may be changed while they wait."""
    copy = folder / f"{params_file.stem}-{file_digest(params_file)[:12]}.yaml"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(params_file, copy)
    return copy


def _started(job: Job, params: Path, folder: Path, to: str, after: list[str]):
    """Hand one job to submitit and say so. Raises PcclipError when the cluster does not take it."""
    import submitit

    try:
        executor = submitit.AutoExecutor(folder, cluster=to)
        executor.update_parameters(**_resources(job, after))
        submitted = executor.submit(Work(str(root()), str(params), job.run, job.notebook))
    except (RuntimeError, ValueError, OSError) as error:
        raise PcclipError(f"--submit {to}: {job.name}: {' '.join(str(error).split())}") from None
    say(f"{submitted.job_id}  {job.name}, log {submitted.paths.stdout}" + f", after {', '.join(after)}" * bool(after))
    return submitted


def _resources(job: Job, after: list[str]) -> dict:
    """Of submitit's AutoExecutor: what is written of Slurm alone begins with its name."""
    settings: Slurm = job.config.slurm
    asked = settings.machine(_BLOCKS.get(job.notebook, "evaluate"))
    gpus = {"gpus_per_node": asked.gpus} if asked.gpus and job.notebook != END else {}
    dependency = ",".join([*(["afterok:" + ":".join(after)] if after else []), "singleton"])  # of its name
    given = {"partition": asked.partition, "account": settings.account, "qos": settings.qos, "setup": settings.setup}
    return {
        "name": f"pcclip-{job.name.replace('/', '-')}",
        "timeout_min": max(1, round(60 * asked.hours)),
        "cpus_per_task": asked.cpus,
        "mem_gb": asked.memory,
        "stderr_to_stdout": True,
        **gpus,
        **{f"slurm_{key}": value for key, value in given.items() if value},
        "slurm_additional_parameters": {"dependency": dependency, "kill-on-invalid-dep": "yes"},
    }


def _one_by_one(jobs: list[Job], params: Path, folder: Path, end: Path) -> list[str]:
    """On this machine, in order; what builds on a failure is left."""
    done, ids, failed = set(), [], {}
    for job in jobs:
        if not done >= set(job.after):
            continue
        submitted = _started(job, params, folder, "local", [])
        ids.append(submitted.job_id)
        while not submitted.done():
            time.sleep(_SECONDS["local"])
        if _succeeded(job, end):
            say(f"{submitted.job_id}  {job.name}: finished")
            done.add(job)
        else:
            failed[job] = submitted.paths.stdout
    _refuse(jobs, done, failed)
    return ids


def _look_after(submitted: dict, end: Path) -> None:
    """Until all have ended. Raises PcclipError with those that failed."""
    done, failed, left = set(), {}, dict(submitted)
    while left:
        for k, (job, one) in enumerate(list(left.items())):
            if one.done(force_check=k == 0):  # one look at the queue serves all
                del left[job]
                if not done >= set(job.after):
                    continue
                if _succeeded(job, end):
                    say(f"{one.job_id}  {job.name}: finished")
                    done.add(job)
                else:
                    failed[job] = one.paths.stdout
        if left:
            time.sleep(_SECONDS["slurm"])
    _refuse(list(submitted), done, failed)


def _succeeded(job: Job, end: Path) -> bool:
    return end.is_file() if job.notebook == END else _is_finished(job.config, job.notebook, None)


def _refuse(jobs: list[Job], done: set[Job], failed: dict[Job, Path]) -> None:
    """Raises PcclipError, one line for each job that failed, and one that counts those that were not run."""
    lines = [f"{job.name}: failed; see {log}{_last_line(log)}" for job, log in failed.items()]
    if not_run := len(jobs) - len(done) - len(failed):
        lines.append(f"{not_run} jobs that build on it were not run; submit again to continue")
    if lines:
        raise PcclipError("\n".join(lines))


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((f": {line.removeprefix('pcclip: ')}" for line in reversed(lines) if line.startswith("pcclip: ")), "")
