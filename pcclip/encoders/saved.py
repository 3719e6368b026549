"""Saved models: the towers that were tuned, as safetensors beside a JSON with everything needed to load them right.

The text tower is always stored, the image tower only where it is not the base's any more. The JSON names the base
model, the hashes of its towers and of those that are stored, and its architecture (preprocess and activation included).
Any mismatch on load is an error.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from pcclip.config import resolve
from pcclip.encoders.dual_encoder import Encoder, weights_digest
from pcclip.encoders.weight_files import read
from pcclip.errors import PcclipError
from pcclip.runs.files import load_json, write_json, write_tensors
from pcclip.runs.stage import read_manifest

WEIGHTS, IMAGE_WEIGHTS, CARD = "text_tower.safetensors", "image_tower.safetensors", "model.json"
_HOME = "03_finetune"
_FILES = {"text_tower": WEIGHTS, "image_tower": IMAGE_WEIGHTS}  # towers by attribute, and by key of the card


def folder_of(spec: str) -> Path | None:
    """The folder with saved weights that `spec` points to (a run, or a folder of weights), or None."""
    for folder in (Path(spec), resolve(spec)):
        home = folder if folder.name == _HOME else folder / _HOME
        started = home.is_dir() or any(folder.glob("0[12]_*/manifest.json"))
        if started and read_manifest(home) is None:
            raise PcclipError(f"model {spec!r}: this run has not finished finetuning; run notebook 03 first")
        for candidate in (folder, home):
            if (candidate / CARD).is_file():
                return candidate
    return None


def describe(model: Encoder) -> dict:
    """The card of a base model, taken before it is tuned."""
    return {
        "format": 1,
        "base": model.spec,
        "architecture": model.architecture,
        "image_fingerprint": model.image_fingerprint(),
        "base_text_tower": weights_digest(model.text_tower),
    }


def save(model: Encoder, card: dict, folder: Path) -> list[str]:
    """Write what was tuned, and `card` (from `describe`, before tuning), to `folder`. Returns the file names."""
    towers = ["text_tower"]
    if model.image_fingerprint() != card["image_fingerprint"]:
        towers.append("image_tower")
    else:
        (folder / IMAGE_WEIGHTS).unlink(missing_ok=True)  # of an earlier finetuning
    for name in towers:
        write_tensors(folder / _FILES[name], getattr(model, name).state_dict())
    write_json(folder / CARD, {**card, **{name: weights_digest(getattr(model, name)) for name in towers}})
    return [*(_FILES[name] for name in towers), CARD]


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that the card in `folder` speaks of. Raises PcclipError when one is not there."""
    files = [folder / _FILES[name] for name in _stored(read_card(folder))]
    for file in files:
        if not file.is_file():
            raise PcclipError(f"{file}: cannot be read (it is not there); run notebook 03 again")
    return files


def load(folder: Path, alpha: float, load_base: Callable[[str], Encoder]) -> Encoder:
    """Load the base named by the card, check it, and put the saved towers in (mixed with the base's by alpha).

    What a tower counts, as batch normalisation its batches, cannot be mixed: unless alpha is 0 it is the saved one's.
    """
    card = read_card(folder)
    model = load_base(card["base"]).cpu()
    description = describe(model)
    for key in ("architecture", "image_fingerprint", "base_text_tower"):
        if description[key] != card.get(key):
            raise PcclipError(f"{folder}: made from another {card['base']} ({key} differs); use the same base weights")
    model.spec = str(folder.resolve())  # so that a run built on this one names it as its base
    model.tuned_from = description["image_fingerprint"]
    for name in _stored(card):
        _put(model, name, folder / _FILES[name], card, alpha)
    return model


def _put(model: Encoder, name: str, file: Path, card: dict, alpha: float) -> None:
    """Replace a tower of the base by the saved one, mixed by alpha. Raises PcclipError when it is not the card's."""
    state, tower = read(file), getattr(model, name)
    base = {key: value.clone() for key, value in tower.state_dict().items()}
    if {n: (v.shape, v.dtype) for n, v in state.items()} != {n: (v.shape, v.dtype) for n, v in base.items()}:
        raise PcclipError(f"{file}: its tensors do not fit {card['base']}; run notebook 03 again")
    tower.load_state_dict(state)
    if weights_digest(tower) != card[name]:
        raise PcclipError(f"{file}: not the weights its {CARD} describes; run notebook 03 again")
    if alpha < 1:
        tower.load_state_dict({n: _mixed(v, base[n], alpha) for n, v in state.items()})


def _mixed(tuned: Tensor, base: Tensor, alpha: float) -> Tensor:
    if alpha == 0:  # to the bit, so that the base's image vectors are known to be this one's
        return base
    return alpha * tuned + (1 - alpha) * base if tuned.is_floating_point() else tuned


def read_card(folder: Path) -> dict:
    """The card of saved weights. Raises PcclipError when it is not there, or is none."""
    card = load_json(folder / CARD, "run notebook 03 again")
    if not isinstance(card, dict) or not {"base", "text_tower"} <= card.keys():
        raise PcclipError(f"{folder / CARD}: no card of a finetuned model; run notebook 03 again")
    return card


def _stored(card: dict) -> list[str]:
    return [name for name in _FILES if name in card]
