"""What a run costs: tokens, FLOP, bytes and hours of every stage, for `pcclip run --check` and `pcclip plan`.

FLOP are the cost of one item's forward pass (sizes.py) times the number of items. A training step costs three forward
passes, two where the weights are frozen and only a gradient passes through (LoRA, layer norms). GradCache, which
encodes each micro-batch twice, adds one. Hours are FLOP / (the card's peak in FLOP/s x the utilisation in
`constants()`). Not counted: the benchmarks of stage 04, the held-out curve, the attribute term's texts, a teacher's VAE
and text encoder. A teacher's UNet is counted as Stable Diffusion 1's.

Beside the paper (30 A100 hours of generation, 12 of finetuning): its configuration, 499,500 pairs of Llama-2-13b and
20 epochs of ViT-L-14's text tower in fp32, comes to 11 and 5.6 hours here. The paper's reproducibility card says roughly
560,000 comparatives; 1000 images have 499,500 unordered pairs, and how the others came about is unknown.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import isnan, nan
from typing import NamedTuple

import pandas as pd

from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Config, Generate, root
from pcclip.data.image_set import ImageSet
from pcclip.encoders.toy_diffusion import SHAPES_DIFFUSION
from pcclip.errors import PcclipError
from pcclip.workbook.sizes import EncoderSize, encoder_size, language_model_size

PEAKS = {  # FLOP/s of dense products, from NVIDIA's data sheets; fp32 without TF32
    "A100": {"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
    "H100": {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
    "H200": {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
    "L40S": {"fp32": 91.6e12, "bf16": 362e12, "fp16": 362e12},
}
DEFAULTS = {  # name -> value, unit and source
    "training": (0.3, "of a GPU's peak used in training: assumed"),
    "encoding": (0.3, "of a GPU's peak used in encoding: assumed"),
    "reading": (0.3, "of a GPU's peak used by a language model that reads: assumed"),
    "writing": (0.1, "of a GPU's peak used by a language model that writes in batches: assumed"),
    "core": (2.5e10, "FLOP/s of llama.cpp on one core: SmolLM2-135M, LOG.md"),
    "decoding": (4.8e-3, "core seconds to decode and prepare a photo of 640 x 480: speed/constants.py on an AMD EPYC"),
    "answer": (350, "bytes on disk of a comparison and its logged answer: outputs/demo"),
    "item": (16, "bytes on disk of a text scored in stages 04 and 05: outputs/demo"),
    "caption": (12, "tokens of a caption: COCO's ten or eleven words and a full stop"),
    "sentence": (29, "tokens of a written comparison: SmolLM2-135M in outputs/demo"),
    "distinct": (0.73, "of a batch's tokens are left when shared beginnings are computed once: outputs/demo"),
}
_UNET_FLOP = 8.033e11  # of Stable Diffusion 1's UNet for one latent of 4 x 64 x 64, counted by torch
_UNKNOWN_SET = 1_000  # training images of a set that is not here: as many as the paper has
_LARGEST_SET = 10**18
_AMOUNTS = ["tokens", "flop", "bytes", "hours"]  # columns of the table that a sum makes sense of
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
    """The value of one of `constants()`."""
    return constants()[name][0]


@dataclass(frozen=True)
class Scale:
    """What `pcclip plan` can change: the number of images (None: the file's own) and the GPUs.

    `gpus` share stages 01 and 02; finetuning uses at most finetune.processes of them, all other work one.
    """

    images: float | None = None
    gpus: int = 1
    gpu: str = "A100"

    def __post_init__(self) -> None:
        if self.gpu not in PEAKS:
            raise PcclipError(f"--gpu {self.gpu}: unknown; one of {', '.join(PEAKS)}")
        if self.gpus < 1 or (self.images is not None and not 2 <= self.images <= _LARGEST_SET):
            raise PcclipError(f"--gpus needs at least 1, --images at least 2 and at most {_LARGEST_SET:g}")


class Row(NamedTuple):
    """One line of the table; NaN is unknown."""

    stage: str
    work: str
    tokens: float = 0.0
    flop: float = 0.0
    bytes: float = 0.0  # written to disk
    hours: float = 0.0  # with all `machines` at work
    machines: str = ""


class Cost:
    """The cost of one run.

    Images and captions are counted if `images` is given and `scale.images` is not. Otherwise there are `scale.images`
    images, or data.limit, or 1000, with one caption each, and `assumed` is a line that says so. Pairs are computed as
    if no two images shared a caption or a concept.

    Attributes:
        rows: the lines of the table, in the order of the stages.
    """

    def __init__(self, config: Config, scale: Scale, images: ImageSet | None = None):
        self.config, self.scale, self.assumed = config, scale, ""
        if images is not None and scale.images is None:
            self.train, self.held_out = len(images.train), len(images.held_out)
            self.captions = int(images.captions["id"].isin(set(images.train["id"])).sum())
        else:
            data, limit = config.data, config.data.limit or _UNKNOWN_SET
            total = round(scale.images or limit / (1 - data.held_out))
            self.held_out = min(max(1, round(data.held_out * total)), data.held_out_limit or total)
            self.train = self.captions = total - self.held_out if scale.images else limit
            self.assumed = f"{self.train:,} training and {self.held_out:,} held-out images with one caption each"
        possible = self.train * (self.train - 1) // 2
        self.pairs = min(config.generate.pairs or (self.train if scale.images else possible), possible)
        self.held_out_pairs = min(config.generate.held_out_pairs, self.held_out * (self.held_out - 1) // 2)
        self.model = EncoderSize()
        with suppress(PcclipError):  # `pcclip run --check` says what is missing
            self.model = encoder_size(config.model)
        self.rows = [*self._generation(), *self._embedding(), *self._finetuning(), self._evaluation()]

    def _generation(self) -> Iterator[Row]:
        settings, caption = self.config.generate, constant("caption")
        prompt = self._prompt_tokens(settings.prompt, ("first", "second")) + 2 * caption
        yield self._questions(
            "01 comparisons",
            self.pairs + self.held_out_pairs,
            (prompt, min(constant("sentence"), settings.max_tokens)),
            settings,
        )
        if settings.rewrites:
            read = self._prompt_tokens(settings.rewrites, ("first",)) + caption
            yield self._questions("01 rewrites", self.captions, (read, caption), settings)
        if settings.attributes:
            bank = load_bank(settings.attributes)
            stems = [stem for attribute in bank.attributes for stem in attribute.stems]
            pairs, things = settings.attribute_pairs + settings.held_out_attribute_pairs, len(bank.things)
            counts = [2 * pairs if stem.compares else things + self.train + self.held_out for stem in stems]
            read = sum(count * text_tokens(stem.text) for count, stem in zip(counts, stems, strict=True))
            yield self._questions("01 verdicts, at most", sum(counts), (read / sum(counts), 1), settings.judging)

    def _questions(self, stage: str, count: int, lengths: tuple[float, float], settings: Generate) -> Row:
        """Questions to a language model; `lengths` are the tokens that it reads and writes for each."""
        disk = constant("answer") * count
        if settings.backend == "template":
            return Row(stage, f"{count:,} sentences by template", bytes=disk)
        read, written = (count * length for length in lengths)
        flop = nan
        with suppress(PcclipError):
            flop = language_model_size(settings).flop
        machines, rate = self._gpus("bf16", self.scale.gpus)
        seconds = flop * (read / constant("reading") + written / constant("writing")) / rate
        if settings.backend == "llama_cpp":
            machines = f"{settings.in_flight} CPU cores"
            seconds = flop * (read + written) / (constant("core") * settings.in_flight)
        work = f"{count:,} questions, {with_prefix(read)} tokens in, {with_prefix(written)} out"
        return Row(stage, work, read + written, flop * (read + written), disk, seconds / 3600, machines)

    def _prompt_tokens(self, name: str, slots: tuple[str, ...]) -> int:
        """Tokens of a question without its captions; llama.cpp here reads the worked examples once and keeps them."""
        messages = load_prompt(name, slots=slots).messages("", "")
        read = messages[-1:] if self.config.generate.backend == "llama_cpp" else messages
        return sum(text_tokens(message["content"]) + _CHAT_MARKS for message in read)

    def _embedding(self) -> Iterator[Row]:
        images, gpus = self.train + self.held_out, self.scale.gpus
        flop, disk = images * self.model.image.flop, 4 * images * self.model.width
        yield self._timed(Row("02 embed", f"{images:,} images", 0, flop, disk), "fp32", "encoding", gpus)
        threads = self.config.embed.workers * gpus
        yield Row(
            "02 decoding",
            f"{images:,} photos",
            hours=constant("decoding") * images / threads / 3600,
            machines=f"{threads:,} CPU cores",
        )

    def _finetuning(self) -> Iterator[Row]:
        """The text tower encodes texts; image vectors are stored. With `objective: clip` the image tower runs, too.

        On disk are the towers at the end and for each kept epoch, and a checkpoint with both moments of Adam. Noised
        latents go through the UNet of SDS's teacher at every step.
        """
        settings, model, sds = self.config.finetune, self.model, self.config.finetune.sds
        clip, compares = settings.objective == "clip", settings.objective not in ("captions", "clip")
        examples = self.pairs if compares else self.train if clip else self.captions
        batch, runs = min(settings.batch_size, examples), 2 if sds and sds.baseline else 1
        images = batch if clip else 0
        texts = batch * (2 if compares and settings.swap else 1)
        tokens = texts * self._tokens(compares) + (settings.replay_batch if settings.replay else 0) * self._tokens(
            False
        )
        passes = 2 + (settings.tune in ("transformer", "all"))
        passes += settings.micro_batch is not None and settings.micro_batch < max(images, texts)
        steps = max(1, min(-(-examples // settings.batch_size), examples // 2)) * settings.epochs
        flop = runs * steps * passes * (images * model.image.flop + tokens * model.text.flop)
        kept = len({epoch for epoch in settings.keep_epochs if epoch <= settings.epochs})
        disk = 4 * (runs + kept + 3) * (model.text.parameters + clip * model.image.parameters)
        work = f"{'at most ' * compares}{examples:,} examples, {runs * steps:,} steps, {settings.precision}"
        row = Row("03 finetune", work, runs * steps * tokens, flop, disk)
        yield self._timed(row, settings.precision, "training", min(settings.processes, self.scale.gpus))
        if sds and sds.weight:
            latents, passes = sds.samples * batch * steps, 2 + sds.checkpointing
            work = f"{latents:,} latents {passes} times through the UNet, {sds.precision}"
            unet_flop = nan if SHAPES_DIFFUSION.seed(sds.teacher) is not None else _UNET_FLOP
            yield self._timed(Row("03 teacher", work, 0, passes * latents * unet_flop), sds.precision, "training")

    def _evaluation(self) -> Row:
        """Both texts of every template and of every written pair, by each model in 04 and by two in 05."""
        settings, models = self.config.evaluate, 2 + len(self.config.evaluate.alphas)
        texts = 2 * models * (settings.pairs + self.held_out_pairs) + 4 * self.config.arithmetic.pairs
        tokens = texts * self._tokens(self.config.finetune.objective not in ("captions", "clip"))
        flop, disk = tokens * self.model.text.flop, constant("item") * texts
        return self._timed(
            Row("04, 05 evaluate", f"{texts:,} texts, {models} models in 04 and 2 in 05", tokens, flop, disk),
            "fp32",
            "encoding",
        )

    def _timed(self, row: Row, precision: str, utilisation: str, gpus: int = 1) -> Row:
        """The row with its machines and hours, by the card's peak and one of the constants."""
        machines, rate = self._gpus(precision, gpus)
        return row._replace(hours=row.flop / (rate * constant(utilisation)) / 3600, machines=machines)

    def _gpus(self, precision: str, number: int) -> tuple[str, float]:
        """Their name, and their peak together in FLOP/s."""
        return f"{number:,} {self.scale.gpu}", number * PEAKS[self.scale.gpu][precision]

    def _tokens(self, compares: bool) -> float:
        """Tokens that the text tower processes for an average comparison or caption, with the start and end tokens.

        Some towers compute a shared beginning once; one that pads processes its full context length.
        """
        length = 2 + (min(constant("sentence"), self.config.generate.max_tokens) if compares else constant("caption"))
        distinct = constant("distinct") if compares and self.model.packs else 1
        return min(length, self.model.context_length) * distinct if self.model.shortens else self.model.context_length


def text_tokens(text: str) -> int:
    """Words and punctuation marks: about the tokens of CLIP and of a language model."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def table(rows: list[Row]) -> str:
    """Rows in aligned columns, equal work of a sweep's members once, and the sum of the known amounts.

    The sum is what the stages take one after the other.
    """
    frame = pd.DataFrame(rows)
    groups = frame.groupby(["stage", "work", "machines"], sort=False)
    frame = groups[_AMOUNTS].sum(min_count=1).assign(times=groups.size()).reset_index()
    frame["work"] = frame.work.where(frame.times == 1, frame.times.astype(str) + " times " + frame.work)
    total = {"stage": "sum", "work": "of what is known", "machines": "", **frame[_AMOUNTS].sum()}
    frame = pd.concat([frame, pd.DataFrame([total])])
    frame[_AMOUNTS] = frame[_AMOUNTS].map(_amount)
    left = {name: f"{{:<{frame[name].str.len().max()}}}".format for name in ("stage", "work")}
    return frame[["stage", "work", *_AMOUNTS, "machines"]].to_string(index=False, formatters=left, max_colwidth=None)


def with_prefix(count: float) -> str:
    """1234567 -> '1.23 M'; a unit can follow."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} T"


def _amount(number: float) -> str:
    """Three digits; '?' for an unknown amount and '-' for none."""
    return "?" if isnan(number) else f"{number:.3g}" if number else "-"
