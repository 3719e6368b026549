"""How large a model is, without its weights: towers built on torch's meta device, language models by their headers.

FLOPs are two for each multiplication with an addition.
"""

import json
import math
import re
import struct
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from pcclip.comparisons.llm.identity import gguf_path, weights_source
from pcclip.config import Generate
from pcclip.encoders import minilm_efficientnet, openclip, saved
from pcclip.encoders import packed_text as packed
from pcclip.encoders import toy_clip as student
from pcclip.encoders.dual_encoder import normalisations
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing
from pcclip.workbook.activations import traced

_BILLIONS = re.compile(r"(?:^|[-_/ ])A?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)  # Llama-2-13b, 30B-A3B
_GGUF_STRING, _GGUF_ARRAY = 8, 9
_GGUF_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by kind of value


@dataclass(frozen=True)
class Towers:
    """A dual encoder. `text_blocks` are the parameters of the text transformer: what each token is multiplied with."""

    width: int
    context_length: int
    shortens: bool  # whether texts are computed without padding; else all are as long as the context
    packs: bool  # and whether beginnings that texts share are computed once (models/packed.py)
    image_flops: int  # one image, forward
    image_parameters: int
    text_parameters: int
    text_blocks: int
    image_norms: int  # of the parameters: what finetune.tune = layernorm learns
    text_norms: int

    @property
    def bytes(self) -> int:
        """In fp32."""
        return 4 * (self.image_parameters + self.text_parameters)


@dataclass(frozen=True)
class LanguageModel:
    parameters: float
    active: float  # of them, for one token: fewer in a mixture of experts
    source: str  # where the numbers are from

    @property
    def bytes(self) -> float:
        """In bf16."""
        return 2 * self.parameters


def of_model(spec: str) -> Towers | None:
    """Of a model by spec; None when that takes a file from the hub."""
    if saved.folder_of(spec):
        return of_model(base_of(spec))
    if spec == minilm_efficientnet.SPEC:
        return _minilm_efficientnet()
    values = _open_clip_config(spec)
    try:
        return values and _open_clip(values)
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PcclipError(
            f"model {spec!r}: open_clip cannot build it ({type(error).__name__}: {reason}); mend its "
            "open_clip_config.json"
        ) from None


def base_of(spec: str) -> str:
    """The spec of the model that a run's saved weights were made from."""
    return json.loads((saved.folder_of(spec) / saved.CARD).read_text(encoding="utf8"))["base"]


def of_llm(config: Generate) -> LanguageModel | None:
    """Counted in the file or folder, else read off the name; None where the name tells nothing. Raises PcclipError."""
    if config.backend == "template":
        return LanguageModel(0, 0, "no language model")
    if config.backend == "llama_cpp":
        path = gguf_path(config.gguf)
        count = gguf_elements(path)
        return LanguageModel(count, count, path.name)
    if config.backend == "transformers" and Path(folder := weights_source(config.llm)[0]).is_dir():
        count = sum(
            math.prod(shape)
            for file in Path(folder).glob("*.safetensors")
            for shape in safetensors_shapes(file).values()
        )
        return LanguageModel(count, count, folder) if count else None
    found = [float(n) * {"b": 1e9, "m": 1e6}[unit.lower()] for n, unit in _BILLIONS.findall(config.llm)]
    return LanguageModel(max(found), min(found), "its name") if found else None


def safetensors_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by name, from the file's header. Raises PcclipError when it has none."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, struct.error, MemoryError, OverflowError):
        raise PcclipError(f"{path}: not a whole safetensors file; fetch it again") from None


def gguf_elements(path: Path) -> int:
    """Values in all tensors of a GGUF file, from its header. Raises PcclipError when it has none."""
    try:
        with open(path, "rb") as file:
            magic, _, tensors, pairs = _unpack(file, "4sIQQ")
            if magic != b"GGUF":
                raise ValueError("magic")
            for _ in range(pairs):
                _skip_string(file)
                _skip_value(file, _unpack(file, "I")[0])
            return sum(_tensor_elements(file) for _ in range(tensors))
    except (OSError, ValueError, KeyError, struct.error, OverflowError):
        raise PcclipError(f"{path}: not a whole GGUF file; fetch it again") from None


def _tensor_elements(file) -> int:
    _skip_string(file)
    shape = _unpack(file, f"{_unpack(file, 'I')[0]}Q")
    _unpack(file, "IQ")  # its kind and place
    return math.prod(shape)


def _skip_value(file, kind: int) -> None:
    if kind == _GGUF_STRING:
        _skip_string(file)
    elif kind == _GGUF_ARRAY:
        inner, length = _unpack(file, "IQ")
        if inner in _GGUF_BYTES:
            file.seek(_GGUF_BYTES[inner] * length, 1)
            return
        for _ in range(length):
            _skip_value(file, inner)
    else:
        file.seek(_GGUF_BYTES[kind], 1)


def _skip_string(file) -> None:
    file.seek(_unpack(file, "Q")[0], 1)


def _unpack(file, kinds: str) -> tuple:
    return struct.unpack(f"<{kinds}", file.read(struct.calcsize(f"<{kinds}")))


def _minilm_efficientnet() -> Towers:
    """Raises PcclipError when a package is missing."""
    minilm, _ = minilm_efficientnet.weight_files()
    declare_missing()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):
        image = EfficientNet.from_name("efficientnet-lite2")
    counts = {name: math.prod(shape) for name, shape in safetensors_shapes(minilm).items()}
    pixels = minilm_efficientnet.PIXELS
    return Towers(
        width=384,
        context_length=256,
        shortens=True,
        packs=False,
        image_flops=_flops(image, (pixels, pixels)),
        image_parameters=_count(image),
        text_parameters=sum(counts.values()),
        text_blocks=sum(count for name, count in counts.items() if "encoder.layer." in name),
        image_norms=_norms(image),
        text_norms=sum(count for name, count in counts.items() if "LayerNorm" in name),
    )


