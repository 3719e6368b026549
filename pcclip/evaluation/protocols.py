"""What the released code scores beside the corrected protocol: each correction in words, and both numbers."""

import pandas as pd

PROTOCOLS = ("as_released", "corrected")
SCORED_AS_RELEASED = ("difference_classification",)  # of the three ways to score a difference, the release has this one
NOTES = {  # what the name of a task or data set begins with -> what the released code does, what is done here
    "difference_classification": "Difference-based classification as released asks whether cos(v, f(d)) is above 0. Whatever all texts of "
    "differences share moves every cosine the same way, so that a constant can pass or fail a model.",
    "difference_order": "Order is the corrected form of that: a text has to beat its own twin with the sides exchanged, and such a "
    "constant cancels.",
    "difference_centred": "Centred is the other corrected form: the mean of all texts of differences is taken off each of them, and what "
    "they share goes with it.",
    "zero_shot": "Zero-shot classification as released puts the raw names of classes into the prompt (AnnualCrop, "
    "/a/airport_terminal). Corrected: readable names.",
    "extended": "Extended prompts as released have raw names and one description a class. Corrected: readable names, and the "
    "mean of all descriptions.",
    "comparative": "Comparative prompting as released takes its pairs of classes from confusions on the test set, other pairs for "
    "each model. Corrected: pairs and alpha are chosen on a split that is never scored, the same for every model.",
    "confused": "The confused classes as released are those of the test set, others for each model. Corrected: chosen on a "
    "split that is never scored, the same for every model.",
    "awa2/": "AwA2 as released gives the test animals attributes of other animals, leaves out attributes one place off, and "
    "takes the column 'small' for 'big'. Corrected: each animal's own attributes, the right columns.",
    "cifar100/size": "CIFAR-100's sizes as released have a misspelt text ('whiel'). Corrected: it is spelt right.",
    "flowers/colour": "Blue and yellow flowers as released are picked by numbers that belong to flowers of other colours. Corrected: "
    "they are picked by name.",
    "embedding_distance": "Embedding distances as released take f(d), most of which all texts of differences share. Corrected: f(d) less "
    "f of its twin.",
    "linear_probe": "The linear probe sees image vectors alone, which text tuning never changes: it cannot tell text-tuned models "
    "apart, and has a row for each image tower. As released its shots are drawn whatever their class, corrected "
    "for one class at a time.",
}


def both(metrics: pd.DataFrame) -> pd.DataFrame:
    """As released beside corrected: task, dataset, model, metric, as_released, corrected, and what is corrected.

    One row for all that was scored by both protocols; the numbers are `value [low, high]`. Where the images differ too,
    as those of the confused classes do, that is part of the correction.
    """
    keys = ["task", "dataset", "model", "metric"]
    told = metrics[metrics.protocol != ""]
    told = told.assign(
        dataset=[
            name.removesuffix(own_confusions("", which)) for name, which in zip(told.dataset, told.model, strict=True)
        ]
    )
    cells = told.assign(cell=[f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in told.itertuples()])
    table = cells.pivot(index=keys, columns="protocol", values="cell").reindex(columns=["as_released", "corrected"])
    table = table.dropna().reset_index().rename_axis(columns=None)
    return table.assign(correction=[note(row.task, row.dataset) for row in table.itertuples()])


def own_confusions(dataset: str, model: str) -> str:
    """A data set's name where its images are those of the classes that this model confuses."""
    return f"{dataset}, classes that {model} confuses"


def note(task: str, dataset: str) -> str:
    """The correction that matters for a task on a data set, in words; '' where there is none."""
    return " ".join(text for start, text in NOTES.items() if task.startswith(start) or dataset.startswith(start))
