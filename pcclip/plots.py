"""The figures and result tables that several notebooks share, in one seaborn style.

Each figure is a function of a table and returns a matplotlib figure; other modules compute the tables. Figures are WIDTH
inches wide, made of small panels with a line of names above them in the colours of what they name. Models and splits
have the same colours everywhere.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

WIDTH = 9.0  # inches of every figure
MODELS = {"base": "#77848f", "finetuned": "#d1495b"}
_SPLITS = {"train": "#2e86ab", "held_out": "#e08e1b"}
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
_WORDS = {  # of tables' names that are no words
    "structures": "",
    "llm": "sentences of 01",
    "template": "template sentences",
    "one_sided": "one text",
    "antisymmetric": "text minus twin",
    "two_prompt": "two prompts",
    "ensemble": "many prompts",
    "in_batch_accuracy": "in-batch accuracy",
    "loss": "loss: weighted sum of all terms",
    "train": "training",
    "infonce": "objective: InfoNCE",
    "mse": "objective: MSE",
    "zero_shot_accuracy": "zero-shot accuracy",
}
UNITS = {  # of a source's true values
    "stamps/body mass": "kg",
    "stamps/top speed": "km/h",
    "stamps/lifespan": "years",
    "stamps/gestation": "days",
    "stamps/sleep": "hours a day",
    "stamps/energy": "kcal in 100 g",
}


def style() -> None:
    """Set the look of every figure and the width of tables' texts; call once per notebook."""
    layout = {"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.titlelocation": "left"}
    spines = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85, rc=layout | spines)
    pd.set_option("display.max_colwidth", None)


# ---- notebooks 01 to 03 ----------------------------------------------------------------------------------------------


def image_set(table: pd.DataFrame) -> Figure:
    """Number of training and held-out images of each label (columns label, split)."""
    table = table.assign(label=table.label.fillna("(no label)").map(escaped))
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values().index]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.25 * len(counts) + 1.2))
    splits = [split for split in _SPLITS if split in counts]
    counts[splits].rename(columns=words).plot.barh(
        stacked=True, color=[_SPLITS[split] for split in splits], width=0.8, ax=ax, legend=False
    )
    ax.set(xlabel="images", ylabel="", title="Images by label")
    names_above(fig)
    return finished(fig)


