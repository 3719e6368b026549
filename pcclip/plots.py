"""One seaborn style, one function per figure. Each returns the matplotlib figure; computing happens elsewhere."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

MODELS = {"base": "#9aa5b1", "finetuned": "#d1495b"}
_OTHERS = ("#2e86ab", "#e9a03b", "#4f9d69", "#7b5ea7", "#8d6346", "#3d5a80")  # peers, in the order they come
TABLES = {  # task -> the title of its table: the paper's first, in its order; a task that is not here follows as it is
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


def image_set(table: pd.DataFrame) -> Figure:
    """How many images of each label are trained on and held out."""
    table = table.assign(label=table.label.fillna("(no label)").map(_plain))
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values().index]
    fig, ax = plt.subplots(figsize=(7, 0.28 * len(counts) + 1.2))
    left = np.zeros(len(counts))
    for split, colour in (("train", MODELS["base"]), ("held_out", MODELS["finetuned"])):
        if split in counts:
            ax.barh(counts.index, counts[split], left=left, color=colour, label=split)
            left += counts[split].to_numpy()
    ax.set(xlabel="images", title="Images by label")
    ax.legend(frameon=False)
    return _done(fig)


def filter_yield(table: pd.DataFrame) -> Figure:
    """Share of the sentences left after each rule (comparisons.filters.yield_table)."""
    fig, ax = plt.subplots(figsize=(7, 0.32 * len(table) + 1.2))
    sns.barplot(table, y="rule", x="share_left", color=MODELS["finetuned"], ax=ax)
    for bar, dropped in zip(ax.patches, table.dropped, strict=True):
        ax.text(bar.get_width() + 0.01, bar.get_y() + bar.get_height() / 2, f"-{dropped}", va="center", fontsize=8)
    ax.set(xlim=(0, 1.1), xlabel="share of the sentences left", ylabel="", title="What each rule leaves")
    return _done(fig)


def curves(curve: pd.DataFrame) -> Figure:
    """Training and held-out curves, one panel per metric (columns step, split, metric, value)."""
    metrics = list(dict.fromkeys(curve.metric))
    fig, axes = plt.subplots(1, len(metrics), figsize=(3.4 * len(metrics), 3), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        part = curve[curve.metric == metric]
        sns.lineplot(
            part,
            x="step",
            y="value",
            hue="split",
            ax=ax,
            legend=metric == metrics[0],
            palette={"train": MODELS["base"], "held_out": MODELS["finetuned"]},
        )
        ax.set(title=metric.replace("_", " "), ylabel="")
    return _done(fig)


def intervals(table: pd.DataFrame, value: str, label: str, chance: float | None = None) -> Figure:
    """Values with 95% intervals, base beside finetuned (columns `label`, model, value, ci_low, ci_high)."""
    names = list(dict.fromkeys(table[label]))
    fig, ax = plt.subplots(figsize=(7, 0.45 * len(names) + 1.4))
    for k, (model, colour) in enumerate(MODELS.items()):
        part = table[table.model == model].set_index(label).reindex(names)
        y = np.arange(len(names)) + (k - 0.5) * 0.28
        spread = [part[value] - part.ci_low, part.ci_high - part[value]]
        ax.errorbar(part[value], y, xerr=np.maximum(0, spread), fmt="o", color=colour, label=model, capsize=3)
    if chance is not None:
        ax.axvline(chance, color="black", lw=0.8, ls=":")
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel=value)
    ax.invert_yaxis()
    ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1.0))
    return _done(fig)


def metrics(table: pd.DataFrame, metric: str, title: str) -> Figure:
    """One metric of metrics.csv for every task and dataset that has it.

    The dotted line is chance, for pairs where there are several; for a share it is the supervised axis.
    """
    part = table[table.metric == metric].copy()
    part["what"] = [
        d if t == "ranking" else f"{t.replace('_', ' ')}, {d}" for t, d in zip(part.task, part.dataset, strict=True)
    ]
    line = 0.0 if metric == "spearman" else 1.0 if metric.endswith("_share") else 0.5
    fig = intervals(part.rename(columns={"value": metric}), metric, "what", line)
    fig.axes[0].set_title(title, loc="left")
    return _done(fig)


def ranking(predictions: pd.DataFrame, dataset: str, captions: dict[str, str]) -> Figure:
    """Score against the attribute's true value (log axis when all are positive), base and finetuned."""
    shown = (predictions.task == "ranking") & (predictions.dataset == dataset) & predictions.model.isin(list(MODELS))
    part = predictions[shown].copy()
    positive = (part.reference > 0).all()
    part["truth"] = np.log10(part.reference) if positive else part.reference
    fig, axes = plt.subplots(1, part.model.nunique(), figsize=(8.4, 3.6), squeeze=False, sharex=True)
    for ax, (model, items) in zip(axes[0], part.groupby("model", sort=False), strict=True):
        sns.regplot(items, x="truth", y="score", ax=ax, color=MODELS[model], scatter_kws={"s": 14})
        for row in items.iloc[:: max(1, len(items) // 14)].itertuples():
            ax.annotate(_plain(captions.get(row.first, "")[:18]), (row.truth, row.score), fontsize=6, alpha=0.7)
        ax.set(
            title=f"{model}: {dataset}",
            ylabel="score on the axis",
            xlabel="log10 of the true value" if positive else "true value",
        )
    return _done(fig)


def scores(table: pd.DataFrame) -> Figure:
    """How the scores of all photos are spread, model by model (columns model, score)."""
    names = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 2.6), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        sns.histplot(table[table.model == name], x="score", color=_colours(names)[name], bins=40, ax=ax)
        ax.set(title=_plain(name), xlabel="score on the axis", ylabel="photos" if ax is axes[0, 0] else "")
    return _done(fig)


def distributions(items: pd.DataFrame, measures: list[str]) -> Figure:
    """Distribution of each measure, base beside finetuned (columns measure, model, value)."""
    part = items[items.measure.isin(measures) & items.model.isin(list(MODELS))]
    grid = sns.displot(
        part,
        x="value",
        hue="model",
        col="measure",
        col_wrap=2,
        kind="kde",
        fill=True,
        height=2.6,
        aspect=1.5,
        palette=MODELS,
        common_norm=False,
        facet_kws={"sharey": False},
        warn_singular=False,
    )
    grid.set_titles("{col_name}").set_axis_labels("cosine", "density")
    for ax in grid.axes.flat:
        ax.axvline(0, color="black", lw=0.8, ls=":")
    plt.close(grid.figure)
    return grid.figure


def movement(table: pd.DataFrame) -> Figure:
    """How far each tensor moved, by block of the tower (finetune.movement): relative step, and share of its values."""
    towers = table.groupby("tower", sort=False) if "tower" in table else [("text", table)]
    fig, axes = plt.subplots(len(towers), 2, figsize=(8.4, 3 * len(towers)), squeeze=False)
    for (relative, share), (tower, own) in zip(axes, towers, strict=True):
        inside = own[(own.layer >= 0) & (own.part != "other")].sort_values("layer")
        sns.stripplot(inside, x="layer", y="relative", hue="part", ax=relative, size=4)
        sns.stripplot(inside, x="layer", y="share_moved", hue="part", ax=share, size=4, legend=False)
        if inside.relative.gt(0).any():
            relative.set_yscale("log")
        relative.set(title=f"Step over weights (norms), {tower} tower", ylabel="")
        share.set(title="Share of the values that moved", ylabel="", ylim=(-0.05, 1.05))
    return _done(fig)


def weight_averaging(table: pd.DataFrame) -> Figure:
    """Accuracy against the share of the finetuned weights, one line per task (columns alpha, task, value)."""
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    sns.lineplot(table, x="alpha", y="value", hue="task", marker="o", ax=ax)
    ax.set(xlabel="alpha: 0 is the base, 1 the finetuned weights", ylabel="accuracy", title="Weight averaging")
    return _done(fig)


def study(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Variants of a sweep against each other: a dot for every seed, the mean as a bar (columns variant and metrics)."""
    order = list(dict.fromkeys(table.variant))
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.2 + 2.6 * len(metrics), 0.27 * len(order) + 1.3), squeeze=False, sharey=True
    )
    for ax, metric in zip(axes[0], metrics, strict=True):
        sns.barplot(table, x=metric, y="variant", order=order, color="#dfe4ea", errorbar=None, ax=ax)
        sns.stripplot(table, x=metric, y="variant", order=order, color=MODELS["finetuned"], size=4, ax=ax)
        values = table[metric].dropna()
        ax.set(title=metric.replace("_", " "), xlabel="", ylabel="", xlim=(values.min() - 0.05, values.max() + 0.03))
    return _done(fig)


def tables(metrics: pd.DataFrame, paired: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """Every task's table by its title, laid out as the paper's are (`paper_table`), the paper's own tables first.

    Args:
        metrics: columns task, dataset, model, metric, value, ci_low, ci_high, n; protocol where there is one.
        paired: differences as `statistics.compare` returns them; they become a row of the tables.

    Returns:
        One table for each task, or for each of its metrics where it has several.
    """
    found = {}
    for title, part in _by_table(metrics):
        same = None if paired is None else (paired.task == part.task.iloc[0]) & (paired.metric == part.metric.iloc[0])
        found[title] = paper_table(part, None if paired is None else paired[same])
    return found


def overview(metrics: pd.DataFrame) -> Figure:
    """All that `tables` has in one figure: a panel for each table, a row for each data set, a dot for each model.

    Columns as of `tables`; bars are the 95% intervals. Peers have the colours that come next.
    """
    panels, models = list(_by_table(metrics)), list(dict.fromkeys(metrics.model))
    colours, rows = _colours(models), -(-len(panels) // 2)
    sizes = [0.34 * len(dict.fromkeys(_column(part))) + 0.9 for _, part in panels] + [0.0]
    heights = [max(sizes[k : k + 2]) for k in range(0, 2 * rows, 2)]
    fig, axes = plt.subplots(rows, 2, figsize=(14, sum(heights)), squeeze=False, height_ratios=heights)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, part) in zip(axes.flat, panels, strict=False):
        column = _column(part)
        names, own = (list(dict.fromkeys(values)) for values in (column, part.model))
        y = [
            names.index(name) + 0.7 * ((own.index(model) + 0.5) / len(own) - 0.5)
            for name, model in zip(column, part.model, strict=True)
        ]
        ax.hlines(y, part.ci_low, part.ci_high, colors=[colours[model] for model in part.model])
        sns.scatterplot(x=part.value, y=y, hue=part.model, palette=colours, legend=False, ax=ax, zorder=3)
        ax.set(
            yticks=range(len(names)),
            yticklabels=map(_plain, names),
            ylim=(len(names) - 0.5, -0.5),
            xlabel="",
            ylabel="",
        )
        ax.set_title(title, loc="left")
    dots = [plt.Line2D([], [], marker="o", color=colours[model], label=_plain(model)) for model in models]
    fig.legend(handles=dots, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _done(fig)


def paper_table(metrics: pd.DataFrame, paired: pd.DataFrame | None = None) -> pd.DataFrame:
    """One metric of one task: a row for each model, a column for each data set (and protocol), `value [low, high]`.

    With `paired` a further row has the differences; a star marks those whose p value, adjusted by Holm's method, is
    below 0.05. The last row has the number of items, n. What was not measured is an empty cell.
    """
    cells = metrics.assign(
        column=_column(metrics), cell=[cell(row.value, row.ci_low, row.ci_high) for row in metrics.itertuples()]
    )
    rows, columns = (list(dict.fromkeys(cells[name])) for name in ("model", "column"))
    table = cells.pivot(index="model", columns="column", values="cell").loc[rows, columns].fillna("")
    if paired is not None and len(paired):
        change = differences(paired)
        stars = np.where(change.p_holm < 0.05, " *", "")
        told = [
            cell(row.difference, row.ci_low, row.ci_high, "+") + star
            for row, star in zip(change.itertuples(), stars, strict=True)
        ]
        for name, part in pd.Series(told, index=_column(change)).groupby(change["name"].to_numpy(), sort=False):
            table.loc[name] = part.reindex(columns).fillna("")
    table.loc["n"] = cells.groupby("column").n.first().reindex(columns).astype(str)
    return table.rename_axis(index=None, columns=None)


def forest(paired: pd.DataFrame) -> Figure:
    """Differences with 95% intervals, a panel for each metric; hollow dots: p, adjusted by Holm, is not below 0.05."""
    paired = differences(paired)
    names = list(dict.fromkeys(paired.metric)) or [None]
    heights = [0.34 * max(1, (paired.metric == name).sum()) + 0.9 for name in names]
    fig, axes = plt.subplots(len(names), 1, figsize=(7.6, sum(heights)), squeeze=False, height_ratios=heights)
    for ax, name in zip(axes[:, 0], names, strict=True):
        part = paired[paired.metric == name].reset_index(drop=True)
        doubtful = part.p_holm >= 0.05
        for rows, model, full in ((~doubtful, "finetuned", True), (doubtful, "base", False)):
            kind, colour = part[rows], MODELS[model]
            spread = np.maximum(0, [kind.difference - kind.ci_low, kind.ci_high - kind.difference])
            ax.errorbar(
                kind.difference,
                kind.index,
                xerr=spread,
                fmt="o",
                color=colour,
                capsize=3,
                mfc=colour if full else "white",
            )
        ax.axvline(0, color="black", lw=0.8, ls=":")
        ax.set(yticks=part.index, yticklabels=part.what.map(_plain), ylim=(len(part) - 0.4, -0.6))
        ax.set_title(f"{words(name or 'nothing was compared')}: {', '.join(dict.fromkeys(part['name']))}", loc="left")
    if paired.p_holm.notna().any():
        axes[-1, 0].set_xlabel("hollow: p, adjusted by Holm, is 0.05 or more")
    return _done(fig)


def alpha_sweep(table: pd.DataFrame) -> Figure:
    """Accuracy against alpha: a panel for each data set, a line for each model (columns dataset, model, alpha, value).

    Where they are given, ci_low and ci_high become bands, the `split` named tune is dashed, and `chosen`, a Boolean,
    puts a ring around the alpha that was chosen.
    """
    names, models = (list(dict.fromkeys(table[column])) for column in ("dataset", "model"))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.4 * columns + 1, 3 * rows), squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        part = table[table.dataset == name].assign(split=lambda rows: rows.get("split", ""))
        part = part.sort_values("alpha", kind="stable")
        for (model, split), line in part.groupby(["model", "split"], sort=False):
            colour = _colours(models)[model]
            ax.plot(
                line.alpha,
                line.value,
                color=colour,
                ls="--" if split == "tune" else "-",
                marker="o",
                ms=3,
                label=_plain(", ".join(filter(None, [model, split]))),
            )
            if {"ci_low", "ci_high"} <= set(line):
                ax.fill_between(line.alpha, line.ci_low, line.ci_high, color=colour, alpha=0.12, lw=0)
            if "chosen" in line:
                ring = line[line.chosen.astype(bool)]
                ax.scatter(ring.alpha, ring.value, s=70, facecolors="none", edgecolors=colour, zorder=4)
        ax.set(title=_plain(name), xlabel="alpha", ylabel="accuracy" if ax in axes[:, 0] else "")
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    fig.legend(lines.values(), lines.keys(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _done(fig)


def learning_curve(table: pd.DataFrame, references: dict[str, float] | None = None) -> Figure:
    """Pairwise accuracy against the number of votes (evaluate.learning_curve), mean and 95% interval over its seeds.

    `references` are accuracies without any votes, by name: a dotted line each.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.8))
    named = table.assign(
        prior=table.prior.map({"text": "text as the prior", "none": "votes alone"}),
        asked=table.asked.map({"next_pair": "most informative pair", "random": "random pair"}),
    )
    sns.lineplot(
        named,
        x="votes",
        y="accuracy",
        hue="prior",
        style="asked",
        errorbar=("ci", 95),
        n_boot=500,
        seed=0,
        palette=[MODELS["finetuned"], MODELS["base"]],
        hue_order=["text as the prior", "votes alone"],
        ax=ax,
    )
    for colour, (name, value) in zip(_OTHERS, (references or {}).items(), strict=False):
        ax.axhline(value, color=colour, linestyle=":", label=_plain(name))
    ax.set_xscale("symlog", linthresh=1)
    ticks = sorted(set(table.votes))
    ax.set_xticks(ticks, [str(count) for count in ticks])
    ax.set(xlabel="votes", ylabel="pairwise accuracy", title="What votes teach, on photos never voted on")
    ax.legend(frameon=False, fontsize=8)
    return _done(fig)


