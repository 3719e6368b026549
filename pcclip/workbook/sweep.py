"""A sweep: one parameter file that stands for many runs, and the table of what came out of them.

    sweep:
      grid: {seed: [0, 1, 2]}                       # every combination of these ...
      variants: {no swap: {finetune.swap: false}}   # ... with each of these named sets of changes

Runs that differ only in what 03 to 05 read share one 01 and 02; all of a sweep share the journals of answers.
"""

import itertools
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.config import Config, check, load_yaml
from pcclip.errors import PcclipError
from pcclip.runs.files import atomic

TABLE = "sweep.csv"
_LATE = ("finetune", "evaluate", "arithmetic")  # blocks that 01 and 02 do not read


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its configuration, its variant's name and its values of the grid."""

    config: Config
    variant: str
    grid: dict

    @property
    def swept(self) -> bool:
        """False for the one run of a file without a sweep."""
        return bool(self.variant or self.grid)


def read_sweep(path: str | Path) -> list[Member]:
    """The runs a parameter file stands for, one when it has no `sweep`. Raises PcclipError."""
    values = load_yaml(path)
    plan = values.pop("sweep", None)
    if plan is None:
        return [Member(check(values, where=str(path)), "", {})]
    grid, variants = _plan(plan, path)
    base = check(values, where=str(path))
    if base.reuse:
        raise PcclipError(f"{path}: reuse = {base.reuse!r}: a sweep has an 01 and 02 of its own; leave reuse out")
    if base.tuned:
        raise PcclipError(f"{path}: tuned = {base.tuned!r}: a sweep has models of its own; leave tuned or sweep out")
    members = []
    for point in itertools.product(*grid.values()):
        chosen = dict(zip(grid, point, strict=True))
        for name, changes in variants.items():
            members.append(_member(values, base, chosen, name, changes, f"{path}: sweep"))
    names = [member.config.run for member in members]
    if len(set(names)) < len(names):
        raise PcclipError(f"{path}: sweep: two members would share a folder; give every variant a name of its own")
    return members


def parents(members: list[Member]) -> list[Config]:
    """The runs whose 01 and 02 the members share, each once."""
    shared = {
        m.config.reuse: m.config.model_copy(update={"run": m.config.reuse, "reuse": None})
        for m in members
        if m.swept and m.config.reuse
    }
    return list(shared.values())


def collect(members: list[Member], folder: Path) -> pd.DataFrame:
    """All members' metrics.csv in one table, written to folder/sweep.csv.

    After metrics.csv's columns come run, variant and one for each key of the grid, `sweep.KEY` where that is taken.
    """
    tables = []
    for member in members:
        metrics = pd.read_csv(member.config.folder / "metrics.csv")
        grid = {f"sweep.{key}" if key in metrics else key: str(value) for key, value in member.grid.items()}
        tables.append(metrics.assign(run=member.config.run, variant=member.variant, **grid))
    table = pd.concat(tables, ignore_index=True)
    with atomic(folder / TABLE) as temporary:
        table.to_csv(temporary, index=False)
    return table


def _plan(plan, path) -> tuple[dict[str, list], dict[str, dict]]:
    known = isinstance(plan, dict) and not set(plan) - {"grid", "variants"}
    if not known or not (plan.get("grid") or plan.get("variants")):
        raise PcclipError(f"{path}: sweep: needs grid (key: list of values), variants (name: changes), or both")
    grid, variants = plan.get("grid") or {}, plan.get("variants") or {"": {}}
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise PcclipError(f"{path}: sweep.grid: every key needs a list of values")
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise PcclipError(f"{path}: sweep.variants: every name needs its changes, such as {{finetune.swap: false}}")
    if plan.get("variants") and {"", "base"} & set(variants):
        raise PcclipError(f"{path}: sweep.variants: give every variant a name, and not 'base', the untuned model's")
    changed = [key for changes in variants.values() for key in changes]
    for key in [*grid, *changed]:
        if not isinstance(key, str) or (key not in ("seed", "model") and "." not in key):
            raise PcclipError(f"{path}: sweep: {key}: needs seed, model, or a key with its block, as in finetune.lr")
        if key in grid and key in changed:
            raise PcclipError(f"{path}: sweep: {key}: in the grid and in a variant; leave it out of one of them")
    return grid, {str(name): changes for name, changes in variants.items()}


def _member(values: dict, base: Config, grid: dict, name: str, changes: dict, where: str) -> Member:
    """Late changes go below the folder of the early ones, whose 01 and 02 they reuse."""
    everything = {**grid, **changes}
    late = {key for key in everything if key.split(".")[0] in _LATE}
    early_parts = [_slug(key, value) for key, value in grid.items() if key not in late]
    late_parts = [_slug(key, value) for key, value in grid.items() if key in late] + ([_plain(name)] if name else [])
    own_early = any(key not in late for key in changes)
    parent = "/".join([base.run, *early_parts])
    changed = deepcopy(values)
    for key, value in everything.items():
        _put(changed, key, value, where)
    changed["run"] = "/".join([parent, *late_parts])
    changed["reuse"] = parent if late_parts and not own_early else None
    return Member(check(changed, where=where), name, grid)


def _put(values: dict, key: str, value, where: str) -> None:
    *blocks, last = key.split(".")
    for block in blocks:
        values = values.setdefault(block, {})
        if not isinstance(values, dict):
            raise PcclipError(f"{where}: {key}: {block} has no keys below it")
    values[last] = value


def _slug(key: str, value) -> str:
    return f"{key.split('.')[-1]}={_plain(str(value))}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", text).strip("_.-") or "x"
