"""What comparative prompting is worth against plain zero-shot on the same images: tests, by class, and why by pair."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.sparse import csr_matrix

from pcclip.evaluation.comparative import Chosen, ClassVectors
from pcclip.stats import metrics as statistics
from pcclip.stats.vectors import cosines, unit

KEYS = ["form", "mode", "protocol", "model"]
TESTED = [
    "dataset",
    *KEYS,
    "best_on_tune",
    "n",
    "plain",
    "comparative",
    "helped",
    "hurt",
    "difference",
    "ci_low",
    "ci_high",
    "p_mcnemar",
    "p_bootstrap",
    "test",
    "p_holm",
]
BY_CLASS = ["name", "changed", "n", "plain", "comparative", "helped", "hurt"]
BY_PAIR = ["first", "second", "n", "plain", "comparative", "helped", "hurt", "names_fit", "text_fit", "text_names"]


def tested(items: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Each model with comparative prompting against itself without.

    Args:
        items: of `comparative.comparative`, with dataset, form, mode, protocol, and best_on_tune (whether it is the
            form that does best on the tune images, models taken together).
        draws, seed: of the bootstrap.

    Returns:
        A row for each data set, form, mode, protocol and model: n, plain and comparative (accuracies), helped (images
        newly right), hurt (newly wrong), and the paired difference with interval and p values as `statistics.compare`
        gives them. p_holm of best_on_tune rows, the ones to look at, is adjusted for all of them of a mode, protocol
        and model, whatever form is best on which data set; of the others for the data sets of their form.
    """
    found = []
    for key, part in items.groupby(KEYS, sort=False):
        as_models = part.drop(columns="model").rename(columns={"prompting": "model"})
        table = statistics.compare(as_models.assign(task="comparative_prompting"), "comparative", "plain", draws, seed)
        counts = [
            _counted(one) | {"best_on_tune": one.best_on_tune.iloc[0]} for _, one in part.groupby("dataset", sort=False)
        ]
        found.append(table.drop(columns="n").assign(**dict(zip(KEYS, key, strict=True))).join(pd.DataFrame(counts)))
    return _best_adjusted(pd.concat(found, ignore_index=True))[TESTED] if found else pd.DataFrame(columns=TESTED)


def by_class(items: pd.DataFrame, chosen: Chosen) -> pd.DataFrame:
    """Where it helps and where it hurts, of one model's items of `comparative.comparative`.

    Returns, a row for each class that has images: name, changed (whether a pair's text is compared with it), n, plain,
    comparative (accuracies), helped (images newly right), hurt (newly wrong).
    """
    before, after = _sides(items)
    was, now = (side.correct.to_numpy(dtype=bool) for side in (before, after))
    grouped = pd.DataFrame(
        {
            "k": after.reference.to_numpy(dtype=np.int64),
            "plain": was,
            "comparative": now,
            "helped": now & ~was,
            "hurt": was & ~now,
        }
    ).groupby("k")
    found = pd.concat(
        [grouped.size().rename("n"), grouped[["plain", "comparative"]].mean(), grouped[["helped", "hurt"]].sum()],
        axis=1,
    )
    return found.assign(name=[chosen.names[k] for k in found.index], changed=found.index.isin(chosen.pairs[:, 1]))[
        BY_CLASS
    ].reset_index(drop=True)


def by_pair(
    items: pd.DataFrame, chosen: Chosen, vectors: ClassVectors, matrix: Float[np.ndarray, "n d"]
) -> pd.DataFrame:
    """Why: whether a pair's text points where the images of its classes differ, and whether it tells them apart.

    Args:
        items: of one model, of `comparative.comparative`.
        chosen, vectors: what was chosen, and that model's vectors.
        matrix: the image vectors that the items are rows of.

    Returns:
        A row for each pair (once) whose classes both have images: first, second; n, the images of either class that
        both ways of prompting take for one of the two, and of these plain, comparative (accuracies, missing where
        there are none), helped and hurt; names_fit and text_fit (cosines of f(a) - f(b), and of f(d_ab) - f(d_ba),
        with the difference of the mean images of the classes), text_names (cosine of the two).
    """
    before, after = _sides(items)
    labels, was, now = (side.to_numpy(dtype=np.int64) for side in (after.reference, before.score, after.score))
    sizes = np.bincount(labels, minlength=len(vectors.classes))
    sums = (
        csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), (len(sizes), len(labels)))
        @ matrix[after["first"].to_numpy()]
    )
    told = {tuple(sorted(pair)) for pair in chosen.pairs.tolist()}
    rows = [k for k, pair in enumerate(vectors.pairs.tolist()) if tuple(sorted(pair)) in told and sizes[pair].min() > 0]
    a, b = vectors.pairs[rows].reshape(-1, 2).T
    images, names, texts = (
        unit(v)
        for v in (
            sums[a] / sizes[a, None] - sums[b] / sizes[b, None],
            vectors.classes[a] - vectors.classes[b],
            vectors.right[rows] - vectors.swapped[rows],
        )
    )
    between = [np.isin([labels, was, now], pair).all(axis=0) for pair in zip(a, b, strict=True)]
    counts = pd.DataFrame([_counts(was[here] == labels[here], now[here] == labels[here]) for here in between])
    return counts.assign(
        first=[vectors.names[k] for k in a],
        second=[vectors.names[k] for k in b],
        names_fit=cosines(names, images),
        text_fit=cosines(texts, images),
        text_names=cosines(texts, names),
    ).reindex(columns=BY_PAIR)


def _best_adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """p_holm of the best_on_tune rows as a family of their own."""
    best = table[table.best_on_tune.astype(bool)]
    counts = best.p_mcnemar.where(best.test == "mcnemar", best.p_bootstrap)
    adjusted = counts.groupby([best[key] for key in KEYS if key != "form"]).transform(
        lambda p: statistics.holm(p.to_numpy())
    )
    return table.assign(p_holm=adjusted.reindex(table.index).fillna(table.p_holm))


def _sides(items: pd.DataFrame) -> list[pd.DataFrame]:
    """The items without and with comparing."""
    return [items[items.prompting == name] for name in ("plain", "comparative")]


def _counted(items: pd.DataFrame) -> dict:
    return _counts(*(side.correct.to_numpy(dtype=bool) for side in _sides(items)))


def _counts(was: np.ndarray, now: np.ndarray) -> dict:
    """Of images that were right before and are right now: how many, the shares, and those that changed."""
    n = len(was)
    return {
        "n": n,
        "plain": was.mean() if n else np.nan,
        "comparative": now.mean() if n else np.nan,
        "helped": int((now & ~was).sum()),
        "hurt": int((was & ~now).sum()),
    }
