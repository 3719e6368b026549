"""A linear map on frozen text vectors: what it learns, where it is put, and that nothing else changes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import run_values, up_to_03
from torch import nn

from pcclip import config as params
from pcclip import load_model, rank
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Reply
from pcclip.comparisons.sentences import from_captions
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.encoders import minilm_efficientnet, saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as report
from pcclip.finetuning import linear_map
from pcclip.finetuning.batches import Examples
from pcclip.finetuning.stage import FOLDER, finetune, stage
from pcclip.finetuning.weight_change import movement
from pcclip.stats.vectors import unit

TEXTS = ["a red disc", "a blue bar with a ring", "something else"]


@pytest.fixture
def config(values):
    return of(values)


def of(values) -> params.Config:
    tuned = {"objective": "captions", "tune": "linear_map", "negatives": "llm", "swap": False, "lr": 1e-2}
    return params.check(
        {
            **values,
            "finetune": {**values["finetune"], **tuned},
            "generate": {**values["generate"], "negatives": "negative"},
        }
    )


class Writer:
    """Has the words of every caption in another order, and compares by the template."""

    identity = "writer"

    def answers(self, questions):
        for question in questions:
            words = question.first.rstrip(".").split()
            yield (
                question,
                Reply(
                    from_captions(question.first, question.second)
                    if question.second
                    else " ".join([words[0], *words[:0:-1]]),
                    "stop",
                ),
            )


class Given:
    """Text vectors that are handed out as they are asked for."""

    device = torch.device("cpu")

    def __init__(self, texts: np.ndarray, false: np.ndarray):
        self.texts, self.false = texts.astype(np.float32), false.astype(np.float32)

    def encode_tokens(self, tokens):
        return self.texts

    def encode_texts(self, texts):
        return self.false[: len(texts)]


class Vectors:
    def __init__(self, matrix):
        self.matrix = matrix.astype(np.float32)


def captions(texts, images, false=None, has=()) -> linear_map.Captions:
    n = len(texts)
    told, false = [f"not {k}" if k in has else "" for k in range(n)], np.empty((0, 4)) if false is None else false
    examples = Examples([f"text {k}" for k in range(n)], None, np.arange(n))
    return linear_map.Captions(examples, told, Vectors(images), Given(texts, false))


def test_the_loss_is_the_formula_with_negatives_as_more_columns(rng):
    texts, images, false = (unit(rng.normal(size=(n, 4))) for n in (5, 5, 2))
    found = captions(texts, images, false, has=(1, 4))
    matrix, rows = np.eye(4) + 0.3 * rng.normal(size=(4, 4)), np.array([0, 1, 3])
    w, wrong, u = unit(texts[rows] @ matrix.T), unit(false[:1] @ matrix.T), images[rows]
    logits = w @ u.T / 0.1
    columns = np.concatenate([logits, wrong @ u.T / 0.1])  # only caption 1 of these has one
    right = np.diag(logits)
    expected = (
        np.mean(np.log(np.exp(logits).sum(axis=1)) - right) / 2
        + np.mean(np.log(np.exp(columns).sum(axis=0)) - right) / 2
    )
    loss, accuracy = found.loss(torch.from_numpy(matrix).float(), rows, 0.1, False)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(logits.argmax(axis=1) == np.arange(3)))


def test_captions_of_one_image_are_no_negatives_of_each_other_where_asked(rng):
    texts, images = unit(rng.normal(size=(3, 4))), unit(rng.normal(size=(3, 4)))
    found = captions(texts, images)
    found.image = torch.tensor([0, 0, 1])
    found.images = found.images[[0, 0, 2]]
    rows = np.arange(3)
    plain, masked = (float(found.loss(torch.eye(4), rows, 0.1, mask)[0]) for mask in (False, True))
    logits = texts @ images[[0, 0, 2]].T / 0.1
    logits[[0, 1], [1, 0]] = -np.inf
    expected = sum(np.mean(np.log(np.exp(logits).sum(axis=k)) - np.diag(logits)) for k in (0, 1)) / 2
    assert masked == pytest.approx(expected, rel=1e-5)
    assert masked < plain


def test_texts_that_are_equal_are_no_negatives_either_nor_is_anothers_caption(rng):
    texts, images = unit(rng.normal(size=(3, 4))), unit(rng.normal(size=(3, 4)))
    texts[1] = texts[0]
    found = captions(texts, images, texts[[2]], has=(0,))
    found.same, found.wrong_same = np.array([0, 0, 1]), np.array([1])
    masked = float(found.loss(torch.eye(4), np.arange(3), 0.1, True)[0])
    logits = texts @ images.T / 0.1
    logits[[0, 1], [1, 0]] = -np.inf
    expected = sum(np.mean(np.log(np.exp(logits).sum(axis=k)) - np.diag(logits)) for k in (0, 1)) / 2
    assert masked == pytest.approx(expected, rel=1e-5)


def test_binding_that_cosines_miss_is_found(config, tmp_path, rng, monkeypatch):
    """Images say A or B in one place, texts in another: the identity is blind to it, a linear map is not."""
    sign = rng.choice([-1.0, 1.0], size=64)
    noise = 0.05 * rng.normal(size=(2, 64, 6))
    images, texts = np.zeros((64, 6)), np.zeros((64, 6))
    images[:, 0], texts[:, 0] = 1, 1
    images[:, 1], texts[:, 2] = sign, sign
    images, texts = unit(images + noise[0]), unit(texts + noise[1])
    false = texts.copy()
    false[:, 2] *= -1
    train = captions(texts, images, false, has=range(64))

    def right(matrix) -> float:
        matrix = np.asarray(matrix)
        return float((np.sum(unit(texts @ matrix.T) * images, 1) > np.sum(unit(false @ matrix.T) * images, 1)).mean())

    kept = {}
    monkeypatch.setattr(linear_map, "_save", lambda model, linear, card, folder: kept.update(map=linear.detach()) or [])
    settings = {"epochs": 10, "keep_epochs": [], "batch_size": 32, "lr": 3e-2}
    given = config.model_copy(update={"finetune": config.finetune.model_copy(update=settings)})
    model = type("Model", (), {"width": 6, "device": torch.device("cpu")})
    this = type("Stage", (), {"folder": tmp_path, "partial": tmp_path})
    assert right(np.eye(6)) < 0.75
    linear_map._learned(given, train, lambda *_: {}, model, {}, this)
    assert right(kept["map"]) == 1.0


@pytest.fixture(scope="module")
def tuned(photos, tiny_model, tmp_path_factory):
    """A run up to 03, which the tests only read."""
    given = of(run_values(photos, tiny_model, tmp_path_factory.mktemp("tuned")))
    return up_to_03(given, load_model(tiny_model), Writer())


def matrix_of(config, model) -> np.ndarray:
    """The map between base and tuned text features: P' = P W^T."""
    base, own = (one.text_tower.text_projection.detach().double().numpy() for one in (load_model(config.model), model))
    return np.linalg.solve(base, own).T


