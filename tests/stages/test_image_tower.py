"""Models whose image tower was finetuned too: saved and loaded, never given the base's vectors, judged by their own."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.knowing import predicted
from safetensors.torch import load_file, save_file
from torch import nn

from pcclip import config as params, load_model, rank
from pcclip.arithmetic import composed, stage as arithmetic
from pcclip.arithmetic.retrieval import rank_share
from pcclip.arithmetic.texts import with_memory
from pcclip.benchmarks.benchmark import Benchmark, LazyPictures
from pcclip.comparisons import stage as generate
from pcclip.config import Rank
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import TOWERS, embed, embed_with_tower, own_vectors, tower_stage
from pcclip.embedding.vectors import Vectors, load_vectors
from pcclip.encoders import identify, saved
from pcclip.encoders.dual_encoder import Encoder, weights_digest
from pcclip.errors import PcclipError
from pcclip.evaluation import (
    change_captions as changed,
    comparative,
    compositional,
    labelled,
    relative_attributes as relative,
    stage as report,
    zero_shot,
)
from pcclip.evaluation.predictions import Predictions
from pcclip.finetuning import stage as trainer
from pcclip.images import open_image
from pcclip.ranking.axes import attribute_axis
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.ranking.widget import photos as photo_sets
from pcclip.ranking.widget.change import ChangeBox
from pcclip.ranking.widget.ranker import Ranker
from pcclip.runs.files import file_digest
from pcclip.stats.vectors import cosines, image_differences, unit

TEXTS = ["a red disc", "a blue square"]
MORE, LESS = "a photo of a red disc", "a photo of a blue square"


def changed_norms(model: Encoder, size: float = 0.5) -> Encoder:
    """Change the LayerNorms of both towers."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tower in (model.image_tower, model.text_tower):
            for norm in (m for m in tower.modules() if isinstance(m, nn.LayerNorm)):
                for weights in norm.parameters():
                    weights += size * torch.randn(weights.shape, generator=noise)
    return model


def finish_03(config, images, base, tuned) -> None:
    """The files and the manifest of a finetuning that ended with this model."""
    stage = trainer.stage(config, images)
    with stage.work():
        stage.finish(saved.save(tuned, saved.describe(base), stage.folder), {})


@pytest.fixture(scope="module")
def made(photos, tiny_model, tmp_path_factory) -> SimpleNamespace:
    """A run up to 03 that tuned both towers, with a sweep of alphas and two peers of other image towers."""

    from helpers.runs import run_values

    folder = tmp_path_factory.mktemp("image_tower")
    given = run_values(photos, tiny_model, folder)
    given["finetune"] |= {"keep_epochs": []}
    given["arithmetic"] |= {
        "triples": 10,
        "quadruples": 10,
        "changes": [{"start": "ring", "text": "The first image shows a disc, while the second image shows a ring."}],
    }
    odd = shutil.copytree(tiny_model.removeprefix("local-dir:"), folder / "odd")
    weights = load_file(odd / "open_clip_model.safetensors")
    save_file(
        {name: value + 0.01 * ("visual" in name) for name, value in weights.items()},
        odd / "open_clip_model.safetensors",
    )
    given["evaluate"] |= {"alphas": [0.0, 1.0], "peers": {"odd": f"local-dir:{odd}", "text": str(folder / "text")}}
    config, base = params.check(given), load_model(tiny_model)
    images = load_images(config)
    comparisons, (plain, _) = generate.generate(config, images, base), embed(config, images, base)
    finish_03(config, images, base, changed_norms(load_model(tiny_model)))
    texts_only = load_model(tiny_model)
    with torch.no_grad():
        texts_only.text_tower.ln_final.weight += 0.5
    saved.save(texts_only, saved.describe(base), folder / "text")
    models = report.load_models(config)
    return SimpleNamespace(
        config=config,
        images=images,
        comparisons=comparisons,
        plain=plain,
        models=models,
        vectors=own_vectors(config, models),
        tuned=models["finetuned"],
        base=models["base"],
    )


def pixels(model: Encoder, vectors: Vectors) -> np.ndarray:
    """The vectors by hand: every photo on its own."""
    return np.concatenate([model.encode_pixels(model.preprocess(open_image(path))[None]) for path in vectors.paths])


