"""The teacher as a matcher: common random numbers, chance for a random one and 1 for an oracle."""

import re

import numpy as np
import pytest
import torch
from helpers import diffusion
from helpers.compositional_sets import write
from helpers.files import picture
from helpers.public_sets import PublicSets
from scipy.stats import binomtest

from pcclip import config as params
from pcclip.config import Matcher
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.diffusion import Teacher
from pcclip.errors import PcclipError
from pcclip.evaluation import benchmarks, compositional, stage as report
from pcclip.evaluation.diffusion_matcher import COLUMNS, DiffusionMatcher, noise_draws
from pcclip.evaluation.predictions import Predictions

RED, BLUE = "a red square left of a blue circle", "a blue circle left of a red square"


@pytest.fixture(scope="module")
def teacher():
    return Teacher(diffusion.parts(vae=False))


def matcher(**changes) -> Matcher:
    return Matcher(**{"spec": "x", "samples": 4, "batch_size": 8, **changes})


def latent(seed: int) -> torch.Tensor:
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed))


# ---- the score -------------------------------------------------------------------------------------------------------


def test_the_score_is_the_mean_error_over_the_draws(teacher):
    """One UNet evaluation at a time, written out."""
    settings = matcher()
    levels, noises = noise_draws(teacher, settings, 3)
    z0 = latent(0)
    wanted = []
    for text in (RED, BLUE):
        told, errors = teacher.conditions([text]), []
        for t, noise in zip(levels, noises, strict=True):
            with torch.no_grad():
                found = teacher.noise(teacher.noised(z0[None], t[None], noise[None]), t[None], told)
            errors.append(((found[0] - noise) ** 2).mean().item())
        wanted.append(-np.mean(errors))
    np.testing.assert_allclose(DiffusionMatcher(teacher, settings, 3).scores(z0, [RED, BLUE]), wanted, rtol=1e-5)


def test_equal_texts_have_equal_scores_and_their_order_does_not_matter(teacher):
    texts, z0 = [RED, BLUE, RED, "green"], latent(0)
    scores = DiffusionMatcher(teacher, matcher(), 0).scores(z0, texts)
    assert scores[0] == scores[2]
    assert len(set(scores)) == 3
    order = [3, 1, 0, 2]
    again = DiffusionMatcher(teacher, matcher(), 0).scores(z0, [texts[k] for k in order])
    np.testing.assert_array_equal(again, scores[order])


def test_errors_that_are_not_finite_are_refused(teacher, monkeypatch):
    monkeypatch.setattr(teacher, "denoising", lambda z0, *given: torch.full((len(z0),), torch.nan))
    with pytest.raises(PcclipError, match="not finite"):
        DiffusionMatcher(teacher, matcher(), 0).scores(latent(0), [RED, BLUE])


def test_every_image_sees_the_same_draws_and_another_seed_sees_others(teacher):
    one = DiffusionMatcher(teacher, matcher(), 0)
    first = one.scores(latent(0), [RED])
    one.scores(latent(1), [RED, BLUE])
    np.testing.assert_array_equal(one.scores(latent(0), [RED]), first)
    assert DiffusionMatcher(teacher, matcher(), 1).scores(latent(0), [RED]) != first


def test_levels_cover_the_range_evenly(teacher):
    found, _ = noise_draws(teacher, matcher(samples=10, t_min=0.2, t_max=0.8), 0)
    assert sorted(found.tolist()) == [230, 290, 350, 410, 470, 530, 590, 650, 710, 770]
    assert noise_draws(teacher, matcher(samples=2000, t_min=0.9), 0)[0].max() == teacher.steps - 1


def test_no_text_is_subtracted_where_images_are_compared(teacher):
    z0 = latent(0)
    plain = DiffusionMatcher(teacher, matcher(unconditional=False), 0)
    free = DiffusionMatcher(teacher, matcher(), 0)
    apart = plain.scores(z0, [RED, BLUE, ""], between_images=True)
    np.testing.assert_allclose(
        free.scores(z0, [RED, BLUE], between_images=True), apart[:2] - apart[2], rtol=0, atol=1e-7
    )
    np.testing.assert_array_equal(free.scores(z0, [RED, BLUE]), plain.scores(z0, [RED, BLUE]))
    assert (plain.evaluations, free.evaluations) == (5 * 4, 5 * 4)


# ---- as a row of the sets --------------------------------------------------------------------------------------------


class Oracle(Teacher):
    """Knows which number each picture and each text tell: the error is 0 where they agree and 1 where not."""

    latent_shape, steps, device = (1, 1, 1), 1000, torch.device("cpu")

    def __init__(self):
        pass  # it has no parts

    def preprocess(self, picture):
        return torch.tensor(picture.resize((1, 1)).getpixel((0, 0)), dtype=torch.float32)[:, None, None]

    def latents(self, pixels):
        return pixels[:, :1] * 256 + pixels[:, 1:2]

    def conditions(self, texts):
        number = [re.search(r"\d+", text) for text in texts]
        swapped = [text.startswith("the grass") for text in texts]
        return torch.tensor([2 * int(n[0]) + s if n else -1 for n, s in zip(number, swapped, strict=True)])

    def denoising(self, z0, t, noise, condition):
        return (z0.flatten() != condition).float() + 0.01 * noise.flatten().abs()


