"""Stage 03 on a tiny run: what learns, what stays, and that a killed run continues on the same curve."""

import itertools
import json
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.crash import Crash, crash_after
from helpers.judge import BANK, NOUNS, Judge
from helpers.runs import run_values

from pcclip import config as params, load_model
from pcclip.comparisons import stage as generate, verdicts
from pcclip.comparisons.attributes import load_bank, with_article
from pcclip.comparisons.captions import load_rewrites
from pcclip.comparisons.llm import Reply
from pcclip.comparisons.sentences import from_captions
from pcclip.comparisons.structures import TRAINED, rewritten
from pcclip.config import Finetune
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.evaluation.zero_shot import templated
from pcclip.finetuning import batches, losses, stage as finetuning, text_tower
from pcclip.finetuning.batches import ReplayedTexts, caption_examples, comparison_examples, training_verdicts
from pcclip.finetuning.loop import CURVES, copied_towers, rate, steps
from pcclip.finetuning.stage import finetune
from pcclip.finetuning.text_tower import TextTower
from pcclip.ranking.axes import paraphrase_axis
from pcclip.runs.files import digest
from pcclip.stats.vectors import unit


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """The model is so small that threads cost more than they give; three of ImageNet's thousand names are replayed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "imagenet_names", lambda: ["goldfish", "acoustic guitar", "volcano"])
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shared(photos, tiny_model, tmp_path_factory):
    """shared(asks, backend) -> 01 and 02 of a run with these parameters of 01, made once for all tests, and a model."""
    values, model = run_values(photos, tiny_model, tmp_path_factory.mktemp("runs")), load_model(tiny_model)

    @cache
    def made(asks, backend):
        given = {**values, "run": f"shared-{len(known)}", "generate": {**values["generate"], **json.loads(asks)}}
        known.append(asks)
        config = params.check(given)
        images = load_images(config)
        comparisons = generate.generate(config, images, model, backend and backend())
        return SimpleNamespace(
            values=given, images=images, comparisons=comparisons, vectors=embed(config, images, model)[0], model=model
        )

    known = []
    return lambda asks, backend: made(json.dumps(asks or {}), backend)


@pytest.fixture
def prepare(shared, request):
    """prepare(run='a', lr=...) gives all that finetune() needs, for a run of this test's own.

    `asks` are parameters of 01, answered by a `backend`.
    """

    def call(run="tiny", asks=None, backend=None, **settings):
        early = shared(asks, backend)
        values = {**early.values, "run": f"{_name(request)}/{run}", "reuse": early.values["run"]}
        config = params.check({**values, "finetune": {**values["finetune"], "checkpoint_every": 100, **settings}})
        vectors = replace(early.vectors, matrix=early.vectors.matrix.copy())
        return SimpleNamespace(
            config=config,
            images=deepcopy(early.images),
            vectors=vectors,
            comparisons=early.comparisons.copy(),
            model=early.model,
        )

    return call


def _name(request) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")


ALL = {"attribute_weight": 1.0, "replay": 0.5, "mask_shared": True, "learn_temperature": True}


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(given) -> pd.DataFrame:
    return finetune(given.config, given.images, given.vectors, given.comparisons, given.model)


def lists(tokens) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in itertools.pairwise(tokens.starts)]


def on_step(monkeypatch, watch) -> None:
    """Call watch(training, rows) before every step."""
    step = TextTower.step
    monkeypatch.setattr(TextTower, "step", lambda training, rows: watch(training, rows) or step(training, rows))


def without_held_out_points(monkeypatch):
    monkeypatch.setattr(TextTower, "held_out", lambda training: {})


def values_of(curve, split, metric):
    return curve[(curve.split == split) & (curve.metric == metric)].value.to_numpy()


# what learns


def test_each_step_draws_a_structure_for_each_comparison(prepare, monkeypatch):
    given = prepare(epochs=3, keep_epochs=[], structures=True)
    without_held_out_points(monkeypatch)
    drawn = []
    on_step(monkeypatch, lambda training, rows: drawn.append(training._tokens(training.data.train, rows)))
    run(given)
    train = generate.kept(given.comparisons, "train")
    forms = {
        tuple(ids): (row, structure)
        for row, (text, twin) in enumerate(zip(train.difference, train.swapped, strict=True))
        for side in (rewritten(text), rewritten(twin))
        for structure, ids in enumerate(given.model.tokens(side))
    }
    structures = set()
    for tokens in drawn:
        texts = [forms[tuple(ids)] for ids in lists(tokens)]
        assert texts[: len(texts) // 2] == texts[len(texts) // 2 :], "a twin has its text's structure"
        structures |= {structure for _, structure in texts}
    assert len(structures) > len(TRAINED) / 2


@pytest.mark.parametrize("objective", ["infonce", "mse", "captions"])
def test_the_loss_falls(prepare, objective):
    given = prepare(objective=objective, epochs=6, lr=3e-3, keep_epochs=[])
    curve = run(given)
    assert list(curve.columns) == ["step", "epoch", "split", "metric", "value"]
    assert set(curve.split) == {"train", "held_out"}
    assert set(curve.metric[curve.split == "train"]) == {"loss", objective, "in_batch_accuracy"}
    assert set(curve.metric[curve.split == "held_out"]) == {
        objective,
        "in_batch_accuracy",
        "difference_accuracy",
        "zero_shot_accuracy",
    }
    loss = values_of(curve, "train", "loss")
    steps = 2 if objective == "captions" else 5  # 15 captions, or 40 pairs, in batches of 8
    assert len(loss) == 6 * steps
    assert loss[-steps:].mean() < 0.95 * loss[:steps].mean()
    assert list(values_of(curve, "train", objective)) == list(loss), "no term was added"
    points = curve[(curve.split == "held_out") & (curve.metric == objective)].step
    assert list(points) == [*range(0, 6 * steps, 5), 6 * steps]
    assert (curve.epoch == curve.step / steps).all()


@pytest.mark.parametrize("tune", ["transformer", "all"])
def test_only_what_is_tuned_changes(prepare, tune):
    given = prepare(tune=tune, epochs=1, weight_decay=0.01)
    before, tunable = weights_of(given.model), {f"text_tower.{name}" for name in given.model.tunable(tune)}
    run(given)
    after = weights_of(load_model(str(given.config.folder)))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == tunable
    assert all(torch.equal(value, before[name]) for name, value in weights_of(given.model).items()), "the base is left"
    assert any(not name.startswith("text_tower.transformer") for name in changed) == (tune == "all")


@pytest.mark.parametrize("swap", [False, True])
def test_swap_puts_twins_with_the_reversed_difference_into_the_batch(prepare, swap, monkeypatch):
    given, seen = prepare(swap=swap, epochs=1, keep_epochs=[]), []
    objective = lambda w, target, *rest: seen.append((w, target.detach())) or (w.sum(), torch.tensor(0.0))  # noqa: E731
    monkeypatch.setitem(losses.OBJECTIVES, "infonce", objective)
    without_held_out_points(monkeypatch)
    run(given)
    assert [(len(w), len(target)) for w, target in seen] == [(16, 16) if swap else (8, 8)] * 5
    if swap:
        assert all(torch.equal(target[:8], -target[8:]) for _, target in seen)


def test_learning_the_temperature(prepare):
    fixed, learned = (run(prepare(str(t), epochs=1, learn_temperature=t)) for t in (False, True))
    first, second = values_of(fixed, "train", "loss"), values_of(learned, "train", "loss")
    assert first[0] == second[0]
    assert (first[1:] != second[1:]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_fp32_and_feel_a_tiny_step(prepare, precision):
    given = prepare(precision=precision, lr=1e-8, schedule="constant", optimizer="adam", epochs=1, batch_size=40)
    before = weights_of(given.model)
    run(given)
    after = weights_of(load_model(str(given.config.folder)))
    assert {value.dtype for name, value in after.items() if name.startswith("text_tower")} == {torch.float32}
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_bf16_computes_in_bf16_in_training_and_held_out_and_a_slow_processor_is_named(prepare, monkeypatch, capsys):
    monkeypatch.setattr(finetuning, "has_bf16", lambda device: False)
    curves = [run(prepare(p, precision=p, epochs=1, batch_size=40)) for p in ("fp32", "bf16")]
    for split in ("train", "held_out"):
        full, half = (values_of(curve, split, "infonce")[0] for curve in curves)  # of the base model
        assert full != half
        assert full == pytest.approx(half, rel=0.05)
    said = capsys.readouterr()
    assert (said.out + said.err).count("this cpu has no instructions for bf16") == 1


def test_a_loss_that_is_no_number(prepare):
    given = prepare(lr=1e30, schedule="constant")
    with pytest.raises(PcclipError, match=r"loss became nan at step \d+; lower finetune\.lr"):
        run(given)
    assert not (given.config.folder / finetuning.FOLDER / "manifest.json").exists()


def test_weights_that_are_no_numbers_after_the_last_step(prepare):
    with pytest.raises(PcclipError, match=r"lower finetune\.lr"):
        run(prepare(lr=1e30, schedule="constant", epochs=1, batch_size=40, keep_epochs=[]))


# the schedule


def settings(**changes) -> Finetune:
    return Finetune(**changes)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (settings(schedule="exponential", gamma=0.5), {0: 1, 9: 1, 10: 0.5, 25: 0.25}),
        (settings(schedule="exponential", gamma=0.5, warmup_steps=4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 10: 0.5}),
        (settings(schedule="constant"), {0: 1, 39: 1}),
        (settings(schedule="constant", warmup_steps=2), {0: 0.5, 1: 1, 2: 1}),
        (settings(schedule="cosine"), {0: 1, 10: 0.5 + 0.5 * np.cos(np.pi / 4), 20: 0.5, 40: 0}),
        (settings(schedule="cosine", warmup_steps=20), {0: 0.05, 19: 1, 20: 1, 30: 0.5, 40: 0}),
    ],
)
def test_rate(schedule, expected):
    found = {step: rate(schedule, step, per_epoch=10, total=40) for step in expected}
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_rates_of_the_steps_and_every_epoch_sees_every_pair_once_in_an_order_of_its_own(prepare, monkeypatch):
    given, rates, seen = prepare(warmup_steps=3, epochs=2), [], []

    def watch(training, rows):
        rates.append(training.state.optimizer.param_groups[0]["lr"])
        seen.extend(rows.tolist())

    on_step(monkeypatch, watch)
    run(given)
    assert rates == pytest.approx([1e-3 * rate(given.config.finetune, k, 5, 10) for k in range(10)])
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]


@pytest.mark.parametrize(
    ("n", "batch_size", "per_epoch"), [(40, 8, 5), (41, 8, 6), (42, 8, 6), (2, 8, 1), (9, 8, 2), (3, 2, 1)]
)
def test_no_batch_of_one(n, batch_size, per_epoch):
    assert steps(settings(batch_size=batch_size, epochs=3), n) == (per_epoch, 3 * per_epoch)


# killed runs


def results(given):
    folder = given.config.folder / finetuning.FOLDER
    names = [CURVES, saved.WEIGHTS, f"epoch-001/{saved.WEIGHTS}"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (1, {}),
        (4, {"checkpoint_every": 4, "optimizer": "adam"}),
        (7, {**ALL, "micro_batch": 7, "precision": "bf16"}),
        (6, {**ALL, "tune": "lora", "lora_rank": 2, "lr": 1e-2}),
    ],
    ids=["before a checkpoint", "at a checkpoint", "every term", "lora"],
)
def test_a_killed_run_continues_on_the_same_curve(judged, monkeypatch, steps, changes):
    settings = {"epochs": 2, "keep_epochs": [1], "checkpoint_every": 2, **changes}
    given, whole = judged("killed", **settings), judged("whole", **settings)
    every = given.config.finetune.checkpoint_every
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_after(patch, TextTower, "step", steps)
        run(given)
    with monkeypatch.context() as patch:
        crash_after(patch, TextTower, "step", 10 - steps // every * every)  # no step more than from the last checkpoint
        curve = run(given)  # as in an interrupted cell that is run again, with the same model
    pd.testing.assert_frame_equal(run(whole), curve)
    assert results(given) == results(whole)
    load_model(str(given.config.folder))


def test_a_second_call_does_nothing_and_a_changed_parameter_starts_anew(prepare, monkeypatch):
    curve = run(prepare(epochs=1))
    crash_after(monkeypatch, TextTower, "step", 0)
    pd.testing.assert_frame_equal(run(prepare(epochs=1)), curve)
    with pytest.raises(Crash):
        run(prepare(epochs=1, lr=2e-3))


# what is written


def test_the_result_is_a_model(prepare, tiny_encoder):
    given = prepare(keep_epochs=[2, 4, 9])
    run(given)
    folder = given.config.folder / finetuning.FOLDER
    texts = ["The first image shows a red disc, while the second image shows a blue bar.", "a dog"]
    found = {epoch: load_model(str(folder / f"epoch-{epoch:03d}")).encode_texts(texts) for epoch in (2, 4)}
    assert (load_model(str(given.config.folder)).encode_texts(texts) == found[4]).all()
    assert np.abs(found[2] - found[4]).max() > 1e-5
    assert np.abs(found[2] - tiny_encoder.encode_texts(texts)).max() > 1e-5
    assert not (folder / "epoch-009").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {
        "train": 40,
        "held_out": 20,
        "steps": 20,
        "verdicts": 0,
        "tuned_parameters": sum(p.numel() for p in given.model.tunable("transformer").values()),
    }
    assert [json.loads((folder / part / saved.CARD).read_text())["epoch"] for part in ("epoch-002", ".")] == [2, 4]


# what is learned from


def test_pairs_without_a_vector_are_dropped(prepare, tiny_encoder):
    given = prepare()
    lost = given.comparisons["first"][0]
    keep = [i for i, image in enumerate(given.vectors.ids) if image != lost]
    fewer = Vectors(
        [given.vectors.ids[i] for i in keep], [given.vectors.paths[i] for i in keep], given.vectors.matrix[keep]
    )
    found = comparison_examples(given.config, given.comparisons, "train", fewer, tiny_encoder)
    table = generate.kept(given.comparisons, "train")
    rest = table[(table["first"] != lost) & (table["second"] != lost)]
    assert 0 < len(rest) < len(table)
    assert found.texts == list(rest.difference)
    assert [fewer.ids[i] for i in found.first] == list(rest["first"])
    assert [fewer.ids[i] for i in found.second] == list(rest["second"])
    assert lists(found.twin_tokens) == tiny_encoder.tokens(list(rest.swapped))


def test_pairs_that_vectors_cannot_tell_apart_are_dropped(prepare, tiny_encoder):
    given = prepare()
    table = generate.kept(given.comparisons, "train")
    one, two = given.vectors.rows([table["first"][0], table["second"][0]])
    given.vectors.matrix[one] = given.vectors.matrix[two]
    found = comparison_examples(given.config, given.comparisons, "train", given.vectors, tiny_encoder)
    same = {table["first"][0], table["second"][0]}
    assert found.texts == [
        text for text, a, b in zip(table.difference, table["first"], table["second"], strict=True) if {a, b} != same
    ]
    assert len(found) < len(table)


@pytest.mark.parametrize("source", ["generated", "template"])
def test_sentences_to_learn_from(prepare, source, tiny_encoder):
    given = prepare(comparisons=source)
    table = given.comparisons.assign(
        difference="The first image is A, while the second image is B.",
        swapped="The first image is B, while the second image is A.",
    )
    found = comparison_examples(given.config, table, "train", given.vectors, tiny_encoder)
    if source == "generated":
        assert set(found.texts) == set(table.difference)
    else:
        train = generate.kept(table, "train")
        assert found.texts == list(map(from_captions, train.first_caption, train.second_caption))
        twins = list(map(from_captions, train.second_caption, train.first_caption))
        assert lists(found.twin_tokens) == tiny_encoder.tokens(twins)


def test_one_comparison_is_not_enough(prepare):
    given = prepare()
    given.comparisons.loc[1:, "verdict"] = "length"
    with pytest.raises(PcclipError, match="1 training texts; "):
        run(given)


@pytest.mark.parametrize("stage", ["01_generate", "02_embed"])
def test_an_earlier_stage_is_missing(prepare, stage):
    given = prepare()
    lost = given.config.folder.with_name("lost")
    shutil.copytree(given.config.source_folder, lost)
    (lost / stage / "manifest.json").unlink()
    given.config = given.config.model_copy(update={"reuse": lost.relative_to(given.config.outputs).as_posix()})
    with pytest.raises(PcclipError, match=f"{stage}: this stage has not finished"):
        run(given)


# the attribute term


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """bank(size=..., weight=...) writes the bank of judge.py with changes to its attributes; gives parameters of 01."""
    folder = tmp_path_factory.mktemp("banks")

    def write(**changes):
        attributes = {name: {**entry, **changes.get(name, {})} for name, entry in BANK["attributes"].items()}
        text = yaml.safe_dump({**BANK, "attributes": attributes})
        path = folder / f"{digest(text)[:12]}.yaml"
        path.write_text(text)
        return {"attributes": str(path), "attribute_pairs": 60, "held_out_attribute_pairs": 20, "thing_pairs": 6}

    return write


@pytest.fixture
def judged(prepare, bank):
    def call(run="tiny", **settings):
        return prepare(run, asks=bank(), backend=Judge, **settings)

    return call


def agreement(given, model) -> float:
    """How often the axis of the trained wording orders two training images as the verdict does."""
    table = verdicts.load(given.config)
    table = table[(table.attribute == "size") & (table.kind == "image") & (table.split == "train")]
    axis = paraphrase_axis(model, BANK["attributes"]["size"]["train"])
    first, second = (given.vectors.matrix[given.vectors.rows(table[side])] for side in ("first", "second"))
    return float(((first - second) @ axis * table.value > 0).mean())


def test_the_attribute_term_teaches(judged):
    given = judged(attribute_weight=3.0, lr=2e-3, epochs=12, keep_epochs=[], evaluate_every=100)
    curve = run(given)
    taught, untaught = (agreement(given, model) for model in (load_model(str(given.config.folder)), given.model))
    assert taught > 0.8  # 0.90 to 0.97 over four seeds, and without the term 0.43 to 0.62
    assert taught > untaught + 0.2
    term = values_of(curve, "train", "attribute")
    assert len(term) == 60
    assert term[-5:].mean() < 0.7 * term[:5].mean()


def test_the_verdicts_that_are_trained_on(judged, tiny_encoder):
    given = judged(attribute_weight=1.0, epochs=1, keep_epochs=[])
    found = training_verdicts(given.config, given.vectors, given.model)
    table = verdicts.load(given.config)
    table = table[(table.split == "train") & (table.attribute == "size")].reset_index(drop=True)
    assert len(table) == len(found) == 42
    photos = {name: tiny_encoder.encode_texts([f"a photo of {verdicts.named(name)}"])[0] for name in NOUNS}
    vector = {**photos, **dict(zip(given.vectors.ids, given.vectors.matrix, strict=True))}
    expected = np.stack([vector[a] - vector[b] for a, b in zip(table["first"], table["second"], strict=True)])
    assert set(table.kind) == {"image", "thing"}
    gathered = text_tower.load_data(given.config, given.images, given.vectors, given.comparisons, given.model)
    assert found.differences(gathered.matrix, np.arange(42)).numpy() == pytest.approx(expected, abs=1e-6)
    assert len(gathered.matrix) == len(given.vectors.matrix) + len(NOUNS), "and the images once"
    assert found.target == pytest.approx(table.probability, abs=1e-6)
    assert set(found.attribute) == {0}
    [[up, down]] = BANK["attributes"]["size"]["train"]
    assert (lists(found.more), lists(found.less)) == (tiny_encoder.tokens([up]), tiny_encoder.tokens([down]))
    run(given)
    manifest = json.loads((given.config.folder / finetuning.FOLDER / "manifest.json").read_text())
    assert manifest["counts"]["verdicts"] == 42


def test_verdicts_without_an_answer_or_a_vector_are_left_out(judged, monkeypatch):
    given = judged(attribute_weight=1.0)
    table = verdicts.load(given.config)
    lost = table["first"][(table.kind == "image") & (table.split == "train")].iloc[0]
    keep = [i for i, image in enumerate(given.vectors.ids) if image != lost]
    fewer = Vectors(
        [given.vectors.ids[i] for i in keep], [given.vectors.paths[i] for i in keep], given.vectors.matrix[keep]
    )
    silent = table.index[(table.split == "train") & (table["first"] != lost) & (table["second"] != lost)][:3]
    table.loc[silent, ["value", "probability"]] = np.nan
    monkeypatch.setattr(verdicts, "load", lambda config: table)
    left = (table.split == "train") & table.value.notna() & (table["first"] != lost) & (table["second"] != lost)
    assert len(training_verdicts(given.config, fewer, given.model)) == left.sum() < 42


def test_a_step_has_every_verdict_with_a_wording_of_its_own_attribute(prepare, bank, tiny_encoder):
    """Two attributes with two and one wordings."""
    wordings = [[["It is big.", "It is small."], ["It is huge.", "It is tiny."]], BANK["attributes"]["weight"]["train"]]
    given = prepare(asks=bank(size={"train": wordings[0]}, weight={"split": "train"}), backend=Judge)
    verdicts_table = training_verdicts(given.config, given.vectors, given.model)
    rows, texts, tokens = verdicts_table.draw(40, np.random.default_rng(0))
    drawn = lists(tokens)
    more, less = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    used = set()
    for row, text in zip(rows, texts, strict=True):
        attribute = int(verdicts_table.attribute[row])
        pairs = [tuple(given.model.tokens(pair)) for pair in wordings[attribute]]
        used.add((attribute, [list(pair) for pair in pairs].index([more[text], less[text]])))
    assert used == {(0, 0), (0, 1), (1, 0)}


def test_a_step_has_a_few_of_the_wordings_and_many_steps_have_all(prepare, bank, monkeypatch):
    monkeypatch.setattr(batches, "PARAPHRASES_IN_BATCH", 3)
    wordings = [[f"It has {word} more.", f"It has {word} less."] for word in ("ever", "far", "much", "rather")]
    given = prepare(asks=bank(size={"train": wordings}), backend=Judge)
    verdicts_table, generator = training_verdicts(given.config, given.vectors, given.model), np.random.default_rng(0)
    more, less = (given.model.tokens([pair[side] for pair in wordings]) for side in (0, 1))
    seen = set()
    for _ in range(10):
        texts = lists(verdicts_table.draw(16, generator)[2])
        chosen = [more.index(text) for text in texts[:3]]
        assert len(texts) == 6
        assert len(set(chosen)) == 3
        assert chosen == [less.index(text) for text in texts[3:]]
        seen |= set(chosen)
    assert seen == {0, 1, 2, 3}


def test_the_attribute_term_of_the_first_step_by_hand(judged, monkeypatch):
    given, calls = judged(attribute_weight=1.0, attribute_antisymmetric=0.7, attribute_batch=9, epochs=1), []
    monkeypatch.setattr(text_tower, "attribute", lambda *a: calls.append(a) or a[0].sum() * 0)
    data = text_tower.load_data(given.config, given.images, given.vectors, given.comparisons, given.model)
    rows, _, _ = data.verdicts.draw(9, np.random.default_rng([0, 0, 1]))
    run(given)
    more, less, target, *settings = calls[0]  # before the first step the texts are the base model's
    v = torch.nn.functional.normalize(data.verdicts.differences(data.matrix, rows), dim=1).numpy()
    up, down = given.model.encode_texts(BANK["attributes"]["size"]["train"][0])
    assert more.detach().numpy() == pytest.approx(v @ up, abs=1e-5)
    assert less.detach().numpy() == pytest.approx(v @ down, abs=1e-5)
    assert target.numpy() == pytest.approx(data.verdicts.target[rows])
    assert settings == [0.05, 0.7], "temperature and antisymmetric weight"


def test_the_attribute_term_needs_verdicts(prepare, judged, monkeypatch):
    with pytest.raises(PcclipError, match=r"attribute_weight needs generate\.attributes"):
        run(prepare("no-bank", attribute_weight=1.0))
    given = judged(attribute_weight=1.0)
    table = verdicts.load(given.config)
    monkeypatch.setattr(verdicts, "load", lambda config: table[table.split == "held_out"])
    with pytest.raises(PcclipError, match="01 has no verdict on training pairs"):
        run(given)


def test_a_new_wording_starts_anew_and_only_where_it_is_used(prepare, bank):
    def stages(asks):
        given = [
            prepare(name, asks=asks, backend=Judge, attribute_weight=weight)
            for name, weight in (("with", 1.0), ("without", 0.0))
        ]
        return [finetuning.stage(g.config, g.images).key for g in given]

    before, after = stages(bank()), stages(bank(size={"train": [["The first is vast.", "The first is minute."]]}))
    assert before[0] != after[0], "01's verdicts are the same, but not what is trained on"
    assert before[1] == after[1]


# questions that keep their meaning


KEPT = {
    "words": [["warm", "cold"], ["loud", "quiet"]],
    "frames": ["It is {more}, not {less}.", "Not {less}, it is {more}."],
}


@pytest.fixture
def keeping(prepare, tmp_path):
    """keeping(run, attribute_kept=...) is a run with a bank that has questions of other things."""
    path = tmp_path / "keeping.yaml"
    path.write_text(yaml.safe_dump({**BANK, "kept": KEPT}))
    asks = {"attributes": str(path), "attribute_pairs": 60, "held_out_attribute_pairs": 20, "thing_pairs": 6}
    return lambda run, **settings: prepare(run, asks=asks, backend=Judge, **settings)


def test_in_every_frame_a_question_points_where_the_base_has_it_in_the_first(keeping):
    given = keeping("kept", attribute_weight=1.0, attribute_kept=1.0)
    questions = batches.unrelated_questions(given.config, given.model)
    texts = ["It is warm, not cold.", "It is loud, not quiet.", "Not cold, it is warm.", "Not quiet, it is loud."]
    assert lists(questions.more) == given.model.tokens(texts)
    more, less = (
        given.model.encode_texts([f"It is {a}, not {b}." for a, b in words])
        for words in (KEPT["words"], [pair[::-1] for pair in KEPT["words"]])
    )
    assert questions.base.numpy() == pytest.approx(np.tile(more - less, (2, 1)), abs=1e-6)
    tokens, base = questions.draw(np.random.default_rng(3))
    assert len(tokens) == 8
    assert len(base) == 4


def test_questions_about_other_things_stay_while_size_is_learned(keeping):
    """The term is what keeps them: without it the attribute term moves them too."""
    settings = {"attribute_weight": 3.0, "lr": 2e-3, "epochs": 12, "keep_epochs": [], "evaluate_every": 100}

    def moved(name: str, weight: float) -> tuple[float, float]:
        given = keeping(name, attribute_kept=weight, **settings)
        run(given)
        tuned = load_model(str(given.config.folder))
        pairs = load_bank(given.config.generate.attributes).kept.pairs[:2]
        centred = given.vectors.matrix - given.vectors.matrix.mean(axis=0)
        now, before = (
            unit(np.stack([centred @ paraphrase_axis(m, [pair]) for pair in pairs])) for m in (tuned, given.model)
        )
        return float((now * before).sum(axis=1).mean()), agreement(given, tuned)

    (free, _), (held, taught) = moved("free", 0.0), moved("held", 20.0)
    assert held > 0.9
    assert held > free + 0.1
    assert taught > 0.75


def test_unrelated_questions_need_a_bank_that_has_them(judged):
    with pytest.raises(PcclipError, match="attribute_kept needs generate.attributes, a bank with `kept`"):
        run(judged(attribute_weight=1.0, attribute_kept=1.0))


# replay, and pairs that share an image


def test_replay_is_nothing_at_the_base_and_holds_captions(prepare):
    free, held = (prepare(name, lr=3e-3, epochs=2, replay=w) for name, w in (("free", 0.0), ("held", 20.0)))
    run(free)
    curve = run(held)
    term = values_of(curve, "train", "replay")
    assert term[0] == pytest.approx(0, abs=1e-6)
    assert (term[1:] > 1e-6).all()
    captions = list(held.images.train.caption)
    base = held.model.encode_texts(captions)
    moved = [
        1 - (load_model(str(g.config.folder)).encode_texts(captions) * base).sum(axis=1).mean() for g in (free, held)
    ]
    assert moved[1] < 0.5 * moved[0]


def test_terms_are_added_by_their_weights(judged, monkeypatch):
    monkeypatch.setattr(text_tower, "replay", lambda tuned, base: tuned.sum() * 0 + 2)  # it is 0 at the first step
    plain, added = (
        run(judged(name, epochs=1, batch_size=40, **settings))
        for name, settings in (("plain", {}), ("added", {"attribute_weight": 0.7, "replay": 3.0}))
    )
    term = values_of(added, "train", "attribute")[0]
    objective = values_of(plain, "train", "loss")[0]
    assert values_of(added, "train", "infonce")[0] == objective
    assert values_of(added, "train", "loss")[0] == pytest.approx(objective + 0.7 * term + 3 * 2, rel=1e-6)


@pytest.mark.parametrize(("objective", "swap"), [("infonce", True), ("infonce", False), ("captions", False)])
def test_pairs_that_share_an_image_are_masked(prepare, monkeypatch, objective, swap):
    given, ignored = prepare(mask_shared=True, objective=objective, swap=swap, epochs=1), []
    function = losses.OBJECTIVES[objective]
    noted = lambda *a: ignored.append(a[3](torch.arange(len(a[0])))) or function(*a)  # noqa: E731
    monkeypatch.setitem(losses.OBJECTIVES, objective, noted)
    without_held_out_points(monkeypatch)
    batches_seen = []
    on_step(monkeypatch, lambda training, rows: batches_seen.append((training.data.train, rows)))
    run(given)
    train, rows = batches_seen[0]
    images = [{train.first[i], train.first[i] if train.second is None else train.second[i]} for i in rows]
    n = len(rows)
    expected = np.array([[bool(a & b) for b in images * (1 + swap)] for a in images * (1 + swap)])
    if swap:
        expected[np.arange(n), n + np.arange(n)] = expected[n + np.arange(n), np.arange(n)] = False
    assert (ignored[0].numpy() == expected).all()
    if objective == "infonce":
        assert expected.sum() > len(expected), "some do share one"


# captions, as they are and written anew


class Writer(Judge):
    def answers(self, questions):
        for question in questions:
            text = from_captions(question.first, question.second)
            yield question, Reply(text if question.second else f"A picture of {question.first[2:-1]}.", "stop")


def test_rewrites_are_trained_on_and_captions_evaluated(prepare):
    given = prepare(asks={"rewrites": "rewrite"}, backend=Writer, captions="rewrites", objective="captions")
    gathered = text_tower.load_data(given.config, given.images, given.vectors, given.comparisons, given.model)
    assert sorted(gathered.train.texts) == sorted(load_rewrites(given.config).caption)
    assert all(text.startswith("A picture of") for text in gathered.train.texts)
    assert sorted(gathered.held_out.texts) == sorted(given.images.held_out.caption)
    assert gathered.train.second is None
    assert len(gathered.held_out_pairs) == 20


def test_captions_and_nouns_of_training_are_replayed_but_nothing_held_out(prepare, monkeypatch):
    monkeypatch.setattr(batches, "imagenet_names", lambda: ["anchor", "bar stool", "wedge tail"])
    given = prepare(replay=1.0)
    gathered = text_tower.load_data(given.config, given.images, given.vectors, given.comparisons, given.model)
    train = given.images.train
    held_out = set(given.images.held_out.concept)
    spared = [noun for noun in ("anchor", "bar stool", "wedge tail") if not set(noun.split()) & held_out]
    assert "anchor" in spared
    nouns = sorted({*train.concept, *spared})
    texts = [*train.caption, *(f"a view of {with_article(noun)}" for noun in nouns)]
    assert lists(gathered.replayed.tokens) == given.model.tokens(texts)
    assert gathered.replayed.base.numpy() == pytest.approx(given.model.encode_texts(texts))
    assert list(gathered.replayed.kinds) == [0] * len(train) + [1] * len(nouns)


@pytest.mark.parametrize("prompt", ["a photo of a {}", "a view of a {}"])
def test_no_replayed_text_is_a_prompt_of_an_evaluation(prepare, prompt):
    given = prepare(replay=1.0)
    evaluate = given.config.evaluate.model_copy(update={"zero_shot_prompt": prompt})
    given.images.table["label"] = given.images.table.concept  # every replayed noun is a class, too
    kinds = batches.plain_texts(given.config.model_copy(update={"evaluate": evaluate}), given.images)
    assert sum(map(len, kinds)) > len(given.images.train)
    assert not {text for kind in kinds for text in kind} & {prompt.format(name) for name in given.images.classes}
    of_sets = {text for wording in ("single", "official80", "simple7") for text in templated(["fox"], wording)[0]}
    assert not [text for text in of_sets if text.lower().startswith("a view of")]


def test_replay_draws_each_kind_evenly():
    kinds = np.repeat([0, 1, 2], [1000, 300, 2])
    replayed = ReplayedTexts(Tokens.of([], 1), kinds, torch.zeros(len(kinds), 1))
    drawn = replayed.draw(9000, np.random.default_rng(0))
    assert np.bincount(kinds[drawn]) == pytest.approx([3000] * 3, abs=150)
    assert np.bincount(drawn, minlength=1302)[1300:] == pytest.approx([1500] * 2, abs=120), "and each of a kind evenly"
    assert len(set(drawn[drawn < 1000])) > 900
    assert (drawn == replayed.draw(9000, np.random.default_rng(0))).all()
    alone = ReplayedTexts(Tokens.of([], 1), np.array([1, 1]), torch.zeros(2, 1))
    assert set(alone.draw(5, np.random.default_rng(0))) <= {0, 1}


def test_what_is_replayed_is_held_where_the_base_has_that_very_text(prepare, monkeypatch):
    given, seen = prepare(replay=1.0, replay_batch=7, epochs=1), []
    monkeypatch.setattr(
        text_tower, "replay", lambda tuned, base: seen.append((tuned.detach(), base)) or tuned.sum() * 0
    )
    run(given)
    now, base = seen[0]  # before the first step the texts are the base model's
    assert len(now) == 7
    assert now.numpy() == pytest.approx(base.numpy(), abs=1e-5)
    assert [len(base) for _, base in seen] == [7] * 5


def test_all_captions_of_an_image_that_has_a_vector(prepare):
    given = prepare(objective="captions")
    lost, image = given.images.train["id"][:2]
    object.__setattr__(
        given.images,
        "captions",
        pd.DataFrame(
            {"id": [image, image, lost, given.images.held_out["id"][0]], "caption": ["One.", "Two.", "Three.", "Four."]}
        ),
    )
    keep = [i for i, name in enumerate(given.vectors.ids) if name != lost]
    fewer = Vectors(
        [given.vectors.ids[i] for i in keep], [given.vectors.paths[i] for i in keep], given.vectors.matrix[keep]
    )
    found = caption_examples(given.config, given.images, "train", fewer, given.model)
    assert found.texts == ["One.", "Two."]
    assert [fewer.ids[i] for i in found.first] == [image, image]
    matrix = torch.tensor(fewer.matrix)
    assert torch.equal(found.targets(matrix, np.array([1])), matrix[found.first[:1]])


# texts in memory at once


def gradients(given, **changes) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The terms of the first step, and the gradient of everything that learns."""
    config = given.config.model_copy(update={"finetune": given.config.finetune.model_copy(update=changes)})
    data = text_tower.load_data(config, given.images, given.vectors, given.comparisons, given.model)
    with copied_towers(given.model, ["text"]):
        training = TextTower(config, data, given.model)
        terms = training.step(np.random.default_rng(0).permutation(training.size)[:12])
        return terms, {name: p.grad.clone() for name, p in training.state.parameters.items()}


