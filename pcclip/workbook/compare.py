"""What a sweep found: its members' metrics side by side, over seeds, against one of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.errors import PcclipError
from pcclip.stats.metrics import t_interval
from pcclip.workbook.sweep import TABLE

SHOWN = [
    "difference",
    "order",
    "zero-shot",
    "size, one-sided",
    "size, antisymmetric",
    "size, clear pairs",
    "heavier, antisymmetric",
]
_MEASURES = {  # (task, end of the dataset's name, metric) -> the name shown; templates are the same for every variant
    ("difference_classification", "/template", "accuracy"): "difference",
    ("difference_order", "/template", "accuracy"): "order",
    ("zero_shot", "", "accuracy"): "zero-shot",
    ("ranking", "/body_mass/one_sided", "pairwise_accuracy"): "size, one-sided",
    ("ranking", "/body_mass/antisymmetric", "pairwise_accuracy"): "size, antisymmetric",
    ("ranking", "/body_mass/antisymmetric", "clear_pairwise_accuracy"): "size, clear pairs",
    ("ranking", "/heavier/antisymmetric", "pairwise_accuracy"): "heavier, antisymmetric",
}


def load(folder: Path) -> pd.DataFrame:
    """The sweep's table with a column `measure`, base models as a variant of their own. Raises PcclipError."""
    path = Path(folder) / TABLE
    if not path.is_file():
        raise PcclipError(f"{path}: not there; run a parameter file with a `sweep` first, e.g. params/study.yaml")
    columns = list(pd.read_csv(path, nrows=0).columns)
    names = columns[columns.index("variant") :]  # and behind it the grid's keys
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(["run", *names], str),
        keep_default_na=False,
        na_values={name: [""] for name in ("value", "ci_low", "ci_high")},
    )
    table["variant"] = [_variant(row, names) for row in table[names].to_dict("records")]
    table["measure"] = [_measure(row) for row in table.itertuples()]
    table.loc[table.model == "base", "variant"] = "base"
    table = table[table.measure.notna() & table.model.isin(["base", "finetuned"])]
    return table.assign(seed=_seeds(table)).drop_duplicates(["variant", "seed", "measure"], ignore_index=True)


def shown(table: pd.DataFrame) -> list[str]:
    """The measures that the sweep has, in the order they are shown in."""
    return [name for name in SHOWN if name in set(table.measure)]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each variant and seed, one column for each measure, in the sweep's order, base first."""
    rows = table.pivot(index=["variant", "seed"], columns="measure", values="value").reset_index()
    order = ["base", *(v for v in dict.fromkeys(table.variant) if v != "base")]
    return rows.sort_values("variant", key=lambda v: v.map(order.index), kind="stable", ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per variant: the mean over seeds of each measure, half its range, and how many seeds there are."""
    groups = wide(table).groupby("variant", sort=False)
    columns = {}
    for name in shown(table):
        columns[name] = groups[name].mean()
        columns[f"± {name}"] = (groups[name].max() - groups[name].min()) / 2
    return pd.DataFrame({**columns, "seeds": groups.size()})


def seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Two sources of variation side by side, for each variant and measure: training seeds, and test images.

    Returns variant, measure, seeds (how many), mean over seeds; seeds_low, seeds_high, the 95% t interval of that mean,
    missing for one seed; images_low, images_high, the bootstrap interval over images that a single run gives, averaged
    over the runs; and wider, which of the two is: 'seeds' or 'images'. Where a seed draws the split too, the first
    interval holds some of the second's variation; else neither holds the other's.
    """
    found, order = [], ["base", *(v for v in dict.fromkeys(table.variant) if v != "base")]
    for (variant, measure), runs in table.groupby(["variant", "measure"], sort=False):
        low, high = t_interval(runs.value)
        images = runs[["ci_low", "ci_high"]].mean()
        found.append(
            {
                "variant": variant,
                "measure": measure,
                "seeds": len(runs),
                "mean": runs.value.to_numpy().mean(),
                "seeds_low": low,
                "seeds_high": high,
                "images_low": images.ci_low,
                "images_high": images.ci_high,
                "wider": _wider(high - low, images.ci_high - images.ci_low),
            }
        )
    places = [order, SHOWN]
    return pd.DataFrame(found).sort_values(
        ["variant", "measure"], ignore_index=True, key=lambda names: names.map(places[names.name == "measure"].index)
    )


def against(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Every variant minus `reference` on the same seeds: measure, mean difference, 95% t interval. PcclipError."""
    rows = wide(table).set_index(["variant", "seed"])
    if reference not in rows.index.get_level_values("variant"):
        known = ", ".join(dict.fromkeys(table.variant))
        raise PcclipError(f"no variant {reference!r} in this sweep; it has: {known}")
    found = []
    for variant in dict.fromkeys(rows.index.get_level_values("variant")):
        change = rows.loc[variant] - rows.loc[reference]
        for name in shown(table) if variant != reference else []:
            values = change[name].dropna().to_numpy()
            low, high = t_interval(values)
            found.append(
                {
                    "variant": variant,
                    "measure": name,
                    "minus reference": change[name].mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "seeds": len(values),
                }
            )
    return pd.DataFrame(found)


def _variant(row: dict, names: list[str]) -> str:
    """The grid's values, seeds aside, and the variant's own name."""
    parts = [f"{name.split('.')[-1]}={row[name]}" for name in names if name not in ("variant", "seed")]
    return ", ".join([*parts, *filter(None, [row["variant"]])]) or "finetuned"


def _wider(seeds: float, images: float) -> str:
    """'' where one of the widths is not known."""
    return "" if np.isnan([seeds, images]).any() else "seeds" if seeds > images else "images"


def _measure(row) -> str | None:
    return next(
        (
            name
            for (task, end, metric), name in _MEASURES.items()
            if row.task == task and row.metric == metric and row.dataset.endswith(end)
        ),
        None,
    )


def _seeds(table: pd.DataFrame) -> pd.Series:
    return pd.to_numeric(table["seed"]) if "seed" in table else pd.Series(0, index=table.index)
