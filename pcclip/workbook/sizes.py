"""How large a model is, without its weights: parameters, and FLOP of a forward pass.

open_clip and diffusers build a network on torch's meta device, where torch counts the FLOP of one forward pass (two for
each multiplication with its addition). A language model's size is read off its files or its name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

from pcclip.comparisons.llm.identity import gguf_path, weights_source
from pcclip.config import Config, Generate, resolve
from pcclip.encoders import minilm_efficientnet, openclip, packed_text, saved, toy_clip
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing

_BILLIONS = re.compile(r"(?:^|[-_/ ])A?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)  # Llama-2-13b, 30B-A3B


@dataclass(frozen=True)
class Network:
    """Size of one network. Its item is an image, a latent or a text; a token where the network reads tokens."""

    parameters: float = nan
    flop: float = nan  # of one item, forward


@dataclass(frozen=True)
class EncoderSize:
    """Both towers of an Encoder; the text tower's item is a token."""

    image: Network = Network()
    text: Network = Network()
    width: float = nan
    context_length: float = nan
    shortens: bool = True  # texts are computed without padding; otherwise each is as long as the context
    packs: bool = False  # beginnings that texts share are computed once (encoders/packed_text.py)

    @property
    def parameters(self) -> float:
        return self.image.parameters + self.text.parameters


@dataclass(frozen=True)
class TeacherSize(Network):
    """A diffusion model's UNet; `latent` and `condition` are the numbers in one latent and in one encoded text."""

    latent: float = nan
    condition: float = nan


_EMBEDDED = EncoderSize(Network(6_092_072, 1.719e9), Network(22_713_728, 2.129e7), 384, 256)  # counted in its weights
_STABLE_DIFFUSION_1 = TeacherSize(859_520_964, 8.033e11, 4 * 64**2, 77 * 768)  # as teacher_size counts it
_STABLE_DIFFUSION_1_NAMES = ("compvis/stable-diffusion-v1-", "runwayml/stable-diffusion-v1-", "stable-diffusion-v1-5/")


@dataclass
class Sizes:
    """The models of a run; every number is NaN where the run names no such model or its size is unknown."""

    model: EncoderSize = EncoderSize()
    writer: Network = Network()  # the language model of stage 01
    judge: Network = Network()  # the language model that judges attributes
    teacher: TeacherSize = TeacherSize()  # finetune.sds.teacher
    matcher: TeacherSize = TeacherSize()  # evaluate.teacher
    problems: dict[str, str] = field(default_factory=dict)  # name of a field above -> a line that says what to mend


def model_sizes(config: Config) -> Sizes:
    """The size of every model that the configuration names."""
    sizes, sds, matcher = Sizes(), config.finetune.sds, config.evaluate.teacher
    size_functions: dict[str, Callable[[], Any]] = {
        "model": lambda: encoder_size(config.model),
        "writer": lambda: language_model_size(config.generate),
        "judge": lambda: language_model_size(config.generate.judging),
        "teacher": lambda: sds and teacher_size(sds.teacher),
        "matcher": lambda: matcher and teacher_size(matcher.spec),
    }
    for name, size_of in size_functions.items():
        try:
            if size := size_of():
                setattr(sizes, name, size)
        except PcclipError as error:
            sizes.problems[name] = str(error)
    return sizes


def language_model_size(settings: Generate) -> Network | None:
    """Size by the folder's safetensors, two bytes a parameter, or by a name such as 30B-A3B; None where the name has no number.

    The item is a token; in a mixture of experts a token meets fewer parameters than the model has.
    """
    if settings.backend == "template":
        return Network(0, 0)
    name = gguf_path(settings.gguf).stem if settings.backend == "llama_cpp" else settings.llm or ""
    if settings.backend == "transformers" and Path(folder := weights_source(name)[0]).is_dir():
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        return Network(size / 2, size) if size else None
    counts = [float(number) * {"b": 1e9, "m": 1e6}[unit.lower()] for number, unit in _BILLIONS.findall(name)]
    return Network(max(counts), 2 * min(counts)) if counts else None


