"""How large a model is, without its weights: parameters, and FLOP of a forward pass. NaN stands for what is unknown.

open_clip builds a network on torch's meta device, where torch counts the FLOP of one forward pass (two for
each multiplication with its addition). A language model's size is read off its files or its name.
"""

import re
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from pcclip.comparisons.llm.identity import gguf_path, weights_source
from pcclip.config import Generate, resolve
from pcclip.encoders import huggingface, minilm_efficientnet, openclip, packed_text, saved, toy_clip
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import load_json
from pcclip.torchvision_shim import declare_missing

_BILLIONS = re.compile(r"(?:^|[-_/ ])A?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)  # Llama-2-13b, 30B-A3B


class Network(NamedTuple):
    """Size of one network. Its item is an image, a latent or a text; a token where the network reads tokens."""

    parameters: float = nan
    flop: float = nan  # of one item, forward


class EncoderSize(NamedTuple):
    """Both towers of an Encoder; the text tower's item is a token."""

    image: Network = Network()
    text: Network = Network()
    width: float = nan
    context_length: float = nan
    shortens: bool = True  # texts are computed without padding; otherwise each is as long as the context
    packs: bool = False  # beginnings that texts share are computed once (encoders/packed_text.py)


_EMBEDDED = EncoderSize(Network(6_092_072, 1.719e9), Network(22_713_728, 2.129e7), 384, 256)  # counted in its weights


def language_model_size(settings: Generate) -> Network:
    """Size of a folder's safetensors, two bytes a parameter, or by a name such as 30B-A3B.

    The item is a token; in a mixture of experts a token meets fewer parameters than the model has.
    """
    name = gguf_path(settings.gguf).stem if settings.backend == "llama_cpp" else settings.llm or ""
    if settings.backend == "transformers" and Path(folder := weights_source(name)[0]).is_dir():
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        return Network(size / 2, size) if size else Network()
    counts = [float(number) * {"b": 1e9, "m": 1e6}[unit.lower()] for number, unit in _BILLIONS.findall(name)]
    return Network(max(counts), 2 * min(counts)) if counts else Network()


@lru_cache
def encoder_size(spec: str) -> EncoderSize:
    """Size of a model by spec; unknown where a file on the hub is needed. Raises PcclipError when it cannot be built."""
    if folder := saved.folder_of(spec):
        return encoder_size(saved.read_card(folder)["base"])
    if spec == minilm_efficientnet.SPEC:
        minilm_efficientnet.weight_files()
        return _EMBEDDED
    if spec.startswith(huggingface.SCHEMA):
        return _transformers_size(spec)
    declare_missing()
    settings = _open_clip_settings(spec)
    if settings is None or "hf_model_name" in settings.get("text_cfg", {}):
        return EncoderSize()
    from open_clip.coca_model import CoCa
    from open_clip.model import CustomTextCLIP

    try:
        with torch.device("meta"):
            network = (CoCa if "multimodal_cfg" in settings else CustomTextCLIP)(**settings)
            side, text = network.visual.image_size, network.text
            pixels = torch.zeros(1, 3, *(side if isinstance(side, tuple | list) else (side, side)))
            image = _measured(network.visual, pixels)
            texts = _measured(text, torch.zeros(1, text.context_length, dtype=torch.long))
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        raise PcclipError(
            f"model {spec!r}: open_clip cannot build it ({one_line(error)}); mend its open_clip_config.json"
        ) from None
    token = Network(texts.parameters, texts.flop / text.context_length)
    shortens, packs = packed_text.causal(text), packed_text.packs(text)
    return EncoderSize(image, token, settings["embed_dim"], text.context_length, shortens, packs)


def _transformers_size(spec: str) -> EncoderSize:
    """Size of a model of transformers with two towers by its config.json; unknown where it is not here, and of a peer."""
    declare_missing()
    from transformers import AutoConfig

    huggingface.check(spec)
    file = stored(spec.removeprefix(huggingface.SCHEMA), "config.json")
    try:
        kind = file and huggingface.model_class(str(file.parent))
        if not file or not kind:
            return EncoderSize()
        with torch.device("meta"):
            model = kind(AutoConfig.from_pretrained(file.parent))
            image, text = huggingface.tower(model, "vision"), huggingface.tower(model, "text")
            settings, side = model.config.get_text_config(), getattr(model.config.vision_config, "image_size", None)
            length = settings.max_position_embeddings
            settings.pad_token_id = None  # transformers before 5.9 looks for padding, which meta tensors lack
            image.forward, text.forward = image.get_image_features, text.get_text_features
            images = Network(sum(parameter.numel() for parameter in image.parameters()))
            if side:  # SigLIP 2 takes any format
                images = _measured(image, torch.zeros(1, 3, side, side))
            texts = _measured(text, torch.zeros(1, length, dtype=torch.long))
    except RuntimeError:  # a class, such as ALIGN's, that looks at values, which meta tensors lack
        return EncoderSize()
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        raise PcclipError(f"model {spec!r}: transformers cannot build it ({one_line(error)})") from None
    width = getattr(model.config, "projection_dim", None) or settings.hidden_size
    return EncoderSize(images, Network(texts.parameters, texts.flop / length), width, length)


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


def _measured(network: Any, *inputs: Any) -> Network:
    """Parameters, and FLOP of a call on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*inputs)
    return Network(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops())


def _open_clip_settings(spec: str) -> dict | None:
    """open_clip's `model_cfg`, from the package, a folder or the hub's cache."""
    import open_clip

    name, _ = openclip.split(spec)
    schema, _, place = name.rpartition(":")
    if toy_clip.SHAPES_CLIP.seed(spec) is not None:
        settings: Any = toy_clip.MODEL
    elif not schema:
        settings = open_clip.get_model_config(name)
    elif file := stored(place, "open_clip_config.json"):
        config = load_json(file, "fetch it again")
        settings = config.get("model_cfg") if isinstance(config, dict) else None
        if not isinstance(settings, dict):
            raise PcclipError(f"{file}: not a configuration of open_clip; fetch it again")
    else:
        return None
    return settings and {key: value for key, value in settings.items() if key != "custom_text"}
