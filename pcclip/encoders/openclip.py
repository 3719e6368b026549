"""Any open_clip model: a built-in name with a pretrained tag or a local checkpoint, hf-hub: or local-dir:.

`force_custom_text` makes the text tower a module of its own in every model, so that it can be saved and tuned alone.
"""

import logging
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from pcclip.config import resolve
from pcclip.encoders import packed_text as packed
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing

_SCHEMAS = ("hf-hub:", "local-dir:")
_WRAPPERS = ("module.", "model.", "clip_model.")  # what training scripts put before every name of a checkpoint


def split(spec: str) -> tuple[str, str | None]:
    """'NAME:TAG' or 'NAME:/a/checkpoint' -> (NAME, TAG); 'hf-hub:...' and 'local-dir:...' -> (spec, None).

    Relative paths are below the workbook's root.
    """
    if spec.startswith("local-dir:"):
        return f"local-dir:{resolve(spec.removeprefix('local-dir:'))}", None
    if spec.startswith(_SCHEMAS):
        return spec, None
    name, _, tag = spec.partition(":")
    return name, str(resolve(tag)) if tag and resolve(tag).is_file() else tag or None


def check(spec: str) -> None:
    """Raise PcclipError unless open_clip knows the name and the tag, or the files are there."""
    declare_missing()
    import open_clip

    name, tag = split(spec)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise PcclipError(f"model {spec!r}: {folder} has no open_clip_config.json")
        return
    if name.startswith("hf-hub:"):
        return
    if name not in open_clip.list_models():
        raise PcclipError(
            f"unknown model {spec!r}; use minilm-efficientnet, an open_clip NAME:TAG such as "
            "ViT-L-14:datacomp_xl_s13b_b90k, NAME:/path/to/checkpoint, local-dir:DIR, or a run's folder"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag != "random" and tag not in tags and not (tag and Path(tag).is_file()):
        raise PcclipError(f"model {spec!r}: no such checkpoint file or tag; tags of {name}: {', '.join(tags)}")


class OpenClip(Encoder):
    def __init__(self, spec: str):
        super().__init__()
        check(spec)
        import open_clip

        name, tag = split(spec)
        file = tag if tag and Path(tag).is_file() else None
        fresh = file is not None or tag == "random"
        try:
            with torch.random.fork_rng(devices=[]), _quiet():
                torch.manual_seed(0)  # NAME:random is the same model every time
                model, _, preprocess = open_clip.create_model_and_transforms(
                    name,
                    None if fresh else tag,
                    force_custom_text=True,
                    load_weights=not fresh,
                    require_pretrained=not fresh,
                    pretrained_text=not fresh,
                    weights_only=True,
                )
            if file:
                model.register_load_state_dict_pre_hook(_unwrap)
                open_clip.load_checkpoint(model, file, weights_only=True)
        except PcclipError as error:
            raise PcclipError(f"model {spec!r}: {error}") from None
        except pickle.UnpicklingError as error:
            class_name = re.search(r"GLOBAL (\S+)", str(error))
            raise PcclipError(
                f"model {spec!r}: refused, its file holds {class_name[1] if class_name else 'something'} and not "
                "only tensors; use a plain state dict or safetensors"
            ) from None
        except Exception as error:  # open_clip, safetensors, pickle and the hub each raise their own
            reason = " ".join(str(error).split())[:300]
            raise PcclipError(f"model {spec!r}: cannot be loaded ({type(error).__name__}: {reason})") from error
        self.spec = spec
        self.image_tower, self.text_tower = model.visual, model.text
        self.image_tower.requires_grad_(False)
        self._preprocess = preprocess
        self._tokenizer = open_clip.get_tokenizer(name)
        self.context_length = self.text_tower.context_length
        self.width = self._width()
        self._shortens, self._packs = packed.causal(self.text_tower), packed.packs(self.text_tower)
        mask = getattr(self.text_tower, "attn_mask", None)
        self._causal_mask = None if mask is None else mask.clone()
        self.architecture = {
            "family": "open_clip",
            "name": name,
            "width": self.width,
            "context_length": self.context_length,
            "activation": _activation(self.text_tower),
            "preprocess": str(preprocess),
        }
        self.eval()

    def _width(self) -> int:
        with torch.inference_mode():
            return self.text_tower(torch.zeros(1, self.context_length, dtype=torch.long)).shape[-1]

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        return self._preprocess(image)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not len(texts):
            return []
        if not hasattr(self._tokenizer, "encoder"):  # a tokenizer that only gives padded rows
            return self._tokenizer(list(texts)).tolist()
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        return [[start, *self._tokenizer.encode(text), end] for text in texts]

    def batch(self, tokens: Tokens | Sequence[list[int]]) -> Int[Tensor, "n t"]:
        """Pad to the full context where the tower attends to padding."""
        ids = super().batch(tokens)
        if self._shortens or ids.shape[1] == self.context_length:
            return ids
        return nn.functional.pad(ids, (0, self.context_length - ids.shape[1]), value=self.pad_id)

    def features(self, tokens: Tokens) -> Float[Tensor, "n d"]:
        if self._packs:
            return packed.features(self.text_tower, tokens)
        return super().features(tokens) if self._shortens else self.text_features(self.batch(tokens))

    def image_features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.image_tower(pixels)

    def text_features(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        if self._shortens:  # open_clip adds the full mask whatever the length: hand it the part it needs
            self.text_tower.attn_mask = self._causal_mask[: ids.shape[1], : ids.shape[1]].to(ids.device)
        return self.text_tower(ids)

    def transformer(self) -> nn.Module:
        return self.text_tower.transformer

    def image_transformer(self) -> nn.Module:
        tower = getattr(self.image_tower, "trunk", self.image_tower)  # timm's towers are wrapped
        parts = dict(tower.named_children())
        blocks = [parts[name] for name in ("transformer", "blocks", "stages") if name in parts]
        stages = [part for name, part in parts.items() if name.startswith("layer")]  # of a ResNet
        return nn.ModuleList(blocks[:1] or stages or [tower])


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs that weights are random, also when they are about to be loaded."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _unwrap(model: nn.Module, state: dict, *_: Any) -> None:
    """Before open_clip's state dict goes into the model: take off wrappers' prefixes and name the text tower apart.

    Raises PcclipError when tensors are missing, as in a checkpoint of the text tower alone.
    """
    from open_clip.model import convert_to_custom_text_state_dict

    names = list(state)
    while wrapper := next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), None):
        names = [name.removeprefix(wrapper) for name in names]
    unwrapped = convert_to_custom_text_state_dict(dict(zip(names, state.values(), strict=True)))
    wanted = model.state_dict().keys()
    missing = sorted(wanted - unwrapped.keys())
    if missing:
        raise PcclipError(
            f"the checkpoint lacks {len(missing)} of {len(wanted)} tensors "
            f"({', '.join(missing[:3])} ...); it must hold both towers: "
            "save its weights together with those of their base model"
        )
    state.clear()
    state.update(unwrapped)


def _activation(tower: nn.Module) -> str:
    kinds = {type(m).__name__ for m in tower.modules() if "gelu" in type(m).__name__.lower()}
    return "/".join(sorted(kinds))
