"""What a run will ask, compute and store, stage by stage, from its parameters and the sizes of its models.

FLOPs: a language model 2 per parameter and token, an image tower as counted on the meta device, a text tower 2 per
parameter of its transformer and token forward, 6 with the backward pass (4 where its weights are frozen and need no
gradient of their own: LoRA, LayerNorms), and 2 more where a step's texts do not fit at once (finetune.micro_batch:
each is encoded twice). Tokens are those that are computed: no padding, and of comparisons no beginning twice.
Attention's own products, and what the last block saves, a few per cent each and of opposite sign, are left out. A
tower or a UNet that takes in images costs its counted FLOPs forward, as much again for the gradient that goes through
it, and once more each where its weights learn and where activations are computed again. Hours are FLOPs over peak times
utilisation of the constants below.

Beside the paper (30 A100 hours of generation, 12 of finetuning): its configuration, 499,500 pairs of Llama-2-13b and
20 epochs of ViT-L-14's text tower in fp32, comes to 11 and 5.5 hours here, 19 with every text padded to 77 tokens;
how the paper batched its questions is not known.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import pandas as pd

from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import ImageSet, published
from pcclip.torchvision_shim import declare_missing
from pcclip.workbook.sizes import LanguageModel, Towers
from pcclip.workbook.teacher_size import TeacherSize

GPU, CORE = "A100", "CPU core"
PEAK = {"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12}  # FLOP/s, dense, of NVIDIA's A100 data sheet (without TF32)
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
TRAINING, ENCODING, READING = 0.3, 0.3, 0.3  # utilisation, assumed
WRITING = 0.1  # of a language model that writes in batches, bound by memory; assumed
CORE_RATE = 2.5e10  # FLOP/s of llama.cpp on one core, SmolLM2-135M as in LOG.md
IMAGES = 1_000  # of a set of unknown size: the paper's
CAPTION_TOKENS = 12  # COCO's captions have ten or eleven words and a full stop
SENTENCE_TOKENS = 29  # of an answer
MARKS = 5  # tokens that a chat template puts around one message
DISTINCT = 0.73  # of a batch's tokens, where beginnings of comparisons are shared: 256 of the demo's sentences (LOG.md)
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
    config: Config,
    images: ImageSet | None,
    towers: Towers | None,
    llm: LanguageModel | None,
    judge: LanguageModel | None = None,
    teacher: TeacherSize | None = None,
    matcher: TeacherSize | None = None,
) -> tuple[list[Row], list[str]]:
    """Rows of the table, and one line for each assumed number.

    `images` is None where the set is not here; `judge` is the model that gives verdicts, where it is not `llm`;
    `teacher` and `matcher` are those of finetune.sds and evaluate.teacher.
    """
    counts = _counted(config, images) if images else _assumed(config)
    return rows(config, counts, towers, llm, judge, teacher, matcher), [*counts.assumed, *_constants(config)]


def rows(
    config: Config,
    counts: Counts,
    towers: Towers | None,
    llm: LanguageModel | None,
    judge: LanguageModel | None = None,
    teacher: TeacherSize | None = None,
    matcher: TeacherSize | None = None,
) -> list[Row]:
    """The same of a set whose numbers are given."""
    settings = config.finetune
    finetuning = (
        _live if settings.objective == "clip" else (_linear_map if settings.tune == "linear_map" else _finetuning)
    )
    return [
        *_generation(config, counts, llm, judge or llm),
        _embedding(counts, towers),
        *finetuning(config, counts, towers, teacher),
        _evaluation(config, counts, towers),
        *_matching(config, matcher),
    ]


def memory(
    config: Config, towers: Towers | None, teacher: TeacherSize | None, kept: tuple[float, float] | None
) -> list[tuple[str, float | None]]:
    """What a step of objective clip has on the GPU at once, in bytes; nothing for other objectives.

    `kept` are the bytes that the towers keep for the gradient, of one image and of one token (sizes.kept_by_towers).
    """
    settings, sds = config.finetune, _taught(config)
    if settings.objective != "clip":
        return []
    found, learned = [], towers and _tuned(config, towers)
    if sds:
        at_once = min(sds.micro_batch or settings.batch_size, settings.batch_size)
        held = f"UNet's activations, {at_once} at once in {sds.precision}"
        size = BYTES[sds.precision] / 4 * at_once
        found = [
            (f"teacher's UNet, frozen, {sds.precision}", teacher and BYTES[sds.precision] * teacher.unet),
            ("its VAE and text encoder, fp32", teacher and 4 * (teacher.vae + teacher.text_encoder)),
            ("h_w with its gradient and Adam's moments", towers and teacher and 16 * _map(towers, teacher)),
        ]
        if not sds.through_unet:
            found.append(("UNet's activations: none, sds.through_unet is false", 0))
        elif sds.checkpointing:
            found.append(
                (
                    f"{held} (without sds.checkpointing {in_bytes(teacher and size * teacher.kept)})",
                    teacher and size * teacher.kept_checkpointing,
                )
            )
        else:
            found.append(
                (
                    f"{held} (with sds.checkpointing {in_bytes(teacher and size * teacher.kept_checkpointing)})",
                    teacher and size * teacher.kept,
                )
            )
    images, texts = _a_step(config)
    at_once = min(settings.micro_batch or images, images)
    tuned = "?" if learned is None else in_thousands(learned).strip()
    found += [
        ("both towers, fp32", towers and towers.bytes),
        (f"gradients and Adam's moments of {tuned} tuned parameters", None if learned is None else 12 * learned),
    ]
    held = None
    if kept and towers:
        of_each = (
            at_once * kept[0],
            min(settings.micro_batch or texts, texts) * kept[1] * _cut(towers, CAPTION_TOKENS + 2),
        )
        together = sum if at_once == images else max  # in parts, one tower's after the other's
        held = BYTES[settings.precision] / 4 * together(of_each)
    return [*found, (f"the towers' activations, {at_once} images at once in {settings.precision}", held)]


def summed(rows: list[Row]) -> list[Row]:
    """Equal rows as one that says how often, as the members of a sweep have many."""
    return [
        row
        if n == 1
        else Row(
            row.stage,
            f"{n} times {row.work}",
            *(None if value is None else n * value for value in (row.flops, row.disk, row.hours)),
            row.on,
        )
        for row, n in Counter(rows).items()
    ]


def table(rows: list[Row]) -> str:
    """Rows aligned, with a last one for the sum of what is known."""
    cells = [("stage", "work", "FLOPs", "on disk", "hours")]
    cells += [(r.stage, r.work, _flops(r.flops), in_bytes(r.disk), _hours(r)) for r in rows]
    flops, disk = (sum(getattr(row, key) or 0 for row in rows) for key in ("flops", "disk"))
    hours = [Row("", "", hours=sum(r.hours or 0 for r in rows if r.on == on), on=on) for on in (GPU, CORE)]
    cells += [
        (
            "sum",
            "of what is known",
            _flops(flops),
            in_bytes(disk),
            " + ".join(_hours(row) for row in hours if row.hours) or "-",
        )
    ]
    widths = [max(len(row[k]) for row in cells) for k in range(5)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e:>{widths[4]}}"
        for a, b, c, d, e in cells
    )


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
        len(train),
        len(held_out),
        int(images.captions["id"].isin(set(train["id"])).sum()),
        pairs_of(train.caption, settings.pairs, settings.both_directions),
        pairs_of(held_out.concept, settings.held_out_pairs, settings.both_directions),
        float(some.map(tokens).mean()),
    )


def _assumed(config: Config) -> Counts:
    """Of the set as published, or of the paper's size where it is the user's own."""
    data, settings = config.data, config.generate
    whole = published(data)
    assumed = [
        f"{images:,} {side} images with {captions:,} captions: the whole set"
        for side, (images, captions) in whole.items()
    ]
    if not whole:
        each = data.limit or IMAGES
        whole = {"train": (round(each / (1 - data.held_out)), round(each / (1 - data.held_out)))}
        assumed = [
            f"{each:,} train images with one caption each: "
            + ("data.limit" if data.limit else "as many as in the paper")
        ]
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
        train,
        held_out,
        round(each * train),
        pairs_of(range(train), settings.pairs, settings.both_directions),
        pairs_of(range(held_out), settings.held_out_pairs, settings.both_directions),
        CAPTION_TOKENS,
        [*assumed, f"{CAPTION_TOKENS} tokens a caption"],
    )


def _generation(
    config: Config, counts: Counts, llm: LanguageModel | None, judge: LanguageModel | None
) -> Iterator[Row]:
    settings = config.generate
    asked, written = counts.pairs + counts.held_out_pairs, min(SENTENCE_TOKENS, settings.max_tokens)
    read = _read(config, load_prompt(settings.prompt), 2 * counts.caption)
    yield _asked(config, "01 comparisons", asked, read, written, llm, (ROW_BYTES + JOURNAL_BYTES) * asked)
    if settings.rewrites:
        prompt, written = load_prompt(settings.rewrites, slots=("first",)), min(counts.caption, settings.max_tokens)
        yield _asked(
            config,
            "01 rewrites",
            counts.train_captions,
            _read(config, prompt, counts.caption),
            written,
            llm,
            (ROW_BYTES + JOURNAL_BYTES) * counts.train_captions,
        )
    if settings.negatives:
        prompt, written = load_prompt(settings.negatives, slots=("first",)), min(counts.caption, settings.max_tokens)
        yield _asked(
            config,
            "01 negatives",
            counts.train_captions,
            _read(config, prompt, counts.caption),
            written,
            llm,
            (ROW_BYTES + JOURNAL_BYTES) * counts.train_captions,
        )
    if settings.attributes:
        asked, read = _choices(config)
        yield _asked(config, "01 verdicts, at most", asked, read, 1, judge, JOURNAL_BYTES * asked)


def _asked(
    config: Config, stage: str, asked: int, read: float, written: float, llm: LanguageModel | None, disk: float
) -> Row:
    """Questions of `read` tokens answered in `written` ones."""
    if config.generate.backend == "template":
        return Row(stage, f"{asked:,} sentences by template", disk=disk)
    work = f"{asked:,} questions, {in_thousands(asked * read)} tokens in, {in_thousands(asked * written)} out"
    on = CORE if config.generate.backend == "llama_cpp" else GPU
    if llm is None:
        return Row(stage, work, None, disk, None, on)
    per_token = 2 * llm.active * asked
    flops = per_token * (read + written)
    seconds = (
        flops / CORE_RATE
        if on == CORE
        else (per_token * read / (READING * PEAK["bf16"]) + per_token * written / (WRITING * PEAK["bf16"]))
    )
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
    return Row(
        "02 embed",
        f"{images:,} images to {towers.width} numbers, fp32",
        flops,
        images * towers.width * 4,
        flops / (ENCODING * PEAK["fp32"]) / 3600,
    )


def _live(config: Config, counts: Counts, towers: Towers | None, teacher: TeacherSize | None) -> Iterator[Row]:
    """Objective clip: images and texts through both towers at every step, and latents through the teacher."""
    settings, sds = config.finetune, _taught(config)
    steps = _steps(config, counts.train)
    images, texts = (steps * n for n in _a_step(config, counts.train))
    looks = steps // settings.evaluate_every + 1
    times = 2 if sds and sds.baseline else 1
    work = f"{counts.train:,} images, {steps:,} steps{', twice' if times > 1 else ''}, {settings.precision}"
    if towers is None:
        yield Row("03 finetune", work, None, None, None)
    else:
        learns = settings.tune in ("transformer", "all")
        again = settings.micro_batch is not None and settings.micro_batch < images / steps
        caption = _cut(towers, counts.caption + 2)
        flops = images * towers.image_flops * (2 + learns + again)
        flops += texts * caption * towers.text_blocks * per_token(config, texts / steps)
        flops += looks * counts.held_out * (towers.image_flops + 2 * caption * towers.text_blocks)
        yield Row(
            "03 finetune",
            work,
            times * flops,
            _checkpoints(config, towers),
            times * flops / (TRAINING * PEAK[settings.precision]) / 3600,
        )
    if sds:
        yield from _teaching(config, counts, towers, teacher, images=steps * min(settings.batch_size, counts.train))


def _teaching(
    config: Config, counts: Counts, towers: Towers | None, teacher: TeacherSize | None, images: int
) -> Iterator[Row]:
    """The teacher's part: what is kept once, and every step's latents and their gradient."""
    settings, sds = config.finetune, config.finetune.sds
    pictures = counts.train if sds.warmup == "least_squares" or (sds.warmup == "latent" and sds.warmup_steps) else 0
    kept = f"{pictures:,} latents in fp32, {counts.train_captions:,} conditions in {sds.precision}"
    passes = 1 + sds.through_unet * (1 + sds.checkpointing)
    warming = sds.warmup_steps * min(settings.batch_size, counts.train) if sds.warmup != "least_squares" else 0
    through = sds.samples * (images + (warming if sds.warmup == "sds" else 0))
    work = f"{through:,} latents {passes} times through the UNet, {sds.precision}"
    if teacher is None or towers is None:
        yield Row("03 teacher's cache", kept, None, None, None)
        yield Row("03 teacher", work, None, None, None)
        return
    flops = pictures * teacher.vae_flops + counts.train_captions * teacher.text_flops
    latent, condition = teacher.cached
    size = pictures * latent + counts.train_captions * condition * BYTES[sds.precision] / 4
    yield Row("03 teacher's cache", kept, flops, size, flops / (ENCODING * PEAK["fp32"]) / 3600)
    unet, mapped = passes * through * teacher.unet_flops, 6 * (images + warming) * _map(towers, teacher)
    yield Row(
        "03 teacher",
        work,
        unet + mapped,
        4 * 4 * _map(towers, teacher),
        (unet / PEAK[sds.precision] + mapped / PEAK["fp32"]) / TRAINING / 3600,
    )


def _taught(config: Config):
    """The teacher's parameters, where it has a weight."""
    sds = config.finetune.sds
    return sds if sds and sds.weight else None


