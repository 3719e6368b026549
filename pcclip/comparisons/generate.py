"""Stage 01: choose pairs, ask the backend, filter, store. Resumable at the row.

Every answer is appended to a journal at once; a killed run reads it back and asks only for the rest. The journal is
named by what answers depend on and is kept, so another filter or threshold asks nothing again. The table keeps
everything: captions, raw reply, cleaned sentence, verdict, and the hashes of prompt and model.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.comparisons import filters
from pcclip.comparisons.llm import Backend, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.pairs import choose_pairs
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions, swapped
from pcclip.data import ImageSet, load_images
from pcclip.errors import PcclipError
from pcclip.models import identify
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config
from pcclip.progress import say, track
from pcclip.stage import Stage, digest, disk_errors, read_parquet, write_parquet

FOLDER, TABLE, LEFT_OUT = "01_generate", "comparisons.parquet", "left_out.parquet"
_FORMAT = 1  # raise it when the meaning of the table changes: old stages are then done again


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """The stage with everything its result depends on. Raises PcclipError when something named does not exist."""
    images = images or load_images(config)
    filters.check_names(config.generate.filters)
    settings = config.generate.model_dump(exclude={"in_flight"})
    return Stage(config.folder / FOLDER, {
        "format": _FORMAT, "generate": settings, "seed": config.seed, "images": images.identity(),
        "prompt": load_prompt(config.generate.prompt).hash, "backend": backend_identity(config.generate),
        "model": identify(config.model),
    })


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
            table[group], count, config.generate.sampling, config.generate.both_directions, config.seed)
        sides = [table.iloc[pairs[:, k]].reset_index(drop=True)[["id", "caption", "concept"]] for k in (0, 1)]
        for side, name in zip(sides, ("first", "second"), strict=True):
            side.columns = [name, f"{name}_caption", f"{name}_concept"]
        chosen.append(pd.concat([*sides, pd.Series(split, index=sides[0].index, name="split")], axis=1))
    return pd.concat(chosen, ignore_index=True)


def generate(config: Config, images: ImageSet, model: DualEncoder, backend: Backend | None = None) -> pd.DataFrame:
    """Run the stage, or read its table when it is done.

    Args:
        config: the run.
        images: the captioned image set.
        model: its tokenizer says which sentences are too long for its text tower.
        backend: who answers; made from the config when None.

    Raises:
        PcclipError: fewer than generate.min_yield of the sentences were kept.
    """
    this = stage(config, images)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return read_parquet(this.folder / TABLE).to_pandas()
    prompt = load_prompt(config.generate.prompt)
    who = backend.identity if backend else this.inputs["backend"]
    names = filters.check_names(config.generate.filters)
    with this.work():
        pairs = draw_pairs(config, images)
        sampling = config.generate.model_dump(include={"temperature", "top_p", "max_tokens"})
        questions = [Question(digest([config.seed, p.first_caption, p.second_caption, p.first, p.second])[:16],
                              p.first_caption, p.second_caption) for p in pairs.itertuples()]
        journal = this.folder / f"answers-{digest([prompt.hash, who, sampling])[:12]}.jsonl"
        replies = _ask_all(questions, lambda: backend or start_backend(config.generate, prompt), journal)
        table = _judged(pairs, [replies[q.key] for q in questions], model, names)
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
        write_parquet(this.folder / TABLE, table)
        write_parquet(this.folder / LEFT_OUT, images.left_out.astype(str))
        by_split = table[table.verdict == "kept"].split.value_counts()
        this.finish([TABLE, LEFT_OUT], {
            "images": len(images.table), "left_out": len(images.left_out), "asked": len(table), "kept": kept,
            **{f"kept_{split}": int(n) for split, n in by_split.items()}}, model=who)
    return table


def kept(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The sentences of one split that every rule accepted."""
    return table[(table.verdict == "kept") & (table.split == split)].reset_index(drop=True)


def template_pairs(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Random ordered pairs of images of different concepts, with template sentences and their swapped twins."""
    pairs = choose_pairs(table.concept, count, "random", False, seed)
    one, two = table.iloc[pairs[:, 0]].reset_index(), table.iloc[pairs[:, 1]].reset_index()
    return pd.DataFrame({
        "first": one["id"], "second": two["id"], "first_caption": one.caption, "second_caption": two.caption,
        "difference": [from_captions(a, b) for a, b in zip(one.caption, two.caption, strict=True)],
        "swapped": [from_captions(b, a) for a, b in zip(one.caption, two.caption, strict=True)],
    })


def _commonest_error(reasons: pd.Series) -> str:
    errors = reasons[reasons.str.startswith("error")].value_counts()
    return f"; the backend said {errors.index[0]!r} {errors.iloc[0]} times" if len(errors) else ""


def _ask_all(questions: list[Question], start, journal: Path) -> dict[str, Reply]:
    """Replies by key: those in the journal, and the rest asked now and appended to it one by one."""
    replies = _read_journal(journal)
    wanted = {q.key: q for q in questions}
    replies = {k: r for k, r in replies.items() if k in wanted and not r.finish_reason.startswith("error")}
    rest = [q for q in wanted.values() if q.key not in replies]
    if replies:
        say(f"{FOLDER}: {len(replies)} of {len(wanted)} answers found in the journal, asking for {len(rest)}")
    if rest:
        with disk_errors(journal), open(journal, "a", encoding="utf8") as file:
            for question, reply in track(start().answers(rest), len(rest), "comparisons"):
                line = {"key": question.key, "text": reply.text, "finish_reason": reply.finish_reason}
                file.write(json.dumps(line) + "\n")
                file.flush()
                replies[question.key] = reply
    missing = [q for q in wanted.values() if q.key not in replies]
    if missing:
        raise PcclipError(f"{FOLDER}: {len(missing)} of {len(wanted)} questions got no answer; run again to ask them")
    return replies


def _read_journal(journal: Path) -> dict[str, Reply]:
    """Whole lines of the journal; a line that was cut short by a kill is removed from it."""
    if not journal.is_file():
        return {}
    replies, end = {}, 0
    with open(journal, "rb+") as file:
        for line in file:
            try:
                row = json.loads(line)
                reply = Reply(row["text"], row["finish_reason"])
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            replies[row["key"]] = reply
            end += len(line)
        file.truncate(end)
    return replies


def _judged(pairs: pd.DataFrame, replies: list[Reply], model: DualEncoder, names: list[str]) -> pd.DataFrame:
    """The pairs with raw reply, cleaned sentence, its length in tokens, whether it was mended, and the verdict."""
    sentences = [filters.clean(reply.text) for reply in replies]
    tokens = [len(ids) for ids in model.tokens(sentences)]
    rows = []
    for pair, reply, sentence, length in zip(pairs.itertuples(), replies, sentences, tokens, strict=True):
        candidate = filters.Candidate(
            sentence, reply.finish_reason, pair.first_caption, pair.second_caption, pair.first_concept,
            pair.second_concept, length, model.context_length,
        )
        verdict, sentence, mended = filters.judge(candidate, names)
        if mended:  # exchanging the sides can change the number of tokens
            length = len(model.tokens([sentence])[0])
            verdict = "in_context" if "in_context" in names and length > model.context_length else verdict
        rows.append({"raw": reply.text, "finish_reason": reply.finish_reason, "difference": sentence,
                     "tokens": length, "mended": mended, "verdict": verdict})
    table = pd.concat([pairs, pd.DataFrame(rows)], axis=1)
    table["swapped"] = [swapped(s) if v == "kept" else "" for s, v in zip(table.difference, table.verdict, strict=True)]
    table.insert(0, "pair", np.arange(len(table)))
    return table
