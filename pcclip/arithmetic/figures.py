"""The figures of notebook 05, in the style of pcclip.plots: each takes a table of the stage and returns the figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pcclip.arithmetic.differences import NONE
from pcclip.arithmetic.geometry import IMAGES
from pcclip.arithmetic.retrieval import RANK
from pcclip.plots import MODELS

_SHOWN = {**MODELS, IMAGES: "#3d5a80", f"{IMAGES}, finetuned": "#e9a03b"}
_HOLDS = {"yes": "#4f9d69", "no": "#d1495b", "undecided": "#9aa5b1"}
_FORMS = ("#d1495b", "#e9a03b", "#2e86ab", "#4f9d69", "#b8bec6")


def controls(
    geometry: pd.DataFrame, metrics: Sequence[str], xlabel: str, reference: float | None = None, columns: int = 1
) -> Figure:
    """A panel for each metric: the measure on top, its controls below, 95% intervals, the models beside each other."""
    metrics = [name for name in metrics if (geometry.metric == name).any()]
    if not metrics:
        return _told("too few images: nothing was measured")
    rows = [list(dict.fromkeys(geometry.control[geometry.metric == name])) for name in metrics]
    columns = min(columns, len(metrics))
    heights = [0.36 * max(map(len, rows[k : k + columns])) + 0.65 for k in range(0, len(rows), columns)]
    fig, axes = plt.subplots(
        len(heights),
        columns,
        figsize=(7.4 if columns == 1 else 2.6 * columns + 2.4, sum(heights) + 0.5),
        squeeze=False,
        sharex=True,
        height_ratios=heights,
    )
    for ax in axes.flat[len(metrics) :]:
        ax.set_axis_off()
    for place, (ax, metric, names) in enumerate(zip(axes.flat, metrics, rows, strict=False)):
        part = geometry[(geometry.metric == metric) & geometry.model.isin(list(_SHOWN))]
        models = [model for model in _SHOWN if (part.model == model).any()]
        for k, model in enumerate(models):
            own = part[part.model == model].set_index("control").reindex(names)
            y = np.arange(len(names)) + (k - (len(models) - 1) / 2) * 0.26
            spread = np.nan_to_num(np.maximum(0, [own.value - own.ci_low, own.ci_high - own.value]))
            ax.errorbar(own.value, y, xerr=spread, fmt="o", ms=5, color=_SHOWN[model], label=model, capsize=3)
        if reference is not None:
            ax.axvline(reference, color="black", lw=0.8, ls=":")
        told = ["measured" if name == NONE else name for name in names]
        again = place % columns and names == rows[place - 1]
        ax.set(yticks=range(len(names)), yticklabels=[] if again else told, ylim=(len(names) - 0.5, -0.5))
        ax.set_title(metric, loc="left", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    _one_legend(fig, axes.flat)
    return _done(fig)


def spectra(table: pd.DataFrame) -> Figure:
    """Share of the variance that the first components hold together: the steeper, the fewer directions are used."""
    names = [name for name in dict.fromkeys(table.what) if name != "random directions"]
    chance = table[table.what == "random directions"]
    fig, axes = plt.subplots(1, len(names), figsize=(3.1 * len(names), 3), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for model, part in table[(table.what == name) & table.model.isin(list(_SHOWN))].groupby("model", sort=False):
            ax.plot(part.component, part.share.cumsum(), color=_SHOWN[model], marker="o", ms=3, label=model)
        ax.plot(chance.component, chance.share.cumsum(), color="black", lw=0.9, ls=":", label="random directions")
        ax.set(xlabel="components", title=name, ylim=(0, 1.02))
    axes[0, 0].set_ylabel("share of the variance")
    _one_legend(fig, axes[0])
    return _done(fig)


def layers(movement: pd.DataFrame) -> Figure:
    """How far each block of the text tower moved (finetune.movement): norm of the step over norm of the weights."""
    inside = movement[(movement.layer >= 0) & (movement.relative > 0)]
    if inside.empty:
        return _told("no block of the text tower moved")
    fig, ax = plt.subplots(figsize=(7, 2.8))
    sns.stripplot(inside, x="layer", y="relative", hue="part", size=4, alpha=0.8, ax=ax)
    sns.pointplot(
        inside, x="layer", y="relative", estimator="median", errorbar=None, color="black", lw=1, markers="_", ax=ax
    )
    ax.set_yscale("log")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(ylabel="step over weights", xlabel="block of the text tower, first to last")
    ax.set_title("How far each layer moved (line: median)", loc="left", fontsize=10)
    return _done(fig)


def sweep(table: pd.DataFrame, metric: str = RANK) -> Figure:
    """What each form of step finds as alpha grows from the image alone to the text alone, a panel for each model."""
    part = table[(table.metric == metric) & table.model.isin(list(MODELS))]
    alphas, names = sorted(part.alpha.unique()), list(dict.fromkeys(part.form))
    place = {alpha: k for k, alpha in enumerate(alphas)}
    told = ["image\nalone" if a == 0 else "text\nalone" if np.isinf(a) else f"{a:g}" for a in alphas]
    models = [model for model in MODELS if (part.model == model).any()]
    fig, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.4), squeeze=False, sharey=True)
    for ax, model in zip(axes[0], models, strict=True):
        for colour, form in zip(_FORMS, names, strict=False):
            line = part[(part.model == model) & (part.form == form)].sort_values("alpha")
            x = line.alpha.map(place)
            ax.plot(x, line.value, color=colour, marker="o", ms=3.5, label=form)
            ax.fill_between(x, line.ci_low, line.ci_high, color=colour, alpha=0.13, lw=0)
        if metric == RANK:
            ax.axhline(0.5, color="black", lw=0.8, ls=":")
        ax.set(xticks=range(len(alphas)), xlabel="alpha", title=model)
        ax.set_xticklabels(told, fontsize=8)
    axes[0, 0].set_ylabel("rank of the image that was meant\n(0 first, 0.5 chance)" if metric == RANK else metric)
    _one_legend(fig, axes[0])
    return _done(fig)


def composed(table: pd.DataFrame) -> Figure:
    """Composed retrieval: recall against alpha, a panel for each set and metric, a line for each model and form."""
    table = table[table.model.isin(list(MODELS))].assign(
        panel=lambda rows: rows.dataset + ", " + rows.metric, line=lambda rows: rows.model + ", " + rows.form
    )
    if table.empty:
        return _told("no composed set in arithmetic.composed: nothing to score")
    alphas = sorted(table.alpha.unique())
    names = [f"{alpha:g}" for alpha in alphas]
    table = table.assign(at=table.alpha.map(dict(zip(alphas, names, strict=True))))
    grid = sns.relplot(
        table,
        x="at",
        y="value",
        hue="line",
        col="panel",
        col_wrap=4,
        kind="line",
        marker="o",
        height=2.6,
        aspect=1.15,
        facet_kws={"sharey": False},
    )
    grid.set_titles("{col_name}").set_axis_labels("alpha (0 image, inf text alone)", "recall")
    plt.close(grid.figure)
    return grid.figure


def calibration(table: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """How often the text of a pair is told from its swapped twin, against how sure the model was; the line is ideal."""
    fig, ax = plt.subplots(figsize=(4.4, 3.8))
    ax.plot([0.5, 1], [0.5, 1], color="black", lw=0.8, ls=":")
    for model, part in table[table.model.isin(list(MODELS))].groupby("model", sort=False):
        [error] = errors.value[(errors.metric == "calibration error, two texts") & (errors.model == model)]
        spread = np.nan_to_num(np.maximum(0, [part.accuracy - part.ci_low, part.ci_high - part.accuracy]))
        ax.errorbar(
            part.confidence,
            part.accuracy,
            yerr=spread,
            fmt="o-",
            ms=4,
            capsize=2,
            color=MODELS[model],
            label=f"{model}, error {error:.3f}",
        )
    ax.set(xlabel="how sure", ylabel="how often right", xlim=(0.48, 1.02), ylim=(min(0.4, table.ci_low.min()), 1.02))
    ax.legend(frameon=False, loc="lower right")
    return _done(fig)


def photo_map(points: pd.DataFrame, arrows: pd.DataFrame, share: float, names: int = 14) -> Figure:
    """Photos as dots by label on their first two principal components, and arrows from second to first photo."""
    labels = points.label.fillna("(no label)")
    top = list(labels.value_counts().index[:7])
    shown = points.assign(label=labels.where(labels.isin(top), "other").str.replace("$", r"\$"))
    fig, ax = plt.subplots(figsize=(8.6, 5.6))
    sns.scatterplot(shown, x="x", y="y", hue="label", s=26, alpha=0.75, lw=0, palette="muted", ax=ax)
    for row in shown.iloc[:: max(1, len(shown) // names)].itertuples():
        ax.annotate(
            row.caption[:22].replace("$", r"\$"),
            (row.x, row.y),
            fontsize=6,
            alpha=0.7,
            xytext=(3, 3),
            textcoords="offset points",
        )
    colours = {"photos": "black", **MODELS}
    for what, part in arrows.groupby("what", sort=False):
        if what in colours:
            ax.quiver(
                part.x,
                part.y,
                part.dx,
                part.dy,
                color=colours[what],
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.0045,
                alpha=0.9,
                zorder=3,
            )
            ax.plot(
                [],
                [],
                color=colours[what],
                lw=2,
                label={"photos": "where the first photo is"}.get(what, f"where f(d) of {what} points"),
            )
    ends = pd.concat([points[["x", "y"]], pd.DataFrame({"x": arrows.x + arrows.dx, "y": arrows.y + arrows.dy})])
    (left, low), (right, high) = ends.min(), ends.max()
    edge = 0.05 * max(right - left, high - low)
    ax.set(
        xlabel="first component",
        ylabel="second component",
        xlim=(left - edge, right + edge),
        ylim=(low - edge, high + edge),
    )
    ax.set_title(f"Held-out photos; the plane shows {share:.0%} of their variance", loc="left", fontsize=10)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return _done(fig)


def claims(table: pd.DataFrame) -> Figure:
    """Every claim as a dot with its interval, right of 0 where it holds; in units of half its interval's width."""
    half = ((table.ci_high - table.ci_low) / 2).clip(lower=1e-12)
    shown = table.assign(**{name: (table[name] / half).clip(-25, 25) for name in ("number", "ci_low", "ci_high")})
    if table.empty:
        return _told("no claim could be checked")
    fig, ax = plt.subplots(figsize=(8.6, 0.3 * len(table) + 1.1))
    for answer, colour in _HOLDS.items():
        part = shown[shown.holds == answer]
        spread = np.nan_to_num(np.maximum(0, [part.number - part.ci_low, part.ci_high - part.number]))
        ax.errorbar(
            part.number,
            part.index,
            xerr=spread,
            fmt="o",
            color=colour,
            capsize=3,
            label={"yes": "holds", "no": "does not hold"}.get(answer, answer),
        )
    ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.set(
        yticks=table.index,
        yticklabels=table.claim,
        ylim=(len(table) - 0.4, -0.6),
        xlabel="in half widths of its 95% interval",
    )
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0))
    return _done(fig)


