"""A run survives kills, power cuts, full disks, edits and flipped bits: its results are those of a run without faults.

`make test` tries a few faults of each kind, `make test-faults` many (PCCLIP_FAULTS).
"""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.comparisons_run import ComparisonsRun
from helpers.faults import FAULTS, flipped, mutated, no_file_above, told
from helpers.power_cut import Recording
from helpers.runs import run_values
from helpers.toy_run import ToyRun
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pcclip import config as params
from pcclip.data.image_set import load_images


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    """The outputs of a run without faults."""
    return ToyRun(tmp_path_factory.mktemp("reference"))()


def stored(folder: Path, make: Callable = ToyRun) -> set[str]:
    """Keys of the answers in the log of the run that `make` makes in a folder."""
    return {key for key, _ in make(folder).log.read()}


def resumed(folder: Path, make: Callable = ToyRun) -> tuple[dict[str, bytes], list[str]]:
    """Run again, doing what each message says, until it ends. Returns the outputs and the keys that were asked."""
    run = make(folder)
    for _ in range(5):
        message, outputs = told(run)
        if not message:
            return outputs, run.asked
        named = re.match(r"(\S+?): .*delete it and run", message)
        assert named, f"says nothing to do: {message}"
        Path(named[1]).unlink()
    raise AssertionError(f"never ends: {message}")


def whole(folder: Path) -> None:
    assert not [*folder.rglob("*.tmp"), *folder.rglob("partial-*")], "leavings"


@pytest.mark.parametrize("seed", range(3 * FAULTS))
def test_after_a_power_cut_nothing_reported_is_lost(tmp_path, reference, seed):
    """Also after two cuts, the second while the first is mended."""
    rng, kept = np.random.default_rng(seed), set[str]()
    folder = tmp_path / "run"
    folder.mkdir()
    for _ in range(rng.integers(1, 3)):
        recording = Recording(folder)
        with recording.recording():
            assert not set(ToyRun(folder).asked) & kept
            ToyRun(folder)()
        kept |= recording.reported(recording.cut(rng, keep_all=bool(rng.random() < 0.3)))
        assert kept <= stored(folder)
    outputs, asked = resumed(folder)
    assert outputs == reference
    assert not set(asked) & kept
    whole(folder)


@pytest.mark.parametrize("seed", range(FAULTS))
def test_a_flipped_bit_anywhere_is_mended(tmp_path_factory, reference, seed, finished_run):
    rng = np.random.default_rng(seed)
    files = sorted(path for path in finished_run.rglob("*") if path.is_file() and path.name != ".lock")
    file = files[seed % len(files)].relative_to(finished_run)
    folder = tmp_path_factory.mktemp("flipped") / "run"
    shutil.copytree(finished_run, folder)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(flipped(content, int(rng.integers(8 * len(content)))))
    assert resumed(folder)[0] == reference
    assert stored(folder) == stored(finished_run) or file.suffix == ".jsonl"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    ToyRun(folder)()
    return folder


@pytest.fixture(scope="module", autouse=True)
def quiet(reference):
    """No lines of progress from thousands of runs."""
    FaultyRun.reference = reference
    with pytest.MonkeyPatch.context() as patch:
        for module in ("runs.progress", "runs.log", "runs.stage", "comparisons.stage"):
            patch.setattr(f"pcclip.{module}.say", lambda text: None)
        patch.setattr("pcclip.runs.stage.versions", lambda: {})  # reading them takes a third of a tiny run
        yield


@pytest.fixture(scope="module", autouse=True)
def comparisons(photos, tiny_model, tiny_encoder, tmp_path_factory):
    """Stage 01 of a tiny run for FaultyComparisons, and what it makes without faults."""
    values = run_values(photos, tiny_model, tmp_path_factory.mktemp("comparisons"))
    values["generate"] |= {"pairs": 20, "held_out_pairs": 8}
    config = params.check(values)
    make = partial(ComparisonsRun, config=config, images=load_images(config), model=tiny_encoder)
    FaultyComparisons.make = staticmethod(make)
    FaultyComparisons.reference = make(tmp_path_factory.mktemp("reference of 01"))()


class FaultyRun(RuleBasedStateMachine):
    """Any order of faults and of runs that mend them.

    Attributes:
        make: makes the run in a folder.
        reference: its outputs without faults.
    """

    make: Callable = ToyRun
    reference: dict[str, bytes]

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed):
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.folder, self.rng, self.kept = Path(self.home.name) / "run", np.random.default_rng(seed), set[str]()
        self.folder.mkdir()

    def teardown(self):
        if hasattr(self, "home"):
            self.home.cleanup()

    @invariant()
    def every_answer_reported_is_there(self):
        if hasattr(self, "home"):
            assert self.kept <= stored(self.folder, self.make)

    @rule()
    def run(self):
        outputs, asked = resumed(self.folder, self.make)
        assert outputs == self.reference
        assert not set(asked) & self.kept
        self.kept = stored(self.folder, self.make)

    @rule(power=st.booleans())
    def cut(self, power):
        recording = Recording(self.folder)
        with recording.recording():
            told(self.make(self.folder))
        self.kept |= recording.reported(recording.cut(self.rng, keep_all=not power))

    @rule(size=st.sampled_from([0, 50, 300, 700, 1500, 3000]))
    def fill_the_disk(self, size):
        with no_file_above(size):
            told(self.make(self.folder))

    @rule(pick=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "edit", "delete"]))
    def spoil(self, pick, how):
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock")
        if not files:
            return
        file = files[int(pick * len(files))]
        content = file.read_bytes()
        if how == "delete" or not content:
            file.unlink()
        elif how == "flip":
            file.write_bytes(flipped(content, int(self.rng.integers(8 * len(content)))))
        else:
            file.write_bytes(mutated(content, self.rng, content))
        self.kept &= stored(self.folder, self.make)  # what was spoilt is lost, and nothing else


FaultyRun.TestCase.settings = settings(
    max_examples=max(5, FAULTS // 4),
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestFaultyRun = FaultyRun.TestCase


class FaultyComparisons(FaultyRun):
    """The same with the real stage 01: its pairs, questions, log, filters and tables."""


FaultyComparisons.TestCase.settings = FaultyRun.TestCase.settings
TestFaultyComparisons = FaultyComparisons.TestCase
