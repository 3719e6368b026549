"""A learned linear map on frozen text vectors (LABCLIP, 2502.03566): the cheap rival of every finetuning.

What binds words to each other is in CLIP's text vectors and not in their cosines with images; a linear map may bring it
out. Neither tower is run while W is learned: image vectors are 02's, those of captions and of their negatives are made
once. W = I + D starts at the identity, and weight decay pulls towards it. W then becomes part of the text tower, so the
result is a finetuned model like any other, and weight averaging gives alpha W + (1 - alpha) I.
"""

from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pcclip.comparisons import negatives
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.batches import Examples, of_captions, of_comparisons
from pcclip.finetuning.loop import CURVES, State, batch_of, kept_files, loop, optimizer_of, steps
from pcclip.finetuning.losses import infonce
from pcclip.runs.stage import Stage
from pcclip.stats.vectors import beats, cosines, image_differences, zero_shot


class Captions:
    """One side's captions, their negatives and images, as unit vectors on the model's device.

    Attributes:
        texts: (n, d) of the captions; wrong: (m, d) of the negatives; of: for each caption its negative's row, or -1.
        images: (n, d), one for each caption; image: (n,), which one it is.
    """

    def __init__(self, examples: Examples, false: list[str], vectors: Vectors, model: Encoder):
        kept = [text for text in false if text]
        number = {text: k for k, text in enumerate(dict.fromkeys(examples.texts))}
        self.same = np.array([number[text] for text in examples.texts], dtype=np.int64)
        self.wrong_same = np.array([number.get(text, -1) for text in kept], dtype=np.int64)
        self.of = np.full(len(false), -1)
        self.of[[bool(text) for text in false]] = np.arange(len(kept))
        self.texts, self.wrong, self.images, self.image = (
            torch.from_numpy(part).to(model.device)
            for part in (
                model.encode_tokens(examples.tokens),
                model.encode_texts(kept),
                vectors.matrix[examples.first],
                examples.first,
            )
        )

    def __len__(self) -> int:
        return len(self.texts)

    def loss(
        self, linear: Float[Tensor, "d d"], rows: Int[np.ndarray, " b"], temperature: Tensor | float, mask: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Symmetric cross entropy of some captions and their images, and in-batch accuracy; `mask` as mask_shared."""
        of = self.of[rows]
        of = of[of >= 0]
        at = torch.from_numpy(rows).to(self.texts.device)
        ignore = None
        if mask:  # captions of one image, images of one caption; and one image's negative may be another's caption
            image, same = self.image[at], torch.from_numpy(self.same[rows]).to(at.device)
            ignore = partial(_alike, image, same)
            of = of[~np.isin(self.wrong_same[of], self.same[rows])]
        wrong = self.wrong[torch.from_numpy(of).to(at.device)]
        return infonce(
            _mapped(self.texts[at], linear), self.images[at], temperature, ignore, wrong=_mapped(wrong, linear)
        )


def _alike(image: Int[Tensor, " b"], same: Int[Tensor, " b"], rows: Int[Tensor, " r"]) -> Bool[Tensor, "r b"]:
    """True where two captions are of one image, or of one text."""
    return (image[rows, None] == image) | (same[rows, None] == same)


def fit(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder, this: Stage
) -> pd.DataFrame:
    """Stage 03 with finetune.tune = linear_map: the same files as of any other finetuning, and the same curves.

    Raises PcclipError when fewer than two captions are there, or the loss is no number.
    """
    settings = config.finetune
    examples = {side: of_captions(config, images, side, vectors, model) for side in ("train", "held_out")}
    if len(examples["train"]) < 2:
        raise PcclipError(f"{this.folder.name}: {len(examples['train'])} captions of training images; two are needed")
    ids = np.asarray(vectors.ids)[examples["train"].first]
    false = negatives.beside(config, images, ids, examples["train"].texts)
    pairs = of_comparisons(config, comparisons, "held_out", vectors, model)
    with this.work():
        captions = Captions(examples["train"], false, vectors, model)
        held_out = Captions(examples["held_out"], [""] * len(examples["held_out"]), vectors, model)
        looked_at = partial(_values, config, held_out, _Asked(config, images, vectors, pairs, model))
        card = saved.describe(model)
        kept = _learned(config, captions, looked_at, model, card, this)
        this.finish(
            [*kept, CURVES],
            {
                "train": len(captions),
                "held_out": len(held_out),
                "negatives": len(captions.wrong),
                "without_negative": int((captions.of < 0).sum()),
                "steps": steps(settings, len(captions))[1],
                "tuned_parameters": model.width**2 + settings.learn_temperature,
            },
            model=card["base_text_tower"][:16],
        )
    return pd.read_csv(this.folder / CURVES)


class _Asked:
    """What the held-out curve asks beside the loss: difference classification and zero-shot, from stored vectors."""

    def __init__(self, config: Config, images: ImageSet, vectors: Vectors, pairs: Examples, model: Encoder):
        self.differences = model.encode_tokens(pairs.tokens)
        self.directions = image_differences(vectors.matrix, pairs.first, pairs.second)
        labelled = vectors.of(images.held_out[images.held_out.label.notna()])
        self.classes, self.labels = np.array(images.classes), labelled.label.to_numpy()
        self.photos = vectors.matrix[vectors.rows(labelled["id"])]
        self.prompts = model.encode_texts([config.evaluate.zero_shot_prompt.format(name) for name in images.classes])

    def values(self, linear: Float[np.ndarray, "d d"]) -> dict[str, float]:
        found = {}
        if len(self.differences):
            found["difference_accuracy"] = float(
                beats(cosines(self.differences @ linear.T, self.directions), 0.0).mean()
            )
        if len(self.classes) and len(self.photos):
            prompts = nn.functional.normalize(torch.from_numpy(self.prompts @ linear.T)).numpy()
            found["zero_shot_accuracy"] = float((self.classes[zero_shot(self.photos, prompts)] == self.labels).mean())
        return found


def _values(config: Config, held_out: Captions, asked: _Asked, linear: Tensor, temperature: float) -> dict[str, float]:
    """One point of the held-out curve."""
    found, settings = {}, config.finetune
    with torch.no_grad():
        if len(held_out) >= 2:
            parts = np.array_split(np.arange(len(held_out)), steps(settings, len(held_out))[0])
            each = [held_out.loss(linear, rows, temperature, settings.mask_shared) for rows in parts]
            for name, values in zip(("loss", "in_batch_accuracy"), zip(*each, strict=True), strict=True):
                found[name] = float(np.average([float(value) for value in values], weights=[len(r) for r in parts]))
    return found | asked.values(linear.detach().cpu().numpy())


def _learned(config: Config, captions: Captions, looked_at, model: Encoder, card: dict, this: Stage) -> list[str]:
    """The loop: from the last checkpoint to the last step. Returns the files with weights."""
    settings, folder = config.finetune, this.folder
    per_epoch, total = steps(settings, len(captions))
    added = nn.Parameter(torch.zeros(model.width, model.width, device=model.device))
    log_temperature = nn.Parameter(
        torch.tensor(np.log(settings.temperature), dtype=torch.float32, device=added.device),
        requires_grad=settings.learn_temperature,
    )
    learned = {"linear_map": added, **({"log_temperature": log_temperature} if settings.learn_temperature else {})}
    state = State(learned, optimizer_of(settings, learned.values(), added.device))
    checkpoint = this.partial / "checkpoint.pt"
    state.resume(checkpoint, folder, total)

    def linear() -> Tensor:
        return torch.eye(model.width, device=added.device) + added

    def step(epoch: int, k: int) -> dict[str, float]:
        state.optimizer.zero_grad(set_to_none=True)
        loss, accuracy = captions.loss(
            linear(),
            batch_of(config.seed, epoch, k, len(captions), per_epoch),
            log_temperature.exp(),
            settings.mask_shared,
        )
        loss.backward()
        state.optimizer.step()
        return {"loss": float(loss.detach()), "in_batch_accuracy": float(accuracy)}

    loop(
        settings,
        state,
        len(captions),
        folder,
        checkpoint,
        step,
        look=lambda: looked_at(linear(), float(log_temperature.detach().exp())),
        keep=lambda epoch: _save(model, linear(), {**card, "epoch": epoch}, folder / f"epoch-{epoch:03d}"),
    )
    return [
        *_save(model, linear(), {**card, "epoch": settings.epochs}, folder),
        *kept_files(folder, settings.keep_epochs, settings.epochs),
    ]


def _mapped(vectors: Float[Tensor, "n d"], linear: Float[Tensor, "d d"]) -> Float[Tensor, "n d"]:
    return nn.functional.normalize(vectors @ linear.T, dim=-1)


def _save(model: Encoder, linear: Tensor, card: dict, folder: Path) -> list[str]:
    """The model with the map in its text tower, which itself stays as it is."""
    base = model.text_tower
    model.text_tower = deepcopy(base)
    try:
        model.map_texts(linear.detach())
        return saved.save(model, card, folder)
    finally:
        model.text_tower = base
