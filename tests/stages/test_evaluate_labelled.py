"""Stage 04 on labelled sets and sets of changes: which rows there are, on what items, chosen on what."""

import copy
import os
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.animals import make_zoo
from helpers.cifar import FILES, TEN, records
from helpers.files import jpeg, put
from helpers.image_pairs import BIRDS as BIRD_COLUMNS, COMPBENCH_IMAGES, bird_line, make_compbench
from helpers.runs import run_values
from PIL import Image

from pcclip import config as params, load_model
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.classification import cifar
from pcclip.comparisons import llm, stage as generate
from pcclip.comparisons.llm import Reply, Template
from pcclip.data.image_set import load_images
from pcclip.data.rows import by_reason
from pcclip.embedding.stage import embed, embed_benchmark
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import (
    benchmarks,
    change_captions,
    class_texts,
    labelled,
    left_out,
    report as html,
    stage as report,
)
from pcclip.evaluation.comparative import ALPHAS, VARIANTS, halves
from pcclip.evaluation.predictions import Predictions
from pcclip.evaluation.protocols import both
from pcclip.finetuning.stage import finetune
from pcclip.ranking.axes import ridge_axis
from pcclip.runs.stage import read_manifest
from pcclip.stats.metrics import metrics_of
from pcclip.stats.vectors import unit

MANY = 30  # images in a file of the tiny CIFAR-10
ALL = ["zero_shot", "extended", "differences", "comparative", "distances"]
CHEAP = {"tasks": ["differences", "comparative"]}


@pytest.fixture(scope="module", autouse=True)
def _tiny_cifar():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cifar.IMAGES, "batch", MANY)
        for name, number in (("CLASS_PAIRS", 12), ("IMAGE_PAIRS", 60)):
            patch.setattr(labelled, name, number)
        patch.setattr(change_captions, "DISTRACTORS", 1)
        yield


class Writer(Template):
    """Writes of every two things and of every thing, and counts what it is asked.

    Stands in for every backend that stage 04 starts.
    """

    def __init__(self):
        self.written = 0

    def answers(self, questions):
        for question in questions:
            self.written += 1
            one, two = question.first.strip(".").lower(), question.second.strip(".").lower()
            kind = int(question.key[:6], 16)
            text = (
                f"The first image shows {one} with legs, while the second image shows {two} with wheels."
                if two
                else f"It has {kind} legs and a round back."
            )
            yield question, Reply(text, "stop")


@pytest.fixture(scope="module")
def writer():
    return Writer()


@pytest.fixture(scope="module", autouse=True)
def _no_other_backend(writer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm, "start_backend", lambda *arguments: writer)
        yield


def batch(path, rng, labels) -> None:
    """One file of the tiny CIFAR-10: every class has its colours, under noise."""
    shades = np.random.default_rng(7).integers(40, 216, (10, 1, 1, 3))[labels]
    images = (shades + rng.integers(-40, 40, (len(labels), 32, 32, 3))).astype(np.uint8)
    path.unlink(missing_ok=True)
    put(path, records(images, labels))


@pytest.fixture(scope="module")
def given_cifar(tmp_path_factory):
    """Make a folder with a tiny CIFAR-10 in its true layout: 150 training images, 30 test images."""

    def make():
        folder, rng = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin", np.random.default_rng(0)
        for name in (name for names in FILES.values() for name in names):
            batch(folder / f"{name}.bin", rng, rng.permutation(np.arange(MANY) % 10))
        put(folder / "batches.meta.txt", "\n".join(TEN) + "\n")
        return folder

    return make


@pytest.fixture(scope="module")
def cifar10(given_cifar):
    return given_cifar()


@pytest.fixture(scope="module")
def pairs_of_birds(tmp_path_factory):
    """Birds-to-Words with three test pairs, one of them with a text that has no twin."""
    folder, rng = tmp_path_factory.mktemp("birds"), np.random.default_rng(1)
    said = ["animal1 is red", "animal2 has a longer bill than animal1", "they are alike", "animal1 is spotted"]
    lines = [bird_line(k, k + 1, "train" if k == 3 else "test", 1, text) for k, text in enumerate(said)]
    put(folder / "birds-to-words-v1.0.tsv", "\n".join(["\t".join(BIRD_COLUMNS), *lines]) + "\n")
    for k in range(5):
        noise(folder / "images" / f"{k}.png", rng)
    return folder


@pytest.fixture(scope="module")
def compbench(tmp_path_factory):
    """MLLM-CompBench as in its own test, with images that differ."""
    folder, rng = make_compbench(tmp_path_factory.mktemp("compbench")), np.random.default_rng(2)
    for name in COMPBENCH_IMAGES:
        noise(folder / name, rng)
    return folder


def noise(path, rng) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((48, 48)).save(path, "PNG")


