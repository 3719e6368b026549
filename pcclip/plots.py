"""The figures and result tables that several notebooks share, in one seaborn style.

Each figure is a function of a table and returns a matplotlib figure; other modules compute the tables. Figures of the
base and the finetuned model use the colours in MODELS.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MODELS = {"base": "#9aa5b1", "finetuned": "#d1495b"}
_SPLITS = {"train": MODELS["base"], "held_out": MODELS["finetuned"]}
_PEERS = ("#2e86ab", "#e9a03b", "#4f9d69", "#7b5ea7", "#8d6346", "#3d5a80")  # colours of other models, in their order
TABLES = {  # task -> title of its table. The paper's tasks come first, in its order; tasks missing here follow.
    "difference_classification": "Difference-based classification",
    "zero_shot": "Zero-shot classification",
    "extended_prompts": "Extended prompts",
    "embedding_distance": "Embedding distances",
    "difference_order": "Order: a text beats its swapped twin",
    "ranking": "Ranking by an attribute",
    "relative_values": "Ranking public images by an attribute",
    "relative_pairs": "Pairs of public images: which has more of an attribute",
    "verdict_agreement": "Agreement with the language model's sure verdicts",
}


def style() -> None:
    """Set the look of every figure; call once per notebook."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})


# ---- notebooks 01 to 03 ----------------------------------------------------------------------------------------------


def image_set(table: pd.DataFrame) -> Figure:
    """Number of training and held-out images of each label (columns label, split)."""
    table = table.assign(label=table.label.fillna("(no label)").map(escaped))
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values().index]
    fig, ax = plt.subplots(figsize=(7, 0.28 * len(counts) + 1.2))
    splits = [split for split in _SPLITS if split in counts]
    counts[splits].plot.barh(stacked=True, color=_SPLITS, width=0.8, ax=ax)
    ax.set(xlabel="images", ylabel="", title="Images by label")
    ax.legend(frameon=False)
    return finished(fig)


def filter_yield(table: pd.DataFrame) -> Figure:
    """Fraction of the sentences left after each rule (a table of comparisons.filters.yield_table)."""
    fig, ax = plt.subplots(figsize=(7, 0.32 * len(table) + 1.2))
    sns.barplot(table, y="rule", x="share_left", color=MODELS["finetuned"], ax=ax)
    for row, (share_left, dropped) in enumerate(zip(table.share_left, table.dropped, strict=True)):
        ax.text(share_left + 0.01, row, f"-{dropped}", va="center", fontsize=8)
    ax.set(xlim=(0, 1.1), xlabel="share of the sentences left", ylabel="", title="What each rule leaves")
    return finished(fig)


def label_cosines(matrix: Float[np.ndarray, "n d"], labels: pd.Series) -> Figure:
    """Mean cosine between the images of each two labels, for labels with at least two images.

    `matrix` holds the images' unit vectors, `labels` their labels in the same order.
    """
    counts = labels.value_counts()
    names = sorted(counts.index[counts >= 2])
    if not names:
        return notice("no label with two images: nothing to compare")
    sums = np.stack([matrix[(labels == name).to_numpy()].sum(axis=0) for name in names])
    sizes = counts.reindex(names).to_numpy(dtype=float)
    totals, pairs = sums @ sums.T, np.outer(sizes, sizes)
    np.fill_diagonal(totals, np.diag(totals) - sizes)  # leave out each image's cosine of 1 with itself
    np.fill_diagonal(pairs, np.diag(pairs) - sizes)
    fig, ax = plt.subplots(figsize=(0.5 * len(names) + 3, 0.42 * len(names) + 2))
    shown = [escaped(name) for name in names]
    cosines = pd.DataFrame(totals / pairs, index=shown, columns=shown)
    sns.heatmap(cosines, cmap="vlag", center=0, annot=True, fmt=".2f", annot_kws={"size": 7}, cbar=False, ax=ax)
    ax.set(title="Mean cosine between photos")
    return finished(fig)


def curves(curve: pd.DataFrame) -> Figure:
    """Training and held-out curves, a panel for each metric (columns step, split, metric, value)."""
    curve = curve.assign(metric=curve.metric.map(words))
    return _grid(sns.relplot(curve, x="step", y="value", hue="split", palette=_SPLITS, kind="line", **_PANELS), "")


