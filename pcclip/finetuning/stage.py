"""Stage 03, finetuning: its key, its inputs and its files. What is trained is in text_tower.py and both_towers.py.

A killed run continues from its checkpoint on the same curve. Where torch.distributed has been set up, every process
calls `finetune`, with a model on its own device; the first writes.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcclip.comparisons import stage as generate
from pcclip.comparisons.attributes import load_bank
from pcclip.config import Config, Finetune
from pcclip.data.image_set import ImageSet
from pcclip.embedding.stage import FOLDER as EMBED, shared_inputs
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.diffusion import identify_teacher
from pcclip.encoders.dual_encoder import Encoder, weights_digest
from pcclip.errors import PcclipError
from pcclip.finetuning import both_towers, distributed, lora, text_tower
from pcclip.finetuning.both_towers import BASELINE, BothTowers
from pcclip.finetuning.loop import CURVES, Training, copied_towers, steps, train
from pcclip.finetuning.precision import has_bf16
from pcclip.finetuning.text_tower import TextTower
from pcclip.runs.files import copy_file
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, built_on

FOLDER = "03_finetune"
_FORMAT = 4  # raise it when draws or numbers change: old stages are then done again
_NO_INPUTS: dict[str, Any] = {  # settings that may change between a run and its continuation: the result is the same
    **dict.fromkeys(["micro_batch", "processes", "tracker"], True),
    "sds": {"micro_batch", "checkpointing"},
}


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """The stage with its key. Raises PcclipError when 01 or 02 has not finished."""
    settings = config.finetune
    inputs = {
        "format": _FORMAT,
        "finetune": settings.model_dump(exclude=_NO_INPUTS),
        "zero_shot": config.evaluate.zero_shot_prompt,
    }
    if settings.attribute_weight and config.generate.attributes:
        inputs["attributes"] = load_bank(config.generate.attributes).hash
    if settings.sds:
        inputs["teacher"] = identify_teacher(settings.sds.teacher)
    earlier = (config.source_folder / generate.FOLDER, config.source_folder / EMBED)
    folder = config.folder / FOLDER
    return Stage(folder, {**inputs, **built_on(earlier, shared_inputs(config, images))}, config.stored(folder))


def finetune(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> pd.DataFrame:
    """Run the stage, or read its curves when done. The finetuned model is then `load_model(run folder)`.

    Args:
        model: the base model; it does not change.

    Returns:
        Curves with columns step, epoch, split ('train' or 'held_out'), metric, value.

    Raises:
        PcclipError: too few texts, captions or pairs, an earlier stage is missing, no such teacher, or a loss is no
            number.
    """
    own_stage, settings = stage(config, images), config.finetune
    if distributed.of_first(distributed.is_first() and own_stage.done_or_fetched()):
        say(f"{FOLDER}: done already, read from {own_stage.folder}")
        return _curves(own_stage)
    module: Any = both_towers if settings.objective == "clip" else text_tower
    kind = BothTowers if settings.objective == "clip" else TextTower
    data = module.load_data(config, images, vectors, comparisons, model)
    if settings.precision == "bf16" and not has_bf16(model.device):
        say(
            f"{FOLDER}: this {model.device.type} has no instructions for bf16, so fp32 would be faster: "
            "finetune.precision: fp32"
        )
    variants = {"": config}  # by folder within the stage's
    if settings.sds and settings.sds.baseline:
        alone = settings.model_copy(update={"sds": None, "keep_epochs": []})
        variants[BASELINE] = config.model_copy(update={"finetune": alone})
    files: list[str] = []
    counts: dict[str, int] = {}
    with own_stage.work() if distributed.is_first() else nullcontext():
        for name, variant in variants.items():
            if name:
                say(f"{FOLDER}: the same without the teacher, for comparison")
            with copied_towers(model, kind.towers):
                training = kind(variant, data, model)
                files += _train(training, own_stage, name)
            counts = counts or training.counts
        if distributed.is_first():
            own_stage.finish(files, counts, model=weights_digest(model.text_tower)[:16])
    return _curves(own_stage)


def _train(training: Training, own_stage: Stage, name: str) -> list[str]:
    """Train and save the model in the folder `name` of the stage. Returns its files, relative to the stage's folder."""
    model, settings, state = training.model, training.settings, training.state
    folder, storage = own_stage.folder / name, own_stage.storage and own_stage.storage / name
    files = [CURVES]
    checkpoint = own_stage.shards / f"{name or 'checkpoint'}.pt"
    state.resume(checkpoint, folder, steps(settings, training.size)[1])
    if not state.step:
        training.prepare()
    distributed.check_alike([own_stage.key, state.step, training.size], "parameters, checkpoints or comparisons")

    def keep(epoch: int) -> None:
        with lora.merged(model):
            for home in filter(None, (folder, storage)):
                saved.save(model, {**training.card, "epoch": epoch}, home / f"epoch-{epoch:03d}")

    train(training, folder, checkpoint, keep)
    lora.merge(model)
    finite = all(bool(parameter.isfinite().all()) for parameter in state.parameters.values())
    if not (finite and np.isfinite(model.encode_texts(["a photo"])).all()):
        raise PcclipError(f"{FOLDER}: the last step left weights that are no numbers; lower finetune.lr")
    if distributed.is_first():
        files += _fetch_epochs(folder, storage, settings)
        files += training.finish(folder)
        files += saved.save(model, {**training.card, "epoch": settings.epochs}, folder)
    return [f"{name}/{file}" if name else file for file in files]


def _fetch_epochs(folder: Path, storage: Path | None, settings: Finetune) -> list[str]:
    """Names of the kept epochs' files, brought from the storage where another machine put them."""
    wanted = [
        f"epoch-{epoch:03d}/{file}"
        for epoch in sorted({epoch for epoch in settings.keep_epochs if epoch <= settings.epochs})
        for file in (saved.WEIGHTS, saved.IMAGE_WEIGHTS, saved.CARD)
    ]
    names = [name for name in wanted if ((storage or folder) / name).is_file()]
    for name in names:
        if not (folder / name).is_file():
            copy_file((storage or folder) / name, folder / name)
    return names


def _curves(own_stage: Stage) -> pd.DataFrame:
    """The curves that the first process wrote, in every process: another machine may not see its folder."""
    return distributed.of_first(pd.read_csv(own_stage.folder / CURVES) if distributed.is_first() else None)