# ---- a run with everything -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begin(photos, tiny_model, tmp_path_factory):
    """begin('run', evaluate={...}, lr=...) does 01 to 03 in a folder of its own or in a run's; gives what 04 needs."""
    folder = tmp_path_factory.mktemp("outputs")
    base = load_model(tiny_model)
    put(folder / "writer.gguf", "the weights of the one who writes")

    def call(run, evaluate, outputs=None, reuse=None, lr=1e-3):
        values = run_values(photos, tiny_model, outputs or folder)
        values |= {"run": run, "reuse": reuse}
        values["generate"] |= {"backend": "llama_cpp", "gguf": str(folder / "writer.gguf")}
        values["embed"] = {"batch_size": 64, "workers": 2, "shard": 256}
        values["finetune"] |= {"epochs": 1, "keep_epochs": [], "lr": lr}
        values["evaluate"] |= evaluate
        config = params.check(values)
        images = load_images(config)
        sentences = generate.generate(config, images, base)
        vectors, _ = embed(config, images, base)
        finetune(config, images, vectors, sentences, load_model(tiny_model))
        return SimpleNamespace(config=config, images=images, vectors=vectors, sentences=sentences)

    return call


def evaluate(given) -> tuple[pd.DataFrame, pd.DataFrame]:
    return report.evaluate(given.config, given.images, given.vectors, given.sentences, report.load_models(given.config))


@pytest.fixture(scope="module")
def everything(begin, cifar10, pairs_of_birds, compbench, writer):
    """One run with every task, a peer and two sets of changes."""
    peer = begin("peer", {}, lr=1e-2)
    settings = {"cifar10": {"path": str(cifar10), "tasks": ALL, "texts": "llm"}}
    changes = {"birds_to_words": {"path": str(pairs_of_birds)}, "compbench": {"path": str(compbench)}}
    given = begin(
        "tiny",
        {
            "labelled": settings,
            "changes": changes,
            "peers": {"other": str(peer.config.folder)},
        },
        reuse="peer",
    )
    metrics, paired = evaluate(given)
    return SimpleNamespace(
        **vars(given),
        metrics=metrics,
        paired=paired,
        settings=settings["cifar10"],
        predictions=report.read(given.config, report.PREDICTIONS),
    )


MODELS = ["base", "finetuned", "other"]
FORMS = ["released", "centred"]


def rows_of_cifar10() -> set[tuple[str, str, str, str]]:
    """(task, dataset, protocol, model) of everything that the set is scored by."""
    found = [("zero_shot", "single", "as_released"), ("extended_prompts", "extended", "as_released")]
    found += [("zero_shot", name, "corrected") for name in ("single", "simple7", "official80", "official80_scores")]
    found += [("extended_prompts", "extended", "corrected"), ("worst_group", "single", "corrected")]
    found += [
        (f"difference_{how}", what, "corrected")
        for how in ("classification", "order", "centred")
        for what in ("class names", "llm texts")
    ]
    found += [
        ("comparative_prompting", name, "as_released") for name in ("plain", "released", "confused", "confused, plain")
    ]
    found += [("comparative_prompting", name, "corrected") for name in ("plain", *FORMS)]
    rows = {(task, f"cifar10/{name}", protocol, model) for task, name, protocol in found for model in MODELS}
    rows |= {("embedding_distance", "cifar10", protocol, model) for protocol in labelled.PROTOCOLS for model in MODELS}
    return rows


def keys_of(table: pd.DataFrame, dataset: str) -> set[tuple[str, str, str, str]]:
    part = table[table.dataset.str.split("/").str[0] == dataset]
    return set(zip(part.task, part.dataset, part.protocol, part.model, strict=True))


def test_every_task_has_its_rows(everything):
    assert keys_of(everything.metrics, "cifar10") == rows_of_cifar10()
    assert keys_of(everything.predictions, "cifar10") == rows_of_cifar10()
    own = everything.metrics[everything.metrics.dataset.str.startswith("cifar10")]
    n = own[own.protocol == "corrected"].groupby("task").n.max()
    assert n[["zero_shot", "extended_prompts", "comparative_prompting"]].tolist() == [MANY] * 3
    assert n["difference_order"] == 60
    centred = {("difference_centred", f"folder/{name}", "", model) for name in ("template", "llm") for model in MODELS}
    assert centred <= keys_of(everything.metrics, "folder")
    assert n["embedding_distance"] == 12
    assert set(everything.metrics.protocol) == {"", *labelled.PROTOCOLS}


def test_models_rest_on_the_same_items(everything):
    whole = everything.predictions[everything.predictions.model != "supervised"]
    compared = 0
    for (task, dataset, protocol), items in whole.groupby(["task", "dataset", "protocol"]):
        parts = [part[["item", "first", "second"]].reset_index(drop=True) for _, part in items.groupby("model")]
        assert len(parts) == 3, (task, dataset, protocol)
        for part in parts[1:]:
            pd.testing.assert_frame_equal(part, parts[0])
        compared += 1
    assert compared > 30


