"""Captions written anew: rewrites, and hard negatives by rule; and why some are not kept."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fake_backend import Writer

from pcclip import config as params
from pcclip.comparisons import captions
from pcclip.comparisons import stage as generate
from pcclip.comparisons.captions import NOTHING, by_rule, exchanges, plain_words
from pcclip.comparisons.llm import Reply
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.finetuning.losses import infonce
from pcclip.finetuning.stage import stage


def by(values, who: str = "none", **generated) -> params.Config:
    tuned = {"objective": "clip", "negatives": who}
    return params.check(
        {**values, "finetune": {**values["finetune"], **tuned}, "generate": {**values["generate"], **generated}}
    )


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
    with pytest.raises(PcclipError, match=r"rewrites: only 0 of 15 were kept, .* most fell to rule 'copied' \(15\)"):
        rewrite(Writer(lambda caption: Reply(caption, "stop")))
    rewrite(Writer(lambda caption: Reply(caption, "stop")), min_yield=0.0)
    images = load_images(config)
    several(images, *(f"A red disc {k}." for k in range(20)))
    with pytest.raises(PcclipError, match=r"rewrites: none of the first 20 replies is kept, .*'A red disc 0.', 'A red"):
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
    with pytest.raises(PcclipError, match=r"captions = rewrites needs generate\.rewrites"):
        captions.load_rewrites(plain)
    generate.generate(plain, load_images(plain), tiny_encoder)
    with pytest.raises(PcclipError, match="01_generate: made with other rewrites than now asked for"):
        captions.load_rewrites(by(values, rewrites="rewrite"))


# negatives by rule


@pytest.mark.parametrize(
    ("caption", "kind", "wanted"),
    [
        ("a dog chases an orange cat", "nouns", ["a cat chases an orange dog"]),
        ("An apple on a table.", "nouns", ["A table on an apple."]),
        ("A tennis racket under a chair", "nouns", ["A chair under a tennis racket"]),
        ("Dogs watch two cats", "nouns", ["Cats watch two dogs"]),
        (
            "A black dog chases an old white cat.",
            "adjectives",
            ["An old dog chases a black white cat.", "A white dog chases an old black cat."],
        ),
        ("The girls stand behind a car", "relation", ["The girls stand in front of a car"]),
        ("A plane in front of a tree", "relation", ["A plane behind a tree"]),
        ("Left of the door is a lamp", "relation", ["Right of the door is a lamp"]),
        ("a cup on top of a book", "relation", ["a cup underneath a book"]),
        (
            "a bird over the river and a boat under it",
            "relation",
            ["a bird under the river and a boat under it", "a bird over the river and a boat over it"],
        ),
    ],
)
def test_what_is_exchanged(caption, kind, wanted):
    assert [text for how, text in exchanges(caption) if how == kind] == wanted


@pytest.mark.parametrize("colour", ["red", "white"])
@pytest.mark.parametrize(("relation", "other"), [("left of", "right of"), ("above", "below")])
def test_pictures_of_two_shapes(colour, relation, other):
    """Shapes' names are adjectives too ("a square table")."""
    found = dict(exchanges(f"a {colour} square {relation} a blue circle"))
    assert found == {
        "nouns": f"a {colour} circle {relation} a blue square",
        "adjectives": f"a blue square {relation} a {colour} circle",
        "relation": f"a {colour} square {other} a blue circle",
    }


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "A red disc.",
        "a cat and a dog",
        "a dog next to a cat",
        "a man with a child",
        "a big red dog",
        "A group of birds",
        "two dogs and a cat",
        "Running fast",
        "!?",
    ],
)
def test_what_would_be_true_all_the_same_or_no_sentence(caption):
    assert by_rule(caption, set(), "0") == ("", NOTHING)


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [("a black cat and a dog", "a black dog and a cat"), ("a man sits with a child", "a child sits with a man")],
)
def test_an_even_handed_word_does_not_hide_what_is_marked(caption, wanted):
    assert wanted in dict(exchanges(caption)).values()


