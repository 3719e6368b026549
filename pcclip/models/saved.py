"""Saved models: the text tower as safetensors beside a JSON with everything needed to load it right.

The image tower is never changed, so only the text tower is stored; the JSON names the base model, the hashes of its
towers, and its architecture (preprocess and activation included). Any mismatch on load is an error.
"""

import json
from collections.abc import Callable
from pathlib import Path

from pcclip.errors import PcclipError
from pcclip.models.encoder import DualEncoder, weights_digest
from pcclip.params import resolve
from pcclip.stage import atomic, read_manifest, write_json

WEIGHTS, CARD = "text_tower.safetensors", "model.json"
_HOME = "03_finetune"


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


def describe(model: DualEncoder) -> dict:
    """The card of a base model, taken before it is tuned."""
    return {"format": 1, "base": model.spec, "architecture": model.architecture,
            "image_fingerprint": model.image_fingerprint(), "base_text_tower": weights_digest(model.text_tower)}


def save(model: DualEncoder, card: dict, folder: Path) -> list[str]:
    """Write the text tower and `card` (from `describe`, before tuning) to `folder`. Returns the file names."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in model.text_tower.state_dict().items()}
    with atomic(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    write_json(folder / CARD, {**card, "text_tower": weights_digest(model.text_tower)})
    return [WEIGHTS, CARD]


def load(folder: Path, alpha: float, load_base: Callable[[str], DualEncoder]) -> DualEncoder:
    """Load the base named by the card, check it, and put the saved text tower in (mixed with the base by alpha)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = json.loads((folder / CARD).read_text(encoding="utf8"))
    model = load_base(card["base"]).cpu()
    found = describe(model)
    for key in ("architecture", "image_fingerprint", "base_text_tower"):
        if found[key] != card[key]:
            raise PcclipError(f"{folder}: made from another {card['base']} ({key} differs); use the same base weights")
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise PcclipError(f"{folder / WEIGHTS}: cannot be read ({error}); run notebook 03 again") from None
    base = model.text_tower.state_dict()
    if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in base.items()}:
        raise PcclipError(f"{folder / WEIGHTS}: its tensors do not fit {card['base']}; run notebook 03 again")
    model.spec = str(folder.resolve())  # so that a run built on this one names it as its base
    base = {name: value.clone() for name, value in base.items()}
    model.text_tower.load_state_dict(state)
    if weights_digest(model.text_tower) != card["text_tower"]:
        raise PcclipError(f"{folder / WEIGHTS}: not the weights its {CARD} describes; run notebook 03 again")
    if alpha < 1:
        model.text_tower.load_state_dict({
            n: alpha * v + (1 - alpha) * base[n] if v.is_floating_point() else v for n, v in state.items()})
    return model