def test_an_accuracy_is_that_of_its_items(everything):
    found = everything.predictions[everything.predictions.task != "worst_group"]
    keys = ["task", "dataset", "protocol", "model"]
    expected = found.dropna(subset="correct").groupby(keys).correct.mean().astype(float)
    told = everything.metrics[everything.metrics.metric == "accuracy"].set_index(keys).value
    assert len(told) > 80
    assert told.to_dict() == pytest.approx(expected[told.index].to_dict(), abs=1e-6)


def test_the_worst_group_is_the_worst_class(everything):
    items = everything.predictions[everything.predictions.task == "worst_group"]
    told = everything.metrics[everything.metrics.task == "worst_group"].set_index("model")
    assert set(told.metric) == {"worst_group_accuracy"}
    for model, part in items.groupby("model"):
        by_class = part.groupby("reference").correct.mean()
        assert told.value[model] == pytest.approx(by_class.min(), abs=1e-6)
        assert by_class.min() < by_class.mean(), "another number than the accuracy"
    change = everything.paired[everything.paired.task == "worst_group"]
    assert change.difference.item() == pytest.approx(told.value["finetuned"] - told.value["base"], abs=2e-6)
    assert change.test.item() == "bootstrap"


def test_every_corrected_difference_has_a_test(everything):
    paired = everything.paired.set_index(["task", "dataset", "protocol", "metric"])
    told = everything.metrics.set_index(["task", "dataset", "protocol", "metric"])
    for key in {*told.index[told.model == "finetuned"]}:
        if key[3] not in metrics_of(key[0]):
            assert key not in paired.index, "shares and further measures of rankings"
            continue
        values = told.loc[[key]].set_index("model").value
        assert paired.difference[key] == pytest.approx(values["finetuned"] - values["base"], abs=2e-6)
        assert 0 <= paired.p_holm[key] <= 1  # stored to six digits


def test_classes_are_drawn_where_texts_compare_classes(everything):
    items = everything.predictions
    compared = items[items.dataset == "cifar10/class names"]
    assert set(compared.first_unit) | set(compared.second_unit) <= set(TEN)
    assert (compared.first_unit != compared.second_unit).all()
    single = items[items.dataset == "cifar10/single"]
    assert (single.first_unit == single["first"]).all(), "the class of a photo is the photo's own truth"


def test_a_peer_is_a_row_like_any_other(everything):
    single = everything.metrics[
        (everything.metrics.dataset == "cifar10/single")
        & (everything.metrics.protocol == "corrected")
        & (everything.metrics.task == "zero_shot")
    ]
    assert list(single.model) == MODELS
    scores = everything.predictions[everything.predictions.task == "difference_order"]
    own, other = (scores[scores.model == name].score.to_numpy() for name in ("finetuned", "other"))
    assert not np.allclose(own, other), "another text tower"
    assert ("difference_order", "folder/template", "", "other") in keys_of(everything.metrics, "folder")


def test_the_supervised_axis_is_a_row(everything):
    ranked = everything.metrics[everything.metrics.task == "ranking"]
    ceiling = ranked[ranked.model == "supervised"]
    assert set(ceiling.dataset) == {"folder/size/supervised"}
    assert set(ceiling.metric) == {"spearman", "pairwise_accuracy"}, "no size is twice another here"
    held_out = everything.images.held_out
    items = everything.predictions[everything.predictions.model == "supervised"]
    assert list(items["first"]) == list(held_out["id"])
    assert list(items.reference) == list(held_out["size"])
    train = everything.images.train
    axis, _ = ridge_axis(
        everything.vectors.matrix, everything.vectors.rows(train["id"]), np.log(train["size"]), list(train.concept)
    )
    rows = everything.vectors.rows(held_out["id"])
    assert items.score.to_numpy() == pytest.approx(everything.vectors.matrix[rows] @ axis, abs=1e-6)


# ---- what is chosen on what ------------------------------------------------------------------------------------------


def test_the_sweep_has_every_alpha_on_tune_images(everything):
    sweep = report.read(everything.config, report.COMPARATIVE)
    assert list(sweep.columns) == ["dataset", "form", "protocol", "model", "alpha", "value", "plain", "split", "chosen"]
    assert (set(sweep.protocol), set(sweep.split), list(sweep.form.unique())) == ({"corrected"}, {"tune"}, FORMS)
    for form, part in sweep.groupby("form"):
        chosen = part[part.chosen]
        assert list(chosen.model) == MODELS
        assert chosen.alpha.nunique() == 1, "one for all models"
        means = part.groupby("alpha").value.mean()
        assert means[chosen.alpha.iloc[0]] == pytest.approx(means.max()), form
        assert sorted(means.index) == sorted(ALPHAS)
        assert part[part.alpha == 1].value.to_numpy() == pytest.approx(part[part.alpha == 1].plain.to_numpy())