def movement(table: pd.DataFrame) -> Figure:
    """How far finetuning moved each tensor of a tower's blocks: relative step, and fraction of its values.

    Columns layer, part, relative, share_moved, and tower if there are several (finetuning.weight_change).
    """
    towers = table.groupby("tower", sort=False) if "tower" in table else [("text", table)]
    fig, axes = plt.subplots(len(towers), 2, figsize=(8.4, 3 * len(towers)), squeeze=False)
    for (relative, share), (tower, tensors) in zip(axes, towers, strict=True):
        blocks = tensors[(tensors.layer >= 0) & (tensors.part != "other")].sort_values("layer")
        sns.stripplot(blocks, x="layer", y="relative", hue="part", ax=relative, size=4)
        sns.stripplot(blocks, x="layer", y="share_moved", hue="part", ax=share, size=4, legend=False)
        if blocks.relative.gt(0).any():
            relative.set_yscale("log")
        relative.set(title=f"Step over weights (norms), {tower} tower", ylabel="")
        share.set(title="Share of the values that moved", ylabel="", ylim=(-0.05, 1.05))
    return finished(fig)


# ---- notebook 04: result tables --------------------------------------------------------------------------------------


def tables(metrics: pd.DataFrame, paired: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """Every task's table by its title, laid out as the paper's are (`paper_table`), the paper's own tables first.

    Args:
        metrics: columns task, dataset, model, metric, value, ci_low, ci_high, n, and optionally protocol.
        paired: differences between models, as stats.metrics.compare returns them; they become rows of the tables.

    Returns:
        A table for each task, or for each metric of a task that has several.
    """
    titled = {}
    for title, rows in _titled_tables(metrics):
        task, metric = rows.task.iloc[0], rows.metric.iloc[0]
        differences = None if paired is None else paired[(paired.task == task) & (paired.metric == metric)]
        titled[title] = paper_table(rows, differences)
    return titled


def paper_table(metrics: pd.DataFrame, paired: pd.DataFrame | None = None) -> pd.DataFrame:
    """One metric of one task: a row for each model, a column for each data set (and protocol), `value [low, high]`.

    `tied` follows where a model cannot be told apart from the best of its column. `paired` adds a row of differences
    for each two models compared, in which a star marks a p value below 0.05 after Holm's adjustment, and a row of the
    smallest difference that the items would show. The last row is the number of items. A cell without a measurement is
    empty.
    """
    cells = metrics.assign(column=_datasets(metrics), cell=_cells(metrics, "value"))
    if "tied" in cells:
        cells.loc[cells.tied.astype(bool), "cell"] += " tied"
    rows, columns = _distinct(cells.model), _distinct(cells.column)
    table = cells.pivot(index="model", columns="column", values="cell").loc[rows, columns].fillna("")
    if paired is not None and len(paired):
        change = differences(paired).assign(column=_datasets(paired), cell=_cells(paired, "difference", "+"))
        change.loc[change.p_holm < 0.05, "cell"] += " *"
        for name, part in change.groupby("name", sort=False):
            by_column = part.set_index("column").reindex(columns)
            table.loc[name] = by_column.cell.fillna("")
            if "detectable" in part:
                detectable = by_column.detectable.map("{:.3f}".format, na_action="ignore").fillna("")
                table.loc[f"{name}, detectable"] = detectable
    table.loc["n"] = cells.groupby("column").n.first().reindex(columns).astype(str)
    return table.rename_axis(index=None, columns=None)


def differences(paired: pd.DataFrame) -> pd.DataFrame:
    """Add `name` ('after - before') and `what` (task and data set) to the rows of stats.metrics.compare."""
    return paired.assign(name=paired.after + " - " + paired.before, what=_tasks(paired))


def words(name: str) -> str:
    """A name of a table with spaces for its underscores."""
    return name.replace("_", " ")


# ---- notebook 04: figures --------------------------------------------------------------------------------------------


def metrics(table: pd.DataFrame, metric: str, title: str) -> Figure:
    """One metric of metrics.csv with 95% intervals: a row for each task and data set, base beside finetuned.

    The dotted line is chance; for a share it is 1, the supervised axis.
    """
    table = table[table.metric == metric]
    table = table.set_index(_tasks(table))
    names = _distinct(table.index)
    if not names:
        return notice(f"no {words(metric)} here")
    fig, ax = plt.subplots(figsize=(7, 0.45 * len(names) + 1.4))
    dots(ax, table, names, MODELS)
    ax.axvline(0.0 if metric == "spearman" else 1.0 if metric.endswith("_share") else 0.5, **DOTTED)
    ax.set_xlabel(metric)
    ax.set_title(title, loc="left")
    ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1.0))
    return finished(fig)


