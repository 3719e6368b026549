"""Write a model in the files of open_clip, transformers and sentence-transformers, by those libraries' own savers.

All files share one folder, as in repositories on the hub: each library reads its own. What was written is loaded again
and must give the model's vectors.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pcclip.encoders import load_model, packed_text
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.huggingface import DualEncoder
from pcclip.encoders.minilm_efficientnet import MiniLMEfficientNet
from pcclip.encoders.openclip import OpenClip
from pcclip.errors import PcclipError
from pcclip.runs.files import write_json, write_tensors

_TEXTS = ["a photo of a cat", "The first image shows a large animal, while the second image shows a small animal."]
_CLOSE = 1e-5  # largest difference of a unit vector's numbers after the way through the files
_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's name -> transformers'
_ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
_NAMES = {  # patterns of open_clip's names of tensors -> their names in transformers' CLIPModel
    r"^visual\.proj$": "visual_projection.weight",
    r"^text\.text_projection(\.weight)?$": "text_projection.weight",
    r"^visual\.": "vision_model.",
    r"^text\.": "text_model.",
    r"\.transformer\.resblocks\.": ".encoder.layers.",
    r"\.attn\.": ".self_attn.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.c_fc\.": ".fc1.",
    r"\.c_proj\.": ".fc2.",
    r"\.ln_pre\.": ".pre_layrnorm.",
    r"\.ln_post\.": ".post_layernorm.",
    r"\.ln_final\.": ".final_layer_norm.",
    r"\.conv1\.": ".embeddings.patch_embedding.",
    r"\.(class_embedding|token_embedding)\b": r".embeddings.\1",
    r"\.positional_embedding$": ".embeddings.position_embedding.weight",
}


class Unsupported(PcclipError):
    """A library has no class for this model."""


def export(model: Encoder, folder: Path, formats: Collection[str] = ()) -> dict[str, str]:
    """Write the model to `folder` in some formats of FORMATS; without any, in all that can hold it.

    Returns:
        By format '' where it was written, else the reason why the library cannot hold the model.

    Raises:
        PcclipError: a format that was asked for cannot hold the model, or the files do not give its vectors.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    reasons = {}
    for name in formats or FORMATS:
        try:
            FORMATS[name](model.cpu().eval(), folder)
            reasons[name] = ""
        except Unsupported as error:
            if formats:
                raise PcclipError(f"export: {name} cannot hold {model.spec}: {error}") from None
            reasons[name] = str(error)
    return reasons


def _open_clip(model: Encoder, folder: Path) -> None:
    """open_clip_config.json, open_clip_model.safetensors and the tokenizer: `local-dir:FOLDER` or `hf-hub:NAME`."""
    if not isinstance(model, OpenClip):
        raise Unsupported("open_clip loads models of its own classes alone")
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    settings = {
        **(open_clip.get_model_config(model.name) or {}),
        "custom_text": True,  # the text tower is a module
        "quick_gelu": "QuickGELU" in model.architecture["activation"],
    }
    settings.pop("multimodal_cfg", None)  # CoCa's captioner, which is not loaded
    save_config_for_hf(SimpleNamespace(visual=model.image_tower), folder / "open_clip_config.json", settings)
    _tokenizer(model).save_pretrained(folder)
    write_tensors(folder / "open_clip_model.safetensors", _state(model))
    _check(model, f"local-dir:{folder.resolve()}")


def _transformers(model: Encoder, folder: Path) -> None:
    """config.json, model.safetensors and the processor: `AutoModel` and `AutoProcessor`, here `hf:FOLDER`."""
    if not isinstance(model, DualEncoder | OpenClip):
        raise Unsupported("transformers has no class with its image tower; sentence-transformers holds its text tower")
    parts = (
        (model.whole(), model.processor) if isinstance(model, DualEncoder) else (_clip(model), _clip_processor(model))
    )
    for part in parts:
        part.save_pretrained(folder)
    _check(model, f"hf:{folder.resolve()}")


def _sentence_transformers(model: Encoder, folder: Path) -> None:
    """modules.json beside transformers' files: `SentenceTransformer(FOLDER)`.

    Of the embedded model the text tower alone: its image vectors are mixtures of class vectors, which no module makes.
    """
    modules = ["Transformer", "Normalize"]
    if isinstance(model, MiniLMEfficientNet):
        modules = ["Transformer", "Pooling", "Normalize"]
        cast(Any, model.text_tower).save_pretrained(folder)
        _tokenizer(model).save_pretrained(folder)
        write_json(
            folder / "1_Pooling" / "config.json",
            {"word_embedding_dimension": model.width, "pooling_mode_mean_tokens": True},
        )
        settings: dict[str, Any] = {"max_seq_length": model.context_length}
    else:
        if not (folder / "model.safetensors").is_file():
            _transformers(model, folder)
        settings = {
            "modality_config": {
                side: {"method": f"get_{side}_features", "method_output_name": "pooler_output"}
                for side in ("text", "image")
            },
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"text": {"padding": "max_length"}} if getattr(model, "pads", False) else {},
        }
    write_json(folder / "sentence_bert_config.json", settings)
    entries = [
        {"idx": k, "name": str(k), "path": f"{k}_{name}" if k else "", "type": f"sentence_transformers.models.{name}"}
        for k, name in enumerate(modules)
    ]
    write_json(folder / f"{len(modules) - 1}_Normalize" / "config.json", {})
    write_json(folder / "modules.json", entries)


