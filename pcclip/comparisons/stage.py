"""Stage 01: draw pairs of images, ask the language model how they differ, filter its sentences, store the table.

Every answer is appended to a log at once: a killed run asks only the questions without an answer. The log's file name is a
hash of prompt, language model and sampling, so a new filter or threshold reuses the answers. The table has captions, raw
reply, cleaned sentence, verdict, and the hashes of prompt and language model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import pandas as pd

from pcclip.comparisons import captions, filters, verdicts
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm import Backend, Question, Reply, backend_identity, lazy_backend
from pcclip.comparisons.pairs import both_images, choose_pairs
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions, sides, swapped
from pcclip.config import COMPARISONS, Config
from pcclip.data.image_set import ImageSet, load_images
from pcclip.encoders import identify
from pcclip.encoders.dual_encoder import Encoder
from pcclip.runs.files import digest, write_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.progress import say
from pcclip.runs.ray_cluster import cluster
from pcclip.runs.stage import Stage, once, read_output

FOLDER, TABLE, LEFT_OUT = COMPARISONS, "comparisons.parquet", "left_out.parquet"
_FORMAT = 2  # raise it when the meaning of the table changes: old stages are then done again
# These settings change no answer, or `inputs` has them under another name.
_UNHASHED = {"in_flight", "shard", "timeout", "retries", "base_url", "request"}


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """The stage with everything that its result depends on. Raises PcclipError when a named file does not exist."""
    images, settings = images or load_images(config), config.generate
    filters.rule_list(settings.filters)
    folder = config.source_folder / FOLDER
    inputs = {
        "format": _FORMAT,
        "generate": settings.model_dump(exclude=_UNHASHED),
        "seed": config.seed,
        "images": images.identity(),
        "prompt": load_prompt(settings.prompt).hash,
        "backend": backend_identity(settings),
        "judge": settings.attributes and backend_identity(settings.judging),
        "rewrites": settings.rewrites and captions.single_text_prompt(settings.rewrites).hash,
        "attributes": settings.attributes and load_bank(settings.attributes).hash,
        "model": identify(config.model),
    }
    return Stage(folder, inputs, config.stored(folder))


@once
def generate(config: Config, images: ImageSet, model: Encoder, backend: Backend | None = None) -> pd.DataFrame:
    """Run the stage, or read its table when it is done.

    Args:
        config: the run. With `engine: ray` every worker of the cluster starts its own backend.
        images: the captioned image set.
        model: its tokenizer decides which sentences are too long for its text tower.
        backend: answers in this process. None builds the backend that the config names.

    Raises:
        PcclipError: fewer than generate.min_yield of the sentences were kept.
    """
    comparisons = stage(config, images)
    if comparisons.done_or_fetched():
        say(f"{FOLDER}: done already, read from {comparisons.folder}")
        return load(config)
    if backend:
        config = config.model_copy(update={"engine": "local"})  # a backend of this process cannot be sent to workers

    def backend_for(prompt: Prompt) -> Backend:
        return backend or lazy_backend(config.generate, prompt)

    with comparisons.work(), cluster(config.ray) if config.engine == "ray" else nullcontext():
        if config.generate.attributes:
            verdicts.check_backend(config, images, backend_for)
        table = compare(config, draw_pairs(config, images), model, backend_for)
        filters.check_yield(table, config.generate.min_yield, FOLDER)
        optional = _optional_tables(config, images, backend_for)
        for name, rows in {TABLE: table, LEFT_OUT: images.left_out.astype(str), **optional}.items():
            write_parquet(comparisons.folder / name, rows)
        kept_splits = table.split[table.verdict == "kept"]
        counts = {
            "images": len(images.table),
            "left_out": images.left_out.reason.value_counts().to_dict(),
            "asked": len(table),
            "kept": len(kept_splits),
            **{f"kept_{split}": int(n) for split, n in kept_splits.value_counts().items()},
            **{name.split(".")[0]: len(rows) for name, rows in optional.items()},
        }
        comparisons.finish([TABLE, LEFT_OUT, *optional], counts, model=table.model_hash[0])
    return table


def load(config: Config) -> pd.DataFrame:
    """The table of the finished stage. Raises PcclipError when it has not finished, or the table has changed since."""
    return read_output(config.source_folder / FOLDER, TABLE)


def draw_pairs(config: Config, images: ImageSet) -> pd.DataFrame:
    """The pairs of the run: first, second (ids), first_caption, first_concept, second_caption, second_concept, split.

    Training pairs differ in caption. Held-out pairs, for evaluation, differ in concept. No pair crosses the split.
    """
    settings, drawn = config.generate, []
    for split, table, count, group in (
        ("train", images.train, settings.pairs, "caption"),
        ("held_out", images.held_out, settings.held_out_pairs, "concept"),
    ):
        rows = choose_pairs(table[group], count, settings.sampling, config.seed)
        drawn.append(both_images(table[["id", "caption", "concept"]], rows).assign(split=split))
    return pd.concat(drawn, ignore_index=True)


def compare(
    config: Config, pairs: pd.DataFrame, model: Encoder, backend_for: Callable[[Prompt], Backend]
) -> pd.DataFrame:
    """Ask the language model about each pair and filter its sentences.

    Returns:
        The pairs with pair (their number), raw, finish_reason, difference (the cleaned sentence), tokens, mended,
        verdict, swapped (the twin of a kept sentence, '' without one), prompt_hash, model_hash and sampling.
    """
    prompt = load_prompt(config.generate.prompt)
    backend = backend_for(prompt)
    sampling = config.generate.model_dump(include={"temperature", "top_p", "max_tokens"})
    questions = [
        Question(
            digest([config.seed, pair.first_caption, pair.second_caption, pair.first, pair.second])[:16],
            pair.first_caption,
            pair.second_caption,
        )
        for pair in pairs.itertuples()
    ]
    path = config.journals / f"answers-{digest([prompt.hash, backend.identity, sampling])[:12]}.jsonl"
    log, rules = AnswerLog(path, Reply, "comparisons"), filters.rule_list(config.generate.filters)

    def filtered(part: Sequence[Question], replies: Mapping[str, Reply]) -> pd.DataFrame:
        answers = [replies[question.key] for question in part]
        table = pairs[: len(part)].assign(
            raw=[a.text for a in answers], finish_reason=[a.finish_reason for a in answers]
        )
        return table.join(filters.judged(table, rules, model))

    first, rest = questions[: filters.FIRST], questions[filters.FIRST :]
    replies = log.answer_all(first, backend.answers, config)
    filters.check_first(filtered(first, replies), config.generate.min_yield, "comparisons")
    table = filtered(questions, replies | log.answer_all(rest, backend.answers, config))
    twins = [
        swapped(sentence) if verdict == "kept" and sides(sentence) else ""
        for sentence, verdict in zip(table.difference, table.verdict, strict=True)
    ]
    table.insert(0, "pair", range(len(table)))
    return table.assign(
        swapped=twins, prompt_hash=prompt.hash, model_hash=backend.identity, sampling=json.dumps(sampling)
    )


def _optional_tables(
    config: Config, images: ImageSet, backend_for: Callable[[Prompt], Backend]
) -> dict[str, pd.DataFrame]:
    """Rewrites and verdicts by file name, where the config asks for them."""
    settings, tables = config.generate, {}
    if settings.rewrites:
        tables[captions.TABLE] = captions.write_rewrites(config, images, backend_for)
    if settings.attributes:
        if settings.attributes_gguf:
            backend_for = partial(lazy_backend, settings.judging)
        tables[verdicts.TABLE] = verdicts.judge(config, images, backend_for)
    return tables


def kept(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The sentences of one split that every rule accepted."""
    return table[(table.verdict == "kept") & (table.split == split)].reset_index(drop=True)


def template_pairs(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Random ordered pairs of images of different concepts, with template sentences and their swapped twins.

    `table` has columns id, caption, concept. Returns first, first_caption, second, second_caption, difference, swapped.
    """
    pairs = both_images(table[["id", "caption"]], choose_pairs(table.concept, count, "random", seed))
    both = list(zip(pairs.first_caption, pairs.second_caption, strict=True))
    return pairs.assign(
        difference=[from_captions(a, b) for a, b in both], swapped=[from_captions(b, a) for a, b in both]
    )
