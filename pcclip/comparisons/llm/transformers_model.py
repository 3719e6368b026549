"""A language model in this process, through transformers: a hub name or a local folder with safetensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import jinja2
import numpy as np
import torch
from jaxtyping import Float

from pcclip.comparisons.llm.choice import Choice, Odds
from pcclip.comparisons.llm.identity import weights_identity, weights_source
from pcclip.comparisons.llm.question import Question, Reply
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.runs.progress import Meter
from pcclip.torchvision_shim import declare_missing

_WINDOW = 8  # batches whose rows are sorted by length, so that less is padding


class InProcess:
    """`in_flight` rows a batch, padded on the left; bf16 on the GPUs when there are any, else fp32.

    Each row draws from its own question's seed. Batch mates still move the logits in their last bits.
    """

    def __init__(self, config: Generate, prompt: Prompt):
        self.identity = weights_identity(config.llm)
        self._config, self._prompt = config, prompt
        self._tokenizer, self._model, self._ends = _load(config.llm)
        self._folds = self._template_refuses_system()

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        for batch in self._batches(questions, self._chat):
            yield from zip([question for question, _ in batch], self._written(batch), strict=True)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        for batch in self._batches(choices, lambda choice: self._tokenizer(choice.text).input_ids):
            logits = self._generated([ids for _, ids in batch], 1, output_logits=True).logits[0].float().cpu()
            for (choice, ids), row in zip(batch, logits, strict=True):
                yield choice, self._odds(choice, ids, row)

    def _batches(self, items: Iterable, ids_of: Callable) -> Iterator[list[tuple]]:
        """Rows of (item, token ids), `in_flight` at a time."""
        items, rows = iter(items), self._config.in_flight
        while window := [(item, ids_of(item)) for item in islice(items, _WINDOW * rows)]:
            window.sort(key=lambda row: len(row[1]))
            yield from (window[k : k + rows] for k in range(0, len(window), rows))

    def _chat(self, question: Question) -> list[int]:
        messages = self._prompt.messages(question.first, question.second)
        text = self._templated(_folded(messages) if self._folds else messages)
        return self._tokenizer(text, add_special_tokens=False).input_ids

    def _templated(self, messages: list[dict]) -> str:
        return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def _template_refuses_system(self) -> bool:
        """Raises PcclipError when there is no template, or it refuses the prompt in any form."""
        where = f"generate.llm = {self._config.llm}"
        if not self._tokenizer.chat_template:
            raise PcclipError(f"{where}: its tokenizer has no chat template; take the model's chat or instruct version")
        messages = self._prompt.messages("", "")
        for folds, tried in ((False, messages), (True, _folded(messages))):
            try:
                self._templated(tried)
                return folds
            except jinja2.TemplateError as error:
                reason = error
        raise PcclipError(f"{where}: its chat template refuses the prompt {self._prompt.name} ({reason}); change one")

    def _written(self, batch: list[tuple[Question, list[int]]]) -> list[Reply]:
        config = self._config
        sampler = [_Sampler([q.seed for q, _ in batch], config)] if config.temperature else []
        rows = [ids for _, ids in batch]
        found = self._generated(rows, config.max_tokens, logits_processor=sampler).sequences
        return [self._reply(row) for row in found[:, max(map(len, rows)) :].tolist()]

    def _reply(self, new: list[int]) -> Reply:
        end = next((k for k, token in enumerate(new) if token in self._ends), None)
        text = self._tokenizer.decode(new[:end], skip_special_tokens=True)
        return Reply(text, "length" if end is None else "stop")

    def _odds(self, choice: Choice, ids: list[int], logits: torch.Tensor) -> Odds:
        """Exact, from the next token's logits: those of the words' first tokens, where the lists do not share them."""
        more, less = ({self._next_id(choice.text, ids, word) for word in words} for words in (choice.more, choice.less))
        more, less = more - less - {None}, less - more - {None}
        if not more or not less:
            return Odds(None, f"error: {choice.more} and {choice.less} begin with the same tokens")
        return Odds(float(logits[list(more)].logsumexp(0) - logits[list(less)].logsumexp(0)), "probabilities")

    def _next_id(self, text: str, ids: list[int], word: str) -> int | None:
        """The first token of `word` after `text`; None when it would change the text's own tokens."""
        longer = self._tokenizer(f"{text} {word}").input_ids
        return longer[len(ids)] if longer[: len(ids)] == ids and len(longer) > len(ids) else None

    @torch.inference_mode()
    def _generated(self, rows: list[list[int]], max_tokens: int, **options):
        """transformers' output for rows of token ids."""
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        with _in_memory(self._config):
            return self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                **options,
            )


