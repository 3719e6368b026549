"""Stage 03 on a tiny run: what learns, what stays, and that a killed run continues on the same curve."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pcclip import load_model, params
from pcclip.comparisons import generate
from pcclip.comparisons.sentences import from_captions
from pcclip.data import load_images
from pcclip.embed import Vectors, embed
from pcclip.errors import PcclipError
from pcclip.finetune import trainer
from pcclip.finetune.examples import of_comparisons as examples
from pcclip.finetune.trainer import finetune, rate
from pcclip.models import saved
from pcclip.params import Finetune


@pytest.fixture(autouse=True)
def _one_thread():
    """The model is so small that threads cost more than they give, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prepare(values, tiny_encoder):
    """prepare(run='a', lr=...) runs 01 and 02 and gives all that finetune() needs, with a model of its own."""
    def call(run="tiny", model=None, **settings):
        config = params.check({**values, "run": run, "finetune": {**values["finetune"], **settings}})
        images = load_images(config)
        comparisons = generate.generate(config, images, tiny_encoder)
        vectors, _ = embed(config, images, tiny_encoder)
        return SimpleNamespace(config=config, images=images, vectors=vectors, comparisons=comparisons,
                               model=model or load_model(config.model))
    return call


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(given) -> pd.DataFrame:
    return finetune(given.config, given.images, given.vectors, given.comparisons, given.model)


def stop_after(monkeypatch, steps):
    """_step raises KeyboardInterrupt when it was called `steps` times."""
    step, calls = trainer._step, []

    def interrupted(*arguments):
        if len(calls) == steps:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*arguments)
    monkeypatch.setattr(trainer, "_step", interrupted)


def values_of(curve, split, metric):
    return curve[(curve.split == split) & (curve.metric == metric)].value.to_numpy()


# what learns

@pytest.mark.parametrize("objective", ["infonce", "mse", "captions"])
def test_the_loss_falls(prepare, objective):
    given = prepare(objective=objective, epochs=6, lr=3e-3, keep_epochs=[])
    curve = run(given)
    assert list(curve.columns) == ["step", "epoch", "split", "metric", "value"]
    assert set(curve.split) == {"train", "held_out"}
    assert set(curve.metric[curve.split == "train"]) == {"loss", "in_batch_accuracy"}
    assert set(curve.metric[curve.split == "held_out"]) == {
        "loss", "in_batch_accuracy", "difference_accuracy", "zero_shot_accuracy"}
    loss = values_of(curve, "train", "loss")
    steps = 2 if objective == "captions" else 5  # 15 captions, or 40 pairs, in batches of 8
    assert len(loss) == 6 * steps
    assert loss[-steps:].mean() < 0.95 * loss[:steps].mean()
    points = curve[(curve.split == "held_out") & (curve.metric == "loss")].step
    assert list(points) == [*range(0, 6 * steps, 5), 6 * steps]
    assert (curve.epoch == curve.step / steps).all()


@pytest.mark.parametrize("tune", ["transformer", "all"])
def test_only_what_is_tuned_changes(prepare, tune):
    given = prepare(tune=tune, epochs=2, weight_decay=0.01)
    before, tunable = weights_of(given.model), {f"text_tower.{name}" for name in given.model.tunable(tune)}
    run(given)
    after = weights_of(load_model(str(given.config.folder)))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == tunable
    assert all(torch.equal(value, before[name]) for name, value in weights_of(given.model).items()), "the base is left"
    assert any(not name.startswith("text_tower.transformer") for name in changed) == (tune == "all")


@pytest.mark.parametrize("swap", [False, True])
def test_swap_puts_the_twins_into_the_batch(prepare, swap, monkeypatch):
    given = prepare(swap=swap, epochs=1)
    sizes, batch = [], given.model.batch
    monkeypatch.setattr(given.model, "batch", lambda tokens: sizes.append(len(tokens)) or batch(tokens))
    monkeypatch.setattr(trainer, "held_out_values", lambda *arguments: {})
    run(given)
    assert sizes[:5] == [16 if swap else 8] * 5


def test_swapped_twins_have_the_reversed_difference(prepare, monkeypatch):
    given, seen = prepare(epochs=1, batch_size=20), []
    monkeypatch.setattr(trainer, "infonce", lambda w, v, *rest: seen.append(v.detach()) or (w.sum(), torch.tensor(0.0)))
    monkeypatch.setattr(trainer, "held_out_values", lambda *arguments: {})
    run(given)
    assert len(seen[0]) == 40
    assert torch.equal(seen[0][:20], -seen[0][20:])