def pictures(table: pd.DataFrame, decoder: str | None) -> Figure:
    """A row for each arithmetic: the photo it starts from, and what each model's vector gives, with its scores."""
    from pcclip.images import BadImage, open_image

    models, rows = list(dict.fromkeys(table.model)), list(dict.fromkeys(table.row))
    if not rows:
        return _told("no change and no composition was asked for")
    fig = plt.figure(figsize=(2.3 * (len(models) + 1), 2.75 * len(rows) + 0.5), layout="constrained")
    fig.suptitle(
        f"Decoded by {decoder}"
        if decoder
        else "No decoder at hand: these are the nearest real photos, not pictures that were made",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    for inside, row in zip(np.ravel(fig.subfigures(len(rows), 1)), rows, strict=True):
        part = table[table.row == row].set_index("model")
        what = part.what.iloc[0].replace("$", r"\$")
        inside.suptitle(what if len(what) < 110 else what[:108] + "…", fontsize=8.5, x=0.01, ha="left")
        line = inside.subplots(1, len(models) + 1)
        for ax in line:
            ax.set_axis_off()
        shown = [
            ("start", part.start.iloc[0], ""),
            *((model, part.picture[model], _scores(part.loc[model])) for model in models if model in part.index),
        ]
        for ax, (title, path, told) in zip(line, shown, strict=False):
            if not path:
                continue
            try:
                ax.imshow(open_image(path))
            except BadImage as error:
                ax.text(0.5, 0.5, str(error), ha="center", transform=ax.transAxes, fontsize=7)
            ax.set_title(f"{title}{told}", fontsize=8)
    plt.close(fig)
    return fig


def _scores(row: pd.Series) -> str:
    told = [
        f"{name} {row[key]:.2f}"
        for name, key in (("CLIPScore", "clip_score"), ("direction", "directional"))
        if pd.notna(row[key])
    ]
    return "".join(f"\n{one}" for one in told)


def _told(words: str) -> Figure:
    """A figure that says why there is none."""
    fig, ax = plt.subplots(figsize=(6, 0.6))
    ax.set_axis_off()
    ax.text(0, 0.5, words)
    return _done(fig)


def _one_legend(fig: Figure, axes: Sequence) -> None:
    lines = {}
    for ax in axes:
        lines |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(lines.values(), lines.keys(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _done(fig: Figure) -> Figure:
    fig.tight_layout()
    plt.close(fig)  # shown once, by the cell that returns it
    return fig
