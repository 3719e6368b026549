"""The few-shot linear probe: how well a linear classifier on image vectors does after k labelled images per class.

It sees only image vectors, and these come from the image tower, which text tuning never changes. It therefore cannot
tell text-tuned models apart: base and finetuned would get the very same items from it, and where each was probed with
draws of its own any difference is noise. It compares image towers, each of which has a row, and shows the worth of
labels beside texts.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from pcclip.evaluation.predictions import item_table

_PENALTIES = np.logspace(-1, -6, 6)  # on half the squared weights, beside the mean cross-entropy
_RELEASED_SEEDS = range(5)
Labelled = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]  # rows of the image vectors, and their classes


def probe_items(
    matrix: Float[np.ndarray, "n d"], tune: Labelled, test: Labelled, shots: int, seed: int
) -> pd.DataFrame:
    """Classify test images by logistic regression on `shots` tune images of each class (fewer where a class has fewer).

    The penalty is chosen on one of the shots of each class. Classes without tune images are never predicted.

    Args:
        matrix: unit image vectors.

    Returns:
        The items: the columns of differences.py (score is the predicted class, reference the right one).
    """
    rows, labels = tune
    order = np.random.default_rng(seed).permutation(len(labels))
    shot = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    drawn = order[np.argsort(shot, kind="stable")][: int((shot < shots).sum())]  # all first shots, then all second ones
    x, y = matrix[rows[drawn]].astype(np.float64), labels[drawn]
    if len(set(y)) == 1:
        return _items(test, np.full(len(test[0]), y[0]))
    return _items(test, _logistic(x, y).predict(matrix[test[0]].astype(np.float64)))


def released_probe_items(matrix: Float[np.ndarray, "n d"], tune: Labelled, test: Labelled, shots: int) -> pd.DataFrame:
    """The released protocol: a linear layer, ten epochs of batches of 32 (Adam, 1e-3), once for each of five seeds.

    It draws shots x classes tune images whatever their class, once for all seeds. It is trained on unit vectors here:
    few images are few steps, after which the layer is still near its beginning. Arguments and columns as in `probe_items`.
    """
    rows, labels = tune
    classes = int(max(labels.max(), np.max(test[1], initial=0))) + 1
    drawn = np.random.default_rng(_RELEASED_SEEDS[0]).permutation(len(rows))[: shots * classes]
    tables = []
    for seed in _RELEASED_SEEDS:
        weight, bias = _released_layer(matrix[rows[drawn]], labels[drawn], classes, seed)
        tables.append(_items(test, (matrix[test[0]] @ weight.T + bias).argmax(axis=1)))
    return pd.concat(tables, ignore_index=True)


def _logistic(x: Float[np.ndarray, "k d"], y: Int[np.ndarray, " k"]) -> LogisticRegression | LogisticRegressionCV:
    """Multinomial logistic regression; the penalty is the one that predicts the last shot of each class best."""
    shot = pd.Series(y).groupby(y).cumcount()
    held_out = ((shot == shot.groupby(y).transform("max")) & (shot > 0)).to_numpy()
    strengths = 1 / (_PENALTIES * len(y))
    if not held_out.any():
        return LogisticRegression(C=strengths[len(strengths) // 2], max_iter=500).fit(x, y)
    split = [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
    model = LogisticRegressionCV(
        Cs=strengths,
        cv=split,
        scoring=_mean_log_likelihood,
        max_iter=500,
        l1_ratios=(0.0,),  # no L1 penalty
        use_legacy_attributes=False,
    )
    return model.fit(x, y)


def _mean_log_likelihood(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    """Unlike scikit-learn's own score it allows classes of which no image was held out."""
    columns = np.searchsorted(model.classes_, y)
    return float(model.predict_log_proba(x)[np.arange(len(y)), columns].mean())


def _released_layer(x: np.ndarray, y: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, d) and bias (classes,) of the released recipe's layer."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        inputs, labels = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
        for _ in range(10):
            for batch in torch.randperm(len(inputs)).split(32):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(inputs[batch]), labels[batch]).backward()
                optimizer.step()
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def _items(test: Labelled, predicted: Int[np.ndarray, " m"]) -> pd.DataFrame:
    rows, labels = test
    return item_table(rows, rows, predicted, labels, predicted == labels)