# ---- saved and loaded


@pytest.fixture
def folder(fresh_encoder, tmp_path):
    """A folder of weights of both towers, and the model they are of."""
    card = saved.describe(fresh_encoder)
    changed_norms(fresh_encoder)
    names = saved.save(fresh_encoder, card, tmp_path / "saved")
    assert names == ["text_tower.safetensors", "image_tower.safetensors", "model.json"]
    return tmp_path / "saved"


def test_both_towers_come_back(folder, fresh_encoder, tiny_encoder, photos):
    model, paths = load_model(str(folder)), sorted(photos.glob("*.png"))[:4]
    assert (model.encode_texts(TEXTS) == fresh_encoder.encode_texts(TEXTS)).all()
    assert (model.encode_images(paths) == fresh_encoder.encode_images(paths)).all()
    assert np.abs(model.encode_images(paths) - tiny_encoder.encode_images(paths)).max() > 1e-2
    assert model.image_fingerprint() == fresh_encoder.image_fingerprint() != tiny_encoder.image_fingerprint()
    assert model.tuned_from == tiny_encoder.image_fingerprint()
    card = json.loads((folder / saved.CARD).read_text())
    assert card["image_tower"] == weights_digest(fresh_encoder.image_tower)
    assert card["image_fingerprint"] == tiny_encoder.image_fingerprint(), "that of the base it must be put on"


def test_a_model_of_texts_alone_is_saved_as_before(fresh_encoder, folder, tiny_encoder):
    fresh_encoder.image_tower.load_state_dict(tiny_encoder.image_tower.state_dict())
    names = saved.save(fresh_encoder, saved.describe(tiny_encoder), folder)
    assert names == [saved.WEIGHTS, saved.CARD]
    assert {path.name for path in folder.iterdir()} == set(names), "the image tower of before is gone"
    assert set(json.loads((folder / saved.CARD).read_text())) == {
        "format",
        "base",
        "architecture",
        "image_fingerprint",
        "base_text_tower",
        "text_tower",
    }
    assert identify(str(folder)) == file_digest(folder / saved.WEIGHTS)[:16]
    assert load_model(str(folder)).image_fingerprint() == tiny_encoder.image_fingerprint()


def test_a_model_is_identified_by_both_towers(folder, fresh_encoder, tiny_encoder):
    before = identify(str(folder))
    with torch.no_grad():
        fresh_encoder.image_tower.ln_post.weight += 1
    saved.save(fresh_encoder, saved.describe(tiny_encoder), folder)
    assert identify(str(folder)) != before


def test_alpha_mixes_both_towers(folder, fresh_encoder, tiny_encoder):
    mixed = {alpha: load_model(str(folder), alpha) for alpha in (0.0, 0.25, 1.0)}
    for tower in ("image_tower", "text_tower"):
        ends = [getattr(model, tower).state_dict() for model in (tiny_encoder, fresh_encoder)]
        for name, value in getattr(mixed[0.25], tower).state_dict().items():
            torch.testing.assert_close(value, 0.75 * ends[0][name] + 0.25 * ends[1][name], rtol=1e-6, atol=1e-7)
    assert mixed[0.0].image_fingerprint() == tiny_encoder.image_fingerprint()
    assert mixed[1.0].image_fingerprint() == fresh_encoder.image_fingerprint() != mixed[0.25].image_fingerprint()


@pytest.mark.parametrize(("alpha", "mean", "batches"), [(0.0, 0.0, 0), (0.5, 1.0, 7), (1.0, 2.0, 7)])
def test_statistics_of_batch_normalisation(tiny_model, tmp_path, alpha, mean, batches):
    def with_batches(spec):
        model = load_model(spec)
        model.image_tower.add_module("bn", nn.BatchNorm1d(3))
        return model

    tuned = with_batches(tiny_model)
    card, bn = saved.describe(tuned), tuned.image_tower.bn
    bn.running_mean += 2
    bn.num_batches_tracked += 7
    saved.save(tuned, card, tmp_path / "bn")
    bn = saved.load(tmp_path / "bn", alpha, with_batches).image_tower.bn
    assert bn.running_mean.tolist() == [mean] * 3
    assert bn.num_batches_tracked.item() == batches