def test_learning_the_temperature(prepare):
    fixed, learned = run(prepare("fixed")), run(prepare("learned", learn_temperature=True))
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


def test_bf16_computes_in_bf16(prepare):
    losses = [values_of(run(prepare(p, precision=p, epochs=1)), "train", "loss")[0] for p in ("fp32", "bf16")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_loss_that_is_no_number(prepare):
    given = prepare(lr=1e30, schedule="constant")
    with pytest.raises(PcclipError, match=r"loss became nan at step \d+; lower finetune\.lr"):
        run(given)
    assert not (given.config.folder / trainer.FOLDER / "manifest.json").exists()


def test_weights_that_are_no_numbers_after_the_last_step(prepare):
    with pytest.raises(PcclipError, match=r"lower finetune\.lr"):
        run(prepare(lr=1e30, schedule="constant", epochs=1, batch_size=40, keep_epochs=[]))


# the schedule

def settings(**changes) -> Finetune:
    return Finetune(**changes)


@pytest.mark.parametrize(("schedule", "expected"), [
    (settings(schedule="exponential", gamma=0.5), {0: 1, 9: 1, 10: 0.5, 25: 0.25}),
    (settings(schedule="exponential", gamma=0.5, warmup_steps=4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 10: 0.5}),
    (settings(schedule="constant"), {0: 1, 39: 1}),
    (settings(schedule="constant", warmup_steps=2), {0: 0.5, 1: 1, 2: 1}),
    (settings(schedule="cosine"), {0: 1, 10: 0.5 + 0.5 * np.cos(np.pi / 4), 20: 0.5, 40: 0}),
    (settings(schedule="cosine", warmup_steps=20), {0: 0.05, 19: 1, 20: 1, 30: 0.5, 40: 0}),
])
def test_rate(schedule, expected):
    found = {step: rate(schedule, step, per_epoch=10, total=40) for step in expected}
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_optimiser_follows_the_schedule(prepare, monkeypatch):
    given, seen, step = prepare(warmup_steps=3), [], trainer._step
    monkeypatch.setattr(trainer, "_step", lambda *a: seen.append(a[-1].param_groups[0]["lr"]) or step(*a))
    run(given)
    assert seen == pytest.approx([1e-3 * rate(given.config.finetune, k, 5, 20) for k in range(20)])


def test_every_epoch_sees_every_pair_once_in_an_order_of_its_own(prepare, monkeypatch):
    given, seen, step = prepare(epochs=2), [], trainer._step
    monkeypatch.setattr(trainer, "_step", lambda *a: seen.extend(a[3].tolist()) or step(*a))
    run(given)
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]


@pytest.mark.parametrize(("n", "batch_size", "per_epoch"), [
    (40, 8, 5), (41, 8, 6), (42, 8, 6), (2, 8, 1), (9, 8, 2), (3, 2, 1)])
def test_no_batch_of_one(n, batch_size, per_epoch):
    assert trainer._steps(settings(batch_size=batch_size, epochs=3), n) == (per_epoch, 3 * per_epoch)


# killed runs

