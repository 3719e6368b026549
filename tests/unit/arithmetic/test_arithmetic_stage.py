"""Stage 05 as it is run: its tables and manifest, a second run that only reads, and the pictures it makes."""

import pandas as pd
import pytest

from pcclip import config as params
from pcclip.arithmetic import claims, geometry, pictures
from pcclip.arithmetic import stage as arithmetic
from pcclip.arithmetic.stage import Tables
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
        "explained": 2,
        "alphas": [1.0],
        "changes": [{"start": "disc", "text": "The first image shows a ring, while the second image shows a disc."}],
    }
    config = params.check(given)
    run = up_to_03(config, load_model(tiny_model))
    models = report.load_models(config)
    peered = {**models, "peer": None}  # peers are 04's
    return config, run.images, run.vectors, models, arithmetic.analyze(config, run.images, run.vectors, peered)


def test_every_table_is_there_and_in_the_manifest(made):
    config, *_ = made
    found, manifest = arithmetic.read(config), read_manifest(config.folder / arithmetic.FOLDER)
    names = [f"{name}.parquet" for name in Tables.__dataclass_fields__]
    assert set(manifest["outputs"]) == {"items.parquet", "changes.parquet", *names}
    assert list(found.geometry.columns) == geometry.COLUMNS
    assert set(found.geometry.model) >= {"images", "base", "finetuned"}
    assert list(found.claims.columns) == claims.COLUMNS
    assert set(found.claims.holds) <= {"yes", "no", "undecided"}
    assert set(found.sweep.alpha) == {0.0, 1.0, float("inf")}
    assert set(found.explanations.model) == {"base", "finetuned"}
    assert found.composed.empty
    assert set(found.pictures.kind) == {pictures.STAND_IN}
    assert manifest["counts"]["claims"] == len(found.claims)


def test_claims_are_what_the_tables_say(made):
    config, *_ = made
    found = arithmetic.read(config)
    [row] = found.claims[found.claims.claim == "finetuning turns f(d) towards the image difference"].itertuples()
    part = found.geometry[(found.geometry.metric == "alignment, image difference") & (found.geometry.control == "none")]
    value = part.set_index("model").value
    assert row.number == pytest.approx(value["finetuned"] - value["base"])
    assert row.ci_low <= row.number <= row.ci_high


def test_items_and_geometry_agree(made):
    config, _, _, _, (items, _) = made
    summary = arithmetic.summary(items, config.evaluate.bootstrap, config.seed)
    part = arithmetic.read(config).geometry
    for measure, control in (("image difference", "none"), ("image difference, reversed text", "reversed")):
        for model in ("base", "finetuned"):
            [one] = summary[(summary.measure == measure) & (summary.model == model)].itertuples()
            [two] = part[
                (part.metric == "alignment, image difference") & (part.model == model) & (part.control == control)
            ].itertuples()
            assert (one.value, one.ci_low, one.ci_high) == pytest.approx((two.value, two.ci_low, two.ci_high))


def test_a_second_run_reads(made, monkeypatch, capsys):
    config, images, vectors, models, (items, changed) = made
    monkeypatch.setattr(arithmetic, "measures", lambda *a: pytest.fail("work was done again"))
    again = arithmetic.analyze(config, images, vectors, models)
    pd.testing.assert_frame_equal(again[0], items.reset_index(drop=True))
    pd.testing.assert_frame_equal(again[1], changed.reset_index(drop=True))
    assert "done already" in capsys.readouterr().out


def test_what_the_stage_depends_on(made):
    config, images, *_ = made
    key = arithmetic.stage(config, images).key
    for block, change in (
        ("arithmetic", {"triples": 11}),
        ("evaluate", {"bootstrap": 101}),
        ("finetune", {"temperature": 0.2}),
        ("generate", {"attributes": "size"}),
    ):
        part = getattr(config, block).model_copy(update=change)
        assert arithmetic.stage(config.model_copy(update={block: part}), images).key != key, change


def test_a_model_does_not_judge_its_own_pictures(made):
    config, images, *_ = made
    own = config.model_copy(update={"arithmetic": config.arithmetic.model_copy(update={"judge": config.model})})
    for asked in (arithmetic.stage, arithmetic.check_changes):
        with pytest.raises(PcclipError, match="the model whose vectors are decoded; a picture is judged by another"):
            asked(own, images)


def test_a_set_that_is_not_there_is_named_before_any_work(made, tmp_path):
    config, images, *_ = made
    asked = config.arithmetic.model_copy(update={"composed": {"cirr": params.Composed(path=str(tmp_path))}})
    for check in (arithmetic.stage, arithmetic.check_changes):
        with pytest.raises(PcclipError, match="composed set cirr: .*captions: no cap.VERSION.val.json"):
            check(config.model_copy(update={"arithmetic": asked}), images)


def test_a_decoder_without_diffusers_is_told_before_any_work(made, monkeypatch):
    config, images, *_ = made
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    asked = config.arithmetic.model_copy(update={"decoder": "somewhere"})
    with pytest.raises(PcclipError, match="arithmetic.decoder needs diffusers"):
        arithmetic.check_changes(config.model_copy(update={"arithmetic": asked}), images)


def test_pictures_are_made_and_listed(made, monkeypatch):
    """A decoder that paints what it is given."""
    from PIL import Image

    class Painter:
        def __init__(self, spec, steps):
            self.spec = spec

        def picture(self, vector, seed, text):
            return Image.new("RGB", (5, 4), (seed, 255 * text, 9))

    config, images, vectors, models, _ = made
    monkeypatch.setattr(pictures, "Decoder", Painter)
    asked = config.arithmetic.model_copy(update={"decoder": "painter"})
    other = config.model_copy(update={"arithmetic": asked})
    arithmetic.analyze(other, images, vectors, models)
    found, manifest = arithmetic.read(other), read_manifest(other.folder / arithmetic.FOLDER)
    assert set(found.pictures.kind) == {pictures.DECODED}
    assert len(found.pictures) == manifest["counts"]["pictures"] > 0
    for path, number, text in zip(found.pictures.picture, found.pictures.row, found.pictures.start == "", strict=True):
        assert Image.open(path).getpixel((0, 0)) == (config.seed + number, 255 * text, 9)
    assert "pictures/000.png" in manifest["outputs"]