def _open_clip_config(spec: str) -> dict | None:
    """open_clip's `model_cfg`, from the package, a local folder or the hub's cache."""
    declare_missing()
    if student.SPEC.fullmatch(spec):
        return student.MODEL
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    name, _ = openclip.split(spec)
    if name.startswith("hf-hub:"):
        path = try_to_load_from_cache(name.removeprefix("hf-hub:"), "open_clip_config.json")
        if not isinstance(path, str):
            return None
    elif name.startswith("local-dir:"):
        path = Path(name.removeprefix("local-dir:")) / "open_clip_config.json"
    else:
        return open_clip.get_model_config(name)
    try:
        return json.loads(Path(path).read_text(encoding="utf8"))["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        raise PcclipError(f"{path}: not a configuration of open_clip; fetch it again") from None


def _open_clip(values: dict) -> Towers | None:
    """None when the text tower is described on the hub alone."""
    model = _built(values)
    if model is None:
        return None
    text, size = model.text, model.visual.image_size
    blocks = text.transformer
    looked_up = sum(_count(m) for m in blocks.modules() if type(m).__name__ == "Embedding")
    return Towers(
        width=values["embed_dim"],
        context_length=text.context_length,
        shortens=packed.causal(text),
        packs=packed.packs(text),
        image_flops=_flops(model.visual, size if isinstance(size, tuple | list) else (size, size)),
        image_parameters=_count(model.visual),
        text_parameters=_count(text),
        text_blocks=_count(blocks) - looked_up,
        image_norms=_norms(model.visual),
        text_norms=_norms(text),
    )


def kept_by_towers(spec: str, tune: str) -> tuple[float, float] | None:
    """Bytes in fp32 that the towers of an open_clip model keep for the gradient: of one image, and of one token.

    None when the model's size is told on the hub alone, or it is no open_clip model.
    """
    if saved.folder_of(spec):
        return kept_by_towers(base_of(spec), tune)
    values = None if spec == minilm_efficientnet.SPEC else _open_clip_config(spec)
    model = values and _built(values)
    if not model:
        return None
    import torch

    for tower in (model.visual, model.text):
        tower.requires_grad_(tune != "layernorm")
        for module in normalisations(tower):
            module.requires_grad_(True)
        tower.eval()
    size, length = model.visual.image_size, model.text.context_length
    height, width = size if isinstance(size, tuple | list) else (size, size)
    images = traced(model.visual, lambda: model.visual(torch.zeros(1, 3, height, width)))
    texts = traced(model.text, lambda: model.text(torch.zeros(1, length, dtype=torch.long)))
    return images.bytes, texts.bytes / length


def _built(values: dict):
    """The model on the meta device; None when the text tower is described on the hub alone."""
    import torch
    from open_clip.coca_model import CoCa
    from open_clip.model import CustomTextCLIP

    values = {key: value for key, value in deepcopy(values).items() if key != "custom_text"}
    values["text_cfg"]["hf_model_pretrained"] = False
    kind = CoCa if "multimodal_cfg" in values else CustomTextCLIP
    try:
        with torch.device("meta"), _no_hub():
            return kind(**values)
    except OSError:
        return None


@contextmanager
def _no_hub():
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _flops(tower, size: tuple[int, int]) -> int:
    """Of one image through a tower on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tower.requires_grad_(False).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(1, 3, *size, device="meta"))
    return counter.get_total_flops()


def _count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def _norms(tower) -> int:
    return sum(map(_count, normalisations(tower)))