def test_it_is_never_a_caption_of_the_image():
    caption = "a dog chases a cat"
    assert by_rule(caption, set(), "0") == ("a cat chases a dog", "nouns")
    assert by_rule(caption, {plain_words("A cat chases: a dog!")}, "0") == ("", NOTHING)
    assert by_rule("a white dog chases a white cat", {plain_words("a white cat chases a white dog")}, "0") == (
        "",
        NOTHING,
    )


def test_every_kind_is_equally_likely_and_the_draw_is_the_captions_own():
    caption = "A young boy swings a baseball bat behind a white fence by a wooden shed"
    assert len(list(exchanges(caption))) > 8
    found = [by_rule(caption, set(), str(lot)) for lot in range(300)]
    counts = pd.Series([how for _, how in found]).value_counts()
    assert set(counts.index) == {"nouns", "adjectives", "relation"}
    assert counts.min() > 70
    assert found == [by_rule(caption, set(), str(lot)) for lot in range(300)]
    assert len({text for text, _ in found}) > 6


def test_captions_without_one_are_counted(values, capsys):
    config = by(values, "rules")
    images = load_images(config)
    of = several(images, "A dog chases a cat.", "A red disc.", "A cat chases a dog.", "A girl on a horse.")
    capsys.readouterr()
    own = ["A dog chases a cat.", "A red disc.", "A cat chases a dog.", "A girl on a horse."]
    negatives = captions.negatives_of(config, images, [of] * 4, own)
    assert negatives == ["", "", "", "A horse on a girl."], "each of the first and the third is the other"
    assert "negatives: 1 of 4 captions have one" in capsys.readouterr().out


def test_none_are_asked_for(config, capsys):
    assert captions.negatives_of(config, None, ["a", "b"], ["A dog on a cat.", "x"]) == ["", ""]
    assert not capsys.readouterr().out


def test_what_cannot_be_asked_for(values, tiny_encoder):
    config = by(values, rewrites="rewrite")
    with pytest.raises(PcclipError, match="template writes no rewrites"):
        generate.generate(config, load_images(config), tiny_encoder)
    with pytest.raises(PcclipError, match=r"generate\.negatives: no longer a key; use finetune\.negatives: rules"):
        by(values, "rules", negatives="negative")
    with pytest.raises(PcclipError, match="they need objective: clip"):
        params.check({"finetune": {"negatives": "rules"}})
    with pytest.raises(PcclipError, match="and captions: captions"):
        params.check({"finetune": {"negatives": "rules", "objective": "clip", "captions": "rewrites"}})


def test_the_loss_holds_images_against_false_captions(rng, monkeypatch):
    """Rows of texts as ever; each image's column is longer by every false caption of the batch."""
    w, v, wrong = (torch.from_numpy(rng.normal(size=(n, 5))) for n in (4, 4, 3))
    logits, more = (x.numpy() @ v.numpy().T / 0.2 for x in (w, wrong))
    columns, right = np.concatenate([logits, more]), np.diag(logits)
    expected = (np.mean(np.log(np.exp(logits).sum(1)) - right) + np.mean(np.log(np.exp(columns).sum(0)) - right)) / 2
    for at_once in (4096, 3):
        monkeypatch.setattr("pcclip.finetuning.losses.ROWS_AT_ONCE", at_once)
        loss, _ = infonce(w, v, 0.2, wrong=wrong)
        assert float(loss) == pytest.approx(expected)
    alone, _ = infonce(w, v, 0.2)
    assert float(infonce(w, v, 0.2, wrong=wrong[:0])[0]) == float(alone) < expected


def test_03_is_done_anew_by_other_rules(values, tiny_encoder, monkeypatch):
    from pcclip.embedding.stage import embed

    config = by(values, "rules")
    images = load_images(config)
    generate.generate(config, images, tiny_encoder)
    embed(config, images, tiny_encoder)
    before = stage(config, images).key
    monkeypatch.setattr("pcclip.finetuning.stage.NEGATIVES_FORMAT", 99)
    assert stage(config, images).key != before