SETS = PublicSets("compositionality")


def matched(found, oracle, settings: Matcher):
    """Predictions and the cost of the oracle on a set."""
    images, predictions, one = found.only_images(0.0), Predictions(), DiffusionMatcher(oracle, settings, 0)
    ids = list(images.images["id"])
    vectors = Vectors(ids, ids, np.eye(len(ids), dtype=np.float32))
    compositional.add_teacher(compositional.match_items(found, vectors), one, (images, vectors), 2, predictions)
    return predictions.table(), one.cost(found.name)


@pytest.fixture
def winoground(tmp_path):
    """Twelve items whose picture says its number in red and green."""
    folder = write("winoground", tmp_path, 12)
    for k in range(12):
        for side in (0, 1):
            picture(tmp_path / "data" / "images" / f"ex_{k}_img_{side}.png", colour=(0, 2 * k + side, 0))
    return SETS.load("winoground", folder)


def test_an_oracle_is_right_on_every_item(winoground):
    items, cost = matched(winoground, Oracle(), matcher(samples=32))
    assert set(items.task) == {f"winoground_{end}" for end in ("text", "image", "group", "group_match")}
    assert set(items.model) == {"teacher"}
    assert items.correct.all()
    assert (items.dataset == "winoground").sum() == 4 * 12
    assert cost.dataset.tolist() == ["winoground"]
    assert (cost.images[0], cost.texts[0]) == (24, 48)
    assert cost.evaluations[0] == 24 * 3 * 32


def test_a_random_teacher_is_at_chance(teacher, rng):
    """Which of two texts is right is drawn, so nothing of texts or images helps."""
    asked = DiffusionMatcher(teacher, matcher(samples=1), 0)
    words = ["red", "blue", "green", "square", "circle", "left", "right", "above"]
    right = 0
    for k in range(40):
        texts = [" ".join(rng.permutation(words)) for _ in range(2)]
        scores = asked.scores(latent(k), texts)
        right += scores[0] > scores[1]
    assert binomtest(int(right), 40, 0.5).pvalue > 0.001


def test_an_image_that_cannot_be_read_is_named(winoground):
    path = winoground.images.path[3]
    open(path, "w").close()
    with pytest.raises(PcclipError, match=re.escape(f"{path}: empty file; mend it")):
        matched(winoground, Oracle(), matcher())


def test_it_is_one_more_row_of_a_set_with_what_it_cost(tmp_path, tiny_encoder):
    write("mmvp_vlm", tmp_path / "mmvp", 6)
    values = {
        "outputs": str(tmp_path / "outputs"),
        "embed": {"workers": 2},
        "generate": {"backend": "template"},
        "evaluate": {"compositional": {"mmvp_vlm": {"path": str(tmp_path / "mmvp")}}},
    }
    folder = str(diffusion.saved(tmp_path / "teacher", vae=False))
    predictions, config = Predictions(), params.check(values)
    sets, models = benchmarks.load(config)["compositionality"], {"base": tiny_encoder}
    assert compositional.score(config, sets, models, predictions).empty
    assert set(predictions.table().model) == {"base", "base, blind"}

    values["evaluate"]["teacher"] = {"spec": folder, "samples": 2, "limit": 2}
    predictions, config = Predictions(), params.check(values)
    cost = compositional.score(config, sets, models, predictions)
    found = predictions.table()
    assert (found.dataset[found.model == "teacher"] == "mmvp_vlm").sum() == 4 * 2 * 2, "two items of each of two parts"
    assert list(cost.columns) == COLUMNS
    assert (cost.dataset[0], cost.images[0], cost.evaluations[0]) == ("mmvp_vlm", 8, 8 * 3 * 2)


def test_a_teacher_that_is_not_there_is_said_before_any_work(tmp_path):
    config = params.check({"evaluate": {"teacher": {"spec": str(tmp_path / "none")}}})
    assert report.lacking(config) == [f"teacher {str(tmp_path / 'none')!r}: no such folder, and not a name on the hub"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"t_min": 0.9, "t_max": 0.1}, "t_min = 0.9 must be below t_max = 0.1"),
        ({"samples": 0}, "samples = 0"),
    ],
)
def test_settings_that_cannot_be(changes, says):
    with pytest.raises(PcclipError, match=re.escape(says)):
        params.check({"evaluate": {"teacher": {"spec": "x", **changes}}})
    with pytest.raises(PcclipError, match="'teacher' is the name of another row"):
        params.check({"evaluate": {"peers": {"teacher": "x"}}})
