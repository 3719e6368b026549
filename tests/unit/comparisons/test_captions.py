"""Captions written anew, and why some are not kept."""

import json

import pandas as pd
import pytest
from helpers.fake_backend import Writer

from pcclip import config as params
from pcclip.comparisons import captions, stage as generate
from pcclip.comparisons.llm import Reply
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError


def by(values, **generated) -> params.Config:
    return params.check({**values, "generate": {**values["generate"], **generated}})


@pytest.fixture
def rewrite(values):
    """Have a backend write rewrites: (backend, images=None, **changes of generate) -> table."""

    def call(backend, images=None, **changes):
        config = by(values, rewrites="rewrite", **changes)
        return captions.write_rewrites(config, images or load_images(config), lambda prompt: backend)

    return call


def several(images, *captions: str) -> str:
    """Give the first training image these captions. Returns its id."""
    first = images.train["id"][0]
    rest = images.captions[images.captions["id"] != first]
    own = pd.DataFrame({"id": first, "caption": captions})
    object.__setattr__(images, "captions", pd.concat([own, rest], ignore_index=True))
    return first


# rewrites


def test_every_training_caption_is_asked_for_once(rewrite, config):
    backend, images = Writer(), load_images(config)
    table = rewrite(backend)
    assert backend.asked == list(table.original) == list(images.train.set_index("id").caption[table["id"]])
    assert sorted(table["id"]) == sorted(images.train["id"])
    assert list(table.caption) == [f"A picture of {caption[2:-1]} on white." for caption in table.original]
    assert set(table.verdict) == {"kept"}
    for changes, asked in (({"filters": "none"}, 0), ({"temperature": 0.1}, 15)):
        second = Writer()
        rewrite(second, **changes)
        assert len(second.asked) == asked


def test_all_captions_of_an_image_are_written_anew(rewrite, config):
    backend, images = Writer(), load_images(config)
    of = several(images, "A red disc.", "One disc.", "A red disc.")
    table = rewrite(backend, images)
    assert list(table.original[table["id"] == of]) == ["A red disc.", "One disc.", "A red disc."]
    assert backend.asked[:2] == ["A red disc.", "One disc."], "the same caption of one image"
    assert len(backend.asked) == len(table) - 1


@pytest.mark.parametrize(
    ("reply", "finish", "verdict"),
    [
        ("A disc that is red.", "stop", "kept"),
        ("", "error: RuntimeError('full')", "error"),
        ("A disc that is", "length", "unfinished"),
        ("Red disc.", "stop", "length"),
        ("word " * 61, "stop", "length"),
        ("word " * 60, "stop", "kept"),
        ("a red disc", "stop", "copied"),
        ("Answer: A disc that is red.\n\nI hope this helps!", "stop", "kept"),
    ],
)
def test_why_a_rewrite_is_kept_or_not(rewrite, reply, finish, verdict):
    other = Reply("A picture of a thing.", "stop")
    table = rewrite(Writer(lambda caption: Reply(reply, finish) if caption == "A red disc." else other))
    [row] = table[table.original == "A red disc."].itertuples()
    assert (row.verdict, row.raw, row.finish_reason) == (verdict, reply, finish)
    if reply.startswith("Answer"):
        assert row.caption == "A disc that is red."


def test_few_rewrites_are_an_error_that_names_the_reason(rewrite, config):
    with pytest.raises(PcclipError, match=r"rewrites: only 0 of 15 were kept, .* rule 'copied' dropped most \(15\)"):
        rewrite(Writer(lambda caption: Reply(caption, "stop")))
    rewrite(Writer(lambda caption: Reply(caption, "stop")), min_yield=0.0)
    images = load_images(config)
    several(images, *(f"A red disc {k}." for k in range(20)))
    with pytest.raises(
        PcclipError, match=r"rewrites: none of the first 20 replies passes the filters .*'A red disc 0.', 'A red"
    ):
        rewrite(Writer(lambda caption: Reply(caption, "stop")), images, temperature=0.1)


def test_the_stage_stores_rewrites(values, tiny_encoder):
    def write(caption):
        return Reply(caption if "red" in caption else f"A picture of {caption[2:-1]}.", "stop")

    config = by(values, rewrites="rewrite")
    images = load_images(config)
    generate.generate(config, images, tiny_encoder, Writer(write))
    manifest = json.loads((config.folder / generate.FOLDER / "manifest.json").read_text())
    assert manifest["counts"]["rewrites"] == 15
    assert captions.TABLE in manifest["outputs"]
    loaded = captions.load_rewrites(config)
    assert list(loaded.columns) == ["id", "caption"]
    assert sorted(loaded["id"]) == sorted(images.train["id"][~images.train.caption.str.contains("red")])
    assert loaded.caption.str.startswith("A picture of").all()


def test_rewrites_that_were_never_asked_for(values, tiny_encoder):
    plain = by(values)
    generate.generate(plain, load_images(plain), tiny_encoder)
    with pytest.raises(PcclipError, match="01_generate: made with other rewrites than now asked for"):
        captions.load_rewrites(by(values, rewrites="rewrite"))


def test_what_cannot_be_asked_for(values, tiny_encoder):
    config = by(values, rewrites="rewrite")
    with pytest.raises(PcclipError, match="template writes no rewrites"):
        generate.generate(config, load_images(config), tiny_encoder)
    with pytest.raises(PcclipError, match=r"finetune\.negatives: no longer a key; use evaluate\.peers"):
        params.check({"finetune": {"negatives": "rules"}})
