"""Any image-text model of transformers or sentence-transformers: `hf:NAME`, `hf:NAME@REVISION` or `hf:FOLDER`.

A model with a text tower and an image tower (CLIP, SigLIP, SigLIP 2, MetaCLIP 2, ALIGN, ...) is loaded by transformers,
and either tower can be trained. Any other model (Qwen3-VL-Embedding, EmbeddingGemma 2, ...) is loaded by
sentence-transformers and stays frozen: a peer. A multimodal language model reads an instruction before each image or text
(conditional embeddings). Tokenizer, preprocessing and pooling are the library's, and code that a repository brings is never run.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from pcclip.config import resolve
from pcclip.encoders import weight_files
from pcclip.encoders.dual_encoder import Encoder, Tower
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.runs.files import digest

SCHEMA = "hf:"
_PADDED = ("siglip", "siglip2")  # trained on texts padded to the context, which they attend to
_SIZE_LIMIT = 100_000  # transformers writes a huge number where a tokenizer has no longest text
_NOT_PART = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


def split(spec: str) -> tuple[str, str | None]:
    """'hf:FOLDER' -> (FOLDER, None), 'hf:NAME@REVISION' -> (NAME, REVISION). Relative folders are below the root."""
    place = spec.removeprefix(SCHEMA)
    if place and resolve(place).is_dir():
        return str(resolve(place)), None
    name, _, revision = place.partition("@")
    return name, revision or None


def check(spec: str) -> None:
    """Raise PcclipError unless the spec is a folder with a model, or can be a name on the hub."""
    place, _ = split(spec)
    folder = Path(place)
    if place and folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        raise PcclipError(f"model {spec!r}: {folder} has no config.json; give the folder of a whole model")
    if not place or (not folder.is_dir() and (place.startswith((".", "/", "~")) or place.count("/") > 1)):
        raise PcclipError(f"model {spec!r}: there is no folder {place}; give one, or a name on the hub")


def identity(spec: str) -> list[Any]:
    """What a stage's key says of the model: the files of a folder, or the name and revision on the hub."""
    check(spec)
    folder = Path(split(spec)[0])
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors", ".bin", ".model"))
    return [spec.removeprefix(SCHEMA) if not files else "", files]


def load(spec: str) -> Encoder:
    """Load the model in fp32. Raises PcclipError when it cannot be loaded, or gives no vectors of one space."""
    check(spec)
    with weight_files.loading(spec):
        weight_files.check_folder(Path(split(spec)[0]))
        kind = model_class(*split(spec))
        return DualEncoder(spec, kind) if kind else FrozenPeer(spec)


def check_folder(spec: str) -> None:
    """Raise PcclipError when a folder's weights or processor cannot be loaded; the weights' values are not read."""
    with weight_files.loading(spec):
        weight_files.check_folder(Path(split(spec)[0]))
        if (kind := model_class(split(spec)[0])) and find_spec("accelerate"):
            _dual_encoder(spec, kind, device_map="meta")


def _dual_encoder(spec: str, kind: Any, **options: Any) -> tuple[Any, Any]:
    """A model of transformers with two towers, in fp32, and its processor."""
    from transformers import AutoProcessor

    place, revision = split(spec)
    source = {"revision": revision, "trust_remote_code": False}
    model = weight_files.from_folder(kind, place, **source, dtype=torch.float32, **options)
    return model, AutoProcessor.from_pretrained(place, **source)


def model_class(place: str, revision: str | None = None) -> Any:
    """transformers' class of a model with two towers, or None for any other model."""
    from transformers import MODEL_MAPPING, AutoConfig

    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        return None  # sentence-transformers' older layout
    kind = MODEL_MAPPING.get(type(AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)), None)
    return kind if all(hasattr(kind, f"get_{side}_features") for side in ("text", "image")) else None


def tower(model: Any, side: str) -> Any:
    """The model with the modules of one side, 'text' or 'vision', alone. Its weights are the model's own."""
    half, names = copy(model), ("text", "txt") if side == "text" else ("vision", "visual", "image")
    half._modules = {name: part for name, part in model._modules.items() if name.startswith(names)}
    half._parameters = {}
    return half


