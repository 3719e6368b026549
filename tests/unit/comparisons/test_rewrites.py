"""Captions written anew: every training caption once, and why some are not kept. And the prompts they are asked by."""

import json

import pandas as pd
import pytest
from helpers.crash import Crash

from pcclip import config as params
from pcclip.comparisons import captions
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Reply, Template
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError


class Writer(Template):
    """Says every caption in other words; stops like a killed process after `stop` answers."""

    identity = "writer-1"

    def __init__(self, write=lambda caption: Reply(f"A picture of {caption[2:-1]} on white.", "stop"), stop=None):
        self.write, self.stop, self.asked = write, stop, []

    def start(self):
        return self

    def answers(self, questions):
        for question in questions:
            if question.second:
                yield question, Reply(from_captions(question.first, question.second), "stop")
                continue
            if len(self.asked) == self.stop:
                raise Crash
            self.asked.append((question.key, question.first))
            yield question, self.write(question.first)


@pytest.fixture
def config(values):
    return params.check({**values, "generate": {**values["generate"], "rewrites": "rewrite"}})


@pytest.fixture
def images(config):
    return load_images(config)


@pytest.fixture
def rewrite(config, images):
    def call(backend, **changes):
        given = config.model_copy(update={"generate": config.generate.model_copy(update=changes)})
        return captions.write(given, images, "rewrites", lambda prompt: backend)

    return call


def test_every_training_caption_is_asked_for_once(rewrite, images):
    backend = Writer()
    table = rewrite(backend)
    assert [caption for _, caption in backend.asked] == list(table.original)
    assert sorted(table["id"]) == sorted(images.train["id"])
    assert not set(table["id"]) & set(images.held_out["id"])
    assert list(table.original) == list(images.train.set_index("id").caption[table["id"]])
    assert list(table.caption) == [f"A picture of {caption[2:-1]} on white." for caption in table.original]
    assert set(table.verdict) == {"kept"}


def test_all_captions_of_an_image_are_written_anew(config, images):
    image = images.train["id"][0]
    several = [image] * 3 + [images.held_out["id"][0]]
    object.__setattr__(
        images,
        "captions",
        pd.DataFrame({"id": several, "caption": ["A red disc.", "One disc.", "A red disc.", "A bar."]}),
    )
    backend = Writer()
    table = captions.write(config, images, "rewrites", lambda prompt: backend)
    assert list(table.original) == ["A red disc.", "One disc.", "A red disc."]
    assert [caption for _, caption in backend.asked] == ["A red disc.", "One disc."], "the same caption of one image"


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


def test_few_rewrites_are_an_error_that_names_the_reason(rewrite):
    with pytest.raises(PcclipError, match=r"rewrites: only 0 of 15 were kept, .* most fell to rule 'copied' \(15\)"):
        rewrite(Writer(lambda caption: Reply(caption, "stop")))
    rewrite(Writer(lambda caption: Reply(caption, "stop")), min_yield=0.0)


def test_the_template_cannot_rewrite(config, images, tiny_encoder):
    with pytest.raises(PcclipError, match="template writes no rewrites"):
        generate.generate(config, images, tiny_encoder)


@pytest.mark.parametrize(("changes", "asked"), [({"filters": "none"}, 0), ({"temperature": 0.1}, 15)])
def test_what_makes_the_answers_others(rewrite, changes, asked):
    rewrite(Writer())
    second = Writer()
    rewrite(second, **changes)
    assert len(second.asked) == asked


def test_the_stage_stores_rewrites(config, images, tiny_encoder):
    def write(caption):
        return Reply(caption if "red" in caption else f"A picture of {caption[2:-1]}.", "stop")

    generate.generate(config, images, tiny_encoder, Writer(write))
    manifest = json.loads((config.folder / generate.FOLDER / "manifest.json").read_text())
    assert manifest["counts"]["rewrites"] == 15
    assert captions.table_file("rewrites") in manifest["outputs"]
    loaded = captions.load_rewrites(config)
    assert list(loaded.columns) == ["id", "caption"]
    assert sorted(loaded["id"]) == sorted(images.train["id"][~images.train.caption.str.contains("red")])
    assert loaded.caption.str.startswith("A picture of").all()


def test_rewrites_that_were_never_asked_for(config, images, tiny_encoder):
    plain = config.model_copy(update={"generate": config.generate.model_copy(update={"rewrites": None})})
    with pytest.raises(PcclipError, match=r"captions = rewrites needs generate\.rewrites"):
        captions.load_rewrites(plain)
    generate.generate(plain, images, tiny_encoder)
    with pytest.raises(PcclipError, match="01_generate: made with other rewrites than now asked for"):
        captions.load_rewrites(config)


# prompts


def test_the_shipped_prompts_ask_for_what_they_are_for():
    asked = load_prompt("rewrite", slots=("first",)).messages("A {red} disc.", "")
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert asked[-1]["content"] == "Caption: A {red} disc."
    asked = load_prompt("paper").messages("A red disc.", "A bar.")
    assert asked[-1]["content"] == (
        "What is the visual difference between an image with a description of A red disc. "
        "and an image with a description of A bar.?"
    )
    assert all(m["content"].startswith("The first image shows") for m in asked if m["role"] == "assistant")


@pytest.mark.parametrize(
    ("name", "slots", "says"),
    [
        (
            "rewrite",
            ("first", "second"),
            r"question with \{first\} and \{second\}, and examples with first, second, ans",
        ),
        ("differences", ("first",), r"question with \{first\}, and examples with first, answer"),
        ("paper", ("first",), r"question with \{first\}, and"),
    ],
)
def test_a_prompt_for_something_else(name, slots, says):
    with pytest.raises(PcclipError, match=rf"{name}\.yaml: a prompt for this needs .*{says}") as error:
        load_prompt(name, slots)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "system: x\nquestion: 'Caption: {second}'\n",
        "system: x\nquestion: 'Caption: {first}'\nexamples: [{answer: y}]\n",
        "system: x\nquestion: 'Caption: {first}'\nexamples: [{first: y}]\n",
        "question: 'Caption: {first}'\n",
        "system: x\nquestion: 'Caption: {first} {}'\n",
    ],
)
def test_a_malformed_prompt_for_rewrites(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PcclipError, match="mine.yaml: a prompt for this needs") as error:
        load_prompt(str(tmp_path / "mine.yaml"), slots=("first",))
    assert "\n" not in str(error.value)
