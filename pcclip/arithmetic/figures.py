"""The figures of notebook 05, in the style of pcclip.plots: each takes a table of the stage and returns the figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcclip.arithmetic.differences import IMAGES, MEASURE
from pcclip.arithmetic.retrieval import RANK
from pcclip.images import BadImage, open_image
from pcclip.plots import DOTTED, MODELS, bars, dots, escaped, finished, notice, shared_legend, used

_COLOURS = {**MODELS, IMAGES: "#3d5a80", f"{IMAGES}, finetuned": "#e9a03b"}
_VERDICTS = {"yes": ("holds", "#4f9d69"), "no": ("does not hold", "#d1495b"), "undecided": ("undecided", "#9aa5b1")}
_FORMS = ("#d1495b", "#e9a03b", "#2e86ab", "#4f9d69", "#b8bec6")


def controls(
    geometry: pd.DataFrame, metrics: Sequence[str], xlabel: str, reference: float | None = None, columns: int = 1
) -> Figure:
    """A panel for each metric: the measure on top and its controls below, with 95% intervals for each model."""
    geometry = geometry.assign(control=geometry.control.replace(MEASURE, "measured")).set_index("control")
    panels = {metric: geometry[geometry.metric == metric] for metric in metrics if (geometry.metric == metric).any()}
    if not panels:
        return notice("too few images: nothing was measured")
    columns = min(columns, len(panels))
    sizes = [0.36 * panel.index.nunique() + 0.65 for panel in panels.values()]
    heights = [max(sizes[k : k + columns]) for k in range(0, len(sizes), columns)]
    size = (7.4 if columns == 1 else 2.6 * columns + 2.4, sum(heights) + 0.5)
    layout: dict[str, Any] = {"squeeze": False, "sharex": True, "height_ratios": heights}
    fig, axes = plt.subplots(len(heights), columns, figsize=size, **layout)
    for ax, (metric, panel) in zip(used(axes, len(panels)), panels.items(), strict=True):
        dots(ax, panel, list(dict.fromkeys(panel.index)), _COLOURS)
        if reference is not None:
            ax.axvline(reference, **DOTTED)
        ax.set_title(metric, loc="left", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    shared_legend(fig, axes.flat)
    return finished(fig)


def sweep(table: pd.DataFrame, metric: str = RANK) -> Figure:
    """What each form of step finds as alpha grows from the image alone to the text alone, a panel for each model."""
    part = table[(table.metric == metric) & table.model.isin(list(MODELS))]
    alphas, forms = sorted(part.alpha.unique()), list(dict.fromkeys(part.form))
    place = {alpha: k for k, alpha in enumerate(alphas)}
    labels = ["image\nalone" if a == 0 else "text\nalone" if np.isinf(a) else f"{a:g}" for a in alphas]
    models = [model for model in MODELS if (part.model == model).any()]
    fig, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.4), squeeze=False, sharey=True)
    for ax, model in zip(axes[0], models, strict=True):
        for colour, form in zip(_FORMS, forms, strict=False):
            line = part[(part.model == model) & (part.form == form)].sort_values("alpha")
            x = line.alpha.map(place)
            ax.plot(x, line.value, color=colour, marker="o", ms=3.5, label=form)
            ax.fill_between(x, line.ci_low, line.ci_high, color=colour, alpha=0.13, lw=0)
        if metric == RANK:
            ax.axhline(0.5, **DOTTED)
        ax.set(xticks=range(len(alphas)), xlabel="alpha", title=model)
        ax.set_xticklabels(labels, fontsize=8)
    axes[0, 0].set_ylabel("rank of the image that was meant\n(0 first, 0.5 chance)" if metric == RANK else metric)
    shared_legend(fig, axes[0])
    return finished(fig)


def composed(table: pd.DataFrame) -> Figure:
    """Composed retrieval: recall against alpha, a panel for each set and metric, a line for each model and form."""
    table = table[table.model.isin(list(MODELS))]
    if table.empty:
        return notice("no composed set in arithmetic.composed: nothing to score")
    alphas = [f"{alpha:g}" for alpha in sorted(table.alpha.unique())]
    table = table.assign(
        panel=table.dataset + ", " + table.metric,
        line=table.model + ", " + table.form,
        alpha=pd.Categorical(table.alpha.map("{:g}".format), alphas),
    )
    panels = {"col": "panel", "col_wrap": 4, "height": 2.6, "aspect": 1.15, "facet_kws": {"sharey": False}}
    grid = sns.relplot(table, x="alpha", y="value", hue="line", kind="line", marker="o", **panels)
    grid.set_titles("{col_name}").set_axis_labels("alpha (0 image, inf text alone)", "recall")
    plt.close(grid.figure)
    return grid.figure


def claims(table: pd.DataFrame) -> Figure:
    """Every claim as a dot with its interval, in units of half the interval's width; right of 0 it holds."""
    if table.empty:
        return notice("no claim could be checked")
    half = ((table.ci_high - table.ci_low) / 2).clip(lower=1e-12)
    scaled = table.assign(**{name: (table[name] / half).clip(-25, 25) for name in ("number", "ci_low", "ci_high")})
    fig, ax = plt.subplots(figsize=(8.6, 0.3 * len(table) + 1.1))
    for verdict, (label, colour) in _VERDICTS.items():
        part = scaled[scaled.holds == verdict]
        ax.errorbar(part.number, part.index, xerr=bars(part, "number"), fmt="o", color=colour, capsize=3, label=label)
    ax.axvline(0, **DOTTED)
    ax.set(yticks=table.index, yticklabels=table.claim, ylim=(len(table) - 0.4, -0.6))
    ax.set_xlabel("in half widths of its 95% interval")
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0))
    return finished(fig)


def pictures(table: pd.DataFrame, decoder: str | None) -> Figure:
    """A row for each arithmetic: the photo it starts from and each model's picture."""
    models, numbers = list(dict.fromkeys(table.model)), list(dict.fromkeys(table.row))
    if not numbers:
        return notice("no change and no composition was asked for")
    fig = plt.figure(figsize=(2.3 * (len(models) + 1), 2.75 * len(numbers) + 0.5), layout="constrained")
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
