"""Every measure of the geometry, of every model, with its controls and intervals: one long table.

What only the image tower decides stands once, as the model 'images': the base's, as text finetuning leaves it as it is.
A model with an image tower of its own sees by that, and has a second such row, 'images, MODEL'.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic import analogies
from pcclip.arithmetic.differences import NONE, additivity, alignment, antisymmetry, shuffled, sides
from pcclip.arithmetic.spectrum import anisotropy, effective_rank, modality_gap, random_directions, spectrum
from pcclip.arithmetic.texts import Remembered
from pcclip.comparisons.sentences import from_captions
from pcclip.embedding.vectors import Vectors
from pcclip.stats.intervals import Estimate, bootstrap_means, jackknife
from pcclip.stats.vectors import cosines, image_differences, unit

IMAGES = "images"  # the model of measures that no text takes part in
COLUMNS = ["metric", "model", "control", "value", "ci_low", "ci_high", "n"]
Found = dict[tuple[str, str, str], Estimate]  # metric, model, control
_COMPONENTS = 30


@dataclass(frozen=True)
class Asked:
    """What is measured: held-out images, pairs and triples of them, and how intervals are drawn.

    Attributes:
        vectors: unit image vectors, of every model's own image tower.
        table: the held-out images that have one (id, caption, concept).
        pairs: first, second (ids), captions, difference, swapped, as `template_pairs` makes them.
        triples: rows of `pairs` (a, b) and rows of `table` for c.
        quadruples: how many analogies of images.
        draws, seed: of the bootstrap.
    """

    vectors: Vectors
    table: pd.DataFrame
    pairs: pd.DataFrame
    triples: tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]
    quadruples: int
    draws: int
    seed: int

    @property
    def sides(self) -> Int[np.ndarray, "m 2"]:
        """Rows of the matrix of both images of every pair."""
        return np.stack([self.vectors.rows(self.pairs[side]) for side in ("first", "second")], axis=1)

    @property
    def held_out(self) -> Int[np.ndarray, " n"]:
        return self.vectors.rows(self.table["id"])

    def seen_by(self, which: str) -> "Asked":
        """The same of this model's image vectors."""
        return replace(self, vectors=self.vectors.seen_by(which))

    def towers(self, models: Iterable[str]) -> dict[str, "Asked"]:
        """What is asked of image vectors alone, by what its rows are called: of the base's, and of other towers'."""
        own = [which for which in models if which in self.vectors.others]
        return {IMAGES: self, **{f"{IMAGES}, {which}": self.seen_by(which) for which in own}}


