"""What a parameter file would take at any size: tokens, FLOPs, bytes, hours, shards and memory, with nothing done.

Sizes of models are counted, this package's own costs were measured by its benchmarks (MEASURED), and the rates of GPUs
are assumed: a data sheet's peak times the share of it that pcclip.workbook.estimate takes for used. No GPU has been measured.
Formulas are those of pcclip.workbook.estimate; here a set of a billion images is a number and never a list.
"""

from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Config
from pcclip.data import image_set as data
from pcclip.errors import PcclipError
from pcclip.workbook import estimate, sizes
from pcclip.workbook.estimate import Counts, Row, in_bytes
from pcclip.workbook.sweep import read_sweep
from pcclip.workbook.teacher_size import of_teacher

CORE = estimate.CORE
_MOST = 1e18
PEAKS = {  # FLOP/s, dense, of NVIDIA's data sheets; fp32 without TF32
    "A100": {"fp32": 19.5e12, "bf16": 312e12},
    "H100": {"fp32": 67e12, "bf16": 989e12},
    "H200": {"fp32": 67e12, "bf16": 989e12},
    "L40S": {"fp32": 91.6e12, "bf16": 362e12},
}


@dataclass(frozen=True)
class Constant:
    """A number that the plan rests on, and where it is from."""

    value: float
    unit: str
    source: str
    measured: str = ""  # the date; '' where it is assumed


_BOOKS = "speed/plan.py on a core of an AMD EPYC"
MEASURED = {
    "decoding": Constant(
        4.8e-3,
        "core seconds to decode and prepare a photo of 640 x 480",
        "speed/embed.py on a core of an AMD EPYC",
        "2026-11-23",
    ),
    "index": Constant(9.5e-5, "core seconds to find an image in a tar file, once", _BOOKS, "2026-11-23"),
    "image": Constant(1270, "bytes of memory for an image in the set's table, at most", _BOOKS, "2026-11-23"),
    "comparison": Constant(1910, "bytes of memory for a comparison in 01, at most", _BOOKS, "2026-11-23"),
    "shard": Constant(6.6e-5, "core seconds to plan, find and keep the books of a shard", _BOOKS, "2026-11-23"),
    "row": Constant(estimate.ROW_BYTES, "bytes on disk of a comparison", "outputs/demo", "2026-11-22"),
    "journal": Constant(
        estimate.JOURNAL_BYTES, "bytes on disk of an answer in the journal", "outputs/demo", "2026-11-22"
    ),
}
ASSUMED = {
    "encoding": Constant(estimate.ENCODING, "of a GPU's peak used in encoding", "assumed, as by --check"),
    "training": Constant(estimate.TRAINING, "of a GPU's peak used in training", "assumed, as by --check"),
    "reading": Constant(
        estimate.READING, "of a GPU's peak used by a language model that reads", "assumed, as by --check"
    ),
    "writing": Constant(estimate.WRITING, "of it by one that writes", "assumed, as by --check"),
    "photo": Constant(163e3, "bytes of a photo", "COCO's train2017, 19.3 GB of 118,287 photos"),
}


@dataclass(frozen=True)
class Part:
    """One line of the plan; None is unknown."""

    stage: str
    work: str
    flops: float | None
    disk: float | None  # bytes written
    on: str  # a GPU's name, or CORE
    machine_hours: float | None  # of all machines together
    machines: int  # that share them
    tokens_in: float  # read by a language model, or by the text tower in training
    tokens_out: float

    @property
    def hours(self) -> float | None:
        return None if self.machine_hours is None else self.machine_hours / self.machines


