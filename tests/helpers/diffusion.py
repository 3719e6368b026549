"""Tiny diffusion models with random weights, in diffusers' pipeline layout."""

from pathlib import Path

import torch

from pcclip.torchvision_shim import declare_missing


def parts(prediction: str = "epsilon", vae: bool = True, scheduler: str = "DDPMScheduler", size: int = 8) -> dict:
    """UNet, scheduler, text encoder, tokenizer and, if wanted, VAE; always the same weights."""
    declare_missing()
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(97 + k) + end for end in ("", "</w>") for k in range(26)]
    vocabulary = {word: k for k, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    torch.manual_seed(0)
    found = {
        "unet": diffusers.UNet2DConditionModel(
            sample_size=size,
            in_channels=4 if vae else 3,
            out_channels=4 if vae else 3,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        "scheduler": getattr(diffusers, scheduler)(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=24,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        "tokenizer": CLIPTokenizer(vocabulary, [], model_max_length=24),
    }
    if vae:
        found["vae"] = diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            latent_channels=4,
            sample_size=2 * size,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    return found


def saved(folder: Path, **asked) -> Path:
    """Those parts, written as a pipeline of diffusers is."""
    for name, part in parts(**asked).items():
        part.save_pretrained(folder / name)
    return folder