def damaged(name, change):
    def damage(folder):
        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name)

    return damage


def cut_short(folder):
    file = folder / saved.IMAGE_WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])


def another_digest(folder):
    card = json.loads((folder / saved.CARD).read_text())
    (folder / saved.CARD).write_text(json.dumps({**card, "image_tower": "0" * 64}))


def doubled(weights):
    weights["ln_post.weight"] = weights["ln_post.weight"].double()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / saved.IMAGE_WEIGHTS).unlink(), "image_tower.safetensors: cannot be read"),
        (cut_short, "image_tower.safetensors: cannot be read"),
        (damaged(saved.IMAGE_WEIGHTS, lambda w: w.pop("ln_post.weight")), "image_tower.safetensors: .*do not fit"),
        (damaged(saved.IMAGE_WEIGHTS, doubled), "image_tower.safetensors: .*do not fit"),
        (
            damaged(saved.IMAGE_WEIGHTS, lambda w: w["ln_post.weight"].add_(1)),
            "image_tower.safetensors: not the weights",
        ),
        (another_digest, "not the weights its model.json describes"),
        (lambda folder: (folder / saved.CARD).write_text('{"base": "x"'), "model.json: cannot be read"),
        (lambda folder: (folder / saved.CARD).write_text('{"base": "x"}'), "model.json: no card of a finetuned model"),
    ],
)
def test_an_image_tower_that_does_not_fit(folder, damage, message):
    damage(folder)
    for alpha in (0.5, 1.0):
        with pytest.raises(PcclipError, match=message) as error:
            load_model(str(folder), alpha)
        assert "\n" not in str(error.value)


def test_a_lost_image_tower_is_told_before_any_work(folder):
    (folder / saved.IMAGE_WEIGHTS).unlink()
    with pytest.raises(PcclipError, match=r"image_tower\.safetensors: cannot be read \(it is not there\)"):
        identify(str(folder))


# ---- vectors


def test_every_model_has_the_vectors_of_its_own_tower(made):
    assert set(made.vectors.others) == {"finetuned", "alpha=1", "odd"}
    assert made.vectors.seen_by("alpha=1") is made.vectors.seen_by("finetuned"), "towers alike share them"
    for which, model in made.models.items():
        own = made.vectors.seen_by(which)
        assert own.ids == made.plain.ids
        assert own.matrix == pytest.approx(pixels(model, own), abs=1e-5), which
    assert made.models["text"].image_tower is made.models["alpha=0"].image_tower is made.base.image_tower
    folders = {path.name for path in (made.config.folder / "02_embed" / TOWERS).iterdir()}
    assert folders == {made.tuned.image_fingerprint(), made.models["odd"].image_fingerprint()}


def test_they_are_made_once(made, encoded):
    again = own_vectors(made.config, made.models)
    assert encoded.total == 0
    assert np.array_equal(again.seen_by("odd").matrix, made.vectors.seen_by("odd").matrix)


def test_texts_alone_cost_no_vectors(config, tiny_model, tiny_encoder, encoded, tmp_path):
    images = load_images(config)
    generate.generate(config, images, tiny_encoder)
    plain, _ = embed(config, images, tiny_encoder)
    tuned, before = load_model(tiny_model), encoded.total
    with torch.no_grad():
        tuned.text_tower.ln_final.weight += 0.5
    finish_03(config, images, tiny_encoder, tuned)
    found = own_vectors(config, report.load_models(config))
    assert encoded.total == before
    assert not found.others
    assert np.array_equal(found.matrix, plain.matrix)
    assert not (config.folder / "02_embed" / TOWERS).exists()