def draw_triples(table: pd.DataFrame, pairs: pd.DataFrame, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (a, b), and for each a third image c of another concept than either: rows of `pairs` and of `table`."""
    rng, concept = np.random.default_rng(seed), table.concept.to_numpy()
    of = dict(zip(table["id"], concept, strict=True))
    chosen, third = [], []
    for row in rng.permutation(len(pairs))[:count]:
        others = np.flatnonzero(~np.isin(concept, [of[pairs["first"].iloc[row]], of[pairs["second"].iloc[row]]]))
        if len(others):
            chosen.append(row)
            third.append(rng.choice(others))
    return np.array(chosen, dtype=np.int64), np.array(third, dtype=np.int64)


def measure(asked: Asked, models: dict[str, Remembered]) -> Found:
    """All measures of all models; of the finetuned ones also how far their texts moved from the base's."""
    found = {
        (metric, name, control): one
        for name, own in asked.towers(models).items()
        for (metric, control), one in _of_images(own).items()
    }
    for which, model in models.items():
        own = asked.seen_by(which)
        rows = {
            **_of_differences(own, model),
            **_of_sums(own, model),
            **_of_words(own, model),
            **_of_modalities(own, model),
            **_of_clouds(own, model),
        }
        if which != "base" and "base" in models:
            rows |= _moved(asked, models["base"], model)
        found |= {(metric, which, control): one for (metric, control), one in rows.items()}
    return found


def table(found: Found) -> pd.DataFrame:
    """One row for each metric, model and control, in the order measured. Columns COLUMNS."""
    return pd.DataFrame([[*key, one.value, *one.interval, one.n] for key, one in found.items()], columns=COLUMNS)


def spectra(asked: Asked, models: dict[str, Remembered]) -> pd.DataFrame:
    """Shares of the variance of differences along their first principal components: what, model, component, share."""
    first, second = asked.sides.T
    clouds = {
        ("image differences", name): image_differences(own.vectors.matrix, first, second)
        for name, own in asked.towers(models).items()
    }
    for which, model in models.items():
        clouds[("text differences", which)] = model.encode_texts(list(asked.pairs.difference))
        clouds[("caption differences", which)] = _caption_differences(asked, model)
    clouds[("random directions", "chance")] = random_directions(len(first), asked.vectors.matrix.shape[1], asked.seed)
    return pd.concat(
        [
            pd.DataFrame({"what": what, "model": which, "share": spectrum(cloud)[:_COMPONENTS]}).assign(
                component=lambda rows: np.arange(1, len(rows) + 1)
            )
            for (what, which), cloud in clouds.items()
        ],
        ignore_index=True,
    )


def _means(asked: Asked, metric: str, values: dict[str, np.ndarray], members: np.ndarray) -> dict:
    found = bootstrap_means(values, members, asked.draws, asked.seed)
    return {(metric, control): one for control, one in found.items()}


def _of_differences(asked: Asked, model: Remembered) -> dict:
    pairs, rows = asked.pairs, asked.sides
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    order = shuffled(len(pairs), asked.seed)
    targets = {
        "image difference": image_differences(asked.vectors.matrix, *rows.T),
        "caption difference": _caption_differences(asked, model),
    }
    found = {}
    for name, target in targets.items():
        found |= _means(asked, f"alignment, {name}", alignment(target, right, reverse, order), rows)
    u = _centred(asked.vectors.matrix, asked.held_out)
    captions = model.encode_texts(list(asked.table.caption))
    t = unit(captions - captions.mean(axis=0))
    row = {image: k for k, image in enumerate(asked.table["id"])}
    at = [[row[image] for image in pairs[side]] for side in ("first", "second")]
    found |= _means(asked, "f(d) with one image", sides(right, u[rows[:, 0]], u[rows[:, 1]], order), rows)
    found |= _means(asked, "f(d) with one caption", sides(right, t[at[0]], t[at[1]], order), rows)
    return found | _means(asked, "antisymmetry", antisymmetry(right, reverse, order), rows)


def _of_sums(asked: Asked, model: Remembered) -> dict:
    rows, third = asked.triples
    pairs, c = asked.pairs.iloc[rows], asked.table.caption.iloc[third]
    if not len(rows):
        return {}
    ab, ba = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    bc = model.encode_texts([from_captions(one, two) for one, two in zip(pairs.second_caption, c, strict=True)])
    ac = model.encode_texts([from_captions(one, two) for one, two in zip(pairs.first_caption, c, strict=True)])
    values = additivity(ab, bc, ac, ba, shuffled(len(rows), asked.seed))
    return _means(asked, "additivity, texts", values, _triple_rows(asked))


def _of_words(asked: Asked, model: Remembered) -> dict:
    """Analogies of words: an item hangs on its two nouns, and those are what is resampled."""
    found, every, members = {}, [], []
    for name, (_, _, nouns) in analogies.WORDS.items():
        quadruples = analogies.word_quadruples(len(nouns))
        right = analogies.solved(model.encode_texts(analogies.word_texts(name)), quadruples)
        who = np.array(
            [[f"{name} {nouns[q[0] % len(nouns)]}", f"{name} {nouns[q[2] % len(nouns)]}"] for q in quadruples]
        )
        guess = np.full(len(quadruples), analogies.chance(2 * len(nouns)))
        found |= _means(asked, f"analogies, {name}", {**right, "chance": guess}, who)
        every.append({**right, "chance": guess})
        members.append(who)
    together = {key: np.concatenate([values[key] for values in every]) for key in every[0]}
    return found | _means(asked, "analogies, all words", together, np.concatenate(members))


def _of_modalities(asked: Asked, model: Remembered) -> dict:
    u, t = asked.vectors.matrix[asked.held_out], model.encode_texts(list(asked.table.caption))
    order, images = shuffled(len(u), asked.seed), np.arange(len(u))[:, None]
    one, two = unit(u - u.mean(axis=0)), unit(t - t.mean(axis=0))
    half = np.random.default_rng(asked.seed).permutation(len(u)) % 2 == 0
    found = {
        ("modality gap", NONE): jackknife(lambda rows: modality_gap(u[rows], t[rows]), images, asked.seed),
        ("modality gap", "two halves of the images"): jackknife(
            lambda rows: modality_gap(u[rows & half], u[rows & ~half]), images, asked.seed
        ),
        ("modality gap", "captions of the other half"): jackknife(
            lambda rows: modality_gap(u[rows & half], t[rows & ~half]), images, asked.seed
        ),
    }
    found |= _means(
        asked,
        "image with its caption",
        {
            NONE: cosines(u, t),
            "shuffled": cosines(u, t[order]),
            "centred": cosines(one, two),
            "centred, shuffled": cosines(one, two[order]),
        },
        images,
    )
    return found | _means(
        asked,
        "caption finds its image",
        {NONE: _found_first(u, t), "centred": _found_first(one, two), "chance": np.full(len(u), 1 / len(u))},
        images,
    )


def _of_clouds(asked: Asked, model: Remembered) -> dict:
    images = np.arange(len(asked.table))[:, None]
    clouds = {
        "captions": (model.encode_texts(list(asked.table.caption)), images),
        "text differences": (model.encode_texts(list(asked.pairs.difference)), asked.sides),
    }
    return _figures(asked, clouds)


def _of_images(asked: Asked) -> dict:
    u, pairs = asked.vectors.matrix[asked.held_out], asked.sides
    v = image_differences(asked.vectors.matrix, *pairs.T)
    found = _figures(asked, {"images": (u, np.arange(len(u))[:, None]), "image differences": (v, pairs)})
    rows, third = asked.triples
    if len(rows):
        (a, b), c = pairs[rows].T, asked.held_out[third]
        ab, bc, ac = (image_differences(asked.vectors.matrix, *legs) for legs in ((a, b), (b, c), (a, c)))
        values = additivity(ab, bc, ac, -ab, shuffled(len(rows), asked.seed))
        found |= _means(asked, "additivity, images", values, _triple_rows(asked))
    quadruples = analogies.image_quadruples(asked.table.concept, asked.quadruples, asked.seed)
    if len(quadruples):
        codes, sizes = np.unique(asked.table.concept, return_inverse=True, return_counts=True)[1:]
        right = analogies.solved(u, quadruples, codes)
        guess = np.array([analogies.chance(len(u), sizes[codes[d]] - 1) for d in quadruples[:, 3]])
        found |= _means(asked, "analogies, images", {**right, "chance": guess}, quadruples[:, :3])
    return found


def _figures(asked: Asked, clouds: dict) -> dict:
    """Anisotropy and effective rank of clouds, each name -> (vectors, members), beside that of random directions."""
    found = {}
    for name, (cloud, members) in clouds.items():
        random = random_directions(*cloud.shape, asked.seed)
        for metric, figure in (("anisotropy", anisotropy), ("effective rank", effective_rank)):
            for control, vectors in ((NONE, cloud), ("random directions", random)):
                found[(f"{metric}, {name}", control)] = jackknife(
                    lambda rows, figure=figure, vectors=vectors: figure(vectors[rows]), members, asked.seed
                )
    return found


def _moved(asked: Asked, base: Remembered, model: Remembered) -> dict:
    """Cosine of a text's vector with the one that the base gives it; the control is another text's."""
    found = {}
    for name, texts, members in (
        ("captions", asked.table.caption, np.arange(len(asked.table))[:, None]),
        ("text differences", asked.pairs.difference, asked.sides),
    ):
        now, before = model.encode_texts(list(texts)), base.encode_texts(list(texts))
        order = shuffled(len(now), asked.seed)
        found |= _means(
            asked,
            f"stayed where it was, {name}",
            {NONE: cosines(now, before), "shuffled": cosines(now, before[order])},
            members,
        )
    return found


def _caption_differences(asked: Asked, model: Remembered) -> Float[np.ndarray, "m d"]:
    one, two = (model.encode_texts(list(asked.pairs[f"{side}_caption"])) for side in ("first", "second"))
    return unit(one - two)


def _centred(matrix: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "n d"]:
    """Unit vectors about the mean of some rows."""
    return unit(matrix - matrix[rows].mean(axis=0))


def _triple_rows(asked: Asked) -> Int[np.ndarray, "t 3"]:
    rows, third = asked.triples
    return np.concatenate([asked.sides[rows], asked.held_out[third][:, None]], axis=1)


def _found_first(images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n d"]) -> np.ndarray:
    """Whether each text's own image is nearer to it than any other; a tie is not."""
    scores = texts @ images.T
    own = np.diag(scores).copy()
    np.fill_diagonal(scores, -np.inf)
    return own > scores.max(axis=1) + 1e-6