def results(given):
    folder = given.config.folder / trainer.FOLDER
    names = [trainer.CURVES, saved.WEIGHTS, f"epoch-002/{saved.WEIGHTS}"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize(("steps", "changes"), [
    (1, {}), (7, {}), (10, {"checkpoint_every": 5}), (13, {"learn_temperature": True, "optimizer": "adam"})])
def test_a_killed_run_continues_on_the_same_curve(prepare, monkeypatch, steps, changes):
    given = prepare("killed", **changes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, steps)
        run(given)
    redone = 20 - steps // given.config.finetune.checkpoint_every * given.config.finetune.checkpoint_every
    with monkeypatch.context() as patch:
        stop_after(patch, redone)  # no step more than from the last checkpoint
        curve = run(prepare("killed", **changes))
    whole = prepare("whole", **changes)
    pd.testing.assert_frame_equal(run(whole), curve)
    assert results(given) == results(whole)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_cell_that_was_interrupted_and_run_again_with_the_same_model(prepare, monkeypatch, steps):
    given = prepare("killed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, steps)
        run(given)
    curve = run(given)
    whole = prepare("whole")
    pd.testing.assert_frame_equal(run(whole), curve)
    assert results(given) == results(whole)
    load_model(str(given.config.folder))


def test_the_second_call_does_nothing(prepare, monkeypatch):
    curve = run(prepare())
    stop_after(monkeypatch, 0)
    pd.testing.assert_frame_equal(run(prepare()), curve)


def test_a_changed_parameter_starts_anew(prepare, monkeypatch):
    run(prepare())
    stop_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        run(prepare(lr=2e-3))


# what is written

def test_the_result_is_a_model(prepare, tiny_encoder):
    given = prepare(keep_epochs=[2, 4, 9])
    run(given)
    folder = given.config.folder / trainer.FOLDER
    texts = ["The first image shows a red disc, while the second image shows a blue bar.", "a dog"]
    found = {epoch: load_model(str(folder / f"epoch-{epoch:03d}")).encode_texts(texts) for epoch in (2, 4)}
    assert (load_model(str(given.config.folder)).encode_texts(texts) == found[4]).all()
    assert np.abs(found[2] - found[4]).max() > 1e-5
    assert np.abs(found[2] - tiny_encoder.encode_texts(texts)).max() > 1e-5
    assert not (folder / "epoch-009").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {"train": 40, "held_out": 20, "steps": 20, "verdicts": 0, "tuned_parameters": sum(
        p.numel() for p in given.model.tunable("transformer").values())}
    assert [json.loads((folder / part / saved.CARD).read_text())["epoch"] for part in ("epoch-002", ".")] == [2, 4]


# what is learned from

def test_pairs_without_a_vector_are_dropped(prepare, tiny_encoder):
    given = prepare()
    lost = given.comparisons["first"][0]
    keep = [i for i, image in enumerate(given.vectors.ids) if image != lost]
    fewer = Vectors([given.vectors.ids[i] for i in keep], [given.vectors.paths[i] for i in keep],
                    given.vectors.matrix[keep])
    found = examples(given.config, given.comparisons, "train", fewer, tiny_encoder)
    table = generate.kept(given.comparisons, "train")
    rest = table[(table["first"] != lost) & (table["second"] != lost)]
    assert 0 < len(rest) < len(table)
    assert found.texts == list(rest.difference)
    assert [fewer.ids[i] for i in found.first] == list(rest["first"])
    assert [fewer.ids[i] for i in found.second] == list(rest["second"])
    assert found.twin_tokens == tiny_encoder.tokens(list(rest.swapped))


def test_pairs_that_vectors_cannot_tell_apart_are_dropped(prepare, tiny_encoder):
    given = prepare()
    table = generate.kept(given.comparisons, "train")
    one, two = given.vectors.rows([table["first"][0], table["second"][0]])
    given.vectors.matrix[one] = given.vectors.matrix[two]
    found = examples(given.config, given.comparisons, "train", given.vectors, tiny_encoder)
    same = {table["first"][0], table["second"][0]}
    assert found.texts == [text for text, a, b in zip(table.difference, table["first"], table["second"], strict=True)
                           if {a, b} != same]
    assert len(found) < len(table)


@pytest.mark.parametrize("source", ["generated", "template"])
def test_sentences_to_learn_from(prepare, source, tiny_encoder):
    given = prepare(comparisons=source)
    table = given.comparisons.assign(difference="The first image is A, while the second image is B.",
                                     swapped="The first image is B, while the second image is A.")
    found = examples(given.config, table, "train", given.vectors, tiny_encoder)
    if source == "generated":
        assert set(found.texts) == set(table.difference)
    else:
        train = generate.kept(table, "train")
        assert found.texts == list(map(from_captions, train.first_caption, train.second_caption))
        assert found.twin_tokens == tiny_encoder.tokens(list(map(from_captions, train.second_caption, train.first_caption)))


def test_one_comparison_is_not_enough(prepare):
    given = prepare()
    given.comparisons.loc[1:, "verdict"] = "length"
    with pytest.raises(PcclipError, match="1 training texts were kept"):
        run(given)


@pytest.mark.parametrize("stage", ["01_generate", "02_embed"])
def test_an_earlier_stage_is_missing(prepare, stage):
    given = prepare()
    (given.config.folder / stage / "manifest.json").unlink()
    with pytest.raises(PcclipError, match=f"{stage}: this stage has not finished"):
        run(given)
