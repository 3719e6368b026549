"""Tiny random models of transformers' image-text classes with tokenizer and processor, built without a hub."""

from functools import cache
from pathlib import Path

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
}


@cache
def tokenizer():
    """Words between <s> and </s>, as CLIP's texts are."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **SPECIAL)


def write(name: str, folder: Path) -> str:
    """Write the model of a name of CLASSES to the folder. Returns its spec."""
    declare_missing()
    import transformers

    kind, images, processor, own = CLASSES[name]
    config = getattr(transformers, f"{kind}Config")
    text, vision = dict(_TEXT), dict(_VISION)
    if name == "siglip2":
        vision = {**_SMALL, "num_patches": 16, "patch_size": 8}
    if name.startswith("siglip"):
        text["projection_size"] = WIDTH
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
