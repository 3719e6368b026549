"""The teacher of objective clip made ready: loaded, its latents and conditions kept, h_w fitted to the untuned CLIP."""

from pathlib import Path

from pcclip.config import Config
from pcclip.encoders.diffusion import Teacher, identify_teacher, load_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.finetuning.captioned import Captioned, Given
from pcclip.finetuning.pixels import Pictures
from pcclip.finetuning.score_distillation import Distillation, LatentMap
from pcclip.finetuning.tensor_cache import KeptTensors, kept
from pcclip.finetuning.warmup import warm_up
from pcclip.runs.files import digest

FOLDER = "teacher"  # beside 01 and 02, for every run that builds on them
_PICTURES_AT_ONCE, _TEXTS_AT_ONCE = 16, 64  # in the VAE and in the teacher's text encoder


def distillation(config: Config, given: Given, model: Encoder) -> Distillation | None:
    """The teacher's term with h_w at zero, or None where the run has no teacher or it has no weight.

    Raises PcclipError when the teacher cannot be loaded.
    """
    settings = config.finetune.sds
    if settings is None or not settings.weight:
        return None
    teacher = load_teacher(settings.teacher, settings.precision, settings.checkpointing).to(model.device)
    latent_map = LatentMap(model.width, teacher.latent_shape).to(model.device)
    return Distillation(teacher, latent_map, conditions(config, teacher, given.train), settings, config.seed)


def warmed_up(config: Config, term: Distillation, given: Given, checkpoint: Path) -> list[dict]:
    """Fit h_w while CLIP stands still. Returns the curve, empty where no step is asked for."""
    settings = term.settings
    if settings.warmup != "least_squares" and not settings.warmup_steps:
        return []
    towards = latents(config, term.teacher, given) if settings.warmup != "sds" else None
    return warm_up(config, term, given.train, given.vectors.matrix[given.train.images], towards, checkpoint)


def conditions(config: Config, teacher: Teacher, train: Captioned) -> KeptTensors:
    """What the teacher reads in each distinct training caption, numbered as in `train.same`; made once.

    In the UNet's precision, to which it rounds them itself.
    """
    texts, dtype = list(dict.fromkeys(train.texts)), teacher.unet.dtype
    inputs = {"teacher": identify_teacher(config.finetune.sds.teacher), "texts": texts, "dtype": str(dtype)}
    return kept(
        _place(config, "texts", inputs),
        inputs,
        len(texts),
        lambda wanted: (teacher.conditions(texts[rows.start : rows.stop]).to(dtype) for rows in wanted),
        _TEXTS_AT_ONCE,
        "texts",
    )


def latents(config: Config, teacher: Teacher, given: Given) -> KeptTensors:
    """The teacher's latents of the training images, in their order; made once."""
    paths = [given.vectors.paths[row] for row in given.train.images]
    inputs = {
        "teacher": identify_teacher(config.finetune.sds.teacher),
        "images": given.images.identity(),
        "paths": paths,
    }
    pictures = Pictures(paths, teacher.preprocess, config.embed.workers)
    return kept(
        _place(config, "latents", inputs),
        inputs,
        len(paths),
        lambda wanted: map(teacher.latents, pictures.each(wanted)),
        _PICTURES_AT_ONCE,
        "latents",
    )


def _place(config: Config, what: str, inputs: dict) -> Path:
    """A folder for each teacher and each set of texts or pictures: runs that share 01 and 02 may differ in them."""
    return config.source_folder / FOLDER / f"{what}-{digest(inputs)[:12]}"
