"""Drawn pictures of two shapes: what is drawn, which combinations are held out, the small CLIP trained on them, and the
relation task, where an oracle is always right and a bag of words never is."""

import numpy as np
import pandas as pd
import pytest

from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.data.sources import toy_scenes as draw
from pcclip.encoders import identify, load_model, toy_clip as student
from pcclip.errors import PcclipError
from pcclip.evaluation import compositional, toy_relation as relation
from pcclip.evaluation.predictions import Predictions
from pcclip.images import open_image

MINIATURE = {"pictures": 24, "steps": 4, "batch": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and a student of a few steps."""
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "cache"))
    for name, value in MINIATURE.items():
        monkeypatch.setitem(student.RECIPE, name, value)
    return tmp_path / "cache" / "shapes"


def config(tmp_path, seed=0, **data):
    return params.check(
        {
            "run": "drawn",
            "seed": seed,
            "model": "shapes-clip:{seed}",
            "outputs": str(tmp_path / "outputs"),
            "data": {
                "source": "shapes",
                "part": "{seed}",
                "split": "official",
                "limit": 12,
                "held_out_limit": 8,
                **data,
            },
        }
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def colour_at(pixels, x, y):
    """The name of the colour that is nearest at a place."""
    found = pixels[round(y), round(x)].astype(float)
    return min(draw.COLOURS, key=lambda name: np.abs(found - draw.COLOURS[name]).sum())


@pytest.mark.parametrize("split", draw.SPLITS)
def test_pictures_show_what_the_captions_say(split):
    for number in range(40):
        scene = draw.scene(3, split, number)
        (x0, y0, r0), (x1, y1, r1) = scene.places
        along = {"left of": x1 - x0, "right of": x0 - x1, "above": y1 - y0, "below": y0 - y1}
        assert max(along, key=along.get) == scene.relation
        assert along[scene.relation] > r0 + r1, "they do not touch"
        for x, y, r in scene.places:
            assert min(x, y) - r >= 0
            assert max(x, y) + r <= draw.SIDE - 1
        pixels = np.asarray(draw.draw(scene))
        for (colour, _), (x, y, _) in zip((scene.first, scene.second), scene.places, strict=True):
            assert colour_at(pixels, x, y) == colour
        assert scene.caption == f"a {' '.join(scene.first)} {scene.relation} a {' '.join(scene.second)}"


def test_the_swapped_caption_is_true_of_the_mirrored_picture():
    scene = draw.scene(0, "held_out", 5)
    twin = draw.mirrored(scene)
    assert (twin.caption, twin.swapped) == (scene.swapped, scene.caption)
    assert sorted(scene.caption.split()) == sorted(scene.swapped.split())
    assert twin.places == scene.places
    assert twin.combination == scene.combination
    assert not np.array_equal(draw.draw(twin), draw.draw(scene))


def test_edges_are_smooth():
    pixels = np.asarray(
        draw.draw(draw.Scene(("black", "circle"), ("red", "square"), "left of", ((8.2, 16, 5), (24, 16, 5))))
    )
    assert len(np.unique(pixels[:, :16, 0])) > 5


def test_a_scene_depends_on_seed_split_and_number_alone():
    assert draw.scene(1, "train", 9) == draw.scene(1, "train", 9)
    assert (
        len(
            {
                draw.scene(*place)
                for place in [(1, "train", 9), (2, "train", 9), (1, "tune", 9), (1, "held_out", 9), (1, "train", 10)]
            }
        )
        == 5
    )


@pytest.mark.parametrize("seed", [0, 7])
def test_held_out_combinations_are_never_trained_on(seed):
    shown = {split: {draw.scene(seed, split, k).combination for k in range(1000)} for split in draw.SPLITS}
    assert not shown["held_out"] & (shown["train"] | shown["tune"])
    assert len(shown["held_out"]) == round(draw.HELD_OUT * len(draw.PAIRS))
    assert shown["held_out"] & {draw.scene(seed + 1, "train", k).combination for k in range(1000)}


# ---- data.source shapes ----------------------------------------------------------------------------------------------


def test_as_a_source(tmp_path, cache):
    images = load_images(config(tmp_path))
    assert (len(images.train), len(images.held_out)) == (12, 8)
    assert not set(images.train.concept) & set(images.held_out.concept)
    for row in images.held_out.itertuples():
        scene = draw.scene(0, "held_out", int(row.id.split("/")[1]))
        assert row.caption == scene.caption
        assert np.array_equal(open_image(row.path), draw.draw(scene))
    again = load_images(config(tmp_path))
    assert again.identity() == images.identity()
    for tar in cache.glob("*.tar"):
        tar.unlink()
    assert load_images(config(tmp_path)).identity() == images.identity(), "drawn again it is the same"


def test_the_seed_of_the_run_draws_other_pictures(tmp_path):
    first, second = (load_images(config(tmp_path, seed)) for seed in (0, 1))
    assert set(first.table.caption) != set(second.table.caption)
    assert first.identity() != second.identity()


@pytest.mark.parametrize(
    ("data", "says"), [({"split": "concept"}, "needs split: official"), ({"part": "red"}, "has a seed as data.part")]
)
def test_what_is_refused(tmp_path, data, says):
    with pytest.raises(PcclipError, match=says):
        config(tmp_path, **data)


def test_the_seed_is_filled_in_wherever_it_is_asked_for(tmp_path):
    found = config(tmp_path, seed=4)
    assert (found.model, found.data.part) == ("shapes-clip:4", "4")
    assert params.check({"evaluate": {"zero_shot_prompt": "a {}"}}).evaluate.zero_shot_prompt == "a {}"


# ---- the student -----------------------------------------------------------------------------------------------------


def test_it_is_trained_once_and_is_an_open_clip_model(capsys):
    model = load_model("shapes-clip:1")
    assert "trained once" in capsys.readouterr().out
    assert model.spec == "shapes-clip:1"
    assert model.encode_images([draw.draw(draw.scene(1, "train", 0))]).shape == (1, model.width)
    longest = max((draw.scene(1, "train", k).caption for k in range(200)), key=len)
    assert len(model.tokens([longest])[0]) <= model.context_length
    again = load_model("shapes-clip:1")
    assert "trained once" not in capsys.readouterr().out
    assert again.image_fingerprint() == model.image_fingerprint()
    assert load_model("shapes-clip:2").image_fingerprint() != model.image_fingerprint()


def test_what_it_stands_for_is_known_before_it_is_trained(cache):
    assert identify("shapes-clip:1") == identify("shapes-clip:1") != identify("shapes-clip:2")
    assert identify("shapes-clip") == identify("shapes-clip:0")
    assert not cache.exists()


def test_twins_are_rare_in_a_batch():
    rng, batch = np.random.default_rng(0), 128
    scenes = [draw.scene(0, "train", number) for number in range(6000)]
    ways = [(scene.combination, _way(scene)) for scene in scenes]
    seen = []
    for _ in range(20):
        drawn = [ways[k] for k in rng.choice(len(ways), batch, replace=False)]
        seen.append(np.mean([(pair, (-dx, -dy)) in set(drawn) for pair, (dx, dy) in drawn]))
    assert np.mean(seen) == pytest.approx(student.share_of_twins(batch), abs=0.02)


def _way(scene):
    """From which side the object that is first by name looks at the other: that of its twin is the opposite."""
    sign = 1 if scene.combination.startswith("-".join(scene.first)) else -1
    return tuple(sign * step for step in draw.RELATIONS[scene.relation])


# ---- relation --------------------------------------------------------------------------------------------------------


class Reader:
    """Reads captions: where each colour and each shape is; a bag of words only that they are there."""

    def __init__(self, places: bool):
        self.places = places

    def encode_texts(self, texts):
        return np.stack([self.of(*text.removeprefix("a ").split(" a ")) for text in texts])

    def of(self, first, second):
        (colour, shape, *words), last = first.split(), tuple(second.split())
        step = np.array(draw.RELATIONS[" ".join(words)], dtype=float)
        return self.vector(((colour, shape), step), (last, -step))

    def vector(self, *objects):
        found = np.zeros((len(draw.COLOURS) + len(draw.SHAPES), 3))
        for (colour, shape), step in objects:
            for row in (list(draw.COLOURS).index(colour), len(draw.COLOURS) + draw.SHAPES.index(shape)):
                found[row] += [1.0, *(step if self.places else (0, 0))]
        return found.ravel() / np.linalg.norm(found)


def scored(tmp_path, places: bool) -> pd.DataFrame:
    """Accuracy of the reader on every set, as compositional.add_model scores a model."""
    given, reader, predictions = config(tmp_path, held_out_limit=30), Reader(places), Predictions()
    for whole in relation.load(given).values():
        right = {
            image: text
            for which in (0, 1)
            if f"image_{which}" in whole.items
            for image, text in zip(whole.items[f"image_{which}"], whole.items[f"text_{which}"], strict=True)
        }
        matrix = reader.encode_texts([right[image] for image in whole.images["id"]])
        rows = pd.Series(np.arange(len(matrix)), index=whole.images["id"])
        vectors = type(
            "Vectors",
            (),
            {
                "has": lambda self, *ids: np.ones(len(ids[0]), dtype=bool),
                "rows": lambda self, ids, of=rows: of[ids].to_numpy(),
            },
        )()
        items = compositional.match_items(whole, vectors)
        compositional.add_model(items, matrix, reader, "reader", predictions)
    table = predictions.table()
    return table[table.model == "reader"].groupby(["task", "dataset"]).correct.mean().unstack(0)


def test_who_knows_the_places_is_always_right(tmp_path):
    found = scored(tmp_path, places=True)
    tasks = {f"relation{end}" for end in ("", "_text", "_image", "_group", "_group_match")} | {"object"}
    assert set(found) == tasks
    assert set(found.index) == {
        "relation",
        "relation/across",
        "relation/upright",
        "object",
        "object/colour",
        "object/shape",
    }
    assert (found.stack() == 1).all()


def test_a_bag_of_words_knows_the_objects_alone(tmp_path):
    found = scored(tmp_path, places=False)
    assert found.object.dropna().eq(1).all()
    assert found.filter(like="relation").stack().eq(0).all(), "a tie is no win"


def test_other_sources_have_no_relations(values):
    assert relation.load(params.check(values)) == {}


def test_its_pictures_are_those_of_the_run(tmp_path):
    given = config(tmp_path)
    images, whole = load_images(given), relation.load(given)["relation"]
    assert list(whole.items.text_0) == list(images.held_out.caption)
    assert np.array_equal(open_image(whole.images.path[3]), open_image(images.held_out.path[3]))
