"""What a run costs: tokens, FLOP, bytes and hours of every stage, for `pcclip run --check` and `pcclip plan`.

FLOP are the cost of one item's forward pass (sizes.py) times the number of items. A training step costs three forward
passes, two where the weights are frozen and only a gradient passes through (LoRA, layer norms), and one more where
GradCache encodes a micro-batch twice. Hours are FLOP over the card's peak times the utilisation in `constants()`. Not
counted: the benchmarks of stage 04, the held-out curve of stage 03, the attribute term's texts, and LoRA's parameters.

Beside the paper (30 A100 hours of generation, 12 of finetuning): its configuration, 499,500 pairs of Llama-2-13b and
20 epochs of ViT-L-14's text tower in fp32, comes to 11 and 5.6 hours here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config, Data, Matcher, Sds, root
from pcclip.data.image_set import ImageSet, published
from pcclip.errors import PcclipError
from pcclip.finetuning.batches import PAIRS_IN_BATCH
from pcclip.workbook.sizes import EncoderSize, Network, Sizes

PEAKS = {  # FLOP/s of dense products, from NVIDIA's data sheets; fp32 without TF32
    "A100": {"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
    "H100": {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
    "H200": {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
    "L40S": {"fp32": 91.6e12, "bf16": 362e12, "fp16": 362e12},
}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_BENCHMARK = "speed/constants.py on one core of an AMD EPYC"
DEFAULTS = {  # name -> value, unit and source
    "training": (0.3, "of a GPU's peak used in training: assumed"),
    "encoding": (0.3, "of a GPU's peak used in encoding: assumed"),
    "reading": (0.3, "of a GPU's peak used by a language model that reads: assumed"),
    "writing": (0.1, "of a GPU's peak used by a language model that writes in batches: assumed"),
    "core": (2.5e10, "FLOP/s of llama.cpp on one core: SmolLM2-135M, LOG.md"),
    "decoding": (4.8e-3, f"core seconds to decode and prepare a photo of 640 x 480: {_BENCHMARK}"),
    "image": (1270, f"bytes of memory for an image in the set's table: {_BENCHMARK}"),
    "comparison": (1910, f"bytes of memory for a comparison in stage 01: {_BENCHMARK}"),
    "answer": (350, "bytes on disk of a comparison and its logged answer: outputs/demo"),
    "item": (16, "bytes on disk of a text scored in stages 04 and 05: outputs/demo"),
    "caption": (12, "tokens of a caption, where the set is not here: COCO's ten or eleven words and a full stop"),
    "sentence": (29, "tokens of a written comparison: SmolLM2-135M in outputs/demo"),
    "distinct": (0.73, "of a batch's tokens are left when shared beginnings are computed once: outputs/demo"),
    "checkpointed": (0.27, "of a UNet's activations are kept with sds.checkpointing: Stable Diffusion 1"),
}
_UNKNOWN_SET = 1_000  # training images of a set that is neither here nor published: as many as the paper has
_LARGEST_SET = 10**18
_AMOUNTS = ("tokens", "flop", "disk", "hours")  # columns of the table that a sum makes sense of
_CHAT_MARKS = 5  # tokens that a chat template puts around a message


def constants() -> dict[str, tuple[float, str]]:
    """DEFAULTS, and in their place the values that `make speed` measured on this machine (speed/constants.json)."""
    file = root() / "speed" / "constants.json"
    try:
        measured = json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}
        return DEFAULTS | {name: (float(value), str(source)) for name, (value, source) in measured.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise PcclipError(f"{file}: not a table of constants; delete it or run `make speed` again") from None


def constant(name: str) -> float:
    return constants()[name][0]


@dataclass(frozen=True)
class Scale:
    """What `pcclip plan` can change: the number of images (None: the file's own) and the GPUs.

    `gpus` share stages 01 and 02; stage 03 uses at most finetune.processes GPUs, the other stages one.
    """

    images: float | None = None
    gpus: int = 1
    gpu: str = "A100"

    def __post_init__(self) -> None:
        if self.gpu not in PEAKS:
            raise PcclipError(f"--gpu {self.gpu}: unknown; one of {', '.join(PEAKS)}")
        if self.gpus < 1 or (self.images is not None and not 2 <= self.images <= _LARGEST_SET):
            raise PcclipError(f"--gpus needs at least 1, --images at least 2 and at most {_LARGEST_SET:g}")


@dataclass(frozen=True)
class Counts:
    """How many images, captions and pairs a run has; `assumed` is a line where they are not counted."""

    train: int
    held_out: int
    train_captions: int
    pairs: int
    held_out_pairs: int
    caption_tokens: float
    assumed: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; NaN is unknown."""

    stage: str
    work: str
    tokens: float = 0.0
    flop: float = 0.0
    disk: float = 0.0  # bytes written
    hours: float = 0.0  # with all `machines` at work
    machines: str = ""


def counts(config: Config, scale: Scale, images: ImageSet | None) -> Counts:
    """Counted in `images` where they are here; otherwise the published set's numbers, or `scale.images`.

    Pairs are counted as if no two images shared a caption or a concept.
    """
    settings = config.generate
    if images is not None and scale.images is None:
        train, held_out = len(images.train), len(images.held_out)
        captions = int(images.captions["id"].isin(set(images.train["id"])).sum())
        sample = images.captions.caption.sample(min(500, len(images.captions)), random_state=0)
        caption_tokens, assumed = float(sample.map(text_tokens).mean()), ""
    else:
        train, held_out, captions, assumed = _assumed_images(config.data, round(scale.images) if scale.images else None)
        caption_tokens = constant("caption")
    possible = train * (train - 1) // 2
    wanted = settings.pairs or (possible if scale.images is None else train)
    held_out_pairs = min(settings.held_out_pairs, held_out * (held_out - 1) // 2)
    return Counts(train, held_out, captions, min(wanted, possible), held_out_pairs, caption_tokens, assumed)


def _assumed_images(data: Data, images: int | None) -> tuple[int, int, int, str]:
    """Training images, held-out images, training captions, and the line that states the assumption."""
    sides = published(data)
    if images is not None:
        held_out = min(max(1, round(data.held_out * images)), data.held_out_limit or images)
        return images - held_out, held_out, images - held_out, f"{images:,} images with one caption each"
    total = captions = round((data.limit or _UNKNOWN_SET) / (1 - data.held_out))
    if sides:
        total, captions = (sum(side[k] for side in sides.values()) for k in (0, 1))
    official = data.split == "official" and "held_out" in sides
    held_out = sides["held_out"][0] if official else round(data.held_out * total)
    train = min(total - held_out, data.limit or total)
    assumed = f"{total:,} images with {captions:,} captions in the set, {held_out:,} of them held out"
    return train, min(held_out, data.held_out_limit or held_out), round(captions / total * train), assumed


def text_tokens(text: str) -> int:
    """Words and punctuation marks: about the tokens of CLIP and of a language model."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@dataclass(frozen=True)
class Cost:
    """The cost of one run: `rows` of the table and the `memory` of a training step."""

    config: Config
    counts: Counts
    sizes: Sizes
    scale: Scale

    def rows(self) -> Iterator[Row]:
        """Lines of the table, in the order of the stages."""
        yield from self._generation()
        yield from self._embedding()
        yield self._finetuning()
        if self._taught:
            yield from self._teaching(self._taught)
        yield self._evaluation()
        if self.config.evaluate.teacher:
            yield self._matching(self.config.evaluate.teacher)

    def memory(self) -> dict[str, float]:
        """Bytes that a training step of 03 has on its GPU, and bytes of the process that hands out the work."""
        settings, model, teacher, sds = self.config.finetune, self.sizes.model, self.sizes.teacher, self._taught
        images, texts = (min(settings.micro_batch or items, items) for items in self._step_items)
        numbers = images * model.image.activations + texts * self._text_length * model.text.activations
        parts = {
            "both towers, fp32": 4 * model.parameters,
            "gradients and Adam's moments": 12 * self._tuned(model),
            f"activations, {settings.precision}": BYTES[settings.precision] / 4 * numbers,
        }
        if sds:
            latents = min(sds.micro_batch or settings.batch_size, settings.batch_size)
            numbers = latents * teacher.unet.activations / 4
            numbers *= constant("checkpointed") if sds.checkpointing else 1
            parts[f"teacher's UNet, {sds.precision}"] = BYTES[sds.precision] * teacher.unet.parameters
            parts[f"teacher's activations, {sds.precision}"] = BYTES[sds.precision] * numbers
        parts["a training step, what is known"] = float(np.nansum(list(parts.values())))
        table = constant("image") * (self.counts.train + self.counts.held_out)
        comparisons = constant("comparison") * (self.counts.pairs + self.counts.held_out_pairs)
        return {**parts, "the process that hands out the work": table + comparisons}

    # ---- stage 01 ----------------------------------------------------------------------------------------------------

    def _generation(self) -> Iterator[Row]:
        settings, counts = self.config.generate, self.counts
        written = min(constant("sentence"), settings.max_tokens)
        prompt = self._prompt_tokens(settings.prompt, ("first", "second")) + 2 * counts.caption_tokens
        yield self._questions(
            "01 comparisons", counts.pairs + counts.held_out_pairs, (prompt, written), self.sizes.writer
        )
        if settings.rewrites:
            read = self._prompt_tokens(settings.rewrites, ("first",)) + counts.caption_tokens
            lengths = (read, counts.caption_tokens)
            yield self._questions("01 rewrites", counts.train_captions, lengths, self.sizes.writer)
        if settings.attributes:
            attributes = load_bank(settings.attributes).attributes
            stems = [text_tokens(stem.text) for attribute in attributes for stem in attribute.stems]
            pairs = settings.attribute_pairs + settings.thing_pairs + settings.held_out_attribute_pairs
            mean = sum(stems) / max(len(stems), 1)
            yield self._questions("01 verdicts, at most", 2 * pairs * len(stems), (mean, 1), self.sizes.judge)

    def _questions(self, stage: str, count: int, lengths: tuple[float, float], llm: Network) -> Row:
        """Questions to a language model; `lengths` are the tokens that it reads and writes for each."""
        settings, (read, written) = self.config.generate, (count * length for length in lengths)
        disk = constant("answer") * count
        if settings.backend == "template":
            return Row(stage, f"{count:,} sentences by template", disk=disk)
        work = f"{count:,} questions, {in_thousands(read)} tokens in, {in_thousands(written)} out"
        peak, machines = PEAKS[self.scale.gpu]["bf16"] * self.scale.gpus, f"{self.scale.gpus:,} {self.scale.gpu}"
        seconds = llm.flop * (read / constant("reading") + written / constant("writing")) / peak
        if settings.backend == "llama_cpp":
            machines = f"{settings.in_flight} CPU cores"
            seconds = llm.flop * (read + written) / (constant("core") * settings.in_flight)
        return Row(stage, work, read + written, llm.flop * (read + written), disk, seconds / 3600, machines)

    def _prompt_tokens(self, name: str, slots: tuple[str, ...]) -> int:
        """Tokens of a question without its captions; llama.cpp here reads the worked examples once and keeps them."""
        messages = load_prompt(name, slots=slots).messages("", "")
        read = messages[-1:] if self.config.generate.backend == "llama_cpp" else messages
        return sum(text_tokens(message["content"]) + _CHAT_MARKS for message in read)

    # ---- stages 02 to 05 ---------------------------------------------------------------------------------------------

    def _embedding(self) -> Iterator[Row]:
        images, model, settings = self.counts.train + self.counts.held_out, self.sizes.model, self.config.embed
        row = Row("02 embed", f"{images:,} images", 0, images * model.image.flop, 4 * images * model.width)
        yield self._timed(row, "fp32", "encoding", self.scale.gpus)
        threads = settings.workers * self.scale.gpus
        hours = constant("decoding") * images / threads / 3600
        yield Row("02 decoding", f"{images:,} photos", hours=hours, machines=f"{threads:,} CPU cores")

    def _finetuning(self) -> Row:
        """Texts through the text tower against stored image vectors; with objective clip images through theirs too."""
        settings, model, (images, texts) = self.config.finetune, self.sizes.model, self._step_items
        steps = self._steps * (2 if settings.sds and settings.sds.baseline else 1)
        tokens = texts * self._processed(self._text_length, shared=self._compares)
        if settings.replay:
            tokens += settings.replay_batch * self._processed(self.counts.caption_tokens + 2)
        passes = 2 + (settings.tune in ("transformer", "all"))
        passes += settings.micro_batch is not None and settings.micro_batch < max(images, texts)
        flop = steps * passes * (images * model.image.flop + tokens * model.text.flop)
        work = f"{self._examples:,} examples, {steps:,} steps, {settings.precision}"
        row = Row("03 finetune", work, steps * tokens, flop, self._checkpoints(model))
        return self._timed(row, settings.precision, "training", min(self.scale.gpus, settings.processes))

    def _teaching(self, sds: Sds) -> Iterator[Row]:
        """The teacher of SDS: latents and conditions kept once, and at every step noised latents through the UNet."""
        train, captions, teacher = self.counts.train, self.counts.train_captions, self.sizes.teacher
        pictures = train if sds.warmup == "least_squares" or sds.warmup_steps else 0
        work = f"{pictures:,} latents in fp32, {captions:,} conditions in {sds.precision}"
        flop = pictures * teacher.vae.flop + captions * teacher.text.flop
        disk = 4 * pictures * teacher.latent + BYTES[sds.precision] * captions * teacher.condition
        yield self._timed(Row("03 teacher's cache", work, 0, flop, disk), "fp32", "encoding")
        latents = sds.samples * self._steps * min(self.config.finetune.batch_size, train)
        passes = 2 + sds.checkpointing
        work = f"{latents:,} latents {passes} times through the UNet, {sds.precision}"
        disk = 16 * (self.sizes.model.width + 1) * teacher.latent  # the map to latents, and in training Adam's moments
        yield self._timed(
            Row("03 teacher", work, 0, passes * latents * teacher.unet.flop, disk), sds.precision, "training"
        )

    def _evaluation(self) -> Row:
        """Both texts of every template and of every written pair, by each model in 04 and by two in 05."""
        settings, models = self.config.evaluate, 2 + len(self.config.evaluate.alphas)
        texts = 2 * models * (settings.pairs + self.counts.held_out_pairs) + 4 * self.config.arithmetic.pairs
        tokens = texts * self._processed(self._text_length, shared=True)
        work, flop = f"{texts:,} texts by {models} models", tokens * self.sizes.model.text.flop
        return self._timed(Row("04, 05 evaluate", work, tokens, flop, constant("item") * texts), "fp32", "encoding")

    def _matching(self, settings: Matcher) -> Row:
        """The diffusion model as a peer in 04: two images with two texts, and with no text too."""
        sets = len(self.config.evaluate.compositional) + (self.config.data.source == "shapes")
        evaluations = sets * (settings.limit or nan) * settings.samples * (4 + 2 * settings.unconditional)
        work = f"{evaluations:,} evaluations of the UNet at most, {settings.precision}"
        row = Row("04 teacher", work, flop=evaluations * self.sizes.matcher.unet.flop)
        return self._timed(row, settings.precision, "encoding")

    # ---- what the stages share ---------------------------------------------------------------------------------------

    def _timed(self, row: Row, precision: str, utilisation: str, gpus: int = 1) -> Row:
        """The row with its machines and hours, by the card's peak and one of the constants."""
        rate = PEAKS[self.scale.gpu][precision] * constant(utilisation) * gpus
        return replace(row, hours=row.flop / rate / 3600, machines=f"{gpus:,} {self.scale.gpu}")

    @property
    def _taught(self) -> Sds | None:
        """The parameters of the diffusion teacher, where its loss has a weight."""
        sds = self.config.finetune.sds
        return sds if sds and sds.weight else None

    @property
    def _compares(self) -> bool:
        """Whether stage 03 trains on comparisons of pairs; otherwise on captions."""
        return self.config.finetune.objective not in ("clip", "captions")

    @property
    def _examples(self) -> int:
        """Examples of an epoch of stage 03."""
        captioned = self.counts.train if self.config.finetune.objective == "clip" else self.counts.train_captions
        return self.counts.pairs if self._compares else captioned

    @property
    def _steps(self) -> int:
        settings = self.config.finetune
        return max(1, min(-(-self._examples // settings.batch_size), self._examples // 2)) * settings.epochs

    @property
    def _step_items(self) -> tuple[int, int]:
        """Images and texts that one training step encodes."""
        settings, batch = self.config.finetune, min(self.config.finetune.batch_size, self._examples)
        directions = 2 if settings.swap else 1
        if settings.objective != "clip":
            return 0, batch * (directions if self._compares else 1)
        pairs = PAIRS_IN_BATCH if settings.difference else 0
        return batch + 2 * pairs, batch * (1 if settings.negatives == "none" else 2) + pairs * directions

    @property
    def _text_length(self) -> float:
        """Tokens of a mean text of stage 03, with its start and end marks."""
        settings, counts = self.config.finetune, self.counts
        if not self._compares:
            return counts.caption_tokens + 2
        if settings.comparisons == "template" or self.config.generate.backend == "template":
            frame = text_tokens(from_captions("A dog.", "A dog.")) - 2 * text_tokens("A dog.")
            return frame + 2 * counts.caption_tokens + 2
        return min(constant("sentence"), self.config.generate.max_tokens) + 2

    def _processed(self, tokens: float, shared: bool = False) -> float:
        """Tokens that the text tower processes for a text of `tokens`; `shared` ones begin alike."""
        model = self.sizes.model
        if not model.shortens:
            return model.context_length
        return min(tokens, model.context_length) * (constant("distinct") if shared and model.packs else 1)

    def _checkpoints(self, model: EncoderSize) -> float:
        """Bytes: the learning towers at the end and for each kept epoch, and thrice the tuned weights in training."""
        settings, sds = self.config.finetune, self.config.finetune.sds
        kept = 1 + len({epoch for epoch in settings.keep_epochs if epoch <= settings.epochs})
        kept += bool(sds and sds.baseline)
        towers = model.parameters if settings.objective == "clip" else model.text.parameters
        return 4 * (kept * towers + 3 * self._tuned(model))

    def _tuned(self, model: EncoderSize) -> float:
        """Parameters that learn."""
        tune, towers = self.config.finetune.tune, [model.text]
        if self.config.finetune.objective == "clip":
            towers.append(model.image)
        if tune == "layernorm":
            return sum(tower.norms for tower in towers)
        if tune == "transformer":
            return sum(tower.blocks or tower.parameters for tower in towers)
        return sum(tower.parameters for tower in towers) if tune == "all" else 0


def summed(rows: list[Row]) -> list[Row]:
    """Rows of the same work, of which the members of a sweep have many, as one row that says how often."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.work, row.machines), []).append(row)
    return [
        replace(
            same[0], work=f"{len(same)} times {same[0].work}", **{k: sum(getattr(r, k) for r in same) for k in _AMOUNTS}
        )
        if len(same) > 1
        else same[0]
        for same in groups.values()
    ]


def table(rows: list[Row]) -> str:
    """Rows in aligned columns, and a last one that sums the known amounts, as if the stages ran one after the other."""
    tokens, flop, disk, hours = (float(np.nansum([getattr(row, name) for row in rows])) for name in _AMOUNTS)
    cells = [("stage", "work", "tokens", "FLOP", "on disk", "hours", "machines")]
    for row in [*rows, Row("sum", "of what is known", tokens, flop, disk, hours)]:
        amounts = (_amount(row.tokens), _amount(row.flop), in_bytes(row.disk), _amount(row.hours))
        cells.append((row.stage, row.work, *amounts, row.machines))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = ([f"{cell:{'<' if k < 2 else '>'}{widths[k]}}" for k, cell in enumerate(row)] for row in cells)
    return "\n".join("  ".join(row) for row in aligned)


def in_bytes(count: float) -> str:
    """1234567 -> '1.23 MB'."""
    return "?" if isnan(count) else f"{in_thousands(count)}B"


def in_thousands(count: float) -> str:
    """1234567 -> '1.23 M', to which a unit can be added."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} T"


def _amount(number: float) -> str:
    """Three digits; '?' for an unknown amount and '-' for none."""
    if isnan(number):
        return "?"
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:.3g}" if number else "-"