def filter_yield(table: pd.DataFrame) -> Figure:
    """Fraction of the sentences left after each rule (a table of comparisons.filters.yield_table)."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.28 * len(table) + 1.2))
    ax.barh(table.rule.map(words), table.share_left, color=_SPLITS["train"])
    for row, (share_left, dropped) in enumerate(zip(table.share_left, table.dropped, strict=True)):
        ax.text(share_left + 0.01, row, f"drops {dropped}", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, 1.12), xlabel="share of the sentences left after the rule", title="What each rule leaves")
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
    return heat_map(totals / pairs, names, names, "Mean cosine between photos of two labels")


def heat_map(matrix: ArrayLike, rows: Iterable[str], columns: Iterable[Any], title: str, centre: float = 0.0) -> Figure:
    """A matrix (n, m) with its numbers, red above `centre` and blue below; rows are named by at most 60 letters."""
    table = pd.DataFrame(np.asarray(matrix), columns=[escaped(str(name)) for name in columns])
    fig, ax = plt.subplots(figsize=(WIDTH, 0.36 * len(table) + 1.8))
    sns.heatmap(
        table,
        cmap="vlag",
        center=centre,
        annot=True,
        fmt=".2f",
        annot_kws={"size": 8},
        cbar=False,
        ax=ax,
        yticklabels=False,
    )  # seaborn would first draw the names upright, which leaves no room
    ax.set_yticks(np.arange(len(table)) + 0.5, [escaped(shorten(row, 60, placeholder=" …")) for row in rows])
    ax.set(title=title)
    return finished(fig)


def curves(curve: pd.DataFrame) -> Figure:
    """Training and held-out curves, a panel for each metric (columns step, split, metric, value)."""
    colours = {words(split): colour for split, colour in _SPLITS.items()}
    table = curve.assign(panel=curve.metric.map(words), line=curve.split.map(words), x=curve.step)
    fig, axes = line_panels(table, colours, marker="")
    for ax in axes.values():
        ax.set_xlabel("step")
    return finished(fig)


def movement(table: pd.DataFrame) -> Figure:
    """How far finetuning moved each tensor of a tower's blocks: relative step, and fraction of its values.

    Columns layer, part, relative, share_moved, and tower if there are several (finetuning.weight_change).
    """
    towers = table.groupby("tower", sort=False) if "tower" in table else [("text", table)]
    fig, axes = plt.subplots(len(towers), 2, figsize=(WIDTH, 2.7 * len(towers)), squeeze=False)
    for (relative, share), (tower, tensors) in zip(axes, towers, strict=True):
        blocks = tensors[(tensors.layer >= 0) & (tensors.part != "other")].sort_values("layer")
        sns.stripplot(blocks, x="layer", y="relative", hue="part", ax=relative, size=4, legend=False)
        sns.stripplot(blocks, x="layer", y="share_moved", hue="part", ax=share, size=4)
        if blocks.relative.gt(0).any():
            relative.set_yscale("log")
        relative.set(title=f"{tower} tower: length of the step / length of the weights", ylabel="")
        share.set(title="share of the values that moved", ylabel="", ylim=(-0.05, 1.05))
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
    """One metric of one task: a row for each model, a column for each data set in words, `value [low, high]`.

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
    names = dict(zip(cells.column, _rows(metrics), strict=True))
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
    return table.rename(columns=names).rename_axis(index=None, columns=None)