def differences(paired: pd.DataFrame) -> pd.DataFrame:
    """Paired differences as the figures show them, from tables of any age; the first only knew finetuned - base.

    Columns difference, before, after, p_holm (NaN where unknown), name ('after - before') and what (task and data set).
    """
    table = paired.rename(columns={"finetuned_minus_base": "difference"})
    table = table.assign(
        after=table.get("after", "finetuned"), before=table.get("before", "base"), p_holm=table.get("p_holm", np.nan)
    )
    return table.assign(name=table.after + " - " + table.before, what=_what(table))


def words(name: str) -> str:
    """A name as it is read: its underscores are spaces."""
    return name.replace("_", " ")


def label_cosines(matrix: np.ndarray, labels: pd.Series) -> Figure:
    """Mean cosine between the images of each two labels, for labels with at least two images."""
    counts = labels.value_counts()
    names = sorted(counts.index[counts >= 2])
    if not names:
        fig, ax = plt.subplots(figsize=(5, 0.6))
        ax.set_axis_off()
        ax.text(0, 0.5, "no label with two images: nothing to compare")
        return _done(fig)
    sums = np.stack([matrix[(labels == name).to_numpy()].sum(axis=0) for name in names])
    sizes = counts.reindex(names).to_numpy(dtype=float)
    totals, pairs = sums @ sums.T, np.outer(sizes, sizes)
    np.fill_diagonal(totals, np.diag(totals) - sizes)  # an image's cosine with itself says nothing
    np.fill_diagonal(pairs, np.diag(pairs) - sizes)
    fig, ax = plt.subplots(figsize=(0.5 * len(names) + 3, 0.42 * len(names) + 2))
    shown = [_plain(name) for name in names]
    sns.heatmap(
        pd.DataFrame(totals / pairs, index=shown, columns=shown),
        cmap="vlag",
        center=0,
        annot=True,
        fmt=".2f",
        annot_kws={"size": 7},
        cbar=False,
        ax=ax,
    )
    ax.set(title="Mean cosine between photos")
    return _done(fig)