def test_a_run_ends_in_a_model_like_any_other(tuned, photos):
    config = tuned.config
    model, base = load_model(str(config.folder)), load_model(config.model)
    changed = [
        name
        for name, value in model.text_tower.state_dict().items()
        if not torch.equal(value, base.text_tower.state_dict()[name])
    ]
    assert changed == ["text_projection"]
    assert model.image_fingerprint() == base.image_fingerprint()
    linear = matrix_of(config, model)
    texts = base.encode_texts(TEXTS)
    assert np.abs(model.encode_texts(TEXTS) - unit(texts @ linear.T)).max() < 1e-4
    assert np.abs(linear - np.eye(32)).max() > 1e-2
    curves = pd.read_csv(config.folder / FOLDER / "curves.csv")
    train = curves[(curves.split == "train") & (curves.metric == "loss")].value
    assert train.iloc[-2:].mean() < train.iloc[:2].mean()
    assert {"loss", "in_batch_accuracy", "difference_accuracy", "zero_shot_accuracy"} == set(
        curves.metric[curves.split == "held_out"]
    )
    counts = json.loads((config.folder / FOLDER / "manifest.json").read_text())["counts"]
    assert (counts["train"], counts["negatives"], counts["without_negative"]) == (15, 15, 0)
    assert counts["tuned_parameters"] == 32**2
    order = rank(str(photos), more="a red disc", less="a blue bar", model=str(config.folder))
    assert len(order) == 24
    metrics, paired = report.evaluate(
        config, tuned.images, tuned.vectors, tuned.comparisons, report.load_models(config)
    )
    assert {"base", "finetuned"} <= set(metrics.model)
    assert len(paired)


def test_weight_averaging_averages_the_map(tuned):
    config = tuned.config
    whole = matrix_of(config, load_model(str(config.folder)))
    for alpha in (0.25, 0.5):
        part = matrix_of(config, load_model(str(config.folder), alpha))
        assert np.abs(part - (alpha * whole + (1 - alpha) * np.eye(32))).max() < 1e-3


def test_the_first_point_of_the_curve_is_the_base(tuned):
    config = tuned.config
    """At the identity the held-out values are those of the frozen model."""
    held_out = pd.read_csv(config.folder / FOLDER / "curves.csv").query("split == 'held_out' and step == 0")
    base, pairs = load_model(config.model), generate.kept(tuned.comparisons, "held_out")
    vectors = tuned.vectors
    v = unit(vectors.matrix[vectors.rows(pairs["first"])] - vectors.matrix[vectors.rows(pairs["second"])])
    expected = (np.sum(base.encode_texts(list(pairs.difference)) * v, axis=1) > 0).mean()
    [found] = held_out.value[held_out.metric == "difference_accuracy"]
    assert found == pytest.approx(expected)


