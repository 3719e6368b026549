"""Stage 01: every answer is asked for once, survives a kill, and is stored with where it came from."""

import json

import pandas as pd
import pytest
from helpers.crash import Crash
from helpers.fake_backend import Fake

from pcclip import config as params
from pcclip.comparisons import stage as generate
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError


@pytest.fixture
def images(config):
    return load_images(config)


@pytest.fixture
def ask(config, images, tiny_encoder):
    """Run the stage with a backend: ask(backend), or ask(backend, run='name') for a run of its own."""

    def call(backend, **changes):
        return generate.generate(config.model_copy(update=changes), images, tiny_encoder, backend)

    return call


def journal_of(config):
    [path] = (config.folder / generate.FOLDER).glob("answers-*.jsonl")
    return path


def test_a_normal_run(ask, config, images):
    table = ask(Fake())
    assert list(table.pair) == list(range(60))
    assert (table.verdict == "kept").all()
    assert list(table.difference) == list(map(from_captions, table.first_caption, table.second_caption))
    assert list(table.swapped) == list(map(from_captions, table.second_caption, table.first_caption))
    manifest = json.loads((config.folder / generate.FOLDER / "manifest.json").read_text())
    assert {"asked": 60, "kept": 60, "kept_train": 40, "kept_held_out": 20}.items() <= manifest["counts"].items()
    stored = pd.read_parquet(config.folder / generate.FOLDER / generate.TABLE)
    pd.testing.assert_frame_equal(stored, table)


def test_every_row_says_where_it_came_from(ask, config):
    table = ask(Fake(lambda a, b: f"Answer: {from_captions(a, b)}\n\nI hope this helps"))
    assert set(table.prompt_hash) == {load_prompt("differences").hash}
    assert set(table.model_hash) == {Fake.identity}
    assert {json.loads(s)["max_tokens"] for s in table.sampling} == {config.generate.max_tokens}
    assert set(json.loads(table.sampling[0])) == {"temperature", "top_p", "max_tokens"}
    assert table.raw.str.startswith("Answer: The first").all()
    assert table.difference.str.startswith("The first").all()
    assert set(table.verdict) == {"kept"}


@pytest.mark.parametrize("sampling", ["all", "random", "balanced"])
def test_pairs_keep_to_their_side_of_the_split(config, images, sampling):
    config = config.model_copy(update={"generate": config.generate.model_copy(update={"sampling": sampling})})
    pairs = generate.draw_pairs(config, images)
    split = images.table.set_index("id").split
    assert (split[pairs["first"]].to_numpy() == pairs.split).all()
    assert (split[pairs["second"]].to_numpy() == pairs.split).all()
    assert list(pairs.split) == ["train"] * 40 + ["held_out"] * 20
    assert (pairs.first_caption != pairs.second_caption).all()
    held_out = pairs[pairs.split == "held_out"]
    assert (held_out.first_concept != held_out.second_concept).all()
    caption = images.table.set_index("id").caption
    assert (caption[pairs["second"]].to_numpy() == pairs.second_caption).all()


def test_silence_is_an_error_that_names_the_rule(ask, config):
    with pytest.raises(PcclipError, match=r"none of the first 20 .* 'answered' \(20\)\); the first three are") as error:
        ask(Fake(lambda a, b: ""))
    assert "\n" not in str(error.value)
    assert not (config.folder / generate.FOLDER / generate.TABLE).exists()


@pytest.mark.parametrize(("every", "fails"), [(2, False), (6, True)])
def test_the_yield_must_reach_its_minimum(ask, every, fails):
    kept = iter(range(1000))
    backend = Fake(lambda a, b: from_captions(a, b) if next(kept) % every == 0 else "Nothing.")
    if fails:
        with pytest.raises(PcclipError, match=r"only 10 of 60 .* 'two_sides' dropped most \(50\)"):
            ask(backend)
    else:
        assert (ask(backend).verdict == "kept").sum() == 30


def test_errors_of_the_backend_are_not_answers(ask):
    with pytest.raises(PcclipError, match="'answered'"):
        ask(Fake(finish="error: RuntimeError('full')"))


@pytest.mark.parametrize("stop", [0, 1, 23, 59])
def test_a_killed_run_asks_only_for_the_rest(ask, config, stop):
    killed, second, whole = Fake(stop=stop), Fake(), Fake()
    with pytest.raises(Crash):
        ask(killed)
    table = ask(second)
    assert not set(second.asked) & set(killed.asked)
    expected = ask(whole, run="whole")
    assert killed.asked + second.asked == whole.asked
    pd.testing.assert_frame_equal(table, expected)
    assert not list((config.folder / generate.FOLDER).glob("partial-*"))


def test_the_order_of_answers_does_not_matter(ask):
    backwards = Fake()
    in_order = backwards.answers
    backwards.answers = lambda questions: in_order(list(questions)[::-1])
    pd.testing.assert_frame_equal(ask(backwards), ask(Fake(), run="forwards"))


def test_a_finished_stage_is_not_asked_again(ask):
    table, second = ask(Fake()), Fake(stop=0)
    pd.testing.assert_frame_equal(ask(second), table)


def test_a_changed_parameter_asks_everything_anew(ask, config):
    with pytest.raises(Crash):
        ask(Fake(stop=10))
    changed = config.generate.model_copy(update={"temperature": 0.1})
    again = Fake()
    ask(again, generate=changed)
    assert len(again.asked) == 60


LONG = "and it is drawn with a thin black pen on white paper that has a grey frame around it, bright and clean and new"


def test_sentences_over_the_context_fall_to_in_context(ask, tiny_encoder):
    long = iter(range(1000))
    table = ask(Fake(lambda a, b: from_captions(a, f"{b[:-1]} {LONG if next(long) % 3 == 0 else ''}")))
    assert list(table.verdict == "in_context") == list(table.tokens > tiny_encoder.context_length)
    assert (table.verdict == "in_context").sum() == 20
    assert (table.swapped[table.verdict == "in_context"] == "").all()


@pytest.fixture
def all_rules(values):
    return params.check({**values, "generate": {**values["generate"], "filters": "ours"}})


def test_exchanged_sides_are_mended_in_the_table(all_rules, images, tiny_encoder):
    table = generate.generate(all_rules, images, tiny_encoder, Fake(lambda a, b: from_captions(b, a)))
    held_out = generate.kept(table, "held_out")
    assert held_out.mended.all()
    assert list(held_out.difference) == list(map(from_captions, held_out.first_caption, held_out.second_caption))


def test_mended_sentences_fit_the_context(all_rules, images, tiny_encoder):
    def full_and_exchanged(a, b):  # exactly as long as the context; mended it gets 'The', 'while', 'the' and a comma
        text = f"First image {b[2:-1]}, second image {a[2:-1]}"
        return text + " x" * (tiny_encoder.context_length - len(tiny_encoder.tokens([text])[0]))

    names = ["own_side", "in_context"]
    config = all_rules.model_copy(
        update={"generate": all_rules.generate.model_copy(update={"filters": names, "min_yield": 0.0})}
    )
    table = generate.generate(config, images, tiny_encoder, Fake(full_and_exchanged))
    kept = generate.kept(table, "held_out")
    assert all(len(ids) <= tiny_encoder.context_length for ids in tiny_encoder.tokens(list(kept.difference)))