def test_the_bases_vectors_are_refused_for_a_tuned_tower(made):
    stored = made.config.folder / "02_embed"
    asked = {
        "own image tower was tuned: pcclip.embedding.stage.own_vectors": lambda: load_vectors(stored, made.tuned),
        "^finetuned: its own image tower is .*own_vectors": lambda: report.evaluate(
            made.config, made.images, made.plain, made.comparisons, made.models
        ),
        "^finetuned: its own image tower": lambda: arithmetic.analyze(
            made.config, made.images, made.plain, made.models
        ),
        "of another model than .*give the run's folder": lambda: rank(
            str(stored / "vectors*.parquet"), MORE, model=made.tuned
        ),
    }
    for message, use in asked.items():
        with pytest.raises(PcclipError, match=message) as error:
            use()
        assert "\n" not in str(error.value)


def test_an_image_that_cannot_be_read_any_more(values, photos, tmp_path, tiny_encoder, fresh_encoder):
    mine = shutil.copytree(photos, tmp_path / "mine")
    config = params.check({**values, "data": {**values["data"], "path": str(mine)}})
    embed(config, load_images(config), tiny_encoder)
    (mine / "disc-red.png").write_bytes(b"")
    with pytest.raises(PcclipError, match=r"1 of 24 images cannot be read .*disc-red\.png.* more than none"):
        embed_with_tower(config.folder / "02_embed", changed_norms(fresh_encoder), config.embed)


def test_new_photos_are_embedded_by_every_tower_anew(values, photos, tmp_path, tiny_encoder, fresh_encoder):
    mine = shutil.copytree(photos, tmp_path / "mine")
    config = params.check({**values, "data": {**values["data"], "path": str(mine)}})
    models = {"base": tiny_encoder, "finetuned": changed_norms(fresh_encoder)}
    embed(config, load_images(config), tiny_encoder)
    before = own_vectors(config, models)
    shutil.copy(mine / "dot-blue.png", mine / "disc-red.png")
    embed(config, load_images(config), tiny_encoder)
    after = own_vectors(config, models)
    for which in models:
        moved = np.abs(after.seen_by(which).matrix - before.seen_by(which).matrix).max(axis=1) > 1e-3
        assert [name for name, it_did in zip(after.ids, moved, strict=True) if it_did] == ["disc-red.png"]


# ---- 04


@pytest.fixture(scope="module")
def evaluated(made):
    metrics, paired = report.evaluate(made.config, made.images, made.vectors, made.comparisons, made.models)
    return metrics, paired, report.read(made.config, report.PREDICTIONS)


def by_hand(made, which: str, items: pd.DataFrame) -> np.ndarray:
    """Whether the pairs of difference_classification are right, or the scores of a ranking, without the package."""
    model, row = made.models[which], {image: k for k, image in enumerate(made.vectors.ids)}
    seen = pixels(model, made.vectors)
    if (items.task == "ranking").all():
        texts = made.config.evaluate.attributes["size"]
        more, less = model.encode_texts([texts.more, texts.less])
        axis = (more - less) / np.linalg.norm(more - less)
        return np.array([seen[row[image]] @ axis for image in items["first"]])
    caption = made.images.table.set_index("id").caption
    pairs = generate.template_pairs(made.vectors.of(made.images.held_out), made.config.evaluate.pairs, 0)
    assert list(pairs["first"]) == list(items["first"])
    assert caption[pairs["first"][0]] == pairs.first_caption[0]
    texts = model.encode_texts(list(pairs.difference))
    return np.array(
        [
            (seen[row[one]] - seen[row[two]]) @ text > 0
            for one, two, text in zip(pairs["first"], pairs.second, texts, strict=True)
        ]
    )


@pytest.mark.parametrize("which", ["base", "finetuned", "odd", "text"])
def test_metrics_are_of_a_models_own_vectors(made, evaluated, which):
    metrics, _, predictions = evaluated
    items = predictions[(predictions.task == "difference_classification") & (predictions.model == which)]
    right = by_hand(made, which, items)
    assert items.correct.tolist() == right.tolist()
    row = metrics[(metrics.task == "difference_classification") & (metrics.model == which)]
    assert row.value.item() == pytest.approx(right.mean(), abs=1e-6)
    items = predictions[predictions.dataset.str.endswith("size/two_prompt") & (predictions.model == which)]
    assert items.score.to_numpy() == pytest.approx(by_hand(made, which, items), abs=1e-5)


