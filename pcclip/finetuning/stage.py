"""Stage 03: tune the text tower so that f(text of difference) lies along g(image 1) - g(image 2).

Image vectors are cached, so the image tower never runs. The order of the batches is a function of seed and epoch,
dropout stays off and a checkpoint holds everything else, so a killed run continues on the same curve.
"""

from contextlib import nullcontext

import numpy as np
import pandas as pd

from pcclip.comparisons import stage as generate
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.captions import NEGATIVES_FORMAT
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.embedding.stage import shared_inputs
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.diffusion import identify_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning import both_towers, distributed
from pcclip.finetuning.loop import CURVES, asked_of, steps
from pcclip.finetuning.precision import has_bf16
from pcclip.finetuning.text_tower import gather, optimise, own_text_tower
from pcclip.runs.files import atomic
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, built_on

FOLDER = "03_finetune"
_FORMAT = 2  # raise it when draws or numbers change: old stages are then done again


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """Raises PcclipError when 01 or 02 has not finished."""
    asks = (
        {"attributes": load_bank(config.generate.attributes).hash}
        if (config.finetune.attribute_weight and config.generate.attributes)
        else {}
    )
    if config.finetune.negatives == "rules":
        asks["negatives"] = NEGATIVES_FORMAT
    if config.finetune.sds:
        asks["teacher"] = identify_teacher(config.finetune.sds.teacher)
    folder = config.folder / FOLDER
    return Stage(
        folder,
        {
            "format": _FORMAT,
            "finetune": asked_of(config.finetune),
            "zero_shot": config.evaluate.zero_shot_prompt,
            **asks,
            **built_on(
                (config.source_folder / generate.FOLDER, config.source_folder / EMBED), shared_inputs(config, images)
            ),
        },
        config.stored(folder),
    )


def finetune(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> pd.DataFrame:
    """Run the stage, or read its curves when done. The finetuned model is then `load_model(run folder)`.

    Where torch.distributed has been set up, every process calls this, with a model on its own device; the first writes.

    Returns:
        Curves with columns step, epoch, split ('train' or 'held_out'), metric, value.
    """
    this = stage(config, images)
    if distributed.of_first(distributed.is_first() and this.done_or_fetched()):
        say(f"{FOLDER}: done already, read from {this.folder}")
        return _curves(this)
    if config.finetune.objective == "clip":
        return both_towers.finetune(config, images, vectors, comparisons, model, this)
    given = gather(config, images, vectors, comparisons, model)
    if len(given.train) < 2:
        raise PcclipError(f"{FOLDER}: {len(given.train)} training texts were kept; 01 must keep at least two")
    if config.finetune.precision == "bf16" and not has_bf16(model.device):
        say(
            f"{FOLDER}: this {model.device.type} has no instructions for bf16, so fp32 would be faster: "
            "finetune.precision: fp32"
        )
    with this.work() if distributed.is_first() else nullcontext(), own_text_tower(model):
        card = saved.describe(model)
        kept_epochs, tuned = optimise(config, given, model, card, this)
        if not np.isfinite(model.encode_texts(given.train.texts[:1])).all():
            raise PcclipError(f"{FOLDER}: the last step left a text tower without numbers; lower finetune.lr")
        if distributed.is_first():
            _fetch(this, kept_epochs)
            outputs = saved.save(model, {**card, "epoch": config.finetune.epochs}, this.folder)
            this.finish(
                [*outputs, CURVES, *kept_epochs],
                {
                    "train": len(given.train),
                    "held_out": len(given.held_out),
                    "steps": steps(config.finetune, len(given.train))[1],
                    "tuned_parameters": tuned,
                    "verdicts": len(given.attributes) if given.attributes else 0,
                },
                model=card["base_text_tower"][:16],
            )
        return _curves(this)


def _curves(this: Stage) -> pd.DataFrame:
    """What the first process wrote, in all of them: another machine may not see its folder."""
    return distributed.of_first(pd.read_csv(this.folder / CURVES) if distributed.is_first() else None)


def _fetch(this: Stage, names: list[str]) -> None:
    """Bring from the storage what another machine put there before this one continued."""
    for name in names:
        if not (this.folder / name).is_file() and this.storage is not None:
            with atomic(this.folder / name) as temporary:
                temporary.write_bytes((this.storage / name).read_bytes())