def test_comparing_is_tested_for_every_variant_and_model(everything):
    gains = report.read(everything.config, report.GAINS)
    assert sorted(zip(gains.form, gains.protocol, gains.model, strict=True)) == sorted(
        (*variant, model) for variant in VARIANTS for model in MODELS
    )
    metrics = everything.metrics.set_index(["task", "dataset", "protocol", "model"]).value
    for row in gains.itertuples():
        for value, name in ((row.plain, "plain"), (row.comparative, row.form)):
            key = ("comparative_prompting", f"cifar10/{name}", row.protocol, row.model)
            assert value == pytest.approx(metrics[key], abs=2e-6)
        assert row.difference == pytest.approx(row.comparative - row.plain, abs=2e-6)
        assert row.helped - row.hurt == round(row.n * row.difference)


def test_both_protocols_stand_side_by_side(everything):
    table = both(everything.metrics).set_index(["task", "dataset", "model"])
    for model in MODELS:
        row = table.loc["comparative_prompting", "cifar10/released", model]
        assert row.as_released[0].isdigit()
        assert row.corrected[0].isdigit()
        assert "the finetuned model's confusions" in row.correction
    assert not table.index.get_level_values("task").isin(["difference_order", "difference_centred"]).any()


def test_the_report_tells_of_comparing(everything, monkeypatch):
    monkeypatch.setattr(html, "svg", lambda drawn: "")
    for name in ("curves", "forest", "alpha_sweep"):
        monkeypatch.setattr(html.plots, name, lambda *given: None)
    found = html.write(everything.config, everything.config.folder).read_text(encoding="utf8")
    assert 'id="comparative"' in found


