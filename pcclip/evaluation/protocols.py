"""The released code's protocol beside the corrected one: each correction in words, and both numbers."""

import pandas as pd

PROTOCOLS = ("as_released", "corrected")
SCORED_AS_RELEASED = ("difference_classification",)  # the one of the three difference tasks that the release has
NOTES = {  # how the name of a task or data set begins -> what the released code does, and the correction
    "difference_classification": "Difference-based classification as released asks whether cos(v, f(d)) is above 0. "
    "Whatever all texts of differences share moves every cosine the same way, so that a constant can pass or fail a "
    "model.",
    "difference_order": "Order is the corrected form of that: a text has to beat its own twin with the sides exchanged, "
    "and such a constant cancels.",
    "difference_centred": "Centred is the other corrected form: the mean of all texts of differences is subtracted from "
    "each of them, and with it what they share.",
    "zero_shot": "Zero-shot classification as released puts the raw names of classes into the prompt (AnnualCrop, "
    "/a/airport_terminal). Corrected: readable names.",
    "extended": "Extended prompts as released have raw names and one description a class. Corrected: readable names, "
    "and the mean of all descriptions.",
    "comparative": "Comparative prompting as released takes its pairs of classes from the finetuned model's "
    "confusions on the test set, for every model, and alpha 0.9. Corrected: the base's confusions choose the pairs and "
    "all models alpha, on a split that is never scored.",
    "awa2/": "AwA2 as released gives the test animals attributes of other animals, leaves out attributes one place off, "
    "and takes the column 'small' for 'big'. Corrected: each animal's own attributes, the right columns.",
    "cifar100/size": "CIFAR-100's sizes as released have a misspelt text ('whiel'). Corrected: it is spelt right.",
    "flowers/colour": "Blue and yellow flowers as released are picked by numbers that belong to flowers of other "
    "colours. Corrected: they are picked by name.",
    "embedding_distance": "Embedding distances as released subtract class texts of whatever length, and take f(d), most "
    "of which all texts of differences share. Corrected: unit class texts, and f(d) less f of its twin.",
}


def both(metrics: pd.DataFrame) -> pd.DataFrame:
    """As released beside corrected: task, dataset, model, metric, as_released, corrected, correction (in words).

    A row for each result that both protocols have; the numbers are `value [low, high]`.
    """
    scored = metrics[metrics.protocol != ""]
    cells = scored.assign(
        cell=[f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in scored.itertuples()]
    )
    table = cells.pivot(index=["task", "dataset", "model", "metric"], columns="protocol", values="cell")
    table = table.reindex(columns=list(PROTOCOLS)).dropna().reset_index().rename_axis(columns=None)
    return table.assign(correction=[note(row.task, row.dataset) for row in table.itertuples()])


def note(task: str, dataset: str) -> str:
    """The correction that matters for a task on a data set, in words; '' where there is none."""
    return " ".join(text for start, text in NOTES.items() if task.startswith(start) or dataset.startswith(start))