@pytest.mark.parametrize(
    "settings",
    [{"objective": "captions"}, {**ALL, "tune": "all"}, {**ALL, "swap": False, "tune": "lora", "lora_rank": 2}],
    ids=str,
)
def test_a_few_texts_at_once_give_the_gradients_of_all(judged, settings):
    given = judged(**settings)
    whole, expected = gradients(given)
    terms = ("attribute", "replay") if "replay" in settings else ()
    assert set(whole) == {"loss", "in_batch_accuracy", given.config.finetune.objective, *terms}
    assert ("log_temperature" in expected) == ("replay" in settings)
    for micro_batch in (1, 5):
        terms, found = gradients(given, micro_batch=micro_batch)
        assert terms == pytest.approx(whole, abs=1e-6)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            close = 1e-6 * max(1.0, float(expected[name].abs().max()))
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=close, msg=name)


def test_no_more_texts_are_in_the_tower_than_asked_for(judged, monkeypatch):
    given = judged(**ALL, micro_batch=5, epochs=1)
    sizes, features = [], given.model.features
    monkeypatch.setattr(
        given.model, "features", lambda tokens: sizes.append((len(tokens), torch.is_grad_enabled())) or features(tokens)
    )
    without_held_out_points(monkeypatch)
    gradients(given)
    with_gradients = [n for n, enabled in sizes if enabled]
    assert max(with_gradients) == 5
    assert sum(with_gradients) == 12 + 12 + 2 + 32  # pairs, their twins, the two wordings, replayed texts
    assert len(with_gradients) == -(-58 // 5)


def test_how_many_are_in_memory_may_change_between_a_run_and_its_continuation(prepare):
    keys = {finetuning.stage(g.config, g.images).key for g in (prepare(), prepare(micro_batch=3))}
    assert len(keys) == 1


# LoRA

LORA = {"tune": "lora", "lora_rank": 2, "lr": 1e-2}


def test_a_run_with_lora(prepare):
    given = prepare(**LORA)
    before = weights_of(given.model)
    curve = run(given)
    folder = given.config.folder / finetuning.FOLDER
    after = weights_of(load_model(str(given.config.folder)))
    assert after.keys() == before.keys()
    matrices = {
        f"text_tower.{name}"
        for name in given.model.tunable("transformer")
        if ".mlp." in name and name.endswith("weight")
    }
    assert len(matrices) == 4
    assert {name for name in before if not torch.equal(after[name], before[name])} == matrices
    assert all(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2 for name in matrices)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(given.model).items()), "the base is left"
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["tuned_parameters"] == sum(2 * sum(before[name].shape) for name in matrices)
    loss = values_of(curve, "train", "loss")
    assert loss[-5:].mean() < 0.95 * loss[:5].mean()


def test_a_kept_epoch_is_the_model_of_a_run_that_ended_there(prepare):
    long = prepare("long", **LORA, schedule="constant")
    short = prepare("short", **LORA, schedule="constant", epochs=2, keep_epochs=[])
    run(long)
    run(short)
    kept = weights_of(load_model(str(long.config.folder / finetuning.FOLDER / "epoch-002")))
    ended, last = (weights_of(load_model(str(given.config.folder))) for given in (short, long))
    assert all(torch.equal(kept[name], value) for name, value in ended.items())
    assert not all(torch.equal(last[name], value) for name, value in ended.items())