def differences(paired: pd.DataFrame) -> pd.DataFrame:
    """Add `name` ('after - before') and `what` (task and data set in words) to the rows of stats.metrics.compare."""
    return paired.assign(name=paired.after + " - " + paired.before, what=_tasks(paired))


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of metrics or differences that a figure shows: accuracies, without those of single sentence structures."""
    structures = table.dataset.str.contains(r"/structures/\w+/")
    matrix = table.task == "specificity"  # every question against every truth, which no row of dots shows
    return table[table.metric.isin(["accuracy", "pairwise_accuracy"]) & ~structures & ~matrix]


def words(name: str) -> str:
    """A name of a table as words."""
    return _WORDS.get(name, name.replace("_", " "))


# ---- notebook 04: figures --------------------------------------------------------------------------------------------


def overview(metrics: pd.DataFrame) -> Figure:
    """A panel for each table of `tables`, a row for each data set, a dot with its 95% interval for each model.

    `metrics` has the columns that `tables` needs. The dotted line is chance, where it is the same for every data set.
    """
    if metrics.empty:
        return notice("nothing was measured")
    parts = [
        rows.assign(panel=title, row=_rows(rows), reference=_chance(rows.task.iloc[0], rows.metric.iloc[0]))
        for title, rows in _titled_tables(metrics)
    ]
    return dot_panels(pd.concat(parts), _colours(_distinct(metrics.model)))


def forest(paired: pd.DataFrame) -> Figure:
    """Differences with 95% intervals, a panel for each metric; a dot is hollow if p after Holm's adjustment >= 0.05.

    `paired` is a table of stats.metrics.compare.
    """
    paired = differences(paired)
    metrics = _distinct(paired.metric) or ["nothing was compared"]
    heights = [0.26 * max(1, (paired.metric == metric).sum()) + 0.9 for metric in metrics]
    fig, axes = plt.subplots(len(metrics), 1, figsize=(WIDTH, sum(heights)), squeeze=False, height_ratios=heights)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        rows = paired[paired.metric == metric].reset_index(drop=True)
        hollow = rows.p_holm >= 0.05
        for part, colour, face in (
            (rows[~hollow], MODELS["finetuned"], MODELS["finetuned"]),
            (rows[hollow], MODELS["base"], "white"),
        ):
            spread = bars(part, "difference")
            ax.errorbar(part.difference, part.index, xerr=spread, fmt="o", ms=5, color=colour, capsize=2, mfc=face)
        ax.axvline(0, **DOTTED)
        ax.set(yticks=rows.index, yticklabels=rows.what.map(escaped), ylim=(len(rows) - 0.4, -0.6))
        ax.set_title(f"{words(metric)}: {', '.join(_distinct(rows['name']))}", loc="left")
    if paired.p_holm.notna().any():
        axes[-1, 0].set_xlabel("hollow: p, adjusted by Holm, is 0.05 or more")
    return finished(fig)


def ranking(predictions: pd.DataFrame, dataset: str, captions: dict[str, str], column: str = "") -> Figure:
    """Score against the attribute's true value (log axis if they span a factor of 20), base and finetuned.

    Columns task, dataset, model, first (an image), score, reference (the true value); `captions` by image; `column`
    names the true values.
    """
    shown = (predictions.task == "ranking") & (predictions.dataset == dataset) & predictions.model.isin(list(MODELS))
    table = predictions[shown].sort_values("reference")
    positive = table.reference.min() > 0 and table.reference.max() > 20 * table.reference.min()
    labels = words(column) or "true value", UNITS.get(f"{dataset.split('/')[0]}/{words(column)}")
    table = table.assign(truth=np.log10(table.reference) if positive else table.reference)
    fig, axes = plt.subplots(1, table.model.nunique(), figsize=(WIDTH, 3.6), squeeze=False, sharex=True)
    for ax, (model, images) in zip(axes[0], table.groupby("model"), strict=True):
        sns.regplot(images, x="truth", y="score", ax=ax, color=MODELS[str(model)], scatter_kws={"s": 14}, seed=0)
        for row in images.iloc[:: max(1, len(images) // 4)].itertuples():
            caption = escaped(shorten(captions.get(row.first, "").rstrip("."), 20, placeholder=" …"))
            ax.annotate(caption, (row.truth, row.score), (3, 3), textcoords="offset points", fontsize=8)
        ax.set(title=model, ylabel="score on the axis", xlabel=", ".join(filter(None, labels)))
        if positive:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:g}"))
    return finished(fig)


def alpha_sweep(table: pd.DataFrame) -> Figure:
    """Accuracy against alpha: a panel for each data set, a line for each model, a ring where `chosen` is true.

    Columns dataset, model, alpha, value, chosen.
    """
    table = table.assign(panel=table.dataset, line=table.model, x=table.alpha)
    fig, axes = line_panels(table, _colours(_distinct(table.model)))
    for name, ax in axes.items():
        ring = table[table.chosen.astype(bool) & (table.dataset == name)]
        ax.scatter(ring.alpha, ring.value, s=70, facecolors="none", edgecolors="black", zorder=4)
        ax.set(xlabel="alpha", ylabel="accuracy")
    return finished(fig)


# ---- notebooks 05 to 07 ----------------------------------------------------------------------------------------------


def distributions(items: pd.DataFrame, measures: list[str]) -> Figure:
    """Distribution of each measure, base beside finetuned (columns measure, model, value)."""
    fig, axes = _grid(len(measures), 2, 2.4)
    for ax, measure in zip(axes, measures, strict=True):
        for model, colour in MODELS.items():
            values = items.value[(items.measure == measure) & (items.model == model)]
            if len(values):
                sns.kdeplot(values, color=colour, lw=2, warn_singular=False, label=model, ax=ax)
        ax.axvline(0, **DOTTED)
        ax.set(title=measure, xlabel="cosine", ylabel="density")
    names_above(fig)
    return finished(fig)


def scores(table: pd.DataFrame) -> Figure:
    """Histogram of the scores of all photos for each model (columns model, score)."""
    fig, axes = _grid(table.model.nunique(), 3, 2.4)
    for ax, (model, colour) in zip(axes, _only(_colours(_distinct(table.model)), table.model).items(), strict=True):
        ax.hist(table.score[table.model == model], bins=40, color=colour)
        ax.set(title=escaped(model), xlabel="score on the axis", ylabel="photos")
    return finished(fig)


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
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), sharey=True)
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
        ax.legend(fontsize=8)
    return finished(fig)


def study(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Variants of a sweep: a dot for every seed, the mean as a line (columns variant and metrics)."""
    order = _distinct(table.variant)
    fig, axes = _grid(len(metrics), 3, 0.27 * len(order) + 0.8, sharey=True)
    mean = {"errorbar": None, "linestyle": "none", "marker": "|", "markersize": 16, "color": MODELS["base"]}
    for ax, metric in zip(axes, metrics, strict=True):
        sns.pointplot(table, x=metric, y="variant", order=order, ax=ax, **mean)
        sns.stripplot(table, x=metric, y="variant", order=order, color=MODELS["finetuned"], size=4, ax=ax)
        ax.set(title=words(metric), xlabel="", ylabel="")
    return finished(fig)


