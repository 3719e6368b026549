"""Peers of stage 04: a model is refused only where its own training may have seen what is held out here."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.encoders import saved
from pcclip.errors import PcclipError
from pcclip.evaluation.models import load_models
from pcclip.runs.files import file_digest
from pcclip.runs.stage import Stage


def finetuned(folder, model, inputs):
    """A finished 03 whose model is the base."""
    with Stage(folder, inputs).work() as stage:
        stage.finish(saved.save(model, saved.describe(model), folder), {})


def test_04_before_03_says_what_to_run_first(values):
    with pytest.raises(PcclipError, match=r"outputs/tiny/03_finetune: not finished; run notebook 03 first$"):
        load_models(params.check(values))


@pytest.fixture
def compared(values, tiny_encoder, tmp_path):
    """compared(table) -> the models of a run with a peer whose own 02 had the images of the table (ids by paths)."""
    config = params.check({**values, "evaluate": {**values["evaluate"], "peers": {"other": str(tmp_path / "other")}}})
    finetuned(config.folder / "03_finetune", tiny_encoder, {})

    def call(table, keep=True):
        vectors = tmp_path / "other" / "02_embed" / "vectors.parquet"
        with Stage(vectors.parent, {}).work() as stage:
            pq.write_table(pa.table({"id": list(table.values()), "path": list(map(str, table))}), vectors)
            stage.finish([vectors.name], {})
        inputs = {"images": "others", "seed": 9, "02_embed": {vectors.name: file_digest(vectors)}}
        finetuned(tmp_path / "other" / "03_finetune", tiny_encoder, inputs)
        if not keep:
            shutil.rmtree(vectors.parent)
        return load_models(config)

    return config, call


def test_a_peer_of_other_images_is_compared_however_it_was_split(compared, tmp_path):
    config, call = compared
    held_out = load_images(config).held_out["id"][0]
    (tmp_path / held_out).write_bytes(b"another photo of the same name")
    models = call({tmp_path / "a.png": "a.png", tmp_path / held_out: held_out})
    assert list(models) == ["base", "finetuned", "other"]


@pytest.mark.parametrize("copied", [False, True])
def test_a_peer_that_had_a_held_out_image_is_refused(compared, tmp_path, copied):
    config, call = compared
    image = load_images(config).held_out.iloc[0]
    path = shutil.copy(image.path, tmp_path / "copy.png") if copied else image.path
    with pytest.raises(PcclipError, match=r"^evaluate\.peers\.other: .* is one of its images") as error:
        call({path: image["id"] if copied else "renamed"})
    assert str(path) in str(error.value)


def test_a_peer_whose_images_are_not_known_is_refused(compared, tmp_path):
    _, call = compared
    with pytest.raises(PcclipError, match="may have seen what is held out here .its 02 is not there"):
        call({tmp_path / "a.png": "a.png"}, keep=False)
