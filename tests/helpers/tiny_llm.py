"""Not a test: a folder with a tiny Llama of random weights and a tokenizer of plain words, for `transformers`."""

from pathlib import Path

from pcclip.torchvision_shim import declare_missing

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} [end] {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


def save_llm(folder: Path, words: list[str], spread: float = 0.3) -> Path:
    """Two layers; every word is a token. The smaller the `spread` of the weights, the more alike all words' chances."""
    declare_missing()
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: k for k, word in enumerate(dict.fromkeys(["[unk]", "[end]", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[end]", chat_template=TEMPLATE).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=spread,
            eos_token_id=vocabulary["[end]"],
            bos_token_id=None,
        )
    ).save_pretrained(folder)
    return folder