def scored(given, settings, base) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The sweep, texts and predictions of the base on the tiny CIFAR-10."""
    predictions, config = Predictions(), settled(given, "cifar10", **settings)
    told = labelled.score(config, benchmarks.load(config)["classification"], {"base": base}, predictions)
    return told["comparative.csv"], told["class_texts.parquet"], predictions.table()


def test_the_test_images_choose_nothing_that_is_corrected_and_the_tune_images_do(everything, given_cifar, tiny_encoder):
    """Other test images under other labels: what is as released moves, what is corrected does not."""
    folder, rng = given_cifar(), np.random.default_rng(5)
    settings = {**CHEAP, "path": str(folder)}
    sweep, texts, predictions = scored(everything, settings, tiny_encoder)
    batch(folder / "test_batch.bin", rng, rng.integers(0, 10, MANY))
    after, texts_after, predictions_after = scored(everything, settings, tiny_encoder)
    pd.testing.assert_frame_equal(of(after, "corrected"), of(sweep, "corrected"))
    pd.testing.assert_frame_equal(texts_after.head(10), texts.head(10))  # of the corrected pairs
    one, other = (table.groupby("task").correct.apply(list) for table in (predictions, predictions_after))
    assert (one != other).all(), "and yet they are scored"
    for name in FILES["train"]:
        batch(folder / f"{name}.bin", rng, rng.integers(0, 10, MANY))
    moved, *_ = scored(everything, settings, tiny_encoder)
    assert not of(moved, "corrected").equals(of(after, "corrected"))
    pd.testing.assert_frame_equal(of(moved, "as_released"), of(after, "as_released"))


def of(sweep: pd.DataFrame, protocol: str) -> pd.DataFrame:
    return sweep[sweep.protocol == protocol].reset_index(drop=True)


def test_texts_are_written_once_and_kept(everything, writer, tiny_encoder):
    texts = pd.read_parquet(everything.config.folder / report.FOLDER / report.TEXTS)
    assert list(texts.columns[:6]) == ["first", "difference", "source", "verdict", "dataset", "second"]
    described = texts[texts.second == ""]
    assert set(described["first"]) == set(TEN)
    assert len(described) == 20
    assert set(texts.source) == {"llm"}
    pairs = texts[texts.second != ""]
    assert len(pairs[["first", "second"]].drop_duplicates()) >= 12
    before = writer.written
    _, again, _ = scored(everything, {**everything.settings, "tasks": ["extended", "distances"]}, tiny_encoder)
    assert writer.written == before, "the journal has them"
    assert set(again.difference) <= set(texts.difference)


# ---- running it again ------------------------------------------------------------------------------------------------


def test_two_evaluations_end_with_the_same_bytes(everything, cifar10):
    few = settled(everything, "cifar10", **CHEAP, path=str(cifar10), tune_limit=60, limit=20)
    given = SimpleNamespace(**{**vars(everything), "config": few.model_copy(update={"run": "peer", "reuse": None})})
    stored = []
    for _ in range(2):
        evaluate(given)
        names = ("metrics.csv", "04_evaluate/differences.csv", "04_evaluate/comparative.csv")
        stored.append({name: (given.config.folder / name).read_bytes() for name in names})
        (given.config.folder / report.FOLDER / "manifest.json").unlink()
    assert stored[0] == stored[1]
    assert all(text.count(b"\n") > 10 for text in stored[0].values())


def test_a_finished_evaluation_is_read(everything, monkeypatch):
    monkeypatch.setattr(labelled, "score", lambda *arguments: pytest.fail("scored again"))
    metrics, paired = report.evaluate(
        everything.config, everything.images, everything.vectors, everything.sentences, {}
    )
    pd.testing.assert_frame_equal(metrics, everything.metrics)
    pd.testing.assert_frame_equal(paired, everything.paired)
    outputs = read_manifest(everything.config.folder / report.FOLDER)["outputs"]
    assert {report.COMPARATIVE, report.GAINS, report.TEXTS, "../metrics.csv"} <= set(outputs)


def test_another_set_peer_or_writer_is_evaluated_anew(everything, given_cifar, pairs_of_birds, monkeypatch):
    folder, lists = given_cifar(), pairs_of_birds / "birds-to-words-v1.0.tsv"
    weights = Path(everything.config.generate.gguf)

    def key(**changes) -> str:
        asked = everything.config.evaluate.model_copy(
            update={"labelled": {"cifar10": params.Labelled(path=str(folder), limit=20, texts="llm")}, **changes}
        )
        return report.stage(everything.config.model_copy(update={"evaluate": asked}), everything.images).key

    found = [key(), key(peers={}), key(labelled={"cifar10": params.Labelled(path=str(folder), limit=10)})]
    before = lists.read_text()
    put(lists, before.replace("animal1 is red", "animal1 is blue"))
    found.append(key())
    put(lists, before)
    assert key() == found[0]
    batch(folder / "test_batch.bin", np.random.default_rng(9), np.arange(MANY) % 10)
    found.append(key())
    own = weights.read_text()
    put(weights, "other weights")
    found.append(key())
    put(weights, own)
    photo = pairs_of_birds / "images" / "0.png"
    stamp = photo.stat()
    os.utime(photo, (1, 1))
    found.append(key())
    os.utime(photo, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with monkeypatch.context() as patch:
        patch.setattr(class_texts, "FORMAT", 99)
        found.append(key())
    assert key() in found
    assert len(set(found)) == len(found) == 8


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_changes_have_their_rows(everything):
    forms = ("one_sided", "antisymmetric")
    for dataset, task, names in (
        ("birds_to_words", "change_retrieval", [f"{form}/1 of 2" for form in forms]),
        ("compbench", "which_has_more", forms),
    ):
        assert keys_of(everything.metrics, dataset) == {
            (task, f"{dataset}/{name}", "", model) for name in names for model in MODELS
        }
    n = everything.metrics.set_index(["dataset", "model"]).n.to_dict()
    assert n["birds_to_words/one_sided/1 of 2", "base"] == 3
    assert n["birds_to_words/antisymmetric/1 of 2", "base"] == 2, "one text has no twin"
    assert n["compbench/antisymmetric", "base"] == 5, "test pairs alone"
    images = everything.predictions[everything.predictions.dataset == "birds_to_words/one_sided/1 of 2"]
    assert set(images["first"]) == {"images/0.png", "images/1.png", "images/2.png"}


def test_changes_follow_the_truth(everything, tiny_encoder):
    """A model whose texts lie along the difference of their own images is always right, its reverse never."""
    found = everything.predictions
    for sign, value in ((1, 1.0), (-1, 0.0)):
        predictions, knowing = Predictions(), with_texts(tiny_encoder, along_the_truth(everything, tiny_encoder, sign))
        change_captions.score(
            everything.config, benchmarks.load(everything.config)["change_captions"], {"base": knowing}, predictions
        )
        correct = predictions.table().groupby("dataset").correct.mean()
        assert set(correct.index) == set(found.dataset[found.task.isin(["change_retrieval", "which_has_more"])])
        assert set(correct) == {value}


def along_the_truth(given, encoder, sign):
    """text -> the unit difference of the two images it is about, turned round for its twin and for a false answer."""
    vectors = {}
    for found in benchmarks.load(given.config)["change_captions"].values():
        paths = found.images.set_index("id").path
        for pair in found.items.itertuples():
            u1, u2 = encoder.encode_images([paths[pair.first], paths[pair.second]])
            v = sign * unit((u1 - u2)[None])[0] * (-1 if getattr(pair, "answer", "first") == "second" else 1)
            vectors |= {pair.text: v, pair.swapped: -v}
    return vectors.__getitem__


def with_changes(given, seed=0, **sets) -> params.Config:
    return given.config.model_copy(
        update={
            "seed": seed,
            "evaluate": given.config.evaluate.model_copy(
                update={"changes": {name: params.Changes(**settings) for name, settings in sets.items()}}
            ),
        }
    )


def test_too_few_texts_for_the_distractors_are_told_before_any_work(everything, monkeypatch):
    line = (
        "evaluate.changes.birds_to_words, one_sided: a pair is to find its text among 5 others, but there are only 2 "
        "texts of other pairs; take more pairs (limit)"
    )
    monkeypatch.setattr(change_captions, "DISTRACTORS", 5)
    assert report.lacking(everything.config) == [line]
    with pytest.raises(PcclipError, match=f"^{re.escape(line)}$"):
        report.stage(everything.config, everything.images)
    monkeypatch.setattr(change_captions, "DISTRACTORS", 2)
    with pytest.raises(PcclipError, match="birds_to_words, antisymmetric: .* among 2 others, .* only 1 texts"):
        benchmarks.load(everything.config)


def test_unreadable_images_count_by_the_sets_own_share(everything, compbench, tiny_encoder, tmp_path, capsys):
    place = tmp_path / "compbench"
    shutil.copytree(compbench, place)
    put(place / COMPBENCH_IMAGES[0], "no picture")
    for max_bad in (0.1, 0.2):  # one of eight images, two of five pairs
        config = with_changes(everything, compbench={"path": str(place), "max_bad": max_bad}).model_copy(
            update={"outputs": str(tmp_path / "outputs")}
        )
        predictions = Predictions()
        if max_bad == 0.1:
            with pytest.raises(PcclipError, match=r"compbench: 1 of 8 images cannot be read .*, more than 10%"):
                change_captions.score(
                    config, benchmarks.load(config)["change_captions"], {"base": tiny_encoder}, predictions
                )
            continue
        change_captions.score(config, benchmarks.load(config)["change_captions"], {"base": tiny_encoder}, predictions)
        assert predictions.table().groupby("dataset").size().tolist() == [3, 3]
    assert "compbench: 1 images cannot be read, e.g. " in capsys.readouterr().out


def test_a_limit_draws_test_pairs_by_the_seed(everything, tiny_encoder):
    limited = {"path": everything.config.evaluate.changes["compbench"].path, "limit": 2}
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        config, predictions = with_changes(everything, seed, compbench=limited), Predictions()
        change_captions.score(config, benchmarks.load(config)["change_captions"], {"base": tiny_encoder}, predictions)
        items = predictions.table()
        assert items.groupby("dataset").size().tolist() == [2, 2]
        drawn.append(tuple(items["first"] + items["second"]))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


# ---- classes that are unseen, few or silent --------------------------------------------------------------------------


def with_texts(encoder, vector):
    """The model with other text vectors: those of a function."""
    model = copy.copy(encoder)
    model.encode_texts = lambda texts, normalise=True: np.stack([vector(text) for text in texts]).astype(np.float32)
    return model


def settled(everything, name: str, **settings) -> params.Config:
    return everything.config.model_copy(
        update={
            "evaluate": everything.config.evaluate.model_copy(
                update={"labelled": {name: params.Labelled(**settings)}, "changes": {}, "peers": {}}
            )
        }
    )


def test_unseen_animals_compete_among_themselves(everything, tiny_encoder, tmp_path, monkeypatch, capsys):
    """AwA2's test animals are the only candidates, and without tune images of them nothing is chosen."""
    zoo = make_zoo(tmp_path)
    heights = {"antelope": 1.0, "blue": 0.8, "dalmatian": 0.6}
    matrix = np.tile(np.eye(32, dtype=np.float32)[0], (12, 1))
    matrix[8:] += 0.1 * np.eye(32, dtype=np.float32)[1:5]  # the four test images differ

    def vector(text):  # an antelope's text fits every image best, a whale's better than a dalmatian's
        height = max((height for name, height in heights.items() if name in text), default=0)
        return np.array([height, *[0.0] * 30, np.sqrt(1 - height**2)])

    monkeypatch.setattr(labelled, "embedded_sets", of_planted(unit(matrix)))
    config, predictions = settled(everything, "awa2", path=str(zoo)), Predictions()
    told = labelled.score(
        config, benchmarks.load(config)["classification"], {"base": with_texts(tiny_encoder, vector)}, predictions
    )
    items, said = predictions.table(), capsys.readouterr().out
    classified = items[items.task == "zero_shot"]
    assert list(classified.groupby("dataset").size()) == [4, 4, 4, 8]
    assert set(classified["first"].str.split("/").str[0]) == {"dalmatian", "blue+whale"}
    assert (classified.reference == classified["first"].str.startswith("blue").astype(int)).all()
    assert set(classified.score) == {1}, "a whale, whatever is shown, and never an antelope"
    assert told["comparative.csv"].empty
    assert told["comparative_gains.csv"].empty
    assert "comparative_prompting" not in set(items.task)
    assert "awa2: no tune images of the test classes, so nothing to choose comparative prompting on" in said
    corrected = {("class names", "corrected"), ("attributes", "corrected"), ("size", "corrected")}
    for task, expected in (
        ("difference_order", corrected),
        ("difference_centred", corrected),
        ("difference_classification", corrected | {("attributes", "as_released")}),
    ):
        part = items[items.task == task]
        assert set(zip(part.dataset.str.removeprefix("awa2/"), part.protocol, strict=True)) == expected
    assert "awa2/size, as_released: no two of these images are of classes that are compared" in said, (
        "by the attributes of other animals neither is large"
    )


