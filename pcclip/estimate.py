"""What a run will ask, compute and store, stage by stage, from its parameters and the sizes of its models.

FLOPs: a language model 2 per parameter and token, an image tower as counted on the meta device, a text tower 2 per
parameter of its transformer and token forward, 6 with the backward pass (4 with LoRA, whose frozen weights need no
gradient of their own); attention's own products, a few per cent here, are left out. Hours are FLOPs over peak times
utilisation of the constants below.

Beside the paper (30 A100 hours of generation, 12 of finetuning): its configuration, 499,500 pairs of Llama-2-13b and
20 epochs of ViT-L-14's text tower in fp32, comes to 11 and 11 hours here, 19 with every text padded to 77 tokens;
how the paper batched its questions is not known.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.data import ImageSet, published
from pcclip.models.torchvision_ops import declare_missing
from pcclip.params import Config
from pcclip.sizes import LanguageModel, Towers

GPU, CORE = "A100", "CPU core"
PEAK = {"fp32": 19.5e12, "bf16": 312e12}  # FLOP/s, dense, of NVIDIA's A100 data sheet (fp32 without TF32)
TRAINING, ENCODING, READING = 0.3, 0.3, 0.3  # utilisation, assumed
WRITING = 0.1  # of a language model that writes in batches, bound by memory; assumed
CORE_RATE = 2.5e10  # FLOP/s of llama.cpp on one core, SmolLM2-135M as in LOG.md
IMAGES = 1_000  # of a set of unknown size: the paper's
CAPTION_TOKENS = 12  # COCO's captions have ten or eleven words and a full stop
SENTENCE_TOKENS = 29  # of an answer
MARKS = 5  # tokens that a chat template puts around one message
LONGEST = 1.5  # the longest text of a batch over the mean (demo: 37 over 24 tokens)
ROW_BYTES, JOURNAL_BYTES, ITEM_BYTES = 150, 200, 16  # of one comparison, and of one text of 04 and 05 (demo)
_NEVER_FILTERED = ("captions", "template")


@dataclass(frozen=True)
class Row:
    """One line of the table; None is unknown."""

    stage: str
    work: str
    flops: float | None = 0.0
    disk: float | None = 0.0  # bytes
    hours: float | None = 0.0
    on: str = GPU


@dataclass
class Counts:
    """How much there is of everything, and which of the numbers are assumed."""

    train: int
    held_out: int
    train_captions: int
    pairs: int
    held_out_pairs: int
    caption: float  # tokens of one
    assumed: list[str] = field(default_factory=list)


def estimate(
    config: Config, images: ImageSet | None, towers: Towers | None, llm: LanguageModel | None,
    judge: LanguageModel | None = None,
) -> tuple[list[Row], list[str]]:
    """Rows of the table, and one line for each assumed number.

    `images` is None where the set is not here; `judge` is the model that gives verdicts, where it is not `llm`.
    """
    counts = _counted(config, images) if images else _assumed(config)
    rows = [*_generation(config, counts, llm, judge or llm), _embedding(counts, towers),
            _finetuning(config, counts, towers), _evaluation(config, counts, towers)]
    return rows, [*counts.assumed, *_constants(config)]


def summed(rows: list[Row]) -> list[Row]:
    """Equal rows as one that says how often, as the members of a sweep have many."""
    return [row if n == 1 else Row(row.stage, f"{n} times {row.work}", *(
        None if value is None else n * value for value in (row.flops, row.disk, row.hours)), row.on)
        for row, n in Counter(rows).items()]


def table(rows: list[Row]) -> str:
    """The rows aligned, with a last one for the sum of what is known."""
    cells = [("stage", "work", "FLOPs", "on disk", "hours")]
    cells += [(r.stage, r.work, _flops(r.flops), in_bytes(r.disk), _hours(r)) for r in rows]
    flops, disk = (sum(getattr(row, key) or 0 for row in rows) for key in ("flops", "disk"))
    hours = [Row("", "", hours=sum(r.hours or 0 for r in rows if r.on == on), on=on) for on in (GPU, CORE)]
    cells += [("sum", "of what is known", _flops(flops), in_bytes(disk),
               " + ".join(_hours(row) for row in hours if row.hours) or "-")]
    widths = [max(len(row[k]) for row in cells) for k in range(5)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e:>{widths[4]}}"
                     for a, b, c, d, e in cells)


def in_bytes(count: float | None) -> str:
    """1234567 -> '1.23 MB'."""
    return "?" if count is None else f"{in_thousands(count)}B"


def in_thousands(count: float) -> str:
    """1234567 -> '1.23 M', of which no unit is part yet."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} T"


