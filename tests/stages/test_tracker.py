"""finetune.tracker: every point of the curves goes to TensorBoard too, and changes nothing else."""

import sys

import pandas as pd
import pytest
from helpers.runs import run_values, up_to_03
from tensorboardX.proto.event_pb2 import Event

from pcclip import config as params, load_model
from pcclip.errors import PcclipError
from pcclip.finetuning import stage as finetuning


def events(folder):
    """(tag, step, value) of each scalar: a record is a length of 8 bytes, 4 of checksum, the event, 4 of checksum."""
    for file in sorted(folder.glob("events*")):
        content = file.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + size])
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
            content = content[16 + size :]


def test_every_point_is_sent_once(photos, tiny_model, tmp_path):
    values = run_values(photos, tiny_model, tmp_path)
    values["finetune"] |= {"epochs": 1, "keep_epochs": []}
    plain = params.check(values)
    config = params.check(values | {"finetune": values["finetune"] | {"tracker": "tensorboard"}})
    up_to_03(config, load_model(tiny_model))
    folder = config.folder / finetuning.FOLDER
    curves = pd.read_csv(folder / "curves.csv")
    expected = {(f"{row.split}/{row.metric}", row.step): row.value for row in curves.itertuples()}
    found = list(events(folder / "tensorboard"))
    assert len(found) == len(curves)
    assert {(tag, step): value for tag, step, value in found} == pytest.approx(expected, rel=1e-5)
    assert finetuning.stage(plain).done()  # the key is no part of the result


def test_without_its_package(photos, tiny_model, tmp_path, monkeypatch):
    values = run_values(photos, tiny_model, tmp_path)
    values["finetune"] |= {"tracker": "tensorboard"}
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PcclipError, match="pip install tensorboardX"):
        up_to_03(params.check(values), load_model(tiny_model))