@torch.inference_mode()
def log_likelihoods(config: Generate, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
    """log P(text) of each text by itself, in nats: the sum over its tokens, after a start token and without an end.

    The start is the tokenizer's own, else its end of a text. Raises PcclipError when the model cannot be loaded.
    """
    tokenizer, model, ends = _load(config.llm)
    start = next(token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, *ends, 0) if token is not None)
    rows = [ids if ids[:1] == [start] else [start, *ids] for ids in (tokenizer(text).input_ids for text in texts)]
    found, meter = np.empty(len(rows)), Meter(len(rows), "texts")
    order = np.argsort([len(row) for row in rows], kind="stable")
    for k in range(0, len(order), config.in_flight):
        chosen = order[k : k + config.in_flight]
        width = max(len(rows[k]) for k in chosen)
        ids = torch.tensor([rows[k] + [0] * (width - len(rows[k])) for k in chosen], device=model.device)
        mask = torch.tensor([[1] * len(rows[k]) + [0] * (width - len(rows[k])) for k in chosen], device=model.device)
        with _in_memory(config):
            logs = model(ids, attention_mask=mask).logits[:, :-1].float().log_softmax(-1)
        each = logs.gather(-1, ids[:, 1:, None])[..., 0]
        found[chosen] = (each * mask[:, 1:]).sum(dim=1).cpu().numpy()
        meter.add(len(chosen))
    return found


@contextmanager
def _in_memory(config: Generate) -> Iterator[None]:
    """Raises PcclipError, which says what to lower, where a batch is too large."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise PcclipError(
            f"generate.in_flight = {config.in_flight}: too many rows for the GPU's memory; lower it and "
            "run again: finished answers are kept"
        ) from None


class _Sampler:
    """Nucleus sampling by one number per row and step from the row's own seed; leaves only the token it takes."""

    def __init__(self, seeds: list[int], config: Generate):
        draws = [torch.rand(config.max_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._draws = iter(torch.stack(draws, dim=1)[..., None])  # step -> (row, 1)
        self._temperature, self._top_p = config.temperature, config.top_p

    def __call__(self, input_ids, scores):
        ordered, tokens = (scores.float() / self._temperature).softmax(-1).sort(descending=True, stable=True)
        kept = ordered * (ordered.cumsum(-1) - ordered < self._top_p)
        drawn = next(self._draws).to(scores.device) * kept.sum(-1, keepdim=True)
        place = (kept.cumsum(-1) <= drawn).sum(-1, keepdim=True).clamp(max=(kept > 0).sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.gather(1, place), 0.0)


def _folded(messages: list[dict]) -> list[dict]:
    """The system text moved into the first user's turn."""
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _load(name: str):
    """(tokenizer, model in eval mode, ids that end a reply). Runs no code of the model's own. Raises PcclipError.

    How the model's makers would sample is set aside: the parameters say it.
    """
    declare_missing()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source, revision = weights_source(name)
    gpu = torch.cuda.is_available()
    options = {"revision": revision or "main", "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            **options,
            use_safetensors=True,
            weights_only=True,
            dtype=torch.bfloat16 if gpu else torch.float32,
            device_map="auto" if gpu else None,
        )
    except Exception as error:  # transformers, safetensors, tokenizers and the hub each raise their own
        reason = " ".join(str(error).split())[:200]
        raise PcclipError(
            f"generate.llm = {name}: cannot be loaded ({type(error).__name__}: {reason}); fetch it with "
            f"`hf download {source}`, or give a local folder with safetensors"
        ) from error
    found = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(found if isinstance(found, list) else [found])} - {None}
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends) or None, pad_token_id=0)
    return tokenizer, model.eval(), ends
