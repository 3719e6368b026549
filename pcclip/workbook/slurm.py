"""Submit the notebooks of a parameter file to Slurm, through submitit: one job a notebook.

Slurm keeps the order: a job waits for the jobs that it builds on (afterok) and is cancelled when one of those fails.
Submitting again continues with the notebooks that have not finished. A job that Slurm preempts or that runs out of time
is queued again and continues where it was: its kernel outlives the signals that Slurm sends to every process.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pcclip.config import Config, root
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import copy_file, file_digest
from pcclip.runs.progress import say
from pcclip.workbook.notebooks import check_names, conclude, finished, result, run_notebook
from pcclip.workbook.sweep import NEEDS, Member, planned, read_sweep

FOLDER = "jobs"  # in the run's folder: logs, and the files that submitit writes
END = "end"  # the job that writes a sweep's table or a run's report
_BLOCKS = dict(zip(NEEDS, ("generate", "embed", "finetune", "evaluate", "arithmetic"), strict=True))


class Job(NamedTuple):
    """One notebook of one run, or the END of a file; `after` are the names of the jobs that it waits for."""

    config: Config
    run: str
    notebook: str
    after: list[str]

    @property
    def name(self) -> str:
        return f"{self.run}/{self.notebook}"


@dataclass(frozen=True)
class Work:
    """The call that a job makes on its machine; submitit makes it again when the job was queued again."""

    root: str  # of the workbook
    params: str  # the copy of the parameter file
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

    def checkpoint(self) -> Any:
        """For submitit: the same call again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(params_file: str | Path) -> list[str]:
    """Submit the unfinished notebooks of a parameter file; print each job's id and log. Returns the ids.

    Everything that the file names is checked first. Jobs read a copy of the file, named by its content, as the file may
    be changed while they wait.

    Raises:
        PcclipError: whatever `run` raises; or submitit or Slurm is not here.
    """
    if find_spec("submitit") is None:
        raise PcclipError("--submit needs submitit: `pip install 'pcclip[slurm]'`")
    members, params_file = read_sweep(params_file), Path(params_file)
    check_names(planned(members))
    jobs, home = unfinished_jobs(members), members[0].config.home
    if not jobs:
        say(f"{home}: nothing new to do, all finished")
        return []
    copy = home / FOLDER / f"{params_file.stem}-{file_digest(params_file)[:12]}.yaml"
    copy_file(params_file, copy)
    result(members).unlink(missing_ok=True)  # it shows outdated work
    say(f"{params_file}: {len(jobs)} jobs, logs in {copy.parent}")
    ids: dict[str, str] = {}
    for job in jobs:
        ids[job.name] = _start(job, copy, [ids[earlier] for earlier in job.after])
    say(f"squeue --me shows them; srun --dependency=afterany:{ids[jobs[-1].name]} true ends when they have")
    return list(ids.values())


def unfinished_jobs(members: list[Member]) -> list[Job]:
    """Jobs of the unfinished notebooks, each after the jobs it builds on.

    A notebook that builds on an unfinished one is unfinished too, whatever its manifest says. The 01 of a sweep's
    members run one after the other: they share a log of answers, so that no question is asked twice.
    """
    jobs: dict[str, Job] = {}
    latest_01: list[str] = []
    for config, names in planned(members):
        images = load_images(config)
        for name in names:
            needs = [
                f"{(need < '03' and config.reuse) or config.tuned or config.run}/{need}" for need in NEEDS[name]
            ]  # 01 and 02 may be another run's, and 03, too
            after = [need for need in needs if need in jobs]
            done = False
            with suppress(PcclipError):  # a stage that it builds on is not there yet
                done = not after and finished(config, name, images)
            if not done:
                first = name == "01_generate_comparisons"
                job = Job(config, config.run, name, after + latest_01 if first else after)
                jobs[job.name] = job
                latest_01 = [job.name] if first else latest_01
    if not jobs and result(members).is_file():
        return []
    config = members[0].config
    home = config.run.split("/")[0] if members[0].swept else config.run
    return [*jobs.values(), Job(config, home, END, list(jobs))]


def _start(job: Job, params: Path, after: list[str]) -> str:
    """Hand one job to submitit and return its id. Raises PcclipError when the cluster does not take it."""
    import submitit

    try:
        executor = submitit.AutoExecutor(params.parent, cluster="slurm")
        executor.update_parameters(**_resources(job, after))
        submitted = executor.submit(Work(str(root()), str(params), job.run, job.notebook))
    except (RuntimeError, ValueError, OSError) as error:
        raise PcclipError(f"--submit slurm: {job.name}: {one_line(error)}") from None
    order = f", after {', '.join(after)}" if after else ""
    say(f"{submitted.job_id}  {job.name}, log {submitted.paths.stdout}{order}")
    return submitted.job_id


def _resources(job: Job, after: list[str]) -> dict[str, Any]:
    """Parameters of submitit's AutoExecutor; the names of those that Slurm alone knows begin with slurm_."""
    settings = job.config.slurm
    machine = settings.machine(_BLOCKS.get(job.notebook, "evaluate"))
    dependency = [f"afterok:{':'.join(after)}"] if after else []
    optional = {
        "slurm_partition": machine.partition,
        "slurm_account": settings.account,
        "slurm_qos": settings.qos,
        "slurm_setup": settings.setup,
        "gpus_per_node": 0 if job.notebook == END else machine.gpus,
    }
    return {
        "name": f"pcclip-{job.name.replace('/', '-')}",
        "timeout_min": max(1, round(60 * (machine.hours or settings.hours))),
        "cpus_per_task": machine.cpus,
        "mem_gb": machine.memory,
        "stderr_to_stdout": True,
        "slurm_additional_parameters": {
            "dependency": ",".join([*dependency, "singleton"]),  # singleton: never two jobs of one name at once
            "kill-on-invalid-dep": "yes",
        },
        **{name: value for name, value in optional.items() if value},
    }