class DualEncoder(Encoder):
    """A model of transformers with get_text_features and get_image_features."""

    image_tower: Any
    text_tower: Any

    def __init__(self, spec: str, kind: Any):
        super().__init__()
        model, processor = _dual_encoder(spec, kind)
        self.processor: Any = processor
        self.image_tower, self.text_tower = tower(model, "vision"), tower(model, "text")
        self.image_tower.requires_grad_(False)
        self.spec, self.logits = spec, dict(model._parameters)
        tokenizer = self.processor.tokenizer
        self.pad_id = tokenizer.pad_token_id or 0
        self.pads = getattr(model.config, "model_type", "") in _PADDED
        self._masks = "attention_mask" in self.processor(text=["a"], return_tensors="pt") and (
            self.pad_id != tokenizer.eos_token_id
        )
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _SIZE_LIMIT
        self.context_length = min(tokenizer.model_max_length, positions)
        blank = self._parts(Image.new("RGB", (8, 8)))
        self._layout = {name: (part.shape[1:], part.dtype) for name, part in blank.items()}
        self.eval()
        with torch.inference_mode():
            vectors = [self.text_features(self.batch(self.tokenised(["a"]))), self._image_vectors(blank)]
        if len({vector.shape for vector in vectors}) > 1 or vectors[0].ndim != 2:
            raise PcclipError(f"model {spec!r}: gives no image and text vectors of one space; choose another")
        self.width = vectors[0].shape[1]
        self.architecture = {
            "family": "transformers",
            "class": kind.__name__,
            "config": digest(_without(model.config.to_dict())),
            "width": self.width,
            "context_length": self.context_length,
            "preprocess": digest(_without(self.processor.image_processor.to_dict())),
        }

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """The image processor's pixels; where it gives more, as SigLIP 2 for any format, all of it in one tensor."""
        parts = self._parts(image)
        if len(parts) == 1:
            return parts["pixel_values"][0]
        flat = torch.cat([part.float().flatten() for part in parts.values()])
        return nn.functional.pad(flat, (0, -len(flat) % 3)).view(3, -1, 1)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self.processor.tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []

    def batch(self, tokens: Tokens) -> Int[Tensor, "n t"]:
        """Pad on the tokenizer's side, to the full context where the model was trained so."""
        ids = tokens.padded(self.pad_id, self.context_length if self.pads else None)
        if self.processor.tokenizer.padding_side == "left":
            rows = zip(ids, tokens.lengths.tolist(), strict=True)
            ids = torch.stack([row.roll(len(row) - length) for row, length in rows])
        return ids.to(self.device)

    def features(self, tokens: Tokens) -> Float[Tensor, "n d"]:
        return self.text_features(self.batch(tokens)) if self.pads else super().features(tokens)

    def text_features(self, ids: Int[Tensor, "n t"]) -> Tensor:
        mask = {"attention_mask": (ids != self.pad_id).long()} if self._masks else {}
        return _pooled(self.text_tower.get_text_features(input_ids=ids, **mask))

    def image_features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        if len(self._layout) == 1:
            return self._image_vectors({"pixel_values": pixels})
        parts, start, flat = {}, 0, pixels.flatten(1)
        for name, (shape, dtype) in self._layout.items():
            parts[name] = flat[:, start : start + shape.numel()].view(-1, *shape).to(dtype)
            start += shape.numel()
        return self._image_vectors(parts)

    def transformer(self, tower: Tower = "text") -> nn.Module:
        """The outermost module called `encoder`, or the tower where it has none."""
        half: nn.Module = self.text_tower if tower == "text" else self.image_tower
        return next((part for name, part in half.named_modules() if name.endswith("encoder")), half)

    def whole(self) -> Any:
        """The model of transformers with both towers as they are now; its own save_pretrained writes it."""
        model = copy(self.text_tower)
        model._modules, model._parameters = {**self.image_tower._modules, **self.text_tower._modules}, self.logits
        return model

    def _parts(self, image: Image.Image) -> Mapping[str, Tensor]:
        return self.processor.image_processor(images=image, return_tensors="pt")

    def _image_vectors(self, parts: Mapping[str, Tensor]) -> Tensor:
        return _pooled(self.image_tower.get_image_features(**parts))


class FrozenPeer(Encoder):
    """A model that sentence-transformers loads: its images have any size, so each is encoded where it is decoded.

    Attributes:
        conditional: whether its chat template takes an instruction before an image or a text.
    """

    _instruction: str | None = None

    def __init__(self, spec: str):
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise PcclipError(
                f"model {spec!r}: has no two towers, so it needs sentence-transformers: pip install 'pcclip[interop]'"
            ) from None
        place, revision = split(spec)
        self._model: Any = SentenceTransformer(place, revision=revision, trust_remote_code=False, device="cpu").float()
        if not self._model.supports("image"):
            raise PcclipError(f"model {spec!r}: reads texts alone; choose a model that reads images too")
        self.image_tower = self.text_tower = self._model
        self.spec, self.context_length = spec, self._model.max_seq_length or _SIZE_LIMIT
        self.width, self.conditional = len(self._vectors(["a"])[0]), self._model.supports("message")
        self.architecture = {"family": "sentence-transformers", "width": self.width, "modules": str(self._model)}
        self.eval()

    def conditioned(self, instruction: str) -> "FrozenPeer":
        """The same model, whose images and texts are read after an instruction, as the system's message."""
        model = copy(self)
        model._instruction, model.architecture = instruction, {**self.architecture, "instruction": instruction}
        return model

    def preprocess(self, image: Image.Image) -> Float[Tensor, "..."]:
        """The image's unit vector."""
        return torch.from_numpy(self._vectors([image])[0])

    def encode_pixels(self, pixels: Float[Tensor, "n d"]) -> Float[np.ndarray, "n d"]:
        return pixels.numpy()

    def encode_texts(
        self, texts: str | Sequence[str], batch_size: int = 256, normalise: bool = True
    ) -> Float[np.ndarray, "n d"]:
        return self._vectors([texts] if isinstance(texts, str) else list(texts), normalise)

    def tokens(self, texts: Sequence[str]) -> NoReturn:
        raise PcclipError(f"model {self.spec!r} is a frozen peer, which is not trained; name it in evaluate.peers")

    def _vectors(self, items: list, normalise: bool = True) -> Float[np.ndarray, "n d"]:
        if not items:
            return np.empty((0, self.width), np.float32)
        return self._model.encode(
            items, normalize_embeddings=normalise, show_progress_bar=False, prompt=self._instruction
        ).astype(np.float32)


def _pooled(output: Any) -> Tensor:
    """The tensor that a tower gives, not always one vector for each item."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _without(settings: Any) -> Any:
    """The settings, at all depths, without keys that name a place or a version."""
    if not isinstance(settings, dict):
        return settings
    return {key: _without(value) for key, value in settings.items() if key not in _NOT_PART}