def test_rows_of_equal_weights_are_equal_and_the_others_differ(made, evaluated):
    metrics, paired, predictions = evaluated
    assert set(metrics.model) == {*made.models, "supervised"}
    keys = ["task", "dataset", "metric", "value", "ci_low", "ci_high"]
    rows = {which: metrics.loc[metrics.model == which, keys].reset_index(drop=True) for which in made.models}
    pd.testing.assert_frame_equal(rows["alpha=0"], rows["base"])
    pd.testing.assert_frame_equal(rows["alpha=1"], rows["finetuned"])
    items = {which: predictions.score[predictions.model == which].to_numpy() for which in made.models}
    assert np.abs(items["odd"] - items["base"]).max() > 1e-4
    assert np.abs(items["finetuned"] - items["base"]).max() > 1e-2
    wrong = predicted(made.config, made.images, made.plain, made.comparisons, {"base": made.tuned})
    assert not np.array_equal(wrong.score.to_numpy(), items["finetuned"]), "the base's vectors would give others"
    assert len(paired)


def test_the_supervised_axis_is_of_the_bases_vectors(made, evaluated):
    _, _, predictions = evaluated
    one = predictions[predictions.model == "supervised"]
    other = predicted(made.config, made.images, made.plain, made.comparisons, {"base": made.base})
    assert one.score.tolist() == other[other.model == "supervised"].score.tolist()


# ---- the sets of 04


@pytest.fixture(scope="module")
def pictures(photos) -> pd.DataFrame:
    paths = sorted(map(str, photos.glob("*.png")))
    return pd.DataFrame({"id": [f"p{k}" for k in range(len(paths))], "path": paths})


@pytest.fixture
def asked(made, tmp_path):
    """Models of two image towers, and a run whose sets are given by the tests: with(block) is its config."""

    def config(**block):
        settings = made.config.evaluate.model_copy(update={**block, "alphas": [], "peers": {}})
        return made.config.model_copy(update={"evaluate": settings, "outputs": str(tmp_path)})

    return SimpleNamespace(config=config, models={which: made.models[which] for which in ("base", "finetuned")})


def test_a_labelled_set_is_seen_by_each_tower(asked, pictures):
    tune = np.arange(len(pictures)) % 2 == 0
    table = pd.DataFrame(
        {
            "id": pictures["id"],
            "path": pictures["id"],
            "label": np.arange(len(pictures)) % 3,
            "split": np.where(tune, "tune", "test"),
        }
    )
    shown = [open_image(path) for path in pictures.path]
    shown[1] = open_image(pictures.path[0]).resize((1, 1))  # of one pixel, which every model reads all the same
    found, predictions = (
        Benchmark(
            "made",
            "classification",
            table,
            classes=["disc", "ring", "bar"],
            decoded=LazyPictures(shown.__getitem__, range(len(shown))),
            containers=list(pictures.path),
        ),
        Predictions(),
    )
    config = asked.config(labelled={"made": params.Labelled(tasks=["zero_shot"])})
    labelled.score(config, {"made": found}, asked.models, predictions)
    items = predictions.table()
    for which, model in asked.models.items():
        own = items[
            (items.dataset == "made/single")
            & (items.protocol == "corrected")
            & (items.model == which)
            & (items.task == "zero_shot")
        ]
        texts = model.encode_texts([f"This is a photo of a {name}" for name in found.classes])
        seen = model.encode_images([image for image, tuned in zip(shown, tune, strict=True) if not tuned])
        assert own.score.tolist() == (seen @ texts.T).argmax(axis=1).tolist()
    tower = config.home / "labelled" / "made" / TOWERS / asked.models["finetuned"].image_fingerprint()
    assert (tower / "vectors.parquet").is_file()