def overview(metrics: pd.DataFrame) -> Figure:
    """All results of `tables` but specificity: a panel for each table, a row for each data set, a dot for each model.

    `metrics` has the columns that `tables` needs; bars are the 95% intervals.
    """
    metrics = metrics[metrics.task != "specificity"]  # every question against every truth: a matrix, no row of dots
    panels, colours = list(_titled_tables(metrics)), _colours(_distinct(metrics.model))
    sizes = [0.34 * rows.dataset.nunique() + 0.9 for _, rows in panels]
    heights = [max(sizes[k : k + 2]) for k in range(0, len(sizes), 2)]
    fig, axes = plt.subplots(len(heights), 2, figsize=(14, sum(heights)), squeeze=False, height_ratios=heights)
    for ax, (title, rows) in zip(used(axes, len(panels)), panels, strict=True):
        rows = rows.set_index(pd.Index(_datasets(rows)))
        dots(ax, rows, _distinct(rows.index), colours)
        ax.set_title(title, loc="left")
    shared_legend(fig, axes.flat)
    return finished(fig)


def forest(paired: pd.DataFrame) -> Figure:
    """Differences with 95% intervals, a panel for each metric; a dot is hollow if p after Holm's adjustment >= 0.05.

    `paired` is a table of stats.metrics.compare.
    """
    paired = differences(paired)
    metrics = _distinct(paired.metric) or ["nothing was compared"]
    heights = [0.34 * max(1, (paired.metric == metric).sum()) + 0.9 for metric in metrics]
    fig, axes = plt.subplots(len(metrics), 1, figsize=(7.6, sum(heights)), squeeze=False, height_ratios=heights)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        rows = paired[paired.metric == metric].reset_index(drop=True)
        hollow = rows.p_holm >= 0.05
        for part, colour, face in (
            (rows[~hollow], MODELS["finetuned"], MODELS["finetuned"]),
            (rows[hollow], MODELS["base"], "white"),
        ):
            spread = bars(part, "difference")
            ax.errorbar(part.difference, part.index, xerr=spread, fmt="o", color=colour, capsize=3, mfc=face)
        ax.axvline(0, **DOTTED)
        ax.set(yticks=rows.index, yticklabels=rows.what.map(escaped), ylim=(len(rows) - 0.4, -0.6))
        ax.set_title(f"{words(metric)}: {', '.join(_distinct(rows['name']))}", loc="left")
    if paired.p_holm.notna().any():
        axes[-1, 0].set_xlabel("hollow: p, adjusted by Holm, is 0.05 or more")
    return finished(fig)