@lru_cache
def encoder_size(spec: str) -> EncoderSize | None:
    """Size of a model by spec; None where a file on the hub is needed. Raises PcclipError when it cannot be built."""
    if folder := saved.folder_of(spec):
        return encoder_size(_read_json(folder / saved.CARD)["base"])
    if spec == minilm_efficientnet.SPEC:
        return _EMBEDDED if minilm_efficientnet.weight_files() else None
    declare_missing()
    import torch
    from open_clip.coca_model import CoCa
    from open_clip.model import CustomTextCLIP

    settings = _open_clip_settings(spec)
    if settings is None or "hf_model_name" in settings.get("text_cfg", {}):
        return None
    try:
        with torch.device("meta"):
            network = (CoCa if "multimodal_cfg" in settings else CustomTextCLIP)(**settings)
            side, text = network.visual.image_size, network.text
            pixels = torch.zeros(1, 3, *(side if isinstance(side, tuple | list) else (side, side)))
            image = _measured(network.visual, network.visual, pixels)
            texts = _measured(text, text, torch.zeros(1, text.context_length, dtype=torch.long))
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        raise PcclipError(
            f"model {spec!r}: open_clip cannot build it ({_reason(error)}); mend its open_clip_config.json"
        ) from None
    token = replace(texts, flop=texts.flop / text.context_length)
    shortens, packs = packed_text.causal(text), packed_text.packs(text)
    return EncoderSize(image, token, settings["embed_dim"], text.context_length, shortens, packs)


def teacher_size(spec: str) -> TeacherSize | None:
    """Size of a diffusion model by the configuration in its folder or in the hub's cache, or by a known name.

    None where a file on the hub is needed. Raises PcclipError when diffusers is missing or cannot build it.
    """
    files = [stored(spec, f"{part}/config.json") for part in ("unet", "text_encoder")]
    if None in files:
        return _STABLE_DIFFUSION_1 if spec.lower().startswith(_STABLE_DIFFUSION_1_NAMES) else None
    settings, text = (_read_json(file) for file in files if file)
    try:
        declare_missing()
        import diffusers
        import torch

        with torch.device("meta"):
            unet = diffusers.UNet2DConditionModel.from_config(settings)
            side, length, width = unet.config.sample_size, text["max_position_embeddings"], text["hidden_size"]
            sides = side if isinstance(side, list | tuple) else (side, side)
            latent, step = torch.zeros(1, unet.config.in_channels, *sides), torch.zeros(1, dtype=torch.long)
            size = _measured(unet, unet, latent, step, torch.zeros(1, length, width))
    except ImportError:
        raise PcclipError(f"teacher {spec}: needs diffusers: pip install 'pcclip[pictures]'") from None
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = f"{_reason(error)}); mend its config.json files"
        raise PcclipError(f"teacher {spec}: diffusers cannot build it ({reason}") from None
    return TeacherSize(size.parameters, size.flop, latent.numel(), length * width)


def stored(place: str, file: str) -> Path | None:
    """A file of a folder, or of a repository (NAME or NAME@REVISION) in the hub's cache; else None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if (local := resolve(place) / file).is_file():
        return local
    repository, _, revision = place.partition("@")
    try:
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _measured(network: Any, forward: Callable, *inputs: Any) -> Network:
    """Call `forward` on the meta device; count parameters and FLOP."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()
        forward(*inputs)
    return Network(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops())


def _open_clip_settings(spec: str) -> dict | None:
    """open_clip's `model_cfg`, from the package, a folder or the hub's cache."""
    import open_clip

    name, _ = openclip.split(spec)
    schema, _, place = name.rpartition(":")
    toy = toy_clip.SHAPES_CLIP.seed(spec) is not None
    if toy or not schema:
        settings = toy_clip.MODEL if toy else open_clip.get_model_config(name)
    else:
        file = stored(place, "open_clip_config.json")
        if file is None:
            return None
        settings = _read_json(file).get("model_cfg")
        if not isinstance(settings, dict):
            raise PcclipError(f"{file}: not a configuration of open_clip; fetch it again")
    return settings and {key: value for key, value in settings.items() if key != "custom_text"}


def _read_json(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise PcclipError(f"{file}: cannot be read ({_reason(error)}); fetch it again") from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
