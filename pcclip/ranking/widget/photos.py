"""The photos that notebook 06 ranks, a run's own or those of any folder, with vectors, captions and models."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.config import Config, Data, resolve
from pcclip.data.image_set import ImageSet, load_images
from pcclip.data.sources import folder as captioned
from pcclip.embedding.stage import FOLDER as EMBED, embed, with_towers
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.images import as_text
from pcclip.ranking.cache import embed_parts, embed_photos
from pcclip.ranking.photo_index import PhotoIndex
from pcclip.ranking.rank import find_photos
from pcclip.runs.progress import say
from pcclip.runs.stage import read_manifest

FOLDER = "06_rank"


@dataclass(frozen=True)
class Photos:
    """Readable photos and the models that rank them.

    A class of its own because a folder's photos have vectors and captions, but none of the splits of an ImageSet.

    Attributes:
        vectors: of the readable photos; ids are the image set's, or paths in the folder.
        captions: parallel to the vectors; a photo without a caption has its file's name.
        models: name -> model; a run's are 'base' and 'finetuned', the base is first.
        unreadable: columns id, path, reason of the other photos.
        images: the run's image set, whose attributes are true values; None for a folder.
        place: the folder, the glob or the run's folder that has them.
    """

    vectors: Vectors
    captions: list[str]
    models: dict[str, Encoder]
    unreadable: pd.DataFrame
    images: ImageSet | None = None
    place: str = ""

    @cached_property
    def index(self) -> PhotoIndex:
        """Finds the photos that votes and examples name."""
        return PhotoIndex(self.vectors.ids, self.vectors.paths)

    def matrix(self, model: str) -> Float[np.ndarray, "n d"]:
        """Unit image vectors by the image tower of the model with this name."""
        return self.vectors.seen_by(model).matrix

    def summary(self) -> pd.DataFrame:
        """One row: the number of photos, of unreadable ones, the width of the vectors, and the models."""
        return pd.DataFrame(
            [
                {
                    "photos": len(self.captions),
                    "unreadable": len(self.unreadable),
                    "width": self.vectors.matrix.shape[1],
                    "models": ", ".join(self.models),
                }
            ],
            index=["photos"],
        )

    def true_values(
        self, attribute: str | None, model: str = "base"
    ) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"], list[str]] | None:
        """Vectors, true values and concepts of the held-out photos whose attribute is known; None without any."""
        if self.images is None or attribute not in self.images.attributes:
            return None
        table = self.vectors.of(self.images.held_out.dropna(subset=[attribute]))
        if table.empty:
            return None
        matrix = self.matrix(model)[self.vectors.rows(table["id"])]
        return matrix, table[attribute].to_numpy(dtype=float), list(table.concept)


def votes_file(config: Config) -> Path:
    """config.rank.votes, or votes.jsonl in the run's folder."""
    return resolve(config.rank.votes) if config.rank.votes else config.folder / FOLDER / "votes.jsonl"


def load_photos(config: Config) -> Photos:
    """The photos of config.rank.photos, by default the run's. Vectors are made once (cache.py, or notebook 02).

    The finetuned model is included when stage 03 has finished. Raises PcclipError: no photos, none readable, vectors of
    another model, or a finetuned model of another base.
    """
    models = {"base": load_model(config.model)}
    if read_manifest(config.tuned_folder / FINETUNE):
        models["finetuned"] = load_model(str(config.tuned_folder), config.evaluate.alpha)
        if models["finetuned"].tuned_from != models["base"].image_fingerprint():
            raise PcclipError(f"model: {config.tuned_folder} was not finetuned from {config.model}; name its base")
    return _of_a_folder(str(config.rank.photos), models) if config.rank.photos else _of_the_run(config, models)


def _of_the_run(config: Config, models: dict[str, Encoder]) -> Photos:
    images = load_images(config)
    vectors, unreadable = embed(config, images, models["base"])
    vectors = with_towers(config.source_folder / EMBED, vectors, models, config.embed)
    captions = list(images.table.set_index("id").caption.loc[vectors.ids])
    return Photos(vectors, captions, models, unreadable, images, str(config.folder))


def _of_a_folder(place: str, models: dict[str, Encoder]) -> Photos:
    """The photos of a folder in the order of their paths, or of a glob, by the image towers of all models."""
    *_, (photos, _) = growing_photos(place, models)
    order = np.argsort(photos.vectors.paths)
    ids, paths = ([column[k] for k in order] for column in (photos.vectors.ids, photos.vectors.paths))
    base = replace(photos.vectors, ids=ids, paths=paths, matrix=photos.vectors.matrix[order])
    tuned = {name: model for name, model in models.items() if model.image_tower is not models["base"].image_tower}
    others = {name: replace(embed_photos(paths, model)[0], ids=ids) for name, model in tuned.items()}
    return replace(photos, vectors=replace(base, others=others), captions=[photos.captions[k] for k in order])


def growing_photos(place: str, models: dict[str, Encoder]) -> Iterator[tuple[Photos, int]]:
    """The photos of a folder or a glob so far, and how many are to come: first those known from before, then the others.

    Rows stay where they are. Raises PcclipError when there are no photos, or none is readable.
    """
    folder = resolve(place)
    is_folder = folder.is_dir()
    # a link keeps its own name and place
    paths = [as_text(os.path.abspath(path)) for path in find_photos(folder if folder.exists() else place)]
    origin = str(folder if folder.exists() else os.path.abspath(os.path.expanduser(place)))
    captions, base = _captions_in(folder) if is_folder else {}, next(iter(models.values()))
    rows: list[int] = []
    problems: list[tuple[str, str, str]] = []
    matrix = np.empty((0, base.width), np.float32)
    for part in embed_parts(paths, base):
        rows, matrix = rows + part.rows, np.concatenate([matrix, part.matrix])
        problems += [(paths[row], paths[row], reason) for row, reason in part.problems]
        if rows:
            own = [paths[row] for row in rows]
            ids = [os.path.relpath(path, folder) if is_folder else path for path in own]
            texts = [captions.get(os.path.realpath(path)) or Path(path).stem for path in own]
            bad = pd.DataFrame(problems, columns=["id", "path", "reason"], dtype=object)
            photos = Photos(Vectors(ids, own, matrix, base.image_fingerprint()), texts, models, bad, place=origin)
            yield photos, len(paths) - len(rows) - len(problems)
    if not rows:
        raise PcclipError(f"none of the {len(paths)} photos can be read, e.g. {problems[0][0]}: {problems[0][2]}")


def _captions_in(folder: Path) -> dict[str, str]:
    """The captions of a folder's captions file by real path; none where it cannot be read, which one line says."""
    source = Data(source="folder", path=str(folder))
    try:
        if not captioned.missing(source):
            table, _, _ = captioned.read(source)
            return {row.path: row.captions[0] for row in table.itertuples() if isinstance(row.captions[0], str)}
    except (PcclipError, OSError) as error:
        say(f"{error}; file names are shown instead")
    return {}