@pytest.mark.parametrize("form", ["pairs", "values"])
def test_a_relative_set(asked, pictures, form, monkeypatch):
    images = pictures.assign(split="test", group="")
    pairs = pd.DataFrame(
        {
            "part": "",
            "attribute": "size",
            "first": pictures["id"][:8].to_numpy(),
            "second": pictures["id"][8:16].to_numpy(),
            "more": "first",
            "split": "test",
        }
    )
    values = pd.DataFrame({"size": np.arange(len(images), dtype=float)})
    content = {"items": pairs} if form == "pairs" else {"values": values}
    found = Benchmark("lfw10", "relative_attributes", images, **content)
    texts = asked.config().evaluate.attributes["size"]
    monkeypatch.setattr(relative, "shipped_texts", lambda name: {"size": texts})
    config = asked.config(relative={"lfw10": params.Relative(path="x")})
    predictions = Predictions()
    relative.score(config, {"lfw10": found}, asked.models, predictions)
    items = predictions.table()
    for which, model in asked.models.items():
        axis = attribute_axis(model, texts, "two_prompt")
        seen = model.encode_images(list(pictures.path))
        own = items[(items.model == which) & items.dataset.str.endswith("two_prompt")]
        expected = (seen[:8] - seen[8:16]) @ axis if form == "pairs" else seen @ axis
        assert own.score.to_numpy() == pytest.approx(expected, abs=1e-5)


def test_comparative_prompting_by_two_towers(rng):
    """Each model's items are those that it has alone, with the pairs that the base's confusions chose."""
    names, labels = ["disc", "ring", "bar"], np.arange(30) % 3
    texts = unit(rng.normal(size=(3, 8)))
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    differences = dict(zip(pairs, unit(rng.normal(size=(6, 8))), strict=True))
    vectors = comparative.ClassVectors(names, texts, differences, unit(rng.normal(size=(1, 8)))[0])
    matrices = {name: unit(texts[labels] + rng.normal(size=(30, 8))) for name in ("base", "finetuned")}
    tune, test = ((rows, labels[rows]) for rows in (np.arange(20), np.arange(20, 30)))
    models = dict.fromkeys(matrices, vectors)
    for form, protocol in comparative.VARIANTS:
        items, choice = comparative.comparative_items(models, matrices, tune, test, (form, protocol))
        for name, matrix in matrices.items():
            moved = comparative.compared(vectors, choice.pairs, form)
            moved = comparative.blended(vectors, moved, choice)
            for prompting, classes in (("plain", texts), ("comparative", moved)):
                own = items[(items.model == name) & (items.prompting == prompting)]
                assert own.score.tolist() == zero_shot.classify(matrix, classes, *test).score.tolist()


def test_a_change_set(asked, pictures):
    answers = ["The first image shows more of it.", "The first image shows less of it."]
    pairs = pd.DataFrame(
        {
            "first": pictures["id"][:6].to_numpy(),
            "second": pictures["id"][6:12].to_numpy(),
            "text": answers[0],
            "swapped": answers[1],
            "split": "test",
            "answer": "first",
        }
    )
    found = Benchmark("compbench", "change_captions", pictures, pairs)
    config, predictions = asked.config(changes={"compbench": params.Changes(path="x")}), Predictions()
    changed.score(config, {"compbench": found}, asked.models, predictions)
    items = predictions.table()
    for which, model in asked.models.items():
        seen, texts = model.encode_images(list(pictures.path[:12])), model.encode_texts(answers)
        v = image_differences(seen, np.arange(6), np.arange(6, 12))
        own = items[(items.model == which) & (items.dataset == "compbench/one_sided")]
        assert own.correct.tolist() == (cosines(np.repeat(texts[:1], 6, axis=0), v) > 0).tolist()


def test_a_compositional_set(asked, pictures):
    images = pictures.assign(box=None, photo=pictures["id"])
    items = pd.DataFrame(
        {
            "image_0": pictures["id"],
            "text_0": "a red disc",
            "text_1": "a blue square",
            "part": "",
            "group": "",
            "tags": [()] * len(pictures),
        }
    )
    found = Benchmark("sugarcrepe", "compositionality", images, items, form="choices")
    config, predictions = asked.config(compositional={"sugarcrepe": params.PublicSet(path="x")}), Predictions()
    compositional.score(config, {"sugarcrepe": found}, asked.models, predictions)
    table = predictions.table()
    for which, model in asked.models.items():
        right, wrong = model.encode_texts(["a red disc", "a blue square"])
        margin = model.encode_images(list(pictures.path)) @ (right - wrong)
        assert table[table.model == which].score.to_numpy() == pytest.approx(margin, abs=1e-5)
        blind = table[table.model == f"{which}, blind"].score.to_numpy()
        assert blind == pytest.approx(np.full(len(margin), margin.mean()), abs=1e-5)


