"""The figures of notebook 05, in the style of pcclip.plots: each takes a table of the stage and returns the figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcclip.arithmetic.differences import IMAGES, MEASURE
from pcclip.arithmetic.retrieval import RANK
from pcclip.images import BadImage, open_image
from pcclip.plots import DOTTED, MODELS, WIDTH, bars, dot_panels, escaped, finished, line_panels, names_above, notice

_COLOURS = {**MODELS, IMAGES: "#3d5a80", f"{IMAGES}, finetuned": "#e9a03b"}
_VERDICTS = {"yes": ("holds", "#4f9d69"), "no": ("does not hold", "#d1495b"), "undecided": ("undecided", "#9aa5b1")}
_FORMS = ("#d1495b", "#e9a03b", "#2e86ab", "#4f9d69", "#b8bec6")


def controls(
    geometry: pd.DataFrame, metrics: Sequence[str], xlabel: str, reference: float | None = None, columns: int = 1
) -> Figure:
    """A panel for each metric: the measure on top and its controls below, with 95% intervals for each model."""
    table = geometry[geometry.metric.isin(metrics)]
    if table.empty:
        return notice("too few images: nothing was measured")
    table = table.assign(
        panel=pd.Categorical(table.metric, metrics), row=table.control.replace(MEASURE, "measured"), reference=reference
    )
    return dot_panels(table.sort_values("panel", kind="stable"), _COLOURS, columns, xlabel)


def sweep(table: pd.DataFrame, metric: str = RANK) -> Figure:
    """What each form of step finds as alpha grows from the image alone to the text alone, a panel for each model."""
    part = table[(table.metric == metric) & table.model.isin(list(MODELS))]
    ylabel = "rank (0 is first)" if metric == RANK else metric
    fig, axes = _over_alphas(part.assign(panel=part.model, line=part.form), ylabel, columns=2)
    for ax in axes if metric == RANK else ():
        ax.axhline(0.5, **DOTTED)
    return finished(fig)


def composed(table: pd.DataFrame) -> Figure:
    """Composed retrieval: recall against alpha, a panel for each set and metric, a line for each model and form."""
    table = table[table.model.isin(list(MODELS))]
    if table.empty:
        return notice("no composed set in arithmetic.composed: nothing to score")
    lines = table.assign(panel=table.dataset + ", " + table.metric, line=table.model + ", " + table.form)
    return finished(_over_alphas(lines, "recall", columns=3)[0])


def _over_alphas(table: pd.DataFrame, ylabel: str, columns: int) -> tuple[Figure, list[Axes]]:
    """plots.line_panels over the alphas, which are equally far from each other on the horizontal axis."""
    alphas = sorted(table.alpha.unique())
    colours = {name: _FORMS[k % len(_FORMS)] for k, name in enumerate(dict.fromkeys(table.line))}
    places = table.alpha.map({alpha: place for place, alpha in enumerate(alphas)})
    fig, axes = line_panels(table.assign(x=places), colours, columns=columns)
    names = ["image\nalone" if alpha == 0 else "text\nalone" if np.isinf(alpha) else f"{alpha:g}" for alpha in alphas]
    for ax in axes.values():
        ax.set_xticks(range(len(alphas)), names, fontsize=8)
        ax.set(xlabel="alpha: weight of the text", ylabel=ylabel)
    return fig, list(axes.values())


def claims(table: pd.DataFrame) -> Figure:
    """Every claim as a dot with its interval, in units of half the interval's width; right of 0 it holds."""
    if table.empty:
        return notice("no claim could be checked")
    half = ((table.ci_high - table.ci_low) / 2).clip(lower=1e-12)
    scaled = table.assign(**{name: (table[name] / half).clip(-25, 25) for name in ("number", "ci_low", "ci_high")})
    fig, ax = plt.subplots(figsize=(WIDTH, 0.26 * len(table) + 1.1))
    for verdict, (label, colour) in _VERDICTS.items():
        part = scaled[scaled.holds == verdict]
        ax.errorbar(
            part.number, part.index, xerr=bars(part, "number"), fmt="o", ms=5, color=colour, capsize=2, label=label
        )
    ax.axvline(0, **DOTTED)
    ax.set(yticks=table.index, yticklabels=table.claim, ylim=(len(table) - 0.4, -0.6))
    ax.set_xlabel("in half widths of its 95% interval; 25 stands for 25 or more")
    names_above(fig)
    return finished(fig)


def pictures(table: pd.DataFrame, decoder: str | None) -> Figure:
    """A row for each arithmetic: the photo it starts from and each model's picture."""
    models, numbers = list(dict.fromkeys(table.model)), list(dict.fromkeys(table.row))
    if not numbers:
        return notice("no change and no composition was asked for")
    fig = plt.figure(figsize=(WIDTH, 2.75 * len(numbers) + 0.5), layout="constrained")
    nearest = "No decoder at hand: these are the nearest real photos, not pictures that were made"
    fig.suptitle(f"Decoded by {decoder}" if decoder else nearest, fontsize=10, x=0.01, ha="left")
    for subfigure, number in zip(fig.subfigures(len(numbers), 1, squeeze=False)[:, 0], numbers, strict=True):
        part = table[table.row == number].set_index("model")
        arithmetic = escaped(part.what.iloc[0])
        short = arithmetic if len(arithmetic) < 110 else arithmetic[:108] + "…"
        subfigure.suptitle(short, fontsize=8.5, x=0.01, ha="left")
        axes = subfigure.subplots(1, len(models) + 1)
        _show_photo(axes[0], part.start.iloc[0], "start")
        for ax, model in zip(axes[1:], models, strict=True):
            row = part.loc[model] if model in part.index else None
            _show_photo(ax, "" if row is None else row.picture, "" if row is None else model)
    plt.close(fig)
    return fig


def _show_photo(ax: Axes, path: str, title: str) -> None:
    """Draw a photo, or the reason why it cannot be read; nothing for an empty path."""
    ax.set_axis_off()
    if not path:
        return
    try:
        ax.imshow(open_image(path))
    except BadImage as error:
        ax.text(0.5, 0.5, str(error), ha="center", transform=ax.transAxes, fontsize=7)
    ax.set_title(title, fontsize=8)
