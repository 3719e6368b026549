"""A sweep: one parameter file that stands for many runs, the notebooks of each run, and the table of all metrics.

    sweep:
      grid: {seed: [0, 1, 2]}                       # every combination of these ...
      variants: {no swap: {finetune.swap: false}}   # ... with each of these named sets of changes

Runs that differ only in what 03 to 05 read share one 01 and 02; all of a sweep share the logs of answers.
"""

import itertools
import re
from copy import deepcopy
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pcclip.config import Config, check, load_yaml
from pcclip.errors import PcclipError
from pcclip.runs.files import file_digest, write_csv
from pcclip.runs.stage import Stage, read_output

FOLDER, TABLE = "07_compare", "sweep.csv"  # in a sweep's folder: what holds the manifest, and the table
NEEDS: dict[str, tuple[str, ...]] = {  # notebook -> the notebooks whose stages it builds on
    "01_generate_comparisons": (),
    "02_embed_images": (),
    "03_finetune": ("01_generate_comparisons", "02_embed_images"),
    "04_evaluate": ("03_finetune",),
    "05_analyze_embedding_arithmetic": ("03_finetune",),
}
_SHARED, _OWN = list(NEEDS)[:2], list(NEEDS)[2:]
_MOST_MEMBERS = 1_000
_LATE_BLOCKS = ("finetune", "evaluate", "arithmetic")  # 01 and 02 do not read them


class Member(NamedTuple):
    """One run of a sweep: its configuration, its variant's name and its values of the grid."""

    config: Config
    variant: str
    grid: dict[str, Any]

    @property
    def swept(self) -> bool:
        """False for the one run of a file without a sweep."""
        return bool(self.variant or self.grid)


def read_sweep(path: str | Path) -> list[Member]:
    """The runs that a parameter file stands for, one where it has no `sweep`. Raises PcclipError."""
    values = load_yaml(path)
    sweep = values.pop("sweep", None)
    base = check(values, where=str(path))
    if sweep is None:
        return [Member(base, "", {})]
    grid, variants = _grid_and_variants(sweep, path)
    size = prod(map(len, grid.values())) * len(variants)
    problems = {
        f"reuse = {base.reuse!r}: a sweep has an 01 and 02 of its own; leave reuse out": base.reuse,
        f"tuned = {base.tuned!r}: a sweep has models of its own; leave tuned or sweep out": base.tuned,
        f"sweep: {size:,} runs, and {_MOST_MEMBERS:,} are the most; use several files": size > _MOST_MEMBERS,
    }
    for problem, is_so in problems.items():
        if is_so:
            raise PcclipError(f"{path}: {problem}")
    members = []
    for point in itertools.product(*grid.values()):
        grid_values = dict(zip(grid, point, strict=True))
        for name, changes in variants.items():
            changed = deepcopy(values) | member_folders(base.run, grid_values, name, changes)
            for key, value in {**grid_values, **changes}.items():
                set_value(changed, key, value, f"{path}: sweep")
            members.append(Member(check(changed, where=f"{path}: sweep"), name, grid_values))
    if len({member.config.run for member in members}) < len(members):
        raise PcclipError(f"{path}: sweep: two members would share a folder; give every variant a name of its own")
    return members


def parents(members: list[Member]) -> list[Config]:
    """The runs whose 01 and 02 the members of a sweep share, each once."""
    shared = {member.config.reuse: member.config for member in members if member.swept and member.config.reuse}
    return [config.model_copy(update={"run": run, "reuse": None}) for run, config in shared.items()]


def planned(members: list[Member]) -> list[tuple[Config, list[str]]]:
    """Each run with its notebooks, shared 01 and 02 first. A sweep has no 05; of another run's model only 04 is run."""
    runs = [(config, _SHARED) for config in parents(members)]
    for member in members:
        notebooks = _OWN[:2] if member.swept else _OWN
        if member.config.tuned:
            notebooks = ["04_evaluate"]
        elif not member.config.reuse:
            notebooks = _SHARED + notebooks
        runs.append((member.config, notebooks))
    return runs


def collect(members: list[Member], folder: Path) -> pd.DataFrame:
    """All members' metrics.csv in one table, written to folder/sweep.csv, with a manifest.

    After metrics.csv's columns come run, variant and one for each key of the grid, `sweep.KEY` where that is taken.
    """
    tables = []
    for member in members:
        metrics = read_output(member.config.folder / "04_evaluate", "../metrics.csv")
        grid = {f"sweep.{key}" if key in metrics else key: str(value) for key, value in member.grid.items()}
        tables.append(metrics.assign(run=member.config.run, variant=member.variant, **grid))
    table = pd.concat(tables, ignore_index=True)
    inputs = {member.config.run: file_digest(member.config.folder / "metrics.csv") for member in members}
    with Stage(folder / FOLDER, inputs).work() as stage:
        write_csv(folder / TABLE, table)
        stage.finish([f"../{TABLE}"], {"runs": len(members), "rows": len(table)})
    return table


def _grid_and_variants(sweep: Any, path: str | Path) -> tuple[dict[str, list], dict[str, dict]]:
    if not isinstance(sweep, dict) or not (sweep.get("grid") or sweep.get("variants")):
        raise PcclipError(f"{path}: sweep: needs grid (key: list of values), variants (name: changes), or both")
    for key in set(sweep) - {"grid", "variants"}:
        nearest = get_close_matches(str(key), ("grid", "variants"), 1, cutoff=0)[0]
        raise PcclipError(f"{path}: sweep.{key}: unknown key; did you mean {nearest}? allowed: grid, variants")
    grid, variants = sweep.get("grid") or {}, sweep.get("variants") or {"": {}}
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise PcclipError(f"{path}: sweep.grid: every key needs a list of values")
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise PcclipError(f"{path}: sweep.variants: every name needs its changes, such as {{finetune.swap: false}}")
    if sweep.get("variants") and {"", "base"} & set(variants):
        raise PcclipError(f"{path}: sweep.variants: give every variant a name, and not 'base', the untuned model's")
    changed = [key for changes in variants.values() for key in changes]
    for key in [*grid, *changed]:
        if not isinstance(key, str) or (key not in ("seed", "model") and "." not in key):
            raise PcclipError(f"{path}: sweep: {key}: needs seed, model, or a key with its block, as in finetune.lr")
        if key in grid and key in changed:
            raise PcclipError(f"{path}: sweep: {key}: in the grid and in a variant; leave it out of one of them")
    return grid, {str(name): changes for name, changes in variants.items()}


def member_folders(run: str, grid: dict, variant: str, changes: dict) -> dict[str, str | None]:
    """`run` and `reuse` of a member: late changes get a folder below the early ones, and reuse 01 and 02 from there."""
    early = [_slug(key, value) for key, value in grid.items() if not _is_late(key)]
    late = [_slug(key, value) for key, value in grid.items() if _is_late(key)] + ([_plain(variant)] if variant else [])
    parent = "/".join([run, *early])
    return {
        "run": "/".join([parent, *late]),
        "reuse": parent if late and all(map(_is_late, changes)) else None,
    }


def _is_late(key: str) -> bool:
    return key.split(".")[0] in _LATE_BLOCKS


def set_value(values: dict, key: str, value: Any, where: str) -> None:
    *blocks, last = key.split(".")
    for block in blocks:
        values = values.setdefault(block, {})
        if not isinstance(values, dict):
            raise PcclipError(f"{where}: {key}: {block} has no keys below it")
    values[last] = value


def _slug(key: str, value: Any) -> str:
    return f"{key.split('.')[-1]}={_plain(str(value))}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", text).strip("_.-") or "x"
