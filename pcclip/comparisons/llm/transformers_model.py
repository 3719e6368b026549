"""A language model in this process, through transformers: a hub name or a local folder with safetensors."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pcclip.comparisons.llm.backend import Choice, Item, Odds, Question, Reply
from pcclip.comparisons.llm.identity import backend_identity, weights_source
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.encoders.weight_files import check_folder, from_folder
from pcclip.errors import PcclipError, one_line
from pcclip.torchvision_shim import declare_missing

_WINDOW = 8  # batches whose rows are sorted by length together, which leaves less padding


class TransformersModel:
    """`in_flight` questions a batch, padded on the left; bf16 on GPUs, fp32 without one.

    Each row draws from its own question's seed. The rows of a batch still change each other's logits in the last bits.
    """

    def __init__(self, settings: Generate, prompt: Prompt, device: str = "auto"):
        """Device 'meta' tries a model without reading the weights' values; it answers nothing."""
        self.identity = "" if device == "meta" else backend_identity(settings)
        self._settings, self._prompt = settings, prompt
        self._tokenizer, self._model, self._ends = _load(settings.llm or "", device)
        self._chat_text(prompt.messages("", ""))  # refused before the first question

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        for batch in self._batches(questions, self._chat_ids):
            yield from zip([question for question, _ in batch], self._replies(batch), strict=True)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        for batch in self._batches(choices, lambda choice: self._tokenizer(choice.text).input_ids):
            logits = self._generate([ids for _, ids in batch], 1, output_logits=True).logits[0].float().cpu()
            for (choice, ids), row in zip(batch, logits, strict=True):
                yield choice, self._odds(choice, ids, row)

    def _batches(
        self, items: Iterable[Item], ids_of: Callable[[Item], list[int]]
    ) -> Iterator[list[tuple[Item, list[int]]]]:
        """Batches of `in_flight` items with their token ids."""
        items, size = iter(items), self._settings.in_flight
        while window := [(item, ids_of(item)) for item in islice(items, _WINDOW * size)]:
            window.sort(key=lambda row: len(row[1]))
            for start in range(0, len(window), size):
                yield window[start : start + size]

    def _chat_ids(self, question: Question) -> list[int]:
        text = self._chat_text(self._prompt.messages(question.first, question.second))
        return self._tokenizer(text, add_special_tokens=False).input_ids

    def _chat_text(self, messages: list[dict]) -> str:
        """The chat by the model's template, without a system role where it refuses one. Raises PcclipError."""
        try:
            return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (jinja2.TemplateError, ValueError) as error:  # ValueError: there is no template
            if messages[0]["role"] == "system" and self._tokenizer.chat_template:
                system, first, *rest = messages
                return self._chat_text([{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest])
            raise PcclipError(
                f"generate.llm = {self._settings.llm}: its tokenizer's chat template refuses the prompt "
                f"{self._prompt.name} ({one_line(error)}); take the model's chat or instruct version, or change the prompt"
            ) from None

    def _replies(self, batch: list[tuple[Question, list[int]]]) -> list[Reply]:
        settings = self._settings
        sampler = [NucleusSampler([question.seed for question, _ in batch], settings)] if settings.temperature else []
        rows = [ids for _, ids in batch]
        sequences = self._generate(rows, settings.max_tokens, logits_processor=sampler).sequences
        return [self._reply(new) for new in sequences[:, max(map(len, rows)) :].tolist()]

    def _reply(self, new: list[int]) -> Reply:
        end = next((k for k, token in enumerate(new) if token in self._ends), None)
        text = self._tokenizer.decode(new[:end], skip_special_tokens=True)
        return Reply(text, "length" if end is None else "stop")

    def _odds(self, choice: Choice, ids: list[int], logits: Float[Tensor, " tokens"]) -> Odds:
        """Exact odds: from the logits of each word's first token; a token that both lists share is left out."""
        more, less = ({self._next_id(choice.text, ids, word) for word in words} for words in (choice.more, choice.less))
        more, less = more - less - {None}, less - more - {None}
        if not more or not less:
            return Odds(None, f"error: {choice.more} and {choice.less} begin with the same tokens")
        return Odds(float(logits[list(more)].logsumexp(0) - logits[list(less)].logsumexp(0)), "probabilities")

    def _next_id(self, text: str, ids: list[int], word: str) -> int | None:
        """The first token of `word` after `text`; None when the word changes the tokens of the text."""
        longer = self._tokenizer(f"{text} {word}").input_ids
        return longer[len(ids)] if longer[: len(ids)] == ids and len(longer) > len(ids) else None

    @torch.inference_mode()
    def _generate(self, rows: list[list[int]], max_tokens: int, **options: Any) -> Any:
        """transformers' output for rows of token ids. Raises PcclipError for a batch that does not fit into memory."""
        texts = [torch.tensor(row, dtype=torch.long) for row in rows]
        ids, mask = (
            pad_sequence(part, batch_first=True, padding_side="left").to(self._model.device)
            for part in (texts, [torch.ones_like(text) for text in texts])
        )
        try:
            return self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                **options,
            )
        except torch.OutOfMemoryError:
            raise PcclipError(
                f"generate.in_flight = {self._settings.in_flight}: too many rows for the GPU's memory; lower it and "
                "run again: finished answers are kept"
            ) from None


class NucleusSampler:
    """Nucleus sampling for transformers' generate: one uniform number per row and step, from the row's own seed.

    It leaves a finite score at the drawn token only.
    """

    def __init__(self, seeds: list[int], settings: Generate):
        draws = [torch.rand(settings.max_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._draws = iter(torch.stack(draws, dim=1)[..., None])  # one (rows, 1) for each step
        self._temperature, self._top_p = settings.temperature, settings.top_p

    def __call__(
        self, input_ids: Int[Tensor, "rows t"] | None, scores: Float[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows tokens"]:
        ordered, tokens = (scores.float() / self._temperature).softmax(-1).sort(descending=True, stable=True)
        kept = ordered * (ordered.cumsum(-1) - ordered < self._top_p)
        drawn = next(self._draws).to(scores.device) * kept.sum(-1, keepdim=True)
        place = (kept.cumsum(-1) <= drawn).sum(-1, keepdim=True).clamp(max=(kept > 0).sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.gather(1, place), 0.0)


def _load(name: str, device: str) -> tuple[Any, Any, set[int]]:
    """(tokenizer, model in eval mode, ids that end a reply). Runs no code of the model's own. Raises PcclipError.

    The model's own sampling settings are discarded: the parameters decide.
    """
    declare_missing()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source, revision = weights_source(name)
    gpu = torch.cuda.is_available()
    options = {"revision": revision or "main", "trust_remote_code": False}
    check_folder(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = from_folder(
            AutoModelForCausalLM,
            source,
            **options,
            use_safetensors=True,
            weights_only=True,
            dtype=torch.bfloat16 if gpu else torch.float32,
            device_map=device if gpu or device == "meta" else None,
        )
    except Exception as error:  # transformers, safetensors, tokenizers and the hub each raise their own
        raise PcclipError(
            f"generate.llm = {name}: cannot be loaded ({type(error).__name__}: {one_line(error)}); fetch it with "
            f"`hf download {source}`, or give a local folder with safetensors"
        ) from error
    end = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(end if isinstance(end, list) else [end])} - {None}
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends) or None, pad_token_id=0)
    return tokenizer, model.eval(), ends
