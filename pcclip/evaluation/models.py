"""The models that stage 04 compares: the base, the finetuned model, weight averages of the two, and peers."""

from typing import Any

from pcclip.config import Config
from pcclip.embedding.stage import shared_inputs
from pcclip.encoders import identify, load_model, saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.both_towers import BASELINE
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.runs.stage import read_manifest


def load_models(config: Config) -> dict[str, Encoder]:
    """Load every compared model by its name in the results.

    The names: 'base'; 'finetuned', whose weights are averaged with the base's by evaluate.alpha; 'alpha=A' for each A
    of evaluate.alphas; the peers; and 'captions', trained without the teacher, where finetune.sds.baseline asks for it.
    Equal image towers are held in memory once.

    Raises:
        PcclipError: a peer was finetuned on other images or another split, so that it may have seen held-out images.
    """
    tuned = str(config.tuned_folder)
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
    """One line for each peer that cannot be loaded."""
    lines = []
    for spec in config.evaluate.peers.values():
        try:
            identify(spec)
        except PcclipError as error:
            lines.append(str(error))
    return lines


def _has_baseline(config: Config) -> bool:
    return bool(config.finetune.sds and config.finetune.sds.baseline)


def _check_split(config: Config, name: str, spec: str) -> None:
    """Raise PcclipError when a peer's run had other images or another seed, and so another split."""
    folder = saved.folder_of(spec)
    manifest = folder and read_manifest(folder)
    peer_inputs = manifest["inputs"] if manifest else {}
    for key, value in shared_inputs(config, None).items():
        if key in ("images", "seed") and peer_inputs.get(key, value) != value:
            raise PcclipError(
                f"evaluate.peers.{name}: {spec} was finetuned with other {key}, and may have seen what "
                "is held out here; finetune it on this run's split"
            )
