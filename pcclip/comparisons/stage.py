"""Stage 01: choose pairs, ask the backend, filter, store. Resumable at the row.

Every answer is appended to a journal at once; a killed run reads it back and asks only for the rest. The journal is
named by what answers depend on and is kept, so another filter or threshold asks nothing again. The table keeps
everything: captions, raw reply, cleaned sentence, verdict, and the hashes of prompt and model.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd

from pcclip.comparisons import filters, negatives, rewrites, verdicts
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm import Asker, Backend, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.pairs import choose_pairs
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions, sides, swapped
from pcclip.config import COMPARISONS, Config
from pcclip.data.image_set import ImageSet, load_images
from pcclip.encoders import identify
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, read_parquet, write_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.progress import say
from pcclip.runs.ray_cluster import cluster
from pcclip.runs.stage import Stage

FOLDER, TABLE, LEFT_OUT = COMPARISONS, "comparisons.parquet", "left_out.parquet"
_COUNTED = 200  # questions whose tokens are counted
_FORMAT = 2  # raise it when the meaning of the table changes: old stages are then done again


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """The stage with everything its result depends on. Raises PcclipError when something named does not exist."""
    images = images or load_images(config)
    filters.check_names(config.generate.filters)
    settings = config.generate.model_dump(exclude={"in_flight", "shard", "timeout", "retries", "base_url", "negatives"})
    asks = (
        {"negatives": load_prompt(config.generate.negatives, slots=("first",)).hash}
        if (config.generate.negatives)
        else {}
    )
    folder = config.source_folder / FOLDER
    return Stage(
        folder,
        {
            "format": _FORMAT,
            "generate": settings,
            "seed": config.seed,
            "images": images.identity(),
            "prompt": load_prompt(config.generate.prompt).hash,
            "backend": backend_identity(config.generate),
            "judge": config.generate.attributes and backend_identity(config.generate.judging),
            "rewrites": config.generate.rewrites and load_prompt(config.generate.rewrites, slots=("first",)).hash,
            "attributes": config.generate.attributes and load_bank(config.generate.attributes).hash,
            "model": identify(config.model),
            **asks,
        },
        config.stored(folder),
    )


def draw_pairs(config: Config, images: ImageSet) -> pd.DataFrame:
    """The pairs of the run, columns first, second (ids), first_caption, second_caption, and so on, and split.

    Training pairs differ in caption; held-out pairs, which are evaluated, differ in concept. No pair crosses the split.
    """
    chosen = []
    for split, table, count, group in (
        ("train", images.train, config.generate.pairs, "caption"),
        ("held_out", images.held_out, config.generate.held_out_pairs, "concept"),
    ):
        pairs = choose_pairs(
            table[group], count, config.generate.sampling, config.generate.both_directions, config.seed
        )
        sides = [table.iloc[pairs[:, k]].reset_index(drop=True)[["id", "caption", "concept"]] for k in (0, 1)]
        for side, name in zip(sides, ("first", "second"), strict=True):
            side.columns = [name, f"{name}_caption", f"{name}_concept"]
        chosen.append(pd.concat([*sides, pd.Series(split, index=sides[0].index, name="split")], axis=1))
    return pd.concat(chosen, ignore_index=True)


def generate(config: Config, images: ImageSet, model: Encoder, backend: Backend | None = None) -> pd.DataFrame:
    """Run the stage, or read its table when it is done.

    Args:
        config: the run. With engine: ray its backend is started in each worker of a cluster.
        images: the captioned image set.
        model: its tokenizer says which sentences are too long for its text tower.
        backend: who answers, in this process; made from the config when None.

    Raises:
        PcclipError: fewer than generate.min_yield of the sentences were kept.
    """
    this = stage(config, images)
    if this.found():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return read_parquet(this.folder / TABLE).to_pandas()
    prompt = load_prompt(config.generate.prompt)
    who = backend.identity if backend else this.inputs["backend"]
    rules = filters.rule_list(config.generate.filters)
    start = partial(start_backend, config.generate) if backend is None else lambda prompt: backend
    if backend:
        config = config.model_copy(update={"engine": "local"})  # it is here, and cannot be sent
    with this.work(), cluster(config.ray) if config.engine == "ray" else nullcontext():
        pairs = draw_pairs(config, images)
        sampling = config.generate.model_dump(include={"temperature", "top_p", "max_tokens"})
        questions = [
            Question(
                digest([config.seed, p.first_caption, p.second_caption, p.first, p.second])[:16],
                p.first_caption,
                p.second_caption,
            )
            for p in pairs.itertuples()
        ]
        path = config.journals / f"answers-{digest([prompt.hash, who, sampling])[:12]}.jsonl"
        told = (
            None
            if config.generate.backend == "template"
            else partial(budget, prompt=prompt, model=model, max_tokens=config.generate.max_tokens)
        )
        answer_log = AnswerLog(path, Reply, "comparisons")
        replies = answer_log.answer_all(questions, Asker(partial(start, prompt)), config, told)
        table = _judged(pairs, [replies[q.key] for q in questions], model, rules)
        table["prompt_hash"], table["model_hash"] = prompt.hash, who
        table["sampling"] = json.dumps(sampling)
        kept = int((table.verdict == "kept").sum())
        if kept < config.generate.min_yield * len(table):
            worst = table.verdict[table.verdict != "kept"].value_counts()
            raise PcclipError(
                f"{FOLDER}: only {kept} of {len(table)} sentences were kept, less than generate.min_yield = "
                f"{config.generate.min_yield}; most fell to rule {worst.index[0]!r} ({worst.iloc[0]}): "
                f"check the model, the prompt and generate.filters{_commonest_error(table.finish_reason)}"
            )
        extra = _extra_tables(config, images, start, who)
        for name, rows in {TABLE: table, LEFT_OUT: images.left_out.astype(str), **extra}.items():
            write_parquet(this.folder / name, rows)
        by_split = table[table.verdict == "kept"].split.value_counts()
        this.finish(
            [TABLE, LEFT_OUT, *extra],
            {
                "images": len(images.table),
                "left_out": len(images.left_out),
                "asked": len(table),
                "kept": kept,
                **{f"kept_{split}": int(n) for split, n in by_split.items()},
                **{name.split(".")[0]: len(rows) for name, rows in extra.items()},
            },
            model=who,
        )
    return table


def budget(questions: Sequence[Question], prompt: Prompt, model: Encoder, max_tokens: int) -> str:
    """What the questions will cost, counted with the model's own tokenizer on some of them: one line."""
    some = questions[:: max(1, len(questions) // _COUNTED)]
    shared = sum(map(len, model.tokens([message["content"] for message in prompt.prefix])))
    own = sum(map(len, model.tokens([prompt.messages(q.first, q.second)[-1]["content"] for q in some]))) / len(some)
    return (
        f"comparisons: asking {len(questions):,} questions of about {own:.0f} tokens, each after a prompt of "
        f"{shared}: about {len(questions) * (shared + own):,.0f} tokens in and at most "
        f"{len(questions) * max_tokens:,} out; how long it takes is told with the first answers"
    )


def kept(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The sentences of one split that every rule accepted."""
    return table[(table.verdict == "kept") & (table.split == split)].reset_index(drop=True)


def _extra_tables(config: Config, images: ImageSet, start, who: str) -> dict[str, pd.DataFrame]:
    """Tables by file name that the run asks for beside the comparisons: rewritten and false captions, verdicts."""
    extra = {}
    if config.generate.rewrites:
        prompt = load_prompt(config.generate.rewrites, slots=("first",))
        extra[rewrites.TABLE] = rewrites.rewrite(config, images, partial(start, prompt), who)
    if config.generate.negatives:
        prompt = load_prompt(config.generate.negatives, slots=("first",))
        extra[negatives.TABLE] = negatives.write(config, images, partial(start, prompt), who)
    if config.generate.attributes:
        if config.generate.attributes_gguf:
            judge = config.generate.judging
            start, who = partial(start_backend, judge), backend_identity(judge)
        prompt = load_prompt(config.generate.prompt)
        extra[verdicts.TABLE] = verdicts.judge(config, images, partial(start, prompt), who)
    return extra


def template_pairs(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Random ordered pairs of images of different concepts, with template sentences and their swapped twins."""
    pairs = choose_pairs(table.concept, count, "random", False, seed)
    one, two = table.iloc[pairs[:, 0]].reset_index(), table.iloc[pairs[:, 1]].reset_index()
    return pd.DataFrame(
        {
            "first": one["id"],
            "second": two["id"],
            "first_caption": one.caption,
            "second_caption": two.caption,
            "difference": [from_captions(a, b) for a, b in zip(one.caption, two.caption, strict=True)],
            "swapped": [from_captions(b, a) for a, b in zip(one.caption, two.caption, strict=True)],
        }
    )


def _commonest_error(reasons: pd.Series) -> str:
    errors = reasons[reasons.str.startswith("error")].value_counts()
    return f"; the backend said {errors.index[0]!r} {errors.iloc[0]} times" if len(errors) else ""


def _judged(pairs: pd.DataFrame, replies: list[Reply], model: Encoder, rules: filters.RuleList) -> pd.DataFrame:
    """The pairs with raw reply, cleaned sentence, its length in tokens, whether it was mended, verdict, and twin."""
    table = pairs.assign(raw=[r.text for r in replies], finish_reason=[r.finish_reason for r in replies])
    table = table.join(filters.judged(table, rules, model))
    table["swapped"] = [
        swapped(s) if v == "kept" and sides(s) else "" for s, v in zip(table.difference, table.verdict, strict=True)
    ]
    table.insert(0, "pair", np.arange(len(table)))
    return table