def of_planted(matrix):
    """In place of embedded_sets: row k of the matrix for row k of the set's table."""

    def call(config, benchmarks, models):
        for name, benchmark in benchmarks.items():
            images = benchmark.images
            yield name, benchmark, Vectors(list(images["id"]), list(images.path), matrix[: len(images)])

    return call


@pytest.mark.parametrize("limits", [{"limit": 5, "tune_limit": 0}, {"limit": 3, "tune_limit": 2}])
def test_a_small_draw_leaves_no_class_out(everything, cifar10, tiny_encoder, limits):
    """Other classes may have been drawn for test and for tune, or none for tune; all ten are candidates."""
    seen = []
    model = with_texts(tiny_encoder, lambda text: seen.append(text) or unit(np.ones((1, 32)))[0])
    config = settled(everything, "cifar10", path=str(cifar10), tasks=["zero_shot"], **limits)
    predictions = Predictions()
    labelled.score(config, benchmarks.load(config)["classification"], {"base": model}, predictions)
    assert {f"This is a photo of a {name}" for name in TEN} <= set(seen)
    items = predictions.table()
    assert len(items[(items.dataset == "cifar10/single") & (items.task == "zero_shot")]) == 2 * limits["limit"]


def test_extended_prompts_need_someone_who_writes():
    with pytest.raises(PcclipError, match=r"(?s)evaluate\.labelled\.cifar10.*extended prompts need texts: llm"):
        params.check({"evaluate": {"labelled": {"cifar10": {"tasks": ["extended"]}}}})


