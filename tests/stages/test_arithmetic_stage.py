"""Stage 05 as it is run: its tables and manifest, a second run that only reads, and the pictures it makes."""

import pandas as pd
import pytest
from PIL import Image

from pcclip import config as params
from pcclip.arithmetic import claims, geometry, pictures, stage as arithmetic
from pcclip.encoders import load_model
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as report
from pcclip.runs.stage import read_manifest


@pytest.fixture(scope="module")
def made(photos, tiny_model, tmp_path_factory):
    """A tiny run up to 05: (config, images, vectors, models, what analyze returned)."""
    from helpers.runs import run_values, up_to_03

    given = run_values(photos, tiny_model, tmp_path_factory.mktemp("stage05"))
    given["finetune"] |= {"epochs": 1, "keep_epochs": []}
    given["arithmetic"] |= {
        "triples": 10,
        "quadruples": 10,
        "changes": [{"start": "disc", "text": "The first image shows a ring, while the second image shows a disc."}],
    }
    config = params.check(given)
    run = up_to_03(config, load_model(tiny_model))
    models = report.load_models(config)
    peered = {**models, "peer": None}  # peers are 04's
    return config, run.images, run.vectors, models, arithmetic.analyze(config, run.images, run.vectors, peered)


def test_every_table_is_there_and_in_the_manifest(made):
    config, *_, tables = made
    manifest = read_manifest(config.folder / arithmetic.FOLDER)
    assert set(manifest["outputs"]) == {f"{name}.parquet" for name in arithmetic.TABLES}
    assert list(tables["geometry"].columns) == [
        "metric",
        "model",
        "control",
        "value",
        "ci_low",
        "ci_high",
        "n",
        "detectable",
    ]
    assert set(tables["geometry"].model) >= {"images", "base", "finetuned"}
    assert list(tables["claims"].columns) == claims.COLUMNS
    assert set(tables["claims"].holds) <= {"yes", "no", "undecided"}
    assert set(tables["sweep"].alpha) == {0.0, *arithmetic.ALPHAS, float("inf")}
    assert tables["composed"].empty
    assert set(tables["pictures"].kind) == {pictures.STAND_IN}
    assert manifest["counts"]["claims"] == len(tables["claims"])


def test_claims_are_what_the_tables_say(made):
    *_, tables = made
    [row] = tables["claims"].query("claim == 'finetuning turns f(d) towards the image difference'").itertuples()
    part = tables["geometry"].query("metric == 'alignment, image difference' and control == 'none'")
    value = part.set_index("model").value
    assert row.number == pytest.approx(value["finetuned"] - value["base"])
    assert row.ci_low <= row.number <= row.ci_high


def test_items_and_geometry_agree(made):
    config, *_, tables = made
    summary = geometry.summary(tables["items"], config.evaluate.bootstrap, config.seed)
    means = summary.set_index(["measure", "model"])[["value", "ci_low", "ci_high"]]
    rows = tables["geometry"].set_index(["metric", "control", "model"])[["value", "ci_low", "ci_high"]]
    for measure, control in (("image difference", "none"), ("image difference, reversed text", "reversed")):
        for model in ("base", "finetuned"):
            expected = rows.loc[("alignment, image difference", control, model)]
            assert list(means.loc[(measure, model)]) == pytest.approx(list(expected))


def test_a_second_run_reads(made, monkeypatch, capsys):
    config, images, vectors, models, tables = made
    monkeypatch.setattr(geometry, "measure", lambda *args: pytest.fail("work was done again"))
    again = arithmetic.analyze(config, images, vectors, models)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table, check_dtype=not table.empty)
    assert "done already" in capsys.readouterr().out


def test_what_the_stage_depends_on(made):
    config, images, *_ = made
    key = arithmetic.stage(config, images).key
    for block, change in (
        ("arithmetic", {"triples": 11}),
        ("evaluate", {"bootstrap": 101}),
    ):
        part = getattr(config, block).model_copy(update=change)
        assert arithmetic.stage(config.model_copy(update={block: part}), images).key != key, change


def test_a_set_that_is_not_there_is_named_before_any_work(made, tmp_path):
    config, images, *_ = made
    asked = config.arithmetic.model_copy(update={"composed": {"cirr": params.PublicSet(path=str(tmp_path))}})
    for check in (arithmetic.stage, arithmetic.check):
        with pytest.raises(PcclipError, match="arithmetic.composed.cirr: .*no captions"):
            check(config.model_copy(update={"arithmetic": asked}), images)


def test_a_decoder_without_diffusers_is_told_before_any_work(made, monkeypatch):
    config, images, *_ = made
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    asked = config.arithmetic.model_copy(update={"decoder": "somewhere"})
    with pytest.raises(PcclipError, match="arithmetic.decoder needs diffusers"):
        arithmetic.check(config.model_copy(update={"arithmetic": asked}), images)


def test_pictures_are_made_and_listed(made, monkeypatch):
    """With a decoder that paints what it is told."""
    config, images, vectors, models, _ = made
    monkeypatch.setattr(pictures, "load_pipeline", lambda spec: spec)
    monkeypatch.setattr(pictures, "decode", lambda spec, vector, seed: Image.new("RGB", (5, 4), (seed, 7, 9)))
    settings = config.arithmetic.model_copy(update={"decoder": "painter"})
    other = config.model_copy(update={"arithmetic": settings})
    table = arithmetic.analyze(other, images, vectors, models)["pictures"]
    manifest = read_manifest(other.folder / arithmetic.FOLDER)
    assert set(table.kind) == {pictures.DECODED}
    assert len(table) == manifest["counts"]["pictures"] > 0
    for path, number in zip(table.picture, table.row, strict=True):
        assert Image.open(path).getpixel((0, 0)) == (config.seed + number, 7, 9)
    assert "pictures/000.png" in manifest["outputs"]
