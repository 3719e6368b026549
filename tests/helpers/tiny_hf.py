"""Tiny random models of transformers' image-text classes with tokenizer and processor, built without a hub."""

from copy import copy
from functools import cache
from pathlib import Path

import pytest
import torch

from pcclip.torchvision_shim import declare_missing

SIDE, WIDTH = 32, 32
WORDS = "a the first second image shows large small red green blue disc square bar ring cross photo of cat dog while".split()
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT = {
    **_SMALL,
    "vocab_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION = {**_SMALL, "image_size": SIDE, "patch_size": 8}
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CLASSES = {  # name -> (class of the model, of its image processor, of its processor, its own keys)
    "clip": ("CLIP", "CLIPImageProcessor", "CLIPProcessor", {"projection_dim": WIDTH}),
    "siglip": ("Siglip", "SiglipImageProcessor", "SiglipProcessor", {}),
    "siglip2": ("Siglip2", "Siglip2ImageProcessor", "Siglip2Processor", {}),
    "metaclip_2": ("MetaClip2", "CLIPImageProcessor", "CLIPProcessor", {"projection_dim": WIDTH}),
    "chinese_clip": ("ChineseCLIP", "ChineseCLIPImageProcessor", "ChineseCLIPProcessor", {"projection_dim": WIDTH}),
    "altclip": ("AltCLIP", "CLIPImageProcessor", "AltCLIPProcessor", {"projection_dim": WIDTH}),
    "blip": ("Blip", "BlipImageProcessor", "BlipProcessor", {"projection_dim": WIDTH}),
    "clipseg": ("CLIPSeg", "CLIPImageProcessor", "CLIPSegProcessor", {"projection_dim": WIDTH}),
    "align": ("Align", "EfficientNetImageProcessor", "AlignProcessor", {"projection_dim": WIDTH}),
    "groupvit": ("GroupViT", "CLIPImageProcessor", "CLIPProcessor", {"projection_dim": WIDTH}),
    "tipsv2": ("Tipsv2", "Tipsv2ImageProcessor", "Tipsv2Processor", {}),
    "owlvit": ("OwlViT", "OwlViTImageProcessor", "OwlViTProcessor", {"projection_dim": WIDTH}),
    "owlv2": ("Owlv2", "Owlv2ImageProcessor", "Owlv2Processor", {"projection_dim": WIDTH}),
    "any two": (
        "VisionTextDualEncoder",
        "CLIPImageProcessor",
        "VisionTextDualEncoderProcessor",
        {"projection_dim": WIDTH},
    ),
}
_MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_CHAT = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {% for part in message.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %} <|im_end|>{% endfor %}"
)


@cache
def tokenizer(marks=(), **options):
    """Words between <s> and </s>, as CLIP's texts are."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *marks, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    options = {"model_max_length": 40, **SPECIAL, **options}
    return PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=list(marks), **options)


def write(name: str, folder: Path) -> str:
    """Write the model of a name of CLASSES to the folder. Returns its spec."""
    declare_missing()
    import transformers

    kind, images, processor, own = CLASSES[name]
    if not hasattr(transformers, f"{kind}Config"):
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    config = getattr(transformers, f"{kind}Config")
    text, vision = dict(_TEXT), dict(_VISION)
    if name == "siglip2":
        vision = {**_SMALL, "num_patches": 16, "patch_size": 8}
    if name == "align":  # an EfficientNet
        vision = {"image_size": SIDE, "hidden_dim": WIDTH, "width_coefficient": 0.1, "depth_coefficient": 0.1}
    if name.startswith("siglip"):
        text["projection_size"] = WIDTH
    if name == "any two":
        text["model_type"], vision["model_type"] = "bert", "clip_vision_model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}Model")(config(text_config=text, vision_config=vision, **own))
    model.save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    sizes = {"size": square, "crop_size": square, "do_center_crop": False}
    if name == "siglip2":
        sizes = {"max_num_patches": 16, "patch_size": 8}
    words = tokenizer()
    words.model_input_names = ["input_ids"] if name.startswith("siglip") else ["input_ids", "attention_mask"]
    getattr(transformers, processor)(getattr(transformers, images)(**sizes), words).save_pretrained(folder)
    return f"hf:{folder}"


def write_mllm(folder: Path, family: str = "Qwen2VL") -> str:
    """Write a multimodal language model, Qwen2VL or Qwen3VL, with a chat template, to the folder. Returns its spec."""
    declare_missing()
    import transformers

    words = tokenizer(tuple(_MARKS), model_max_length=512, padding_side="left")
    numbers = dict(zip(_MARKS, words.convert_tokens_to_ids(_MARKS), strict=True))
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = {**_TEXT, "max_position_embeddings": 512, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": rope}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    if family == "Qwen3VL":
        vision |= {"intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16}
        vision |= {"deepstack_visual_indexes": [0]}
    tokens = {
        "image_token_id": numbers["<|image_pad|>"],
        "video_token_id": numbers["<|video_pad|>"],
        "vision_start_token_id": numbers["<|vision_start|>"],
        "vision_end_token_id": numbers["<|vision_end|>"],
    }
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    pixels = {"patch_size": 8, "size": {"shortest_edge": 256, "longest_edge": 1024}}
    videos = getattr(transformers, f"{family}VideoProcessor")(**pixels)
    images = transformers.Qwen2VLImageProcessor(**pixels)  # of both
    processor = getattr(transformers, f"{family}Processor")
    processor(images, words, videos, chat_template=_CHAT).save_pretrained(folder)
    return f"hf:{folder}"


def write_embedding_gemma(folder: Path) -> str:
    """Write EmbeddingGemma 2, one encoder for texts, images and sound, to the folder. Returns its spec."""
    declare_missing()
    import transformers

    if not hasattr(transformers, "EmbeddingGemma2Config"):
        pytest.skip(f"transformers {transformers.__version__} has no EmbeddingGemma2")
    from transformers.models.embedding_gemma2.video_processing_embedding_gemma2 import EmbeddingGemma2VideoProcessor

    marks = {"image_token": "<image>", "boi_token": "<image_begin>", "eoi_token": "<image_end>"}
    words = copy(tokenizer((*marks.values(), "<|video|>"), model_max_length=512))
    words._set_model_specific_special_tokens(marks)
    numbers = {name.replace("token", "token_id"): getattr(words, f"{name}_id") for name in marks}
    head = {"head_dim": 16, "num_key_value_heads": 2}
    text = {**_TEXT, **head, "global_head_dim": 16, "num_global_key_value_heads": 1, "embedding_dim": WIDTH}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "hidden_size_per_layer_input": 8}
    vision = {"model_type": "gemma4_vision", **_SMALL, **head, "patch_size": 8, "position_embedding_size": 64}
    config = transformers.EmbeddingGemma2Config(text_config=text, vision_config=vision, audio_token_id=63, **numbers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.EmbeddingGemma2Model(config).save_pretrained(folder)
    pixels = {"patch_size": 8, "max_soft_tokens": 70}
    parts = [transformers.Gemma4AudioFeatureExtractor(), transformers.Gemma4ImageProcessor(**pixels), words]
    transformers.EmbeddingGemma2Processor(*parts, EmbeddingGemma2VideoProcessor(**pixels)).save_pretrained(folder)
    return f"hf:{folder}"