# ---- models that know nothing and everything -------------------------------------------------------------------------

WIDTH, N_TUNE, N_TEST = 64, 300, 600


def of_clusters(everything, encoder, monkeypatch, text_vectors, settings, spread=0.0, seed=0):
    """Score a planted model on 900 planted vectors of ten classes: their means, with noise around them.

    `text_vectors(means)` gives a vector for every text; with `spread` infinite vectors have nothing of their class.
    Returns texts, items, and what was planted: matrix, labels, means.
    """
    rng = np.random.default_rng(seed)
    means, labels = unit(rng.normal(size=(10, WIDTH))), rng.permutation(np.arange(N_TUNE + N_TEST) % 10)
    noise = rng.normal(size=(len(labels), WIDTH)) / np.sqrt(WIDTH)
    matrix = unit(noise if np.isinf(spread) else means[labels] + spread * noise).astype(np.float32)
    table = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(len(labels))],
            "label": labels,
            "split": np.where(np.arange(len(labels)) < N_TUNE, "tune", "test"),
        }
    )
    images = table.assign(path=table["id"])
    made = Benchmark("made", "classification", images, classes=TEN, released=[f"{name}_" for name in TEN])
    monkeypatch.setattr(labelled, "embedded_sets", of_planted(matrix))
    predictions, config = Predictions(), settled(everything, "made", **settings)
    told = labelled.score(config, {"made": made}, {"base": with_texts(encoder, text_vectors(means))}, predictions)
    return SimpleNamespace(
        texts=told["class_texts.parquet"], items=predictions.table(), matrix=matrix, labels=labels, means=means
    )


def oracle(means):
    """One class in a text: its mean; two: the difference of their means, the first one's less the second's."""

    def vector(text):
        named = [TEN.index(word) for word in re.findall(r"[a-z]+", text.lower()) if word in TEN]
        if not named:
            return np.zeros(WIDTH)
        return means[named[0]] if len(named) == 1 else unit((means[named[0]] - means[named[1]])[None])[0]

    return vector


def ignorant(means, world=0):
    """Any direction for any text, the same one whenever it comes."""
    return lambda text: unit(np.random.default_rng([world, *text.encode()]).normal(size=(1, WIDTH)))[0]


