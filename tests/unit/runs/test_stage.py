"""Stages: when work counts as done, what survives a failure, and who may write."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from helpers.crash import Crash
from helpers.faults import flipped, no_file_above, told
from PIL import Image

from pcclip.errors import PcclipError
from pcclip.runs import files as stage
from pcclip.runs.files import (
    atomic,
    digest,
    read_checkpoint,
    read_parquet,
    write_checkpoint,
    write_json,
    write_parquet,
    write_tensors,
)
from pcclip.runs.stage import Stage, alone, built_on, finished, once, read_manifest


def finish(folder, inputs: dict) -> Stage:
    """A finished stage with one output of 10 bytes."""
    done = Stage(folder, inputs)
    with done.work():
        (folder / "out.txt").write_text("0123456789")
        done.finish(["out.txt"], {"rows": 1})
    return done


def left_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


# ---- done or not -----------------------------------------------------------------------------------------------------


def test_done_after_finishing(tmp_path):
    folder = tmp_path / "01_x"
    assert not Stage(folder, {"lr": 1}).done()
    finish(folder, {"lr": 1})
    assert Stage(folder, {"lr": 1}).done()
    assert left_in(folder) == {"out.txt", "manifest.json"}


def test_not_done_with_another_key(tmp_path):
    finish(tmp_path / "01_x", {"lr": 1})
    assert not Stage(tmp_path / "01_x", {"lr": 2}).done()


def test_key_depends_on_the_stages_name(tmp_path):
    assert Stage(tmp_path / "01_x", {"a": 1}).key != Stage(tmp_path / "02_y", {"a": 1}).key


def same_size_and_times(file):
    stat = file.stat()
    file.write_text("0123456780")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("012345678"),
        lambda file: file.write_text("0123456780"),
        same_size_and_times,
    ],
    ids=["missing", "cut short", "same size", "same size and times"],
)
def test_a_spoilt_output_is_neither_done_nor_read(tmp_path, capsys, spoil):
    done = finish(tmp_path / "01_x", {})
    file = tmp_path / "01_x" / "out.txt"
    spoil(file)
    assert not done.done()
    assert capsys.readouterr().out == f"{file}: not the file that 01_x wrote; 01_x is not done any more\n"
    with pytest.raises(PcclipError, match=r"out\.txt: missing or changed since 01_x wrote it; run its notebook again"):
        finished(tmp_path / "01_x")
    assert finish(tmp_path / "01_x", {}).done()


@pytest.mark.parametrize("field", ["key", "inputs", "counts", "model", "outputs", "seconds"])
def test_an_edited_manifest_is_none(tmp_path, field):
    done = finish(tmp_path / "01_x", {})
    path = tmp_path / "01_x" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: [1]}))
    assert not done.done()
    assert read_manifest(tmp_path / "01_x") is None


def test_a_manifest_may_hold_any_json(tmp_path):
    inputs = {"numbers": {10: 1.5, 2: float("inf")}, "pair": (1, None), "path": tmp_path, "text": "\ud800 é"}
    assert finish(tmp_path / "01_x", inputs).done()


CORRUPT = [
    pytest.param(b"", id="empty"),
    pytest.param(b'{"key": "3f', id="cut short"),
    pytest.param(b"\0" * 64, id="zeros"),
    pytest.param(b"null", id="null"),
    pytest.param(b"\xff\xfe\x00", id="binary"),
    pytest.param(b"[1]", id="a list"),
    pytest.param(b'{"stage": "01_x"}', id="no key"),
    pytest.param(b"[" * 100_000, id="nested without end"),
]


@pytest.mark.parametrize("content", CORRUPT)
def test_not_done_with_a_corrupt_manifest(tmp_path, content):
    done = finish(tmp_path / "01_x", {})
    (tmp_path / "01_x" / "manifest.json").write_bytes(content)
    assert not done.done()
    with pytest.raises(PcclipError, match="has not finished"):
        built_on([tmp_path / "01_x"], {})


def test_not_done_while_being_done_again(tmp_path):
    done = finish(tmp_path / "01_x", {})
    with done.work():
        assert not done.done()
    assert not done.done()


def test_manifest_tells_what_went_in_and_came_out(tmp_path):
    finish(tmp_path / "01_x", {"seed": 3, "lr": 1})
    manifest = finished(tmp_path / "01_x")
    assert (manifest["inputs"], manifest["seed"], manifest["counts"]) == ({"seed": 3, "lr": 1}, 3, {"rows": 1})
    assert manifest["outputs"]["out.txt"]["bytes"] == 10
    assert {"torch", "python", "pcclip"} <= set(manifest["versions"])


def test_finished_on_an_unfinished_stage(tmp_path):
    with pytest.raises(PcclipError, match=r"01_x: this stage has not finished; run its notebook first"):
        finished(tmp_path / "01_x")


def test_hashes_follow_the_content(tmp_path):
    finish(tmp_path / "a", {})
    finish(tmp_path / "b", {})

    def hashes(name):
        return built_on([tmp_path / name], {})[name]

    assert hashes("a") == hashes("b")
    with Stage(tmp_path / "b", {}).work() as again:
        (tmp_path / "b" / "out.txt").write_text("9876543210")
        again.finish(["out.txt"], {})
    assert hashes("a") != hashes("b")


def test_digest_is_stable_and_blind_to_key_order():
    assert digest({"b": [1, 2.5], "a": None}) == digest({"a": None, "b": [1, 2.5]})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


# ---- partial work ----------------------------------------------------------------------------------------------------


def test_partial_work_is_kept_for_the_same_key_only(tmp_path):
    mine, other = Stage(tmp_path / "01_x", {"lr": 1}), Stage(tmp_path / "01_x", {"lr": 2})
    with pytest.raises(Crash), mine.work():
        (mine.partial / "shard").write_text("half")
        raise Crash
    with Stage(tmp_path / "01_x", {"lr": 1}).work() as again:
        assert (again.partial / "shard").read_text() == "half"
    with other.work():
        assert not mine.partial.exists()
        assert not any(other.partial.iterdir())


def test_partial_work_left_by_a_kill_after_the_manifest_goes(tmp_path):
    done = finish(tmp_path / "01_x", {})
    done.partial.mkdir()
    assert Stage(tmp_path / "01_x", {"lr": 2}).done() or done.partial.exists(), "another key's work is not its own"
    assert done.done()
    assert not done.partial.exists()


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    stale = tmp_path / "01_x" / ".vectors.parquet.999.tmp"
    stale.parent.mkdir()
    stale.write_text("half")
    with Stage(tmp_path / "01_x", {}).work():
        assert not stale.exists()


def test_temporary_files_beside_a_finished_stage_go_at_the_next_look(tmp_path):
    """Its own, also outside its folder: a power cut may undo a deletion and keep the manifest."""
    with Stage(tmp_path / "04_x", {}).work() as stage:
        (tmp_path / "metrics.csv").write_text("x")
        stage.finish(["../metrics.csv"], {})
    own, other = tmp_path / ".metrics.csv.1a2b3c4d.tmp", tmp_path / ".parameters.yaml.1a2b3c4d.tmp"
    own.touch()
    other.touch()
    assert stage.done()
    assert (own.exists(), other.exists()) == (False, True)


# ---- one writer ------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path/01_x."""
    (tmp_path / "01_x").mkdir()
    code = (
        "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); "
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "01_x" / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_two_processes_do_not_share_a_stage(tmp_path, holder):
    with (
        pytest.raises(PcclipError, match="another run is at work"),
        alone(tmp_path / "01_x" / ".lock", "another run is at work"),
    ):
        raise AssertionError("worked without the lock")


def test_a_stage_waits_for_the_run_that_holds_it(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("pcclip.runs.stage._LOCK_SECONDS", 0.01)
    monkeypatch.setattr("pcclip.runs.stage.say", lambda line: (said.append(line), holder.kill()))
    said = []
    assert finish(tmp_path / "01_x", {}).done()
    assert said == [f"{tmp_path / '01_x'}: another run is writing here, waiting for it"]


def test_two_runs_that_begin_a_stage_at_the_same_moment_do_it_once(tmp_path):
    began, did = Barrier(2), []

    @once
    def run(_: int) -> str:
        stage = Stage(tmp_path / "01_x", {})
        if stage.done():
            return (stage.folder / "a.txt").read_text()
        began.wait(60)
        with stage.work():
            did.append(stage)
            (stage.folder / "a.txt").write_text("x")
            stage.finish(["a.txt"], {})
        return "x"

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == ["x", "x"]
    assert len(did) == 1


def test_a_killed_process_lets_go(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert finish(tmp_path / "01_x", {}).done()


# ---- atomic files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, Crash])
def test_a_failed_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"old": True})
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert json.loads(path.read_text()) == {"old": True}
    assert left_in(path.parent) == {"a.json"}


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path):
    write_json(tmp_path / "a.json", "old")
    with open(tmp_path / "a.json") as reader:
        write_json(tmp_path / "a.json", "new")
        assert json.load(reader) == "old"
    assert json.loads((tmp_path / "a.json").read_text()) == "new"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no room on disk"),
        (errno.EDQUOT, "no room on disk"),
        (errno.EROFS, "cannot write here"),
        (errno.EACCES, "cannot write here"),
    ],
)
def test_disk_trouble_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, number, message):
    path = tmp_path / "a.json"
    write_json(path, "old")

    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PcclipError, match=message) as error:
        write_json(path, "new")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert json.loads(path.read_text()) == "old"
    assert left_in(tmp_path) == {"a.json"}