def _by_table(metrics: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The titles of `tables` and the metrics of each, one metric of one task."""
    for task in sorted(dict.fromkeys(metrics.task), key=[*TABLES, *metrics.task].index):
        part = metrics[metrics.task == task]
        title, names = TABLES.get(task, words(task).capitalize()), list(dict.fromkeys(part.metric))
        for name in names:
            yield title if len(names) == 1 else f"{title}, {words(name)}", part[part.metric == name]


def _column(table: pd.DataFrame) -> list[str]:
    """The data set, and the protocol where it has one."""
    protocols = table.protocol.fillna("") if "protocol" in table else [""] * len(table)
    return [
        f"{name}, {words(protocol)}" if protocol else name
        for name, protocol in zip(table.dataset, protocols, strict=True)
    ]


def _what(table: pd.DataFrame) -> pd.Series:
    """What a row is about: task and data set; a ranking's data set says it all."""
    named = [
        name if task == "ranking" else f"{words(task)}, {name}"
        for task, name in zip(table.task, _column(table), strict=True)
    ]
    return pd.Series(named, index=table.index, dtype=str)


def cell(value: float, low: float, high: float, sign: str = "") -> str:
    """value [low, high]; without an interval the value alone."""
    if np.isnan(value):
        return ""
    return f"{value:{sign}.3f}" + ("" if np.isnan([low, high]).any() else f" [{low:{sign}.3f}, {high:{sign}.3f}]")


def _colours(models: list[str]) -> dict[str, str]:
    """MODELS' own colours, and one for each other model."""
    others = [name for name in models if name not in MODELS]
    return MODELS | {name: _OTHERS[k % len(_OTHERS)] for k, name in enumerate(others)}


def _plain(text: str) -> str:
    """Text as it is: a dollar would start mathematics."""
    return text.replace("$", r"\$")


def _done(fig: Figure) -> Figure:
    fig.tight_layout()
    plt.close(fig)  # shown once, by the cell that returns it
    return fig
