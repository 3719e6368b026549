"""Compare the members of a sweep: their metrics side by side, over seeds, and against a reference."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pcclip.errors import PcclipError
from pcclip.runs.stage import changed_output, read_manifest
from pcclip.stats.metrics import holm, t_interval
from pcclip.workbook.sweep import FOLDER, TABLE

MEASURES = {  # name -> task, end of the dataset's name, metric; template sentences are the same for every variant
    "difference": ("difference_classification", "/template", "accuracy"),
    "order": ("difference_order", "/template", "accuracy"),
    "zero-shot": ("zero_shot", "", "accuracy"),
    "size, one text": ("ranking", "/body_mass/one_sided", "pairwise_accuracy"),
    "size, text minus twin": ("ranking", "/body_mass/antisymmetric", "pairwise_accuracy"),
    "size, clear pairs": ("ranking", "/body_mass/antisymmetric", "clear_pairwise_accuracy"),
    "heavier, text minus twin": ("ranking", "/heavier/antisymmetric", "pairwise_accuracy"),
}
_POWER = (0.975, 0.8)  # quantiles: a difference of their sum in standard errors is found at 5% in 80% of sweeps


def read(folder: Path) -> pd.DataFrame:
    """The sweep's table with a column `measure`, in the order of MEASURES; base models are a variant of their own.

    Raises PcclipError where the table is not there, or not as its sweep wrote it.
    """
    path, manifest = Path(folder) / TABLE, read_manifest(Path(folder) / FOLDER)
    if manifest is None or changed_output(Path(folder) / FOLDER, manifest["outputs"]):
        state = (
            "changed since its sweep wrote it" if manifest and path.is_file() else "not there, or without its manifest"
        )
        raise PcclipError(
            f"{path}: {state}; run the parameter file with its `sweep` (again), e.g. params/demo_sweep.yaml"
        )
    columns = list(pd.read_csv(path, nrows=0).columns)
    keys = columns[columns.index("variant") :]  # the variant's name and, behind it, the grid's keys
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(["run", *keys], str),
        keep_default_na=False,
        na_values={name: [""] for name in ("value", "ci_low", "ci_high")},
    )
    table["variant"] = [_variant(row, keys) for row in table[keys].to_dict("records")]
    table["measure"] = [_measure(row) for row in table.itertuples()]
    table.loc[table.model == "base", "variant"] = "base"
    table = table[table.measure.notna() & table.model.isin(["base", "finetuned"])]
    table["measure"] = pd.Categorical(table.measure, [name for name in MEASURES if name in set(table.measure)])
    table["seed"] = pd.to_numeric(table["seed"]) if "seed" in table else 0
    return table.drop_duplicates(["variant", "seed", "measure"], ignore_index=True)


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each variant and seed, one column for each measure; variants in the sweep's order, base first."""
    rows = table.pivot(index=["variant", "seed"], columns="measure", values="value").reset_index()
    order = ["base", *(variant for variant in dict.fromkeys(table.variant) if variant != "base")]
    rows.columns = list(rows.columns)
    return rows.sort_values("variant", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Per variant: the mean over seeds of each measure, half its range, and how many seeds there are."""
    groups = by_seed(table).groupby("variant", sort=False)
    columns = {}
    for name in table.measure.cat.categories:
        columns[name] = groups[name].mean()
        columns[f"± {name}"] = (groups[name].max() - groups[name].min()) / 2
    return pd.DataFrame({**columns, "seeds": groups.size()})


def variation(table: pd.DataFrame) -> pd.DataFrame:
    """Two sources of variation side by side, for each variant and measure: training seeds, and test images.

    Returns variant, measure, seeds (how many), mean over seeds; seeds_low, seeds_high, the 95% t interval of that mean,
    missing for one seed; images_low, images_high, the bootstrap interval over images that a single run gives, averaged
    over the runs; and wider: 'seeds', 'images', or '' where one width is unknown. Where a seed draws the split too, the
    first interval holds some of the second's variation.
    """
    rows = []
    for variant in dict.fromkeys(by_seed(table).variant):
        for measure, runs in table[table.variant == variant].groupby("measure", observed=True):
            low, high = t_interval(runs.value)
            images_low, images_high = runs[["ci_low", "ci_high"]].mean()
            widths = {"images": images_high - images_low, "seeds": high - low}
            rows.append(
                {
                    "variant": variant,
                    "measure": measure,
                    "seeds": len(runs),
                    "mean": runs.value.to_numpy().mean(),
                    "seeds_low": low,
                    "seeds_high": high,
                    "images_low": images_low,
                    "images_high": images_high,
                    "wider": ""
                    if np.isnan(list(widths.values())).any()
                    else max(widths, key=lambda name: widths[name]),
                }
            )
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Every variant minus `reference` on the same seeds: measure, mean difference, 95% t interval, the smallest
    difference that so many seeds would show, and the t test's p value, adjusted by Holm's method for the whole table.
    Of one seed, or of equal differences, all of these but the mean are missing.

    Raises PcclipError where the sweep has no such variant.
    """
    rows = by_seed(table).set_index(["variant", "seed"])
    variants = list(dict.fromkeys(rows.index.get_level_values("variant")))
    if reference not in variants:
        raise PcclipError(f"no variant {reference!r} in this sweep; it has: {', '.join(variants)}")
    changes = []
    for variant in variants:
        change = rows.loc[variant] - rows.loc[reference]
        for name in rows.columns if variant != reference else []:
            values = change[name].dropna().to_numpy()
            low, high = t_interval(values)
            changes.append(
                {
                    "variant": variant,
                    "measure": name,
                    "minus reference": change[name].mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "seeds": len(values),
                    "detectable": stats.sem(values) * stats.t.ppf(_POWER, len(values) - 1).sum()
                    if low < high
                    else np.nan,
                    "p_holm": stats.ttest_1samp(values, 0).pvalue if low < high else np.nan,
                }
            )
    changes = pd.DataFrame(changes)
    return changes.assign(p_holm=holm(changes.p_holm)) if len(changes) else changes


def _variant(row: dict[str, str], keys: list[str]) -> str:
    """The grid's values, seeds aside, and the variant's own name."""
    parts = [f"{key.split('.')[-1]}={row[key]}" for key in keys if key not in ("variant", "seed")]
    return ", ".join([*parts, *filter(None, [row["variant"]])]) or "finetuned"


def _measure(row: Any) -> str | None:
    return next(
        (
            name
            for name, (task, end, metric) in MEASURES.items()
            if (row.task, row.metric) == (task, metric) and row.dataset.endswith(end)
        ),
        None,
    )