def pairs_of(groups: pd.Series | range, count: int | None, both_directions: bool) -> int:
    """How many pairs are drawn of rows whose groups differ."""
    n, sizes = len(groups), pd.Series(groups).value_counts()
    same = int((sizes * (sizes - 1) // 2).sum())
    there = (n * (n - 1) // 2 - same) * (2 if both_directions else 1)
    return there if count is None else min(count, there)


def _counted(config: Config, images: ImageSet) -> Counts:
    settings, train, held_out = config.generate, images.train, images.held_out
    some = images.captions.caption.sample(min(500, len(images.captions)), random_state=0)
    return Counts(
        len(train), len(held_out), int(images.captions["id"].isin(set(train["id"])).sum()),
        pairs_of(train.caption, settings.pairs, settings.both_directions),
        pairs_of(held_out.concept, settings.held_out_pairs, settings.both_directions),
        float(some.map(tokens).mean()))


def _assumed(config: Config) -> Counts:
    """Of the set as published, or of the paper's size where it is the user's own."""
    data, settings = config.data, config.generate
    whole = published(data)
    assumed = [f"{images:,} {side} images with {captions:,} captions: the whole set"
               for side, (images, captions) in whole.items()]
    if not whole:
        each = data.limit or IMAGES
        whole = {"train": (round(each / (1 - data.held_out)), round(each / (1 - data.held_out)))}
        assumed = [f"{each:,} train images with one caption each: "
                   + ("data.limit" if data.limit else "as many as in the paper")]
    total = sum(images for images, _ in whole.values())
    each = sum(captions for _, captions in whole.values()) / total
    if data.split == "official" and "held_out" in whole:
        train, held_out = whole["train"][0], whole["held_out"][0]
    else:
        held_out = round(data.held_out * total)
        train = total - held_out
        assumed.append(f"{data.held_out:.0%} of the images held out: as of the concepts")
    train, held_out = (min(n, limit or n) for n, limit in ((train, data.limit), (held_out, data.held_out_limit)))
    return Counts(
        train, held_out, round(each * train), pairs_of(range(train), settings.pairs, settings.both_directions),
        pairs_of(range(held_out), settings.held_out_pairs, settings.both_directions), CAPTION_TOKENS,
        [*assumed, f"{CAPTION_TOKENS} tokens a caption"])


def _generation(
    config: Config, counts: Counts, llm: LanguageModel | None, judge: LanguageModel | None
) -> Iterator[Row]:
    settings = config.generate
    asked, written = counts.pairs + counts.held_out_pairs, min(SENTENCE_TOKENS, settings.max_tokens)
    read = _read(config, load_prompt(settings.prompt), 2 * counts.caption)
    yield _asked(config, "01 comparisons", asked, read, written, llm, (ROW_BYTES + JOURNAL_BYTES) * asked)
    if settings.rewrites:
        prompt, written = load_prompt(settings.rewrites, slots=("first",)), min(counts.caption, settings.max_tokens)
        yield _asked(config, "01 rewrites", counts.train_captions, _read(config, prompt, counts.caption), written, llm,
                     (ROW_BYTES + JOURNAL_BYTES) * counts.train_captions)
    if settings.attributes:
        asked, read = _choices(config)
        yield _asked(config, "01 verdicts, at most", asked, read, 1, judge, JOURNAL_BYTES * asked)


def _asked(config: Config, stage: str, asked: int, read: float, written: float, llm: LanguageModel | None,
           disk: float) -> Row:
    """Questions of `read` tokens answered in `written` ones."""
    if config.generate.backend == "template":
        return Row(stage, f"{asked:,} sentences by template", disk=disk)
    work = f"{asked:,} questions, {in_thousands(asked * read)} tokens in, {in_thousands(asked * written)} out"
    on = CORE if config.generate.backend == "llama_cpp" else GPU
    if llm is None:
        return Row(stage, work, None, disk, None, on)
    per_token = 2 * llm.active * asked
    flops = per_token * (read + written)
    seconds = flops / CORE_RATE if on == CORE else (per_token * read / (READING * PEAK["bf16"])
                                                    + per_token * written / (WRITING * PEAK["bf16"]))
    return Row(stage, work, flops, disk, seconds / 3600, on)


def _read(config: Config, prompt: Prompt, captions: float) -> float:
    """Tokens of one question; llama_cpp here reads the worked examples once and keeps them."""
    empty = prompt.messages("", "")
    asked = empty[-1:] if config.generate.backend == "llama_cpp" else empty
    return sum(tokens(message["content"]) + MARKS for message in asked) + captions


def _choices(config: Config) -> tuple[int, float]:
    """How many texts are to be continued, had no two pairs one in common, and their tokens."""
    settings, bank, lengths = config.generate, load_bank(config.generate.attributes), []
    for attribute in bank.attributes:
        for stem in attribute.stems:
            wanted = settings.held_out_attribute_pairs
            if attribute.split == "train":
                wanted += settings.attribute_pairs + (0 if stem.compares else settings.thing_pairs)
            lengths.append((2 * wanted, tokens(stem.text)))
    asked = sum(n for n, _ in lengths)
    return asked, sum(n * length for n, length in lengths) / max(asked, 1)


def _embedding(counts: Counts, towers: Towers | None) -> Row:
    images = counts.train + counts.held_out
    if towers is None:
        return Row("02 embed", f"{images:,} images", None, None, None)
    flops = towers.image_flops * images
    return Row("02 embed", f"{images:,} images to {towers.width} numbers, fp32", flops, images * towers.width * 4,
               flops / (ENCODING * PEAK["fp32"]) / 3600)


def _finetuning(config: Config, counts: Counts, towers: Towers | None) -> Row:
    settings, plain = config.finetune, config.finetune.objective == "captions"
    examples = counts.train_captions if plain else counts.pairs
    told = "texts" if (settings.captions if plain else settings.comparisons) in _NEVER_FILTERED else "texts at most"
    steps = max(1, min(-(-examples // settings.batch_size), examples // 2)) * settings.epochs
    seen = examples * settings.epochs * (2 if settings.swap and not plain else 1)
    replayed = steps * min(settings.batch_size, counts.train_captions) if settings.replay else 0
    named = steps * _paraphrases(config)
    if towers is None:
        return Row("03 finetune", f"{examples:,} {told}, {steps:,} steps", None, None, None)
    length, caption = text_length(config, counts, towers), _cut(towers, counts.caption + 2)
    looked_at = (counts.held_out if plain else counts.held_out_pairs) * (steps // settings.evaluate_every + 1)
    trained = (seen * length + (replayed + named) * caption) * towers.text_blocks
    flops = (4 if settings.tune == "lora" else 6) * trained + 2 * looked_at * length * towers.text_blocks
    work = f"{examples:,} {told}, {steps:,} steps, {length:.0f} of {towers.context_length} tokens, {settings.precision}"
    return Row("03 finetune", work, flops, _checkpoints(config, towers),
               flops / (TRAINING * PEAK[settings.precision]) / 3600)


def text_length(config: Config, counts: Counts, towers: Towers) -> float:
    """Tokens of one text in a batch of 03, padding included."""
    if config.finetune.objective == "captions":
        return _cut(towers, counts.caption + 2)
    if config.finetune.comparisons == "template" or config.generate.backend == "template":
        frame = tokens(from_captions("A dog.", "A dog.")) - 2 * tokens("A dog.")
        return _cut(towers, frame + 2 * counts.caption + 2)
    return _cut(towers, min(SENTENCE_TOKENS, config.generate.max_tokens) + 2)


def _cut(towers: Towers, mean: float) -> float:
    """The longest of a batch of texts of so many tokens on average, as far as the tower reads."""
    return min(LONGEST * mean, towers.context_length) if towers.shortens else towers.context_length


def _paraphrases(config: Config) -> int:
    """Texts that the attribute term encodes at each step."""
    if not config.finetune.attribute_weight or not config.generate.attributes:
        return 0
    bank = load_bank(config.generate.attributes)
    return sum(2 * len(a.paraphrases) for a in bank.attributes if a.split == "train")


def _checkpoints(config: Config, towers: Towers) -> int:
    """Bytes: the text tower once at the end and once for each kept epoch, and while training what is tuned thrice."""
    settings = config.finetune
    kept = 1 + len({epoch for epoch in settings.keep_epochs if epoch <= settings.epochs})
    tuned = {"transformer": towers.text_blocks, "all": towers.text_parameters, "lora": 0}[settings.tune]
    return 4 * (kept * towers.text_parameters + 3 * tuned)


def _evaluation(config: Config, counts: Counts, towers: Towers | None) -> Row:
    """Both twins of every template and every written sentence, by each model; 05 in the same way by two."""
    models = 2 + len(config.evaluate.alphas)
    texts = 2 * models * (config.evaluate.pairs + counts.held_out_pairs) + 2 * 2 * config.arithmetic.pairs
    work = f"{texts:,} texts by {models} models"
    if towers is None:
        return Row("04, 05 evaluate", work, None, ITEM_BYTES * texts, None)
    flops = 2 * towers.text_blocks * text_length(config, counts, towers) * texts
    return Row("04, 05 evaluate", work, flops, ITEM_BYTES * texts, flops / (ENCODING * PEAK["fp32"]) / 3600)


def tokens(text: str) -> int:
    """Of CLIP's tokenizer, which stands for the language model's too."""
    declare_missing()
    from open_clip import tokenizer

    return len(tokenizer._tokenizer.encode(text))


def _constants(config: Config) -> list[str]:
    """The assumptions that do not come from the set."""
    found = [f"{GPU}: {PEAK['bf16']:.4g} FLOP/s in bf16 and {PEAK['fp32']:.4g} in fp32; {TRAINING:.0%} of it used in "
             "training and encoding"]
    if config.generate.backend == "llama_cpp":
        found.append(f"{CORE}: {CORE_RATE:.2g} FLOP/s; llama_cpp works on {config.generate.in_flight} of them at once")
    elif config.generate.backend != "template":
        found.append(f"language model: {READING:.0%} of the {GPU}'s bf16 used in reading, {WRITING:.0%} in writing")
    if config.generate.backend != "template":
        found.append(f"{min(SENTENCE_TOKENS, config.generate.max_tokens)} tokens an answer, {MARKS} around a message, "
                     "counted with CLIP's tokenizer")
    return [*found, f"the longest text of a batch is {LONGEST} times the mean",
            f"{ROW_BYTES} bytes a comparison, {JOURNAL_BYTES} in the journal, {ITEM_BYTES} a text of 04 and 05"]


def _flops(count: float | None) -> str:
    return "?" if count is None else f"{count:.2g}" if count else "-"


def _hours(row: Row) -> str:
    if row.hours is None:
        return f"? {row.on}"
    if not row.hours:
        return "-"
    number = "<0.01" if row.hours < 0.01 else f"{row.hours:.2g}" if row.hours < 100 else f"{row.hours:,.0f}"
    return f"{number} {row.on}"