def test_a_killed_run_continues_on_the_same_curve(config, fresh_encoder, monkeypatch):
    images = load_images(config)
    comparisons = generate.generate(config, images, fresh_encoder, Writer())
    vectors, _ = embed(config, images, fresh_encoder)
    whole = finetune(config, images, vectors, comparisons, fresh_encoder)
    weights = (config.folder / FOLDER / saved.WEIGHTS).read_bytes()
    (config.folder / FOLDER / "manifest.json").unlink()
    loss, seen = linear_map.Captions.loss, []

    def killed(self, *arguments):
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return loss(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(linear_map.Captions, "loss", killed)
        finetune(config, images, vectors, comparisons, fresh_encoder)
    assert (stage(config).partial / "checkpoint.pt").is_file()
    pd.testing.assert_frame_equal(finetune(config, images, vectors, comparisons, fresh_encoder), whole)
    assert (config.folder / FOLDER / saved.WEIGHTS).read_bytes() == weights


# ---- where it is put -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["parameter", "linear", "linear and bias", "proj", "two layers"])
def test_every_kind_of_projection_takes_the_map(end, fresh_encoder):
    tower, model = fresh_encoder.text_tower, fresh_encoder
    if end.startswith("linear"):
        del tower.text_projection
        tower.text_projection = nn.Linear(32, 32, bias="bias" in end)
    if end in ("proj", "two layers"):
        linear = nn.Linear(32, 32)
        tower.proj = linear if end == "proj" else nn.Sequential(nn.Linear(32, 32), nn.GELU(), linear)
        forward, tower.text_projection = tower.forward, None
        tower.forward = lambda ids: tower.proj(forward(ids))
        model._packs = False
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    before = model.features(model.tokenised(TEXTS)).detach()
    model.map_texts(matrix)
    after = model.features(model.tokenised(TEXTS)).detach()
    assert torch.allclose(after, before @ matrix.T, atol=1e-4)


def test_a_tower_without_a_projection_says_so(fresh_encoder):
    fresh_encoder.text_tower.text_projection = None
    with pytest.raises(PcclipError, match="does not end in a projection"):
        fresh_encoder.map_texts(torch.eye(32))


class States(nn.Embedding):
    """A transformer of no layers."""

    def __init__(self):
        super().__init__(50, 32)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=super().forward(input_ids))


class Bare(minilm_efficientnet.MiniLMEfficientNet):
    """Towers of MiniLM's form, tiny and random; everything else as it is."""

    def __init__(self):
        Encoder.__init__(self)
        torch.manual_seed(0)
        self.text_tower = States()
        self.image_tower = nn.Linear(2, 2)
        self.spec, self.width, self.context_length, self.pad_id, self.architecture = "bare", 32, 16, 0, {}

    def tokens(self, texts):
        return [[1, *(2 + ord(letter) % 40 for letter in text[:10])] for text in texts]


def test_minilm_has_a_layer_of_its_own_that_is_saved_and_averaged(tmp_path):
    base = Bare()
    vectors = base.encode_texts(TEXTS)
    card = saved.describe(base)
    matrix = torch.eye(32) + 0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = base.features(base.tokenised(TEXTS)).numpy()
    base.map_texts(matrix)
    saved.save(base, card, tmp_path)
    moved = movement(Bare().text_tower, base.text_tower).set_index("name")
    assert moved.largest["linear_map.weight"] == pytest.approx(float((matrix - torch.eye(32)).abs().max()))
    assert moved.largest["weight"] == 0
    for alpha in (1.0, 0.5, 0.0):
        model = saved.load(tmp_path, alpha, lambda spec: Bare())
        mixed = alpha * matrix.numpy() + (1 - alpha) * np.eye(32)
        assert np.abs(model.encode_texts(TEXTS) - unit(plain @ mixed.T)).max() < 1e-5
    assert np.abs(saved.load(tmp_path, 0.0, lambda spec: Bare()).encode_texts(TEXTS) - vectors).max() < 1e-6


@pytest.mark.parametrize(
    "changes",
    [{"objective": "infonce", "negatives": "none"}, {"replay": 1.0}, {"attribute_weight": 1.0}, {"processes": 2}],
)
def test_what_the_map_is_not_learned_from(config, changes):
    with pytest.raises(PcclipError, match="linear_map is learned from captions alone, by one process"):
        params.check({"finetune": {**config.finetune.model_dump(exclude_defaults=True), **changes}})