# ---- 05


@pytest.fixture(scope="module")
def analyzed(made):
    return arithmetic.analyze(made.config, made.images, made.vectors, made.models)


def test_measures_are_of_a_models_own_vectors(made, analyzed):
    items, changes, tables = analyzed["items"], analyzed["changes"], analyzed
    seen = {which: pixels(made.models[which], made.vectors) for which in ("base", "finetuned")}
    for which, matrix in seen.items():
        own = items[(items.model == which) & (items.measure == "image difference")]
        pairs = generate.template_pairs(made.vectors.of(made.images.held_out), made.config.arithmetic.pairs, 0)
        v = image_differences(matrix, made.vectors.rows(pairs["first"]), made.vectors.rows(pairs["second"]))
        texts = made.models[which].encode_texts(list(pairs.difference))
        assert own.value.to_numpy() == pytest.approx(cosines(texts, v), abs=1e-5)
        [change] = made.config.arithmetic.changes
        table, found = made.vectors.of(made.images.held_out), changes[changes.model == which]
        rows = made.vectors.rows(table["id"])
        start = rows[np.flatnonzero(table.concept == change.start)[0]]
        query = matrix[start] + made.models[which].encode_texts([change.text])[0]
        best = max((row for row in rows if row != start), key=lambda row: query @ matrix[row])
        assert found["id"].iloc[0] == made.vectors.ids[best]
        shown = tables["pictures"].query("model == @which and start != ''")
        assert shown.picture.tolist() == [made.vectors.paths[best]]
        alone = rank_share(matrix, rows, *(made.vectors.rows(pairs[side]) for side in ("first", "second")), 0 * texts)
        part = tables["sweep"].query("metric == 'rank share' and alpha == 0")
        assert part[part.model == which].value.to_numpy() == pytest.approx(alone.mean(), abs=1e-5)


def test_geometry_of_the_images_is_told_of_both_towers(analyzed):
    geometry = analyzed["geometry"]
    table = geometry[geometry.metric == "effective rank, image differences"].set_index(["model", "control"]).value
    assert set(table.index.get_level_values(0)) == {"images", "images, finetuned"}, "and of no peer"
    assert table["images", "none"] != table["images, finetuned", "none"]


def test_the_boxes_of_05_start_from_own_vectors(made):
    known = with_memory(made.models)
    table = made.vectors.of(made.images.held_out)
    box = ChangeBox(made.vectors, table, known, table["id"][0], "a ring")
    for which, model in known.items():
        seen = pixels(model.model, made.vectors)[made.vectors.rows(table["id"])]
        query = seen[0] + model.encode_texts([box.text])[0]
        scores = seen @ query / np.linalg.norm(query)
        scores[0] = -np.inf
        assert box.nearest(which)["id"].iloc[0] == table["id"][scores.argmax()]


def test_composed_retrieval(made, pictures, tmp_path):
    images, ids = pictures.assign(gallery="g"), list(pictures["id"])
    queries = pd.DataFrame(
        {
            "start": ids,
            "right": [(ids[k - 1],) for k in range(len(ids))],
            "text": "a red disc",
            "before": "",
            "gallery": "g",
            "members": [()] * len(ids),
            "weight": 1.0,
        }
    )
    found = Benchmark("cirr", "composed_retrieval", images, queries, recalls=(5,), start_is_candidate=False)
    settings = made.config.arithmetic.model_copy(update={"composed": {"cirr": params.PublicSet(path="x")}})
    config = made.config.model_copy(update={"arithmetic": settings, "outputs": str(tmp_path)})
    known = with_memory(made.models)
    table = composed.table(config, {"cirr": found}, known, [0.0, 1.0]).set_index(["model", "alpha"]).value
    for which, model in known.items():
        seen, text = model.model.encode_images(list(pictures.path)), model.encode_texts(["a red disc"])
        for alpha in (0.0, 1.0):
            scores = (seen + alpha * text) @ seen.T
            np.fill_diagonal(scores, -np.inf)
            first = np.argsort(-scores, axis=1)[:, :5]
            assert table[which, alpha] == np.mean([(k - 1) % len(ids) in first[k] for k in range(len(ids))])


