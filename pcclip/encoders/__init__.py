"""Encoders: one interface (dual_encoder.py), one file for each family of towers, load and save.

A spec is `minilm-efficientnet`, an open_clip `NAME:TAG` or `NAME:/path/to/checkpoint`, `hf-hub:...`, `local-dir:...`,
`hf:NAME` or `hf:FOLDER` (transformers, sentence-transformers), `shapes-clip:SEED` (trained on drawn pictures the first
time), or the folder of a run or of one of its kept epochs, which gives the finetuned model, with its own image tower
where that was tuned too.
"""

from functools import partial
from pathlib import Path

from pcclip.encoders import huggingface, minilm_efficientnet, openclip, saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.toy_clip import SHAPES_CLIP
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, file_digest


def load_model(spec: str, alpha: float = 1.0, device: str | None = None) -> Encoder:
    """Load a model by spec, in fp32 and eval mode.

    Args:
        spec: see the module's docstring.
        alpha: for a finetuned model, weight averaging alpha * finetuned + (1 - alpha) * base (WiSE-FT; paper,
            src/model.py).
        device: where to put the model; by default the GPU when there is one.

    Raises:
        PcclipError: unknown name or tag, missing files, or saved weights that do not fit their base.
    """
    import torch

    if not 0 <= alpha <= 1:
        raise PcclipError(f"alpha = {alpha}: must be between 0 (the base) and 1 (the finetuned weights)")
    if folder := saved.folder_of(spec):
        model = saved.load(folder, alpha, partial(load_model, device="cpu"))
    elif spec == minilm_efficientnet.SPEC:
        model = minilm_efficientnet.MiniLMEfficientNet()
    elif spec.startswith(huggingface.SCHEMA):
        model = huggingface.load(spec)
    elif (seed := SHAPES_CLIP.seed(spec)) is not None:
        model = openclip.OpenClip(f"local-dir:{SHAPES_CLIP.trained(seed)}")
        model.spec, model.architecture = spec, {**model.architecture, "name": spec}
    else:
        model = openclip.OpenClip(spec)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def check_name(spec: str) -> None:
    """Raise PcclipError unless a model has this name; its weights may be missing."""
    if spec.startswith(huggingface.SCHEMA):
        huggingface.check(spec)
    elif not saved.folder_of(spec) and spec != minilm_efficientnet.SPEC and SHAPES_CLIP.seed(spec) is None:
        openclip.check(spec)


def identify(spec: str) -> str:
    """A digest of the weights that a spec names, without loading them, for a stage's key.

    Raises PcclipError when the spec is unknown.
    """
    if folder := saved.folder_of(spec):
        digests = [file_digest(file) for file in saved.weight_files(folder)]
        return digests[0][:16] if len(digests) == 1 else digest(digests)[:16]
    if spec == minilm_efficientnet.SPEC:
        return digest([minilm_efficientnet.SOFTNESS, *map(file_digest, minilm_efficientnet.weight_files())])[:16]
    if (seed := SHAPES_CLIP.seed(spec)) is not None:
        return SHAPES_CLIP.stage(seed).key[:16]
    if spec.startswith(huggingface.SCHEMA):
        place, files = huggingface.identity(spec)
        return digest([place, *map(file_digest, files)])[:16]
    openclip.check(spec)
    name, tag = openclip.split(spec)
    local = Path(name.removeprefix("local-dir:"))
    files = sorted(local.glob("*")) if name.startswith("local-dir:") else [Path(tag or "")]
    return digest([spec, [file_digest(path) for path in files if path.is_file()]])[:16]
