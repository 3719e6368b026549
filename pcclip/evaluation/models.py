"""The models that stage 04 compares: the base, the finetuned model, weight averages of the two, and peers."""

import filecmp
from pathlib import Path
from typing import Any

import pandas as pd

from pcclip.comparisons.stage import TABLE as PAIRS
from pcclip.config import COMPARISONS, Config
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import FOLDER as EMBED, shared_inputs
from pcclip.embedding.vectors import TABLE
from pcclip.encoders import check_name, identify, load_model, saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.both_towers import BASELINE
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.runs.stage import read_manifest, read_output


def load_models(config: Config) -> dict[str, Encoder]:
    """Load every compared model by its name in the results.

    The names: 'base'; 'finetuned', whose weights are averaged with the base's by evaluate.alpha; 'alpha=A' for each A
    of evaluate.alphas; the peers; and 'captions', trained without the teacher, where finetune.sds.baseline asks for it.
    Equal image towers are held in memory once.

    Raises:
        PcclipError: 03 has not finished, or a peer was finetuned on another split and may have seen held-out images.
    """
    tuned = str(config.tuned_folder)
    if read_manifest(config.tuned_folder / FINETUNE) is None:
        raise PcclipError(f"{config.tuned_folder / FINETUNE}: not finished; run notebook 03 first")
    models = {
        "base": load_model(config.model),
        "finetuned": load_model(tuned, config.evaluate.alpha),
        **{f"alpha={alpha:g}": load_model(tuned, alpha) for alpha in config.evaluate.alphas},
    }
    for name, spec in config.evaluate.peers.items():
        _check_split(config, name, spec)
        models[name] = load_model(spec)
    if _has_baseline(config):
        models[BASELINE] = load_model(str(config.tuned_folder / FINETUNE / BASELINE), config.evaluate.alpha)
    towers: dict[str, Any] = {}
    for model in models.values():
        model.image_tower = towers.setdefault(model.image_fingerprint(), model.image_tower)
    return models


def inputs(config: Config) -> dict[str, Any]:
    """What the results depend on beside the earlier stages: identities of the peers, and whether there is a baseline."""
    return {
        "peers": {name: identify(spec) for name, spec in config.evaluate.peers.items()},
        "baseline": _has_baseline(config),
    }


def lacking(config: Config) -> list[str]:
    """One line for each peer that cannot be loaded, or that may have seen held-out images."""
    lines = []
    for name, spec in config.evaluate.peers.items():
        try:
            check_name(spec)
            identify(spec)
            _check_split(config, name, spec)
        except PcclipError as error:
            lines.append(str(error))
    return lines


def _has_baseline(config: Config) -> bool:
    return bool(config.finetune.sds and config.finetune.sds.baseline)


def _check_split(config: Config, name: str, spec: str) -> None:
    """Raise PcclipError when a peer's run had other images or another seed, and had an image that is held out here."""
    folder = saved.folder_of(spec)
    home = folder.parent if folder and not read_manifest(folder) else folder  # of a kept epoch the stage's folder
    manifest = home and read_manifest(home)
    if not home or not manifest:
        return
    own = shared_inputs(config, None)
    other = [key for key in ("images", "seed") if manifest["inputs"].get(key, own[key]) != own[key]]
    if other and (reason := _may_have_seen(load_images(config).held_out, home.parent, manifest["inputs"])):
        raise PcclipError(
            f"evaluate.peers.{name}: {spec} was finetuned with other {other[0]}, and may have seen what is held out "
            f"here ({reason}); finetune it on this run's split"
        )


def _may_have_seen(held_out: pd.DataFrame, run: Path, inputs: dict[str, Any]) -> str:
    """Why the training of the run in the folder `run` may have seen a held-out image; '' where it cannot have.

    All images of its 02 count but those of its own held-out pairs. Two images are the same when their paths are, or their ids
    and their bytes.
    """
    ours = dict(zip(held_out["id"], held_out.path, strict=True))
    for folder in (run / EMBED, run.parent / EMBED, *run.parent.glob(f"*/{EMBED}")):
        files = (read_manifest(folder) or {"outputs": {}})["outputs"]
        if files and {file: entry["sha256"] for file, entry in files.items()} == inputs.get(EMBED):
            theirs = read_output(folder, TABLE, ["id", "path"])
            theirs = theirs[~theirs["id"].isin(_held_out_pairs(folder.parent / COMPARISONS))]
            same = set(theirs.path) & set(ours.values())
            same |= {
                path for i, path in zip(theirs["id"], theirs.path, strict=True) if i in ours and _alike(ours[i], path)
            }
            return f"{min(same)} is one of its images" if same else ""
    return "its 02 is not there to tell which images it had"


def _held_out_pairs(folder: Path) -> set[str]:
    """The images of a run's held-out pairs; none where its 01 is not there."""
    if not (folder / PAIRS).is_file():
        return set()
    table = read_output(folder, PAIRS, ["split", "first", "second"])
    return {*table[["first", "second"]][table["split"] == "held_out"].to_numpy().ravel()}


def _alike(first: str, second: str) -> bool:
    """Whether two files have the same bytes; files that cannot be compared may."""
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return True