def plan(
    params_file: str | Path, images: float | None = None, pairs: float | None = None, gpus: int = 1, gpu: str = "A100"
) -> dict:
    """The plan of a parameter file as plain values: its sizes, a list of stages, memory, constants, and notes.

    Args:
        params_file: as for `run`; of a sweep its first member is planned.
        images: so many in the set, in place of the file's; those of a set that is not here are as published.
        pairs: so many training comparisons; by default the file's, and where it has all pairs and `images` is given,
            one for each training image.
        gpus: how many work at the same time on 01 and 02; 03 takes as many as finetune.processes, the others one.
        gpu: one of PEAKS.

    Raises:
        PcclipError: a bad parameter file or number.
    """
    if gpu not in PEAKS:
        raise PcclipError(f"--gpu {gpu}: unknown; one of {', '.join(PEAKS)}")
    if gpus < 1 or not (images is None or 2 <= images <= _MOST) or not (pairs is None or 1 <= pairs <= _MOST):
        raise PcclipError(f"--images needs at least 2, --pairs and --gpus at least 1, and none more than {_MOST:g}")
    members = read_sweep(params_file)
    config = members[0].config
    notes = [f"the first of {len(members)} members of a sweep"] if members[0].swept else []
    counts = _counted(config, images and round(images), pairs and round(pairs))
    (towers, llm, judge, teacher), why = _models(config)
    rows = estimate.rows(config, counts, towers, llm, judge, teacher)
    parts = [_part(row, config, counts, towers, gpus, gpu) for row in rows]
    memory, everything = _memory(counts, towers), counts.train + counts.held_out
    largest, given = max(memory.values()), config.slurm.memory * 1e9
    if largest > given:
        notes.append(
            f"{in_bytes(largest)} of memory are more than slurm.memory = {config.slurm.memory:g} GB: give "
            f"more, or plan {ceil(largest / given):,} runs, each with its own part of the set"
        )
    core_hours = MEASURED["decoding"].value * everything / 3600
    embedding = next(part for part in parts if part.stage.startswith("02"))
    if embedding.machine_hours:
        notes.append(f"{core_hours / embedding.machine_hours:.2g} CPU cores beside each GPU of 02 are busy decoding")
    shards = ceil(everything / config.embed.shard)
    return {
        "params": str(params_file),
        "images": everything,
        "train": counts.train,
        "held_out": counts.held_out,
        "pairs": counts.pairs,
        "gpus": gpus,
        "gpu": gpu,
        "stages": [asdict(part) | {"hours": part.hours} for part in parts],
        "hours": sum(part.hours or 0 for part in parts),
        "disk": sum(part.disk or 0 for part in parts),
        "read": ASSUMED["photo"].value * everything,
        "decoding_core_hours": core_hours,
        "memory": memory,
        "shards": shards,
        "bookkeeping_seconds": MEASURED["shard"].value * shards,
        "indexing_hours": MEASURED["index"].value * everything / 3600,
        "measured": {name: asdict(constant) for name, constant in MEASURED.items()},
        "assumed": {name: asdict(constant) for name, constant in ASSUMED.items()}
        | {
            f"peak_{kind}": asdict(Constant(rate, f"FLOP/s, peak of one {gpu} in {kind}", "NVIDIA's data sheet"))
            for kind, rate in PEAKS[gpu].items()
        },
        "notes": [*notes, *why, *counts.assumed],
    }


def table(found: dict) -> str:
    """A plan in lines: the stages, the sums, the notes, and every constant with its source."""
    cells = [("stage", "work", "FLOPs", "on disk", "machine hours", "machines", "hours")]
    for part in found["stages"]:
        flops, spent, hours = (_told(part[key]) for key in ("flops", "machine_hours", "hours"))
        cells.append(
            (
                part["stage"],
                part["work"],
                flops,
                in_bytes(part["disk"]),
                spent,
                f"{part['machines']:,} {part['on']}",
                hours,
            )
        )
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = ["  ".join(f"{cell:{'<' if k < 2 else '>'}{widths[k]}}" for k, cell in enumerate(row)) for row in cells]
    memory = ", ".join(f"{name} {in_bytes(held)}" for name, held in found["memory"].items())
    lines += [
        "",
        f"{found['pairs']:,} comparisons of {found['images']:,} images ({in_bytes(found['read'])} to read, "
        f"{_told(found['indexing_hours'])} core hours to index where they are in tar files, "
        f"{_told(found['decoding_core_hours'])} to decode)",
        f"{_told(found['hours'])} hours one stage after the other, {in_bytes(found['disk'])} written",
        f"{found['shards']:,} shards of vectors, whose books take {_told(found['bookkeeping_seconds'])} s",
        f"memory of the process that hands out the work: {memory}",
        "",
    ]
    lines += [f"note      {line}" for line in found["notes"]]
    for kind in ("measured", "assumed"):
        for one in found[kind].values():
            source = ", ".join(filter(None, (one["source"], one["measured"])))
            lines.append(f"{kind:<8}  {one['value']:g} {one['unit']} ({source})")
    return "\n".join(lines)