def write_numpy(path, values):
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values)


def write_csv(path, values):
    with atomic(path) as temporary:
        pd.DataFrame(values).to_csv(temporary)


def write_png(path, values):
    with atomic(path) as temporary:
        Image.frombytes("L", (200, 100), values.tobytes()).save(temporary, "PNG")


WRITERS = {
    "parquet": lambda path, values: write_parquet(path, pa.table({"x": values})),
    "tensors": lambda path, values: write_tensors(path, {"x": torch.from_numpy(values)}),
    "checkpoint": lambda path, values: write_checkpoint(path, {"x": torch.from_numpy(values)}),
    "json": lambda path, values: write_json(path, values.tolist()),
    "numpy": write_numpy,
    "csv": write_csv,
    "png": write_png,
}


@pytest.mark.parametrize("size", [0, 100, 9_000])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_line_whatever_writes(tmp_path, rng, write, size):
    path, values = tmp_path / "big.bin", rng.random(5_000, dtype=np.float32)
    path.write_bytes(b"old")
    with pytest.raises(PcclipError) as error, no_file_above(size):
        write(path, values)
    assert str(error.value) == f"{path}: no room on disk; free some and run again, finished work is kept"
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == {"big.bin"}


def test_another_error_of_a_writer_stays_itself(tmp_path):
    with pytest.raises(RuntimeError, match="^mine$"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError("mine")


def test_no_room_while_working(tmp_path):
    with pytest.raises(PcclipError, match="01_x: no room on disk"), Stage(tmp_path / "01_x", {}).work():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert finish(tmp_path / "01_x", {}).done()  # the lock was given back


@pytest.mark.parametrize("folder", ["file", "file/01_x"])
def test_a_file_where_a_folder_should_be(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(PcclipError, match="file"), Stage(tmp_path / folder, {}).work():
        pass


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_missing_table_names_the_file(tmp_path):
    with pytest.raises(PcclipError, match=r"t\.parquet: not there"):
        read_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_half_written_table_names_the_file(tmp_path, keep):
    path = tmp_path / "t.parquet"
    write_parquet(path, pa.table({"x": range(1000)}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(PcclipError, match=r"t\.parquet: not a whole Parquet file"):
        read_parquet(path)


@pytest.mark.parametrize("part", ["pages", "footer"])
def test_damaged_table_names_the_file(tmp_path, part):
    path = tmp_path / "t.parquet"
    write_parquet(path, pa.table({"x": [str(i) for i in range(5000)]}))
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    start, end = (100, footer // 2) if part == "pages" else (footer, len(content) - 8)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    with pytest.raises(PcclipError, match=r"t\.parquet: not a whole Parquet file"):
        read_parquet(path)


@pytest.mark.parametrize("start", [0.3, 0.5])
def test_a_flipped_bit_of_a_table_is_seen(tmp_path, start):
    path = tmp_path / "t.parquet"
    write_parquet(path, pa.table({"x": np.random.default_rng(0).random(5000)}))
    content = bytearray(path.read_bytes())
    content[int(start * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(PcclipError, match=r"t\.parquet: not a whole Parquet file .*CRC") as error:
        read_parquet(path)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_of_a_checkpoint_is_seen(tmp_path):
    path, state = tmp_path / "c.pt", {"step": 3, "curve": [{"loss": 1.5}], "x": torch.arange(50.0)}
    write_checkpoint(path, state)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 611):
        path.write_bytes(flipped(whole, bit))
        message, read = told(read_checkpoint, path)
        assert message or str(read) == str(state), "no bit of what was stored"
        assert re.fullmatch(r"|.*c\.pt: a damaged checkpoint \(.*\); delete it and run again", message)


# ---- file digests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def settled(tmp_path):
    """A file that was written an hour ago."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    return path


@pytest.fixture
def opened(monkeypatch):
    """Paths whose whole content was read for a digest."""
    found, read = [], stage._read_digest
    monkeypatch.setattr(stage, "_read_digest", lambda path: found.append(path) or read(path))
    return found


def test_a_settled_file_is_read_once(settled, opened):
    assert stage.file_digest(settled) == stage.file_digest(str(settled)) == hashlib.sha256(b"one").hexdigest()
    assert opened == [str(settled)]


def test_a_file_that_was_just_written_is_read_each_time(tmp_path, opened):
    path = tmp_path / "new.bin"
    for content in (b"one", b"two"):  # the same size, perhaps within a tick of the clock
        path.write_bytes(content)
        assert stage.file_digest(path) == hashlib.sha256(content).hexdigest()
    assert len(opened) == 2


@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_a_changed_file_is_read_again_though_its_time_stamp_is_the_old_one(settled, tmp_path, how):
    stage.file_digest(settled)
    before = settled.stat()
    changed = settled if how == "written over" else tmp_path / "other.bin"
    changed.write_bytes(b"two")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(changed, settled)
    assert stage.file_digest(settled) == hashlib.sha256(b"two").hexdigest()