def ranking(predictions: pd.DataFrame, dataset: str, captions: dict[str, str]) -> Figure:
    """Score against the attribute's true value (log axis if all are positive), base and finetuned.

    Columns task, dataset, model, first (an image), score, reference (the true value); `captions` by image.
    """
    shown = (predictions.task == "ranking") & (predictions.dataset == dataset) & predictions.model.isin(list(MODELS))
    table = predictions[shown]
    positive = (table.reference > 0).all()
    table = table.assign(truth=np.log10(table.reference) if positive else table.reference)
    fig, axes = plt.subplots(1, table.model.nunique(), figsize=(8.4, 3.6), squeeze=False, sharex=True)
    for ax, (model, images) in zip(axes[0], table.groupby("model", sort=False), strict=True):
        sns.regplot(images, x="truth", y="score", ax=ax, color=MODELS[model], scatter_kws={"s": 14})
        for row in images.iloc[:: max(1, len(images) // 14)].itertuples():
            caption = escaped(captions.get(row.first, "")[:18])
            ax.annotate(caption, (row.truth, row.score), fontsize=6, alpha=0.7)
        xlabel = "log10 of the true value" if positive else "true value"
        ax.set(title=f"{model}: {dataset}", ylabel="score on the axis", xlabel=xlabel)
    return finished(fig)


def alpha_sweep(table: pd.DataFrame) -> Figure:
    """Accuracy against alpha: a panel for each data set, a line for each model, a ring where `chosen` is true.

    Columns dataset, model, alpha, value, chosen.
    """
    table = table.assign(dataset=table.dataset.map(escaped), model=table.model.map(escaped))
    lines = {"x": "alpha", "y": "value", "hue": "model", "palette": _colours(_distinct(table.model))}
    grid = sns.relplot(table, kind="line", marker="o", errorbar=None, col="dataset", col_wrap=3, height=3, **lines)
    for name, ax in grid.axes_dict.items():
        ring = table[table.chosen.astype(bool) & (table.dataset == name)]
        ax.scatter(ring.alpha, ring.value, s=70, facecolors="none", edgecolors="black", zorder=4)
    return _grid(grid, "accuracy")


# ---- notebooks 05 to 07 ----------------------------------------------------------------------------------------------


def distributions(items: pd.DataFrame, measures: list[str]) -> Figure:
    """Distribution of each measure, base beside finetuned (columns measure, model, value)."""
    rows = items[items.measure.isin(measures) & items.model.isin(list(MODELS))]
    shape = {"kind": "kde", "fill": True, "common_norm": False, "warn_singular": False}
    panels = {"col": "measure", "col_wrap": 2, "height": 2.6, "aspect": 1.5, "facet_kws": {"sharey": False}}
    grid = sns.displot(rows, x="value", hue="model", palette=MODELS, **shape, **panels)
    grid.refline(x=0, **DOTTED).set_axis_labels("cosine")
    return _grid(grid, "density")


def scores(table: pd.DataFrame) -> Figure:
    """Histogram of the scores of all photos for each model (columns model, score)."""
    colours = {"hue": "model", "palette": _colours(_distinct(table.model)), "legend": False}
    grid = sns.displot(table, x="score", col="model", bins=40, height=2.6, aspect=1.6, **colours)
    return _grid(grid.set_axis_labels("score on the axis"), "photos")


def learning_curve(table: pd.DataFrame, references: dict[str, float] | None = None) -> Figure:
    """Pairwise accuracy against the number of votes: mean and 95% interval over seeds (ranking.learning_curve).

    `references` are accuracies without any votes, by name: a dotted line each.
    """
    table = table.assign(
        prior=table.prior.map({"text": "text as the prior", "none": "votes alone"}),
        asked=table.asked.map({"next_pair": "most informative pair", "random": "random pair"}),
    )
    colours = {"text as the prior": MODELS["finetuned"], "votes alone": MODELS["base"]}
    resampling = {"errorbar": ("ci", 95), "n_boot": 500, "seed": 0}
    fig, axes = plt.subplots(1, 2, figsize=(10.4, 3.8), sharey=True)
    ticks = sorted(set(table.votes))
    titles = {"voted": "What votes teach on the photos voted on", "other": "... and on photos never voted on"}
    for ax, (photos, title) in zip(axes, titles.items(), strict=True):
        judged = table[table.photos == photos]
        sns.lineplot(judged, x="votes", y="accuracy", hue="prior", style="asked", palette=colours, ax=ax, **resampling)
        for colour, (name, value) in zip(_PEERS, (references or {}).items(), strict=False):
            ax.axhline(value, color=colour, linestyle=":", label=escaped(name))
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks(ticks, [str(count) for count in ticks])
        ax.set(xlabel="votes", ylabel="pairwise accuracy", title=title)
        ax.legend(frameon=False, fontsize=8)
    return finished(fig)


def study(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Variants of a sweep: a dot for every seed, the mean as a bar (columns variant and metrics)."""
    order = _distinct(table.variant)
    size = (2.2 + 2.6 * len(metrics), 0.27 * len(order) + 1.3)
    fig, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, sharey=True)
    for ax, metric in zip(axes[0], metrics, strict=True):
        sns.barplot(table, x=metric, y="variant", order=order, color="#dfe4ea", errorbar=None, ax=ax)
        sns.stripplot(table, x=metric, y="variant", order=order, color=MODELS["finetuned"], size=4, ax=ax)
        values = table[metric].dropna()
        ax.set(title=words(metric), xlabel="", ylabel="", xlim=(values.min() - 0.05, values.max() + 0.03))
    return finished(fig)


# ---- parts of figures and tables -------------------------------------------------------------------------------------

DOTTED: dict[str, Any] = {"color": "black", "lw": 0.8, "ls": ":"}
_PANELS: dict[str, Any] = {"col": "metric", "height": 3, "aspect": 1.1, "facet_kws": {"sharey": False}}


def finished(fig: Figure) -> Figure:
    """The figure, laid out and closed: a notebook shows it once, where a cell returns it."""
    fig.tight_layout()
    plt.close(fig)
    return fig


def notice(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    fig, ax = plt.subplots(figsize=(6, 0.6))
    ax.set_axis_off()
    ax.text(0, 0.5, text)
    return finished(fig)


def dots(ax: Axes, table: pd.DataFrame, names: list[str], colours: dict[str, str]) -> None:
    """Draw a row for each of `names`, the first on top, with a dot and its 95% interval for each model in `colours`.

    `table` has the names as its index, and columns model, value, ci_low, ci_high.
    """
    models = [model for model in colours if (table.model == model).any()]
    for k, model in enumerate(models):
        rows = table[table.model == model].reindex(names)
        y = np.arange(len(names)) + 0.6 * ((k + 0.5) / len(models) - 0.5)
        look: dict[str, Any] = {"fmt": "o", "ms": 5, "capsize": 3, "color": colours[model], "label": escaped(model)}
        ax.errorbar(rows.value, y, xerr=bars(rows, "value"), **look)
    ax.set(yticks=range(len(names)), yticklabels=[escaped(name) for name in names], ylim=(len(names) - 0.5, -0.5))


def used(axes: np.ndarray, count: int) -> list[Axes]:
    """The first `count` axes of a grid; the others become invisible."""
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return list(axes.flat[:count])


def bars(table: pd.DataFrame, value: str) -> np.ndarray:
    """Lengths of the error bars from `value` down to ci_low and up to ci_high, 0 without an interval; (2, rows)."""
    return np.nan_to_num(np.maximum(0, np.array([table[value] - table.ci_low, table.ci_high - table[value]], float)))


def shared_legend(fig: Figure, axes: Iterable[Axes]) -> None:
    """One legend for several panels, beside them."""
    lines: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    fig.legend(list(lines.values()), list(lines), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def escaped(text: str) -> str:
    """Text that matplotlib shows as written: an unescaped dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _grid(grid: sns.FacetGrid, ylabel: str) -> Figure:
    """The closed figure of a grid whose panels are titled by their value alone."""
    plt.close(grid.set_titles("{col_name}").set_ylabels(ylabel).figure)
    return grid.figure


def _distinct(values: Iterable[str]) -> list[str]:
    """Distinct values in order of first appearance."""
    return list(dict.fromkeys(values))


def _titled_tables(metrics: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The title and the rows of each table: one metric of one task."""
    for task in sorted(_distinct(metrics.task), key=[*TABLES, *metrics.task].index):
        rows = metrics[metrics.task == task]
        title, names = TABLES.get(task, words(task).capitalize()), _distinct(rows.metric)
        for name in names:
            yield title if len(names) == 1 else f"{title}, {words(name)}", rows[rows.metric == name]


def _datasets(table: pd.DataFrame) -> list[str]:
    """Each row's data set, with its protocol if it has one."""
    protocols = table.protocol.fillna("") if "protocol" in table else [""] * len(table)
    return [
        f"{dataset}, {words(protocol)}" if protocol else dataset
        for dataset, protocol in zip(table.dataset, protocols, strict=True)
    ]


def _tasks(table: pd.DataFrame) -> pd.Series:
    """Each row's task and data set; a ranking's data set needs no task."""
    names = [
        dataset if task == "ranking" else f"{words(task)}, {dataset}"
        for task, dataset in zip(table.task, _datasets(table), strict=True)
    ]
    return pd.Series(names, index=table.index, dtype=str)


def _cells(table: pd.DataFrame, value: str, sign: str = "") -> list[str]:
    """Each row as `value [ci_low, ci_high]`: without an interval the value alone, without a value ''."""
    cells = []
    for number, low, high in zip(table[value], table.ci_low, table.ci_high, strict=True):
        interval = "" if np.isnan(low) or np.isnan(high) else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
        cells.append("" if np.isnan(number) else f"{number:{sign}.3f}{interval}")
    return cells


def _colours(models: list[str]) -> dict[str, str]:
    """The colours of MODELS and one for each other model."""
    peers = [model for model in models if model not in MODELS]
    return MODELS | {model: _PEERS[k % len(_PEERS)] for k, model in enumerate(peers)}
