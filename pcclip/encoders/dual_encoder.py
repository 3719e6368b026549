"""The interface of every encoder: images and texts to unit vectors of one space."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from pcclip.encoders.tokens import Tokens, groups
from pcclip.errors import PcclipError
from pcclip.images import batches, decoded_batches
from pcclip.runs.files import digest
from pcclip.runs.progress import Meter

Tower = Literal["text", "image"]


class Encoder(nn.Module):
    """A dual encoder: an image tower and a text tower with one embedding space.

    Attributes:
        spec: the argument of `load_model` that loads it.
        width: embedding width d.
        context_length: longest text in tokens, special tokens included.
        image_tower, text_tower: the two modules; training may change both.
        preprocess: PIL RGB image -> pixels (3, h, w).
        architecture: JSON-able description of everything but the weights (preprocess and activation included).
        pad_id: token that fills a batch up to its longest text.
        tuned_from: the image fingerprint of its base if this is a saved finetuned model, else None.
    """

    spec: str
    width: int
    context_length: int
    image_tower: nn.Module
    text_tower: nn.Module
    architecture: dict
    pad_id: int = 0
    tuned_from: str | None = None

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        raise TypeError(f"{type(self).__name__} has no preprocessing")

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids per text, special tokens included, without padding and without being cut."""
        raise TypeError(f"{type(self).__name__} has no tokenizer")

    def image_features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Image vectors before normalisation."""
        raise TypeError(f"{type(self).__name__} has no image tower")

    def text_features(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Text vectors before normalisation, from ids padded with `pad_id`."""
        raise TypeError(f"{type(self).__name__} has no text tower")

    def transformer(self, tower: Tower = "text") -> nn.Module:
        """A tower's transformer blocks, without embeddings, final norm or projection; its stages where it has no such blocks.

        PC-CLIP tunes those of the text tower.
        """
        raise TypeError(f"{type(self).__name__} has no transformer")

    @property
    def device(self) -> torch.device:
        return next(self.text_tower.parameters()).device

    def tokenised(self, texts: Sequence[str]) -> Tokens:
        """Texts as tokens. A text over the context length is cut, keeping its end-of-text token."""
        return Tokens.of(self.tokens(texts), self.context_length)

    def batch(self, tokens: Tokens) -> Int[Tensor, "n t"]:
        """Token ids, each text padded to the length of the longest."""
        return tokens.padded(self.pad_id).to(self.device)

    def features(self, tokens: Tokens) -> Float[Tensor, "n d"]:
        """Text vectors before normalisation, in order, with gradients unless they are switched off.

        Texts are grouped by length, so little padding is computed. Up to rounding the result equals `text_features` of
        all texts padded to one length.
        """
        overhead = 16 if self.device.type == "cpu" else 8192  # on a GPU launching kernels costs more
        row_groups = groups(tokens.lengths, overhead)
        back = np.argsort(np.concatenate(row_groups))
        vectors = torch.cat([self.text_features(self.batch(tokens[rows])) for rows in row_groups])
        return vectors[torch.from_numpy(back).to(vectors.device)]

    def tunable(self, part: str, tower: Tower = "text") -> dict[str, nn.Parameter]:
        """A tower's parameters by name: of its 'transformer' (as released), of its 'layernorm', or 'all'."""
        module = self.text_tower if tower == "text" else self.image_tower
        chosen: Sequence[nn.Module] = [module]
        if part == "transformer":
            chosen = [self.transformer(tower)]
        if part == "layernorm":
            chosen = normalisations(module)
        wanted = {id(p) for layer in chosen for p in layer.parameters()}
        return {name: p for name, p in module.named_parameters() if id(p) in wanted}

    def encode_texts(
        self, texts: str | Sequence[str], batch_size: int = 256, normalise: bool = True
    ) -> Float[np.ndarray, "n d"]:
        """Unit text vectors, float32, in the order given; a plain string is one text, whose vector has shape (1, d).

        Without `normalise` they have the text tower's lengths. Texts over the context length are cut. Raises PcclipError
        naming the first that is no string.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise PcclipError(f"encode_texts needs strings, found {type(text).__name__}: {text!r}")
        return self.encode_tokens(self.tokenised(texts), batch_size, normalise)

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tokens, batch_size: int = 256, normalise: bool = True) -> Float[np.ndarray, "n d"]:
        """As `encode_texts`, of texts that are tokens already.

        Texts of similar length share a batch, so that short texts get little padding.
        """
        self.eval()
        order = np.argsort(tokens.lengths, kind="stable")
        out = np.empty((len(tokens), self.width), dtype=np.float32)
        meter = Meter(len(tokens), "texts") if len(tokens) > batch_size else None
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors = self.features(tokens[rows]).float()
            out[rows] = (nn.functional.normalize(vectors, dim=-1) if normalise else vectors).cpu().numpy()
            if meter:
                meter.add(len(rows))
        return out

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[np.ndarray, "n d"]:
        """Unit image vectors, float32, of a batch that is already decoded."""
        self.eval()
        vectors = self.image_features(pixels.to(self.device)).float()
        return nn.functional.normalize(vectors, dim=-1).cpu().numpy()

    def encode_images(
        self, images: Sequence[str | Path | Image.Image], batch_size: int = 64, workers: int = 4
    ) -> Float[np.ndarray, "n d"]:
        """Unit image vectors, float32, of paths or PIL images, in the order given.

        Raises PcclipError naming the first image that cannot be read.
        """
        out = np.empty((len(images), self.width), dtype=np.float32)
        for rows, pixels, bad in decoded_batches(images, [self.preprocess], batches(len(images), batch_size), workers):
            if bad:
                raise PcclipError(f"{images[bad[0][0]]}: {bad[0][1]}; remove it or replace it")
            out[rows] = self.encode_pixels(pixels[0])
        return out

    def image_fingerprint(self) -> str:
        """A digest of all that image vectors depend on: image tower weights and architecture; no text finetuning changes it."""
        return digest([self.architecture, weights_digest(self.image_tower)])[:16]


def normalisations(tower: nn.Module) -> Sequence[nn.Module]:
    """The LayerNorms of a tower (group and RMS norms too); in a tower without any, such as RN50's, its BatchNorms.

    A BatchNorm keeps its means and variances: only its scale and shift are parameters.
    """
    norms = [module for module in tower.modules() if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)]
    return norms or [module for module in tower.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a module's parameters and buffers."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
