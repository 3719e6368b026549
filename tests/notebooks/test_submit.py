"""Jobs of Slurm: one a notebook, each after the jobs that it builds on."""

import re
import shlex
import stat
from pathlib import Path

import nbformat
import pytest
import yaml
from helpers.runs import ROOT

from pcclip import cli
from pcclip.errors import PcclipError
from pcclip.workbook import notebooks as workbook, slurm as slurm_jobs
from pcclip.workbook.sweep import read_sweep

pytest.importorskip("submitit")

NAMES = list(workbook.NOTEBOOKS)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of a cluster that takes every job and whose jobs have all ended well, as it says; its scripts."""
    folder, taken = tmp_path / "bin", tmp_path / "taken"
    folder.mkdir()
    taken.mkdir()
    commands = {
        "srun": "exit 0",
        "sbatch": f'n=$(ls {taken} | wc -l); cp "$1" {taken}/$((n + 101)).sh; echo "Submitted batch job $((n + 101))"',
        "sacct": f"echo 'JobID|State|NodeList'; for job in {taken}/*; do "
        'echo "$(basename $job .sh)|COMPLETED|here"; done',
    }
    for name, line in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("PCCLIP_ROOT", str(ROOT))
    return lambda: {path.stem: asked(path.read_text()) for path in sorted(taken.iterdir())}


def asked(script: str) -> dict[str, str]:
    """The flags of a batch script, and its command."""
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))
    return {key: shlex.split(value)[0] for key, value in flags.items()} | {"script": script}


def with_sweep(path: Path, sweep: dict, **changes) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"sweep": sweep} | changes))
    return path


# ---- the order -------------------------------------------------------------------------------------------------------


def test_one_job_a_notebook_and_one_at_the_end(params_file):
    jobs = slurm_jobs.unfinished_jobs(read_sweep(params_file))
    assert [job.name for job in jobs] == [*(f"tiny/{name}" for name in NAMES), "tiny/end"]
    after = {job.notebook[:2]: [name.split("/")[-1][:2] for name in job.after] for job in jobs}
    assert after == {
        "01": [],
        "02": [],
        "03": ["01", "02"],
        "04": ["03"],
        "05": ["03"],
        "en": ["01", "02", "03", "04", "05"],
    }


def test_members_of_a_sweep_wait_for_what_they_share(params_file):
    sweep = {"grid": {"seed": [0, 1]}, "variants": {"a": {}, "b": {"finetune.lr": 1e-4}}}
    jobs = slurm_jobs.unfinished_jobs(read_sweep(with_sweep(params_file, sweep)))
    assert len(jobs) == 2 * 2 + 4 * 2 + 1, "01 and 02 of each seed, 03 and 04 of each member, the table"
    after = {job.name: set(job.after) for job in jobs}
    assert after["tiny/seed=1/b/03_finetune"] == {"tiny/seed=1/01_generate_comparisons", "tiny/seed=1/02_embed_images"}
    assert after["tiny/seed=1/b/04_evaluate"] == {"tiny/seed=1/b/03_finetune"}
    assert len(after["tiny/end"]) == 12


def test_what_is_finished_is_not_submitted(params_file, monkeypatch, tmp_path):
    members, done = read_sweep(params_file), set(NAMES)
    monkeypatch.setattr(slurm_jobs, "finished", lambda config, name, images: name in done)
    assert [job.notebook for job in slurm_jobs.unfinished_jobs(members)] == ["end"], "there is no report"
    workbook.result(members).parent.mkdir(parents=True)
    workbook.result(members).write_text("a report")
    assert slurm_jobs.unfinished_jobs(members) == []
    done.remove("03_finetune")
    assert [job.notebook for job in slurm_jobs.unfinished_jobs(members)] == [*NAMES[2:], "end"], (
        "04 builds on 03, whatever its manifest says"
    )


# ---- Slurm -----------------------------------------------------------------------------------------------------------


def test_slurm_is_told_what_each_job_needs_and_what_it_waits_for(params_file, slurm, capsys):
    block = {
        "partition": "long",
        "account": "lab",
        "hours": 1.5,
        "gpus": 1,
        "cpus": 4,
        "memory": 20,
        "setup": ["module load cuda"],
        "notebooks": {"evaluate": {"partition": "short", "gpus": 0, "hours": 0.5}, "finetune": {"gpus": 4}},
    }
    params_file.write_text(yaml.safe_dump(yaml.safe_load(params_file.read_text()) | {"slurm": block}))
    assert cli.main(["run", str(params_file), "--submit", "slurm"]) == 0
    out, jobs = capsys.readouterr().out, slurm()
    assert {n: job["dependency"] for n, job in jobs.items()} == {
        "101": "singleton",
        "102": "singleton",
        "103": "afterok:101:102,singleton",
        "104": "afterok:103,singleton",
        "105": "afterok:103,singleton",
        "106": "afterok:101:102:103:104:105,singleton",
    }
    assert all(job["kill-on-invalid-dep"] == "yes" for job in jobs.values())
    assert [job["job-name"] for job in jobs.values()] == [f"pcclip-tiny-{name}" for name in [*NAMES, "end"]]
    first, finetune, evaluate, end = (jobs[n] for n in ("101", "103", "104", "106"))
    expected = {
        "partition": "long",
        "account": "lab",
        "time": "90",
        "cpus-per-task": "4",
        "mem": "20GB",
        "gpus-per-node": "1",
    }
    assert {key: first[key] for key in expected} == expected
    assert finetune["gpus-per-node"] == "4"
    assert (evaluate["partition"], evaluate["time"], evaluate.get("gpus-per-node")) == ("short", "30", None)
    assert "gpus-per-node" not in end
    assert "\nmodule load cuda\n" in first["script"]
    for n, job in jobs.items():
        log = job["output"].replace("%j", n)
        assert f"{n}  {job['job-name'].removeprefix('pcclip-').replace('-', '/', 1)}, log {log}" in out
    assert not (Path(yaml.safe_load(params_file.read_text())["outputs"]) / "tiny" / "01_generate").exists()


def test_without_slurm_one_line_says_so(params_file, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PcclipError, match='^--submit slurm: tiny/01_generate_comparisons: Could not detect "srun"'):
        slurm_jobs.submit(params_file)


def test_without_submitit_one_line_says_what_to_install(params_file, monkeypatch, capsys):
    monkeypatch.setattr(slurm_jobs, "find_spec", lambda name: None)
    assert cli.main(["run", str(params_file), "--submit", "slurm"]) == 1
    assert "pip install 'pcclip[slurm]'" in capsys.readouterr().err


def test_what_is_wrong_is_told_before_any_job(params_file, slurm):
    params_file.write_text(yaml.safe_dump(yaml.safe_load(params_file.read_text()) | {"model": "ViT-Z-1"}))
    with pytest.raises(PcclipError, match="unknown model 'ViT-Z-1'"):
        slurm_jobs.submit(params_file)
    assert slurm() == {}


def test_jobs_read_the_file_as_it_was(params_file, slurm, tmp_path):
    slurm_jobs.submit(params_file)
    before = params_file.read_text()
    params_file.write_text("run: other")
    [copy] = (tmp_path / "outputs" / "tiny" / "jobs").glob("tiny-*.yaml")
    assert copy.read_text() == before


# ---- what a job does -------------------------------------------------------------------------------------------------


def test_a_job_that_is_queued_again_does_the_same():
    work = slurm_jobs.Work("/root", "p.yaml", "tiny", "02_embed_images")
    assert work.checkpoint().function == work


def test_the_kernel_of_a_job_outlives_the_signals_that_slurm_sends_to_every_process(monkeypatch, tmp_path):
    """And of no other: SIGTERM ends a kernel that somebody wants to end."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    cell = "import os, signal\nfor s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2): os.kill(os.getpid(), s)\nprint('alive')"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata={"kernelspec": kernel})
    nbformat.write(node, tmp_path / "a.ipynb")
    workbook.execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {})
    assert "alive" in (tmp_path / "b.ipynb").read_text()


def test_a_job_fails_with_one_line(params_file, monkeypatch):
    monkeypatch.setenv("PCCLIP_ROOT", str(ROOT))
    with pytest.raises(SystemExit, match="^pcclip: .*03_finetune|^pcclip: .*this stage has not finished"):
        slurm_jobs.Work(str(ROOT), str(params_file), "tiny", "03_finetune")()