# ---- 06 and rank


def test_photos_of_06_are_seen_by_each_model(made, tmp_path):
    photos = photo_sets.load_photos(made.config)
    assert list(photos.models) == ["base", "finetuned"]
    votes = tmp_path / "votes.jsonl"
    ranker = Ranker(photos, Rank(more="a red disc", less="a blue square"), votes)
    for which, model in photos.models.items():
        more, less = model.encode_texts([MORE, LESS])
        expected = pixels(model, made.vectors) @ ((more - less) / np.linalg.norm(more - less))
        assert ranker.standing(which).scores == pytest.approx(expected, abs=1e-5)
    ranker.vote(0, 1, "first")
    for which in photos.models:  # one vote moves the axis along the difference of the two photos as the model sees them
        seen = photos.matrix(which)
        direction = unit(ranker.learnt(which).mean[None])[0]
        moved = (direction - ranker.text_axis(which)) @ (seen[0] - seen[1])
        assert moved > 0
    matrix, size, _ = photos.true_values("size", "finetuned")
    held_out = made.images.held_out
    assert size.tolist() == held_out["size"].tolist()
    assert np.array_equal(matrix, made.vectors.seen_by("finetuned").matrix[made.vectors.rows(held_out["id"])])


def test_photos_of_any_folder_are_seen_by_each_model(made, photos, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("disc-red", "bar-blue", "ring-green"):
        shutil.copy(photos / f"{name}.png", few)
    asked = made.config.model_copy(update={"rank": Rank(photos=str(few)), "outputs": str(tmp_path)})
    shutil.copytree(made.config.folder / "03_finetune", asked.folder / "03_finetune")
    found = photo_sets.load_photos(asked)
    assert found.matrix("finetuned") == pytest.approx(made.tuned.encode_images(found.vectors.paths), abs=1e-5)
    assert found.matrix("base") == pytest.approx(made.base.encode_images(found.vectors.paths), abs=1e-5)


def test_a_model_tuned_from_another_base_is_refused_by_06(made):
    other = made.config.model_copy(update={"model": made.config.evaluate.peers["odd"]})
    with pytest.raises(PcclipError, match="was not finetuned from"):
        photo_sets.load_photos(other)


@pytest.mark.parametrize("how", ["words", "votes"])
def test_a_run_is_ranked_by_its_own_tower(made, encoded, tmp_path, how):
    seen, votes = pixels(made.tuned, made.vectors), None
    if how == "votes":
        votes = tmp_path / "votes.jsonl"
        VoteFile(votes).append(Vote(made.vectors.ids[0], made.vectors.ids[1], "first"))
    encoded.total = 0
    table = rank(str(made.config.folder), "a red disc", "a blue square", votes=votes)
    assert encoded.total == 0, "04's vectors are there"
    score = table.set_index("path").score[made.vectors.paths].to_numpy()
    if how == "words":
        more, less = made.tuned.encode_texts([MORE, LESS])
        assert score == pytest.approx(seen @ ((more - less) / np.linalg.norm(more - less)), abs=1e-5)
    else:
        assert table.deviation.notna().all()
        assert score == pytest.approx(seen @ np.linalg.lstsq(seen, score, rcond=None)[0], abs=1e-4)


def test_a_runs_photos_are_embedded_when_they_are_first_ranked(made, encoded):
    half = load_model(str(made.config.folder), 0.5)
    stage = tower_stage(made.config.folder / "02_embed", half)
    tables = [rank(str(made.config.folder), MORE, alpha=0.5, top=3) for _ in range(2)]
    assert encoded.total == len(made.vectors.ids), "once"
    assert stage.done()
    seen = made.vectors.paths[int((half.encode_images(made.vectors.paths) @ half.encode_texts([MORE])[0]).argmax())]
    assert tables[0].path[0] == tables[1].path[0] == seen
    with pytest.raises(PcclipError, match="vectors of another model"):
        rank(str(made.config.folder), MORE, model=made.models["odd"])
