"""Does a question follow its own truth and not the others? Every question of a run against every known truth.

A question is an axis f(more) - f(less). Large things live long and are fast, so an axis of size alone orders photos by
lifespan too; the partial correlation is what is left when another truth, such as body mass, is held fixed. A question that has
nothing to do with a truth should be at one half. Photos of one concept share their truth: resamples are of concepts.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from pcclip.benchmarks.benchmark import at_most
from pcclip.comparisons.attributes import load_bank
from pcclip.config import Config
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation.own_images import HeldOut
from pcclip.ranking.axes import paraphrase_axis
from pcclip.stats.intervals import Estimate, estimate_table, ratio, resamples
from pcclip.stats.rank_measures import pairwise_accuracy

TABLE, TASK = "specificity.csv", "specificity"
MOST = 2000  # photos whose pairs are compared
Pairs = list[tuple[str, str]]  # of texts, for more and for less


def score(held_out: HeldOut, models: Mapping[str, Encoder]) -> pd.DataFrame:
    """Columns question, truth, model, metric (pairwise_accuracy, partial_spearman), and of an estimate (n counts photos).

    The truths are the image set's attributes of which the held-out photos have two values; partial_spearman holds the
    truth evaluate.fixed and has no row of it. Of more than MOST photos a random part is taken.
    """
    config, images = held_out.config, held_out.table
    fixed, questions = config.evaluate.fixed, questions_of(config)
    truths = [truth for truth in held_out.images.attributes if images[truth].nunique() >= 2]
    axes = {
        (question, name): paraphrase_axis(model, pairs)
        for name, model in (models.items() if truths else ())
        for question, pairs in questions.items()
    }
    estimates: dict[tuple[str, str, str, str], Estimate] = {}
    for truth in truths:
        known = at_most(images[images[truth].notna()], MOST, config.seed)
        both = known[known[fixed].notna()] if fixed in truths and fixed != truth else known.head(0)
        draws = _draws(both.concept, config)
        for (question, name), axis in axes.items():
            vectors = held_out.vectors.seen_by(name)
            scores = pd.Series(vectors.matrix[vectors.rows(known["id"])] @ axis, known.index)
            items = {"score": scores, "reference": known[truth], "first": known.concept, "second": known.concept}
            pairwise = pairwise_accuracy(pd.DataFrame(items), config.evaluate.bootstrap, config.seed)
            estimates[question, truth, name, "pairwise_accuracy"] = pairwise
            if len(both):
                ranks = [rankdata(column) for column in (scores[both.index], both[truth], both[fixed])]
                estimates[question, truth, name, "partial_spearman"] = _partial(ranks, draws)
    return estimate_table(estimates, ["question", "truth", "model", "metric"])


def questions_of(config: Config) -> dict[str, Pairs]:
    """The run's questions: those of evaluate.attributes, of the bank (by trained and by new wordings), and further ones."""
    pairs = {name: [(texts.comparison, texts.comparison_swapped)] for name, texts in config.evaluate.attributes.items()}
    for attribute in load_bank(config.generate.attributes).attributes if config.generate.attributes else []:
        pairs[f"{attribute.name} ({attribute.split})"] = attribute.paraphrases
        pairs[f"{attribute.name} (new wording)"] = attribute.held_out
    pairs |= {name: [(more, less)] for name, (more, less) in config.evaluate.questions.items()}
    return {name: texts for name, texts in pairs.items() if texts}


def matrices(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The values of `score` by metric: a row for each question, a column for each model and truth, in words."""
    words = table.replace({"question": "_", "truth": "_"}, " ", regex=True)
    shape = {"index": "question", "columns": ["model", "truth"], "values": "value"}
    return {metric: part.pivot(**shape) for metric, part in words.groupby("metric", sort=False)}


def as_metrics(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of `score` as rows of metrics.csv."""
    dataset_names = f"{dataset}/" + table.question + "/" + table.truth
    return table.assign(task=TASK, dataset=dataset_names, protocol="", tied=False)


def _draws(concepts: pd.Series, config: Config) -> Float[np.ndarray, "b n"]:
    """How often each photo counts: once in the first row, as often as its concept was drawn in the others."""
    codes, names = pd.factorize(concepts)
    drawn = resamples(len(names), config.evaluate.bootstrap, config.seed) if len(names) else ()
    return np.concatenate([np.ones((1, len(names))), *drawn])[:, codes]


def _partial(ranks: list[Float[np.ndarray, " n"]], draws: Float[np.ndarray, "b n"]) -> Estimate:
    """The correlation of two ranks given a third: Spearman's, of the first two's residuals."""
    mean = [draws @ x / draws.sum(axis=1) for x in ranks]

    def covariance(i: int, k: int) -> Float[np.ndarray, " b"]:
        return draws @ (ranks[i] * ranks[k]) / draws.sum(axis=1) - mean[i] * mean[k]

    xy, xz, yz = (
        ratio(covariance(i, k), np.sqrt(covariance(i, i) * covariance(k, k))) for i, k in ((0, 1), (0, 2), (1, 2))
    )
    values = ratio(xy - xz * yz, np.sqrt(np.maximum((1 - xz**2) * (1 - yz**2), 0)))
    return Estimate(float(values[0]), values[1:], len(ranks[0]))