def test_an_oracle_is_always_right(everything, tiny_encoder, monkeypatch):
    settings = {"tasks": ALL, "texts": "llm"}
    items = of_clusters(everything, tiny_encoder, monkeypatch, oracle, settings, spread=0.3).items
    right = items.groupby(["task", "dataset", "protocol"]).correct.mean()
    assert len(right) > 20
    assert set(right) == {1}
    assert ("difference_classification", "made/class names", "corrected") in right.index
    distance = items[items.task == "embedding_distance"]
    assert distance.score.to_numpy() == pytest.approx(0, abs=1e-5)


def test_texts_are_of_the_classes_that_are_confused_on_tune_images(everything, tiny_encoder, monkeypatch):
    monkeypatch.setattr(labelled, "CLASS_PAIRS", 4)
    given = of_clusters(everything, tiny_encoder, monkeypatch, oracle, {"tasks": ["distances"]}, spread=3.0)
    found = (given.matrix @ given.means.T).argmax(axis=1)
    written = [frozenset(map(TEN.index, pair)) for pair in given.texts[["first", "second"]].to_numpy()[:4]]

    def caught(rows) -> tuple[int, int]:
        """Mistakes between the two classes of the written pairs, and how many four pairs can have at most."""
        mistakes = Counter(map(frozenset, zip(given.labels[rows], found[rows], strict=True)))
        mistakes = Counter({pair: count for pair, count in mistakes.items() if len(pair) == 2})
        return sum(mistakes[pair] for pair in written), sum(count for _, count in mistakes.most_common(4))

    choosing, _ = halves(np.arange(N_TUNE), given.labels[:N_TUNE])[0]
    (tune, most_on_tune), (test, most_on_test) = (caught(rows) for rows in (choosing, np.arange(N_TUNE, len(found))))
    assert tune == most_on_tune > 0
    assert test < most_on_test, "there it would be other pairs"


def test_a_random_model_is_at_chance(everything, tiny_encoder, monkeypatch):
    """In every task that peeks at no test image, over three worlds of other vectors and texts.

    Comparing as released does peek, and is left out. One draw of texts serves many rows, so these stray together:
    what is asked of all is twice the 95% interval.
    """
    found = []
    monkeypatch.setattr(labelled, "CLASS_PAIRS", 45)
    monkeypatch.setattr(labelled, "IMAGE_PAIRS", 1000)
    for world in range(3):
        items = of_clusters(
            everything,
            tiny_encoder,
            monkeypatch,
            partial(ignorant, world=world),
            {"tasks": ALL, "texts": "llm"},
            spread=np.inf,
            seed=world,
        ).items
        for side in ("first", "second"):
            items[side] = f"world {world}, " + items[side].astype(str)
        found.append(items)
    pooled = pd.concat(found, ignore_index=True)
    metrics, _ = report.summarise(pooled, 200, 0)
    chance = {
        "zero_shot": 0.1,
        "extended_prompts": 0.1,
        "comparative_prompting": 0.1,
        "difference_classification": 0.5,
        "difference_order": 0.5,
        "difference_centred": 0.5,
        "embedding_distance": 1.0,
    }
    assert {*chance, "worst_group"} == set(metrics.task)
    peeks = (metrics.task == "comparative_prompting") & (metrics.protocol == "as_released")
    fair = metrics[metrics.task.isin(chance) & ~peeks]
    assert len(fair) > 15
    for row in fair.itertuples():
        name = f"{row.task} of {row.dataset}, {row.protocol}: {row.value} [{row.ci_low}, {row.ci_high}]"
        assert abs(row.value - chance[row.task]) < row.ci_high - row.ci_low < 0.08, name
    worst = metrics[metrics.task == "worst_group"].value.item()
    assert worst < 0.1, "the worst of ten noisy accuracies is below chance"


def test_what_a_set_lacks_is_counted_with_one_path(values, tmp_path, tiny_encoder):
    """What its reader left out, and the images that cannot be read."""
    place = tmp_path / "classes"
    for k, name in enumerate(("owl", "fox")):
        for number in range(12):
            put(place / name / f"{number}.jpg", jpeg(12 * k + number))
    put(place / "fox" / "2.jpg", b"cut")
    (place / "cat").mkdir()
    sets = {"folders": {"path": str(place), "tasks": ["zero_shot"]}}
    config = params.check({**values, "evaluate": {**values["evaluate"], "labelled": sets}})
    loaded = benchmarks.load(config)
    embed_benchmark(
        config.home / "labelled" / "folders", loaded["classification"]["folders"], tiny_encoder, config.embed
    )
    rows = left_out.of_sets(config, loaded)
    assert rows.to_dict("records") == [
        {"dataset": "folders", "reason": "empty folder", "rows": 1, "example": str(place / "cat")},
        {
            "dataset": "folders",
            "reason": "unreadable image (UnidentifiedImageError)",
            "rows": 1,
            "example": str(place / "fox" / "2.jpg"),
        },
    ]
    assert by_reason(rows) == {"folders, empty folder": 1, "folders, unreadable image (UnidentifiedImageError)": 1}