FORMATS: dict[str, Callable[[Encoder, Path], None]] = {
    "open_clip": _open_clip,
    "transformers": _transformers,
    "sentence-transformers": _sentence_transformers,
}


def _check(model: Encoder, spec: str) -> None:
    """Raise PcclipError unless what was written gives the model's vectors of two texts and two pictures."""
    again = load_model(spec, device="cpu")
    pictures = Image.linear_gradient("L"), Image.radial_gradient("L")
    pixels = torch.stack([again.preprocess(picture.convert("RGB")) for picture in pictures])
    texts = np.abs(model.encode_texts(_TEXTS) - again.encode_texts(_TEXTS)).max()
    images = np.abs(model.encode_pixels(pixels) - again.encode_pixels(pixels)).max()
    if not max(texts, images) <= _CLOSE:
        raise PcclipError(f"export: {spec} differs from {model.spec}: texts by {texts:.1e}, images by {images:.1e}")


def _state(model: OpenClip) -> dict[str, Tensor]:
    """The weights by their names in open_clip's CustomTextCLIP."""
    towers = {"visual": model.image_tower, "text": model.text_tower}
    weights = {f"{side}.{name}": value for side, tower in towers.items() for name, value in tower.state_dict().items()}
    return {**weights, **{name: value.detach() for name, value in model.logits.items()}}


def _tokenizer(model: Any) -> Any:
    """The tokenizer as transformers' class; of open_clip's own the vocabulary and the merges."""
    own = getattr(model._tokenizer, "tokenizer", model._tokenizer)  # open_clip wraps tokenizers of transformers
    if not hasattr(own, "bpe_ranks"):
        return own
    from transformers import CLIPTokenizer

    vocabulary = {_SPECIAL.get(token, token): number for token, number in own.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(own.bpe_ranks), model_max_length=model.context_length)


def _clip(model: OpenClip) -> Any:
    """transformers' CLIPModel with the weights of a plain CLIP of open_clip. Raises Unsupported for any other."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
    from transformers import CLIPConfig, CLIPModel

    image: Any = model.image_tower
    text: Any = model.text_tower
    blocks = [block for tower in (image, text) for block in getattr(tower.transformer, "resblocks", [None])]
    kinds = {(type(block), type(getattr(getattr(block, "mlp", None), "gelu", None)).__name__) for block in blocks}
    activation = _ACTIVATIONS.get(min(name for _, name in kinds), "")
    plain = type(image) is VisionTransformer and image.pool_type == "tok" and image.attn_pool is None
    if not (
        plain and packed_text.packs(text) and activation and {kind for kind, _ in kinds} == {ResidualAttentionBlock}
    ):
        raise Unsupported("its CLIPModel is a plain ViT with a class token beside a plain causal text tower")

    def sizes(tower: Any) -> dict[str, Any]:
        block = tower.transformer.resblocks[0]
        return {
            "hidden_size": block.attn.embed_dim,
            "intermediate_size": block.mlp.c_fc.out_features,
            "num_hidden_layers": len(tower.transformer.resblocks),
            "num_attention_heads": block.attn.num_heads,
            "hidden_act": activation,
        }

    start, end = text.vocab_size - 2, text.vocab_size - 1
    words = {
        **sizes(text),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": model.context_length,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    pixels = {**sizes(image), "image_size": image.image_size[0], "patch_size": image.patch_size[0]}
    network = CLIPModel(CLIPConfig(text_config=words, vision_config=pixels, projection_dim=model.width))
    network.load_state_dict(_clip_state(_state(model)))
    return network.eval()


def _clip_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of open_clip by their names in CLIPModel."""
    state = {}
    for own, value in weights.items():
        name = own
        for pattern, replacement in _NAMES.items():
            name = re.sub(pattern, replacement, name)
        if "in_proj_" in name:  # queries, keys and values in one
            for part, third in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("in_proj_", f"{part}_proj.")] = third
        else:  # projections that are no layers multiply from the right
            state[name] = value.T if own in ("visual.proj", "text.text_projection") else value
    return state


def _clip_processor(model: OpenClip) -> Any:
    """CLIPProcessor with the tokenizer and the preprocessing of a model of open_clip."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    tower: Any = model.image_tower
    settings, side = tower.preprocess_cfg, tower.image_size[0]
    square = {"height": side, "width": side}
    if settings["resize_mode"] not in ("shortest", "squash"):
        raise Unsupported("its CLIPImageProcessor cannot pad an image to a square")
    crops = settings["resize_mode"] == "shortest"
    images = CLIPImageProcessor(
        size={"shortest_edge": side} if crops else square,
        crop_size=square,
        do_center_crop=crops,
        resample=Image.Resampling[settings["interpolation"].upper()],
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )
    return CLIPProcessor(image_processor=images, tokenizer=_tokenizer(model))