def _map(towers: Towers, teacher: TeacherSize) -> int:
    """Parameters of h_w."""
    return (towers.width + 1) * prod(teacher.latent)


def _a_step(config: Config, train: int | None = None) -> tuple[int, int]:
    """Images and texts of one step of objective clip; each caption may have a negative."""
    settings = config.finetune
    own = min(settings.batch_size, train or settings.batch_size)
    pairs = settings.difference_batch if settings.difference else 0
    return own + 2 * pairs, own * (1 if settings.negatives == "none" else 2) + pairs * (2 if settings.swap else 1)


def _steps(config: Config, examples: int) -> int:
    return max(1, min(-(-examples // config.finetune.batch_size), examples // 2)) * config.finetune.epochs


def _linear_map(config: Config, counts: Counts, towers: Towers | None, _: object = None) -> Iterator[Row]:
    """Every text once through the tower, and then vectors alone."""
    settings = config.finetune
    texts = counts.train_captions * (1 if settings.negatives == "none" else 2)
    work = f"{texts:,} texts once, {_steps(config, counts.train_captions):,} steps of a linear map"
    if towers is None:
        yield Row("03 finetune", work, None, None, None)
        return
    flops = 2 * (texts + counts.held_out) * _cut(towers, counts.caption + 2) * towers.text_blocks
    flops += 6 * texts * settings.epochs * towers.width**2
    yield Row("03 finetune", work, flops, _checkpoints(config, towers), flops / (ENCODING * PEAK["fp32"]) / 3600)


def _finetuning(config: Config, counts: Counts, towers: Towers | None, _: object = None) -> Iterator[Row]:
    """Texts through the text tower, against image vectors of 02."""
    settings, plain = config.finetune, config.finetune.objective == "captions"
    examples = counts.train_captions if plain else counts.pairs
    told = "texts" if (settings.captions if plain else settings.comparisons) in _NEVER_FILTERED else "texts at most"
    steps = _steps(config, examples)
    seen = examples * settings.epochs * (2 if settings.swap and not plain else 1)
    replayed = steps * settings.replay_batch if settings.replay else 0
    named = steps * _paraphrases(config)
    if towers is None:
        yield Row("03 finetune", f"{examples:,} {told}, {steps:,} steps", None, None, None)
        return
    length, caption = text_length(config, counts, towers), _cut(towers, counts.caption + 2)
    at_once = (seen + replayed + named) / steps
    looked_at = (counts.held_out if plain else counts.held_out_pairs) * (steps // settings.evaluate_every + 1)
    trained = (seen * length + (replayed + named) * caption) * towers.text_blocks
    flops = per_token(config, at_once) * trained + 2 * looked_at * length * towers.text_blocks
    work = f"{examples:,} {told}, {steps:,} steps, {length:.0f} of {towers.context_length} tokens, {settings.precision}"
    yield Row(
        "03 finetune", work, flops, _checkpoints(config, towers), flops / (TRAINING * PEAK[settings.precision]) / 3600
    )


def per_token(config: Config, at_once: float) -> int:
    """FLOPs per parameter of the text tower's transformer and token, of a step with so many texts."""
    settings = config.finetune
    frozen = settings.tune in ("lora", "layernorm")
    twice = settings.micro_batch is not None and settings.micro_batch < at_once
    return 2 + (2 if frozen else 4) + (2 if twice else 0)


def text_length(config: Config, counts: Counts, towers: Towers) -> float:
    """Tokens of one text of 03 that are computed: those of the whole context where a tower sees its padding."""
    if config.finetune.objective == "captions":
        return _cut(towers, counts.caption + 2)
    if config.finetune.comparisons == "template" or config.generate.backend == "template":
        frame = tokens(from_captions("A dog.", "A dog.")) - 2 * tokens("A dog.")
        return _cut(towers, frame + 2 * counts.caption + 2, DISTINCT)
    return _cut(towers, min(SENTENCE_TOKENS, config.generate.max_tokens) + 2, DISTINCT)


def _cut(towers: Towers, mean: float, distinct: float = 1.0) -> float:
    """Tokens that are computed of a text of so many, of which a share is told by no other text's beginning."""
    if not towers.shortens:
        return towers.context_length
    return min(mean, towers.context_length) * (distinct if towers.packs else 1)


def _paraphrases(config: Config) -> int:
    """Texts that the attribute term encodes at each step."""
    if not config.finetune.attribute_weight or not config.generate.attributes:
        return 0
    bank = load_bank(config.generate.attributes)
    return sum(
        2 * min(len(a.paraphrases), config.finetune.attribute_paraphrases)
        for a in bank.attributes
        if a.split == "train"
    )


def _checkpoints(config: Config, towers: Towers) -> int:
    """Bytes: what changes once at the end and once for each kept epoch, and while training what is tuned thrice."""
    settings, both = config.finetune, config.finetune.objective == "clip"
    kept = 1 + len({epoch for epoch in settings.keep_epochs if epoch <= settings.epochs})
    kept += bool(settings.sds and settings.sds.baseline)
    whole = towers.text_parameters + (towers.image_parameters if both else 0)
    return 4 * (kept * whole + 3 * _tuned(config, towers))


def _tuned(config: Config, towers: Towers) -> int:
    """Parameters of the towers that learn, but for LoRA's few."""
    tune, both = config.finetune.tune, config.finetune.objective == "clip"
    text = {
        "transformer": towers.text_blocks,
        "all": towers.text_parameters,
        "layernorm": towers.text_norms,
        "lora": 0,
        "linear_map": towers.width**2,
    }[tune]
    image = {"transformer": towers.image_parameters, "all": towers.image_parameters, "layernorm": towers.image_norms}
    return text + (image.get(tune, 0) if both else 0)


def _evaluation(config: Config, counts: Counts, towers: Towers | None) -> Row:
    """Both twins of every template and every written sentence, by each model; 05 in the same way by two."""
    models = 2 + len(config.evaluate.alphas)
    texts = 2 * models * (config.evaluate.pairs + counts.held_out_pairs) + 2 * 2 * config.arithmetic.pairs
    work = f"{texts:,} texts by {models} models"
    if towers is None:
        return Row("04, 05 evaluate", work, None, ITEM_BYTES * texts, None)
    flops = 2 * towers.text_blocks * text_length(config, counts, towers) * texts
    return Row("04, 05 evaluate", work, flops, ITEM_BYTES * texts, flops / (ENCODING * PEAK["fp32"]) / 3600)


def _matching(config: Config, matcher: TeacherSize | None) -> Iterator[Row]:
    """The teacher itself in 04: of each item two images with two texts and with none, unless it gives a text up."""
    settings = config.evaluate.teacher
    if settings is None:
        return
    sets = len(config.evaluate.compositional) + (config.data.source == "shapes")
    if settings.limit is None or matcher is None:
        yield Row("04 teacher", f"{sets} sets, {settings.samples} draws", None, 0, None)
        return
    asked = sets * settings.limit * settings.samples * (4 + 2 * settings.unconditional)
    yield Row(
        "04 teacher",
        f"{asked:,} evaluations of the UNet for a part of each set, {settings.precision}",
        asked * matcher.unet_flops,
        0,
        asked * matcher.unet_flops / (ENCODING * PEAK[settings.precision]) / 3600,
    )


def tokens(text: str) -> int:
    """Of CLIP's tokenizer, which stands for the language model's too."""
    declare_missing()
    from open_clip import tokenizer

    return len(tokenizer._tokenizer.encode(text))


def _constants(config: Config) -> list[str]:
    """The assumptions that do not come from the set."""
    found = [
        f"{GPU}: {PEAK['bf16']:.4g} FLOP/s in bf16 and {PEAK['fp32']:.4g} in fp32; {TRAINING:.0%} of it used in "
        "training and encoding"
    ]
    if config.generate.backend == "llama_cpp":
        found.append(f"{CORE}: {CORE_RATE:.2g} FLOP/s; llama_cpp works on {config.generate.in_flight} of them at once")
    elif config.generate.backend != "template":
        found.append(f"language model: {READING:.0%} of the {GPU}'s bf16 used in reading, {WRITING:.0%} in writing")
    if config.generate.backend != "template":
        found.append(
            f"{min(SENTENCE_TOKENS, config.generate.max_tokens)} tokens an answer, {MARKS} around a message, "
            "counted with CLIP's tokenizer"
        )
    if _taught(config):
        found.append(
            "a gradient through the UNet costs as much as its forward pass; activations are counted one by "
            "one from its configuration"
        )
    return [
        *found,
        f"{DISTINCT:.0%} of a batch's tokens are computed where comparisons share their beginnings",
        f"{ROW_BYTES} bytes a comparison, {JOURNAL_BYTES} in the journal, {ITEM_BYTES} a text of 04 and 05",
    ]


def _flops(count: float | None) -> str:
    return "?" if count is None else f"{count:.2g}" if count else "-"


def _hours(row: Row) -> str:
    if row.hours is None:
        return f"? {row.on}"
    if not row.hours:
        return "-"
    number = "<0.01" if row.hours < 0.01 else f"{row.hours:.2g}" if row.hours < 100 else f"{row.hours:,.0f}"
    return f"{number} {row.on}"
