"""The few-shot linear probe: how well a linear classifier on image vectors does after k labelled images per class.

It sees only image vectors, and these come from the image tower, which text tuning never changes. It therefore cannot
tell text-tuned models apart: base and finetuned would get the very same items from it, and where each was probed with
draws of its own any difference is noise. It says something of image towers, each of which has a row, and what labels
are worth beside texts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax

from pcclip.errors import PcclipError
from pcclip.evaluation.protocols import PROTOCOLS

_PENALTIES = np.logspace(-1, -6, 6)
_CHUNK = 8192  # images scored at once


def probe_items(
    matrix: Float[np.ndarray, "n d"],
    tune: Int[np.ndarray, " t"],
    tune_labels: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " m"],
    test_labels: Int[np.ndarray, " m"],
    shots: int,
    seeds: Sequence[int],
    protocol: str,
) -> pd.DataFrame:
    """Classify test images by a linear classifier fitted to a few tune images, once for each seed.

    Args:
        matrix: unit image vectors; `tune` and `test` are rows of it.
        tune_labels, test_labels: their classes, numbers from 0; classes without tune images are never found.
        protocol: 'corrected' draws `shots` images of every class (fewer where a class has fewer) and fits logistic
            regression until it converges, its penalty chosen on one of the shots of each class; 'as_released' draws
            shots x classes images whatever their class, once for all seeds, and trains a linear layer for ten epochs
            (Adam, 1e-3, batches of 32), as the released code does, though on unit vectors: few images are few steps,
            after which the layer is still near where it began.

    Returns:
        The items of every seed: the columns of tasks.py (score is the class found, reference the right one) and seed.

    Raises:
        PcclipError: no tune images, fewer than one shot, or an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise PcclipError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    if not len(tune):
        raise PcclipError("a linear probe needs tune images and this set has none; leave the probe out")
    if shots < 1:
        raise PcclipError(f"shots = {shots}: a linear probe needs at least one image of each class")
    tune, tune_labels, test_labels = (np.asarray(values) for values in (tune, tune_labels, test_labels))
    classes, found = int(max(tune_labels.max(), test_labels.max(initial=0))) + 1, []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        if protocol == "corrected":
            drawn = _shots_of_each(tune_labels, shots, rng)
            weights = _logistic(matrix[tune[drawn]], tune_labels[drawn], classes)
        else:
            drawn = np.random.default_rng(seeds[0]).permutation(len(tune))[: shots * classes]
            weights = _adam(matrix[tune[drawn]], tune_labels[drawn], classes, seed)
        found.append(_items(matrix, test, test_labels, weights).assign(seed=seed))
    return pd.concat(found, ignore_index=True)


def _shots_of_each(labels: Int[np.ndarray, " t"], shots: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Positions of at most `shots` images of each class, all first shots first, then all second ones."""
    order = rng.permutation(len(labels))
    shot = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return order[np.argsort(shot, kind="stable")][: int((shot < shots).sum())]


def _logistic(x: Float[np.ndarray, "k d"], y: Int[np.ndarray, " k"], classes: int) -> Float[np.ndarray, "d1 c"]:
    """Multinomial logistic regression; the penalty is the one that predicts the last shot of each class best."""
    shot = pd.Series(y).groupby(y).cumcount()
    held = ((shot == shot.groupby(y).transform("max")) & (shot > 0)).to_numpy()
    best, start = _PENALTIES[len(_PENALTIES) // 2], None
    if held.any():
        losses = []
        for penalty in _PENALTIES:  # from strong to weak, each from where the last one ended
            start = _fit(x[~held], y[~held], classes, penalty, start)
            losses.append(-log_softmax(_logits(x[held], start), axis=1)[np.arange(held.sum()), y[held]].mean())
        best = _PENALTIES[int(np.argmin(losses))]
    return _fit(x, y, classes, best, start)


def _fit(x, y, classes: int, penalty: float, start: np.ndarray | None) -> Float[np.ndarray, "d1 c"]:
    """Minimise mean cross-entropy + penalty / 2 x squared weights; the last row is the intercepts, not penalised."""
    x, right = x.astype(np.float64), np.eye(classes)[y]

    def loss(flat):
        weights = flat.reshape(x.shape[1] + 1, classes)
        log_p = log_softmax(_logits(x, weights), axis=1)
        gap = (np.exp(log_p) - right) / len(x)
        slope = np.vstack([x.T @ gap + penalty * weights[:-1], gap.sum(axis=0)])
        return -(right * log_p).sum() / len(x) + penalty / 2 * (weights[:-1] ** 2).sum(), slope.ravel()

    start = np.zeros((x.shape[1] + 1, classes)) if start is None else start
    return minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x.reshape(start.shape)


def _adam(x, y, classes: int, seed: int) -> Float[np.ndarray, "d1 c"]:
    """The released recipe: torch's linear layer, Adam 1e-3, ten epochs of batches of 32."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
        for _ in range(10):
            for batch in torch.randperm(len(x)).split(32):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(x[batch]), y[batch]).backward()
                optimizer.step()
    return np.vstack([layer.weight.detach().numpy().T, layer.bias.detach().numpy()])


def _items(matrix, rows, labels, weights) -> pd.DataFrame:
    """Each image's class, the images a chunk at a time."""
    found = [_logits(matrix[rows[k : k + _CHUNK]], weights).argmax(axis=1) for k in range(0, len(rows), _CHUNK)]
    found = np.concatenate(found) if found else np.zeros(0, dtype=int)
    return pd.DataFrame(
        {
            "first": rows,
            "second": rows,
            "score": found.astype(float),
            "reference": labels.astype(float),
            "correct": found == labels,
        }
    )


def _logits(x, weights):
    return x @ weights[:-1] + weights[-1]