def _told(number: float | None) -> str:
    """Three digits, or '?'."""
    return "?" if number is None else f"{number:,.0f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"


def _counted(config: Config, images: int | None, pairs: int | None) -> Counts:
    if pairs:
        config = config.model_copy(update={"generate": config.generate.model_copy(update={"pairs": pairs})})
    if not images:
        here = not (data.missing(config.data) or data.to_fetch(config.data))
        return estimate._counted(config, data.load_images(config)) if here else estimate._assumed(config)
    settings = config.generate
    held_out = min(max(1, round(config.data.held_out * images)), config.data.held_out_limit or images)
    train = images - held_out
    everything = train * (train - 1) // 2 * (2 if settings.both_directions else 1)
    assumed = [f"{held_out:,} images held out, one caption of {estimate.CAPTION_TOKENS} tokens each"]
    if settings.pairs is None:
        assumed.append(f"one comparison for each training image; all pairs, as the file says, were {everything:.3g}")
    return Counts(
        train,
        held_out,
        train,
        min(settings.pairs or train, everything),
        min(settings.held_out_pairs, held_out * (held_out - 1) // 2),
        estimate.CAPTION_TOKENS,
        assumed,
    )


def _models(config: Config) -> tuple[list, list[str]]:
    """Sizes of the towers, of who writes and who judges, and of the teacher; and a line for each that is unknown."""
    found, why = [], {}
    wanted = [
        (sizes.of_model, config.model, f"model {config.model}"),
        (sizes.of_llm, config.generate, "the language model"),
        (sizes.of_llm, config.generate.judging, "the language model that judges"),
    ]
    if config.finetune.sds:
        wanted.append((of_teacher, config.finetune.sds.teacher, "the teacher"))
    for size_of, what, name in wanted:
        try:
            found.append(size_of(what))
            why |= {} if found[-1] else {f"{name}: its size is not known here": None}
        except PcclipError as error:
            found.append(None)
            why[str(error)] = None
    return [*found, *[None] * (4 - len(found))], list(why)


def _part(row: Row, config: Config, counts: Counts, towers: sizes.Towers | None, gpus: int, gpu: str) -> Part:
    """A row of the estimate, on as many of these GPUs as can share its work."""
    number, settings = row.stage[:2], config.finetune
    precision = {"01": "bf16", "03": settings.precision}.get(number, "fp32")
    hours, on, machines = row.hours, row.on, config.generate.in_flight
    if on != CORE:
        hours, on = hours and hours * estimate.PEAK[precision] / PEAKS[gpu][precision], gpu
        machines = {"01": gpus, "02": gpus, "03": min(gpus, settings.processes)}.get(number, 1)
    return Part(row.stage, row.work, row.flops, row.disk, on, hours, machines, *_tokens(row, config, counts, towers))


def _tokens(row: Row, config: Config, counts: Counts, towers: sizes.Towers | None) -> tuple[float, float]:
    """Of the comparisons, read and written; in training, those of the pairs' texts."""
    settings = config.generate
    if row.stage == "01 comparisons" and settings.backend != "template":
        asked = counts.pairs + counts.held_out_pairs
        read = estimate._read(config, load_prompt(settings.prompt), 2 * counts.caption)
        return asked * read, asked * min(estimate.SENTENCE_TOKENS, settings.max_tokens)
    if (
        row.stage == "03 finetune"
        and towers
        and config.finetune.objective != "clip"
        and (config.finetune.tune != "linear_map")
    ):
        plain = config.finetune.objective == "captions"
        seen = (
            (counts.train_captions if plain else counts.pairs)
            * config.finetune.epochs
            * (2 if config.finetune.swap and not plain else 1)
        )
        return seen * estimate.text_length(config, counts, towers), 0
    return 0, 0


def _memory(counts: Counts, towers: sizes.Towers | None) -> dict[str, float]:
    """Bytes, by stage, of the process that hands out the work: the table of images and what the stage adds."""
    images = counts.train + counts.held_out
    table, vectors = MEASURED["image"].value * images, 4 * (towers.width if towers else 0) * images
    comparisons = MEASURED["comparison"].value * (counts.pairs + counts.held_out_pairs)
    return {
        "01": table + comparisons,
        "02": table + vectors,
        "03": table + vectors + comparisons,
        "04, 05": table + vectors,
    }