# ---- parts of figures and tables -------------------------------------------------------------------------------------

DOTTED: dict[str, Any] = {"color": "black", "lw": 0.8, "ls": ":"}


def finished(fig: Figure) -> Figure:
    """The figure, closed: a notebook shows it once, where a cell returns it."""
    plt.close(fig)
    return fig


def notice(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    fig, ax = plt.subplots(figsize=(6, 0.6))
    ax.set_axis_off()
    ax.text(0, 0.5, text)
    return finished(fig)


def line_panels(
    table: pd.DataFrame, colours: Mapping[str, str], marker: str = "o", columns: int = 3
) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each value of `panel`, a line for each value of `line` over `x`, its name above the panels.

    `table` has columns panel, line, x, value, and ci_low and ci_high for shaded 95% intervals. Returns the figure and
    its axes by panel.
    """
    names = _distinct(table.panel)
    fig, axes = _grid(len(names), columns, 2.4)
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(escaped(name))
        for line, colour in _only(colours, table.line[table.panel == name]).items():
            rows = table[(table.panel == name) & (table.line == line)].sort_values("x")
            ax.plot(rows.x, rows.value, color=colour, marker=marker, ms=3.5, lw=1.2, label=escaped(line))
            if "ci_low" in rows:
                ax.fill_between(rows.x, rows.ci_low, rows.ci_high, color=colour, alpha=0.13, lw=0)
    names_above(fig)
    return fig, dict(zip(names, axes, strict=True))


def dot_panels(table: pd.DataFrame, colours: Mapping[str, str], columns: int = 2, xlabel: str = "") -> Figure:
    """A panel for each value of `panel`, a row for each value of `row`, a dot with its 95% interval for each model.

    `table` has columns panel, row, model, value, ci_low, ci_high and reference, where a dotted line is drawn. A panel
    with the rows of its left neighbour does not name them again.
    """
    panels = {str(name): rows for name, rows in table.groupby("panel", sort=False)}
    rows_of = {name: _distinct(rows.row) for name, rows in panels.items()}
    columns = min(columns, len(panels))
    most = [max(map(len, list(rows_of.values())[k : k + columns])) for k in range(0, len(panels), columns)]
    heights = [0.26 * count + 0.55 for count in most]
    size = (WIDTH, sum(heights) + 0.5)
    fig, axes = plt.subplots(
        len(heights), columns, figsize=size, squeeze=False, height_ratios=heights, sharex=bool(xlabel)
    )
    left: list[str] = []
    for k, (ax, (name, rows)) in enumerate(zip(used(axes, len(panels)), panels.items(), strict=True)):
        dots(ax, rows.set_index("row"), rows_of[name], colours)
        ax.set_ylim(most[k // columns] - 0.5, -0.5)
        if k % columns and rows_of[name] == left:
            ax.tick_params(labelleft=False)
        left, reference = rows_of[name], rows.reference.iloc[0]
        if pd.notna(reference):
            ax.axvline(reference, **DOTTED)
        ax.set_title(escaped(name), loc="left")
        ax.set_xlabel(xlabel if k >= len(panels) - columns else "")
        ax.locator_params(axis="x", nbins=6 if columns < 4 else 3)
    names_above(fig)
    return finished(fig)


def dots(ax: Axes, table: pd.DataFrame, names: list[str], colours: Mapping[str, str]) -> None:
    """Draw a row for each of `names`, the first on top, with a dot and its 95% interval for each model in `colours`.

    `table` has the names as its index, and columns model, value, ci_low, ci_high.
    """
    models = list(_only(colours, table.model))
    for k, model in enumerate(models):
        rows = table[table.model == model].reindex(names)
        y = np.arange(len(names)) + 0.6 * ((k + 0.5) / len(models) - 0.5)
        look: dict[str, Any] = {"fmt": "o", "ms": 4, "capsize": 2, "color": colours[model], "label": escaped(model)}
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


def names_above(fig: Figure, colour: str = "linecolor") -> None:
    """The names of what all panels draw in one line above them, each in its own colour unless one is given."""
    drawn: dict[str, Any] = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    look: dict[str, Any] = {"loc": "outside upper left", "ncols": 5, "labelcolor": colour, "handlelength": 1.2}
    fig.legend(list(drawn.values()), list(drawn), **look)


def escaped(text: str) -> str:
    """Text that matplotlib shows as written: an unescaped dollar sign would start a formula."""
    return text.replace("$", r"\$")


def in_words(names: Sequence[str]) -> list[str]:
    """Data sets such as 'stamps/body_mass/one_sided' as words, without the leading parts that all of them share."""
    parts = [name.split("/") for name in names]
    different = [len(set(level)) > 1 for level in zip(*parts, strict=False)]
    shared = (*different, True).index(True)
    return [", ".join(filter(None, map(words, part[min(shared, len(part) - 1) :]))) for part in parts]


def _grid(count: int, columns: int, height: float, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each `height` inches high, and their axes."""
    columns = min(count, columns) or 1
    rows = -(-count // columns) or 1
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.3), squeeze=False, **layout)
    return fig, used(axes, count)


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


