"""Stage 03 in several processes: the same losses, gradients and curves as in one, and what is said when one dies."""

import json
import os
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import ranks
from helpers.crash import Crash, crash_after
from helpers.in_process import execute
from helpers.judge import BANK, Judge
from helpers.runs import ROOT, run_values

from pcclip import config as params, load_model
from pcclip.comparisons import stage as generate
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.errors import PcclipError
from pcclip.finetuning import distributed, launch, stage as finetuning
from pcclip.finetuning.loop import CURVES
from pcclip.finetuning.text_tower import TextTower

TWO = {"processes": 2, "checkpoint_every": 2, "keep_epochs": [2]}
TEXTS = ["The first image shows a red disc, while the second image shows a blue bar.", "a dog"]


@pytest.fixture(scope="module")
def work(photos, tiny_model, tiny_encoder, tmp_path_factory):
    """01 and 02, with verdicts, and 03 as one process does it at once: its curve and what its model makes of TEXTS."""
    folder = tmp_path_factory.mktemp("distributed")
    bank = folder / "bank.yaml"
    bank.write_text(yaml.safe_dump(BANK))
    values = run_values(photos, tiny_model, folder)
    values["generate"] |= {
        "attributes": str(bank),
        "attribute_pairs": 60,
        "held_out_attribute_pairs": 20,
        "thing_pairs": 6,
    }
    values["finetune"] |= {**ranks.TERMS, **TWO, "processes": 1}
    config = params.check({**values, "run": "whole"})
    images = load_images(config)
    comparisons = generate.generate(config, images, tiny_encoder, Judge())
    vectors, _ = embed(config, images, tiny_encoder)
    curve = launch.finetune(config, images, vectors, comparisons, tiny_encoder)
    return SimpleNamespace(
        values=values,
        given=(images, vectors, comparisons, tiny_encoder),
        curve=curve,
        vectors=load_model(str(config.folder)).encode_texts(TEXTS),
    )


@pytest.fixture
def prepare(work):
    """prepare(run, processes=...) is a run on the same 01 and 02: its config, its folder, what finetune() is given."""

    def call(run, **settings):
        config = params.check(
            {**work.values, "run": run, "reuse": "whole", "finetune": {**work.values["finetune"], **settings}}
        )
        return SimpleNamespace(config=config, folder=config.folder / finetuning.FOLDER, all=(config, *work.given))

    return call


def check_same(given, work) -> None:
    """The curve and the models of a run are those of the one that one process did, up to rounding."""
    curve = pd.read_csv(given.folder / CURVES)
    keys = ["step", "epoch", "split", "metric"]
    pd.testing.assert_frame_equal(curve[keys], work.curve[keys])
    rounding = {"loss": 2e-4, "attribute": 2e-4, "replay": 2e-4}  # elsewhere a cosine near a bound may cross it
    for metric, rows in curve.groupby("metric"):
        expected = work.curve.value[rows.index].to_numpy()
        assert rows.value.to_numpy() == pytest.approx(expected, abs=rounding.get(metric, 0.13)), metric
    manifest = json.loads((given.folder / "manifest.json").read_text())
    assert (manifest["counts"]["steps"], manifest["counts"]["train"]) == (20, 40)
    assert (given.folder / "epoch-002" / "model.json").is_file()
    assert load_model(str(given.config.folder)).encode_texts(TEXTS) == pytest.approx(work.vectors, abs=2e-3)


def begin(given, monkeypatch) -> None:
    """A run that is interrupted after seven steps of one process."""
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_after(patch, TextTower, "step", 7)
        launch.finetune(*given.all)


# in processes of their own


def test_two_processes_step_as_one_and_one_continues_when_one_of_them_dies(prepare, work, monkeypatch, capsys):
    given = prepare("dies", processes=2)
    with monkeypatch.context() as patch, pytest.raises(PcclipError, match="a process died") as error:
        patch.setattr(launch, "_MODULE", "helpers.ranks")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), *filter(None, sys.path)]))
        launch.finetune(*given.all)
    assert "SIGKILL" in str(error.value), "the last lines of the log"
    assert not (given.folder / "manifest.json").exists()

    first, second = (torch.load(given.config.folder.parent / f"steps-{rank}.pt") for rank in (0, 1))
    expected = ranks.steps(given.config)
    assert list(first) == list(expected) == list(ranks.STEPS)
    for name, (terms, gradients) in expected.items():
        close = 2e-2 if name == "bf16" else 1e-6
        assert first[name][0] == pytest.approx(terms, abs=close), name
        assert first[name][1].keys() == gradients.keys(), name
        for tensor, gradient in gradients.items():
            size = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(first[name][1][tensor], gradient, rtol=0, atol=close * size, msg=name + tensor)
            assert torch.equal(first[name][1][tensor], second[name][1][tensor]), "every process takes the same step"

    capsys.readouterr()
    launch.finetune(*prepare("dies").all)
    assert "continuing at step 6 of 20" in capsys.readouterr().out
    check_same(given, work)


def test_two_processes_started_by_the_notebook_continue_what_one_began(prepare, work, monkeypatch, tmp_path, capsys):
    begin(prepare("begun"), monkeypatch)
    given = prepare("begun", processes=2)
    capsys.readouterr()
    monkeypatch.setattr(TextTower, "step", None)  # nothing is trained in the notebook's own process
    execute(ROOT / "notebooks" / "03_finetune.ipynb", tmp_path / "03.ipynb", given.config.model_dump())
    said = capsys.readouterr().out
    assert "continuing at step 6 of 20" in said
    assert said.count("steps: 14/14") == 1, "only the first process talks"
    check_same(given, work)
    launch.finetune(*given.all)
    assert "done already" in capsys.readouterr().out


# in this process


def test_machines_that_share_nothing_but_the_storage(values, tiny_encoder, tmp_path, monkeypatch, capsys):
    """01 and 02 are fetched, checkpoint and kept epoch outlive the machine, and the notebook's gets the result."""
    pytest.importorskip("upath")

    def on(machine: str):
        return params.check(
            {
                **values,
                "outputs": str(tmp_path / machine),
                "storage": f"memory://{tmp_path.name}",
                "finetune": {**values["finetune"], "checkpoint_every": 2, "keep_epochs": [1]},
            }
        )

    notebook = on("notebook")
    images = load_images(notebook)
    comparisons = generate.generate(notebook, images, tiny_encoder)
    vectors, _ = embed(notebook, images, tiny_encoder)
    crash_after(monkeypatch, TextTower, "step", 7)
    with pytest.raises(Crash):
        launch.train(on("lost"))
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "lost")
    launch.train(on("other"))
    assert "continuing at step 6 of 20" in capsys.readouterr().out
    monkeypatch.setattr(launch, "_by_accelerate", None)
    apart = notebook.model_copy(update={"finetune": notebook.finetune.model_copy(update={"processes": 2})})
    curve = launch.finetune(apart, images, vectors, comparisons, tiny_encoder)
    assert set(curve.step[curve.split == "train"]) == set(range(1, 21))
    for folder in (notebook.folder, on("other").folder):
        load_model(str(folder / finetuning.FOLDER / "epoch-001"))
    assert (load_model(str(notebook.folder)).encode_texts(TEXTS) != tiny_encoder.encode_texts(TEXTS)).any()


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares(monkeypatch, size, n, rng):
    """Every text is dealt, shares are of one size, and their tokens are as even as the longest text allows."""
    lengths, shares = rng.integers(1, 40, n), []
    monkeypatch.setattr(distributed, "size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(distributed.Share(lengths).rows)
    assert {len(rows) for rows in shares} == {-(-n // size)}
    dealt = np.stack(shares, axis=1).ravel()
    assert sorted(dealt[:n]) == list(range(n))
    if n % size == 0:
        tokens = [lengths[rows].sum() for rows in shares]
        assert max(tokens) - min(tokens) <= lengths.max()
    if size == 1:
        assert list(shares[0]) == list(range(n)), "one process sees the batch as it is"


def test_how_many_processes_is_no_part_of_the_result(prepare):
    keys = {finetuning.stage(prepare("any", **changes).config).key for changes in ({}, {"processes": 4})}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('a line'); sys.exit('pcclip: lower finetune.lr')", "^lower finetune.lr$"),
        ("import os; print('steps: 3/9', flush=True); os.kill(os.getpid(), 9)", "a process died.*\nsteps: 3/9$"),
        ("raise ValueError('what?')", "a process died(.|\n)*ValueError: what\\?$"),
    ],
)
def test_what_is_said_of_a_command_that_fails(code, says):
    with pytest.raises(PcclipError, match=says):
        launch._run([sys.executable, "-S", "-c", code], dict(os.environ))


@pytest.mark.parametrize(
    ("patched", "value", "says"),
    [
        ("torch.cuda.device_count", lambda: 1, "finetune.processes = 2: this machine has 1 GPUs"),
        ("pcclip.finetuning.launch.find_spec", lambda name: None, "pip install 'pcclip[paper]'"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_started(prepare, monkeypatch, patched, value, says):
    monkeypatch.setattr(patched, value)
    monkeypatch.setattr(launch, "_run", None)
    with pytest.raises(PcclipError, match=re.escape(says)):
        launch.finetune(*prepare("lacking", processes=2).all)