def _chance(task: str, metric: str) -> float:
    """What a random order or a coin gets, 1 for a share of the supervised axis; NaN where data sets differ in it."""
    if metric == "spearman" or metric.endswith("_share"):
        return float(metric != "spearman")
    coin = task.startswith(("difference_", "verdict_", "ranking", "relative_")) and "accuracy" in metric
    return 0.5 if coin else np.nan


def _datasets(table: pd.DataFrame, names: Sequence[str] | None = None) -> list[str]:
    """Each row's data set (or its name among `names`), with its protocol if it has one."""
    protocols = table.protocol.fillna("") if "protocol" in table else [""] * len(table)
    named = table.dataset if names is None else names
    return [f"{name}, {words(protocol)}" if protocol else name for name, protocol in zip(named, protocols, strict=True)]


def _rows(table: pd.DataFrame) -> list[str]:
    """Each row's data set in words, with its protocol."""
    return _datasets(table, in_words(list(table.dataset)))


def _tasks(table: pd.DataFrame) -> pd.Series:
    """Each row's task and data set in words; a ranking's data set needs no task."""
    names = [
        dataset if task == "ranking" else f"{words(task)}, {dataset}"
        for task, dataset in zip(table.task, _rows(table), strict=True)
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


def _only(colours: Mapping[str, str], models: pd.Series) -> dict[str, str]:
    """The colours of the models that are there."""
    return {model: colour for model, colour in colours.items() if (models == model).any()}
