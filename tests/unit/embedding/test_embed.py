"""Stage 02: vectors of the photos, what is recorded about bad ones, and resuming bit for bit."""

import shutil

import numpy as np
import pytest
import torch
from helpers.crash import Crash
from PIL import Image

from pcclip import config as params
from pcclip.config import Embed
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import DRAFT, embed, encode_by_all, stage
from pcclip.embedding.vectors import TABLE, Vectors, load_vectors
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet
from pcclip.runs.progress import Meter
from pcclip.runs.stage import finished

SETTINGS = Embed(batch_size=4, workers=2)
SHARD = 5  # of the fixture `values`; 24 photos are five shards of at most two batches


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """A model this small only waits for its threads."""
    torch.set_num_threads(1)


@pytest.fixture
def own_photos(photos, values, tmp_path):
    """A copy of the photos that a test may spoil; `values` points to it."""
    shutil.copytree(photos, tmp_path / "photos")
    values["data"]["path"] = str(tmp_path / "photos")
    return tmp_path / "photos"


def run(values: dict, model, **embed_settings):
    config = params.check({**values, "embed": {**values["embed"], **embed_settings}})
    return embed(config, load_images(config), model)


def test_vectors_are_unit_and_belong_to_their_photos(config, tiny_encoder):
    images = load_images(config)
    vectors, bad = embed(config, images, tiny_encoder)
    assert vectors.ids == list(images.table.id)
    assert vectors.paths == list(images.table.path)
    assert np.linalg.norm(vectors.matrix, axis=1) == pytest.approx(np.ones(24), abs=1e-6)
    assert vectors.matrix == pytest.approx(tiny_encoder.encode_images(vectors.paths), abs=1e-5)
    assert len(bad) == 0


def test_manifest_has_counts_and_the_models_fingerprint(config, tiny_encoder):
    embed(config, load_images(config), tiny_encoder)
    manifest = finished(config.folder / "02_embed")
    assert manifest["counts"] == {"images": 24, "bad": 0, "width": 32, "left_out": {}}
    assert manifest["model"] == tiny_encoder.image_fingerprint()
    assert set(manifest["outputs"]) == {"vectors.parquet", "bad_images.parquet"}


def test_second_call_reads_what_is_there(config, tiny_encoder, encoded, capsys):
    first, _ = embed(config, load_images(config), tiny_encoder)
    assert encoded.total == 24
    second, bad = embed(config, load_images(config), tiny_encoder)
    assert encoded.total == 24
    assert (second.ids, second.paths) == (first.ids, first.paths)
    assert np.array_equal(second.matrix, first.matrix)
    assert len(bad) == 0
    assert "done already" in capsys.readouterr().out


def test_a_changed_photo_is_embedded_again(values, own_photos, tiny_encoder):
    before, _ = run(values, tiny_encoder)
    Image.new("RGB", (20, 20), "black").save(own_photos / "disc-red.png")
    after, _ = run(values, tiny_encoder)
    changed = [i for i, (a, b) in enumerate(zip(before.matrix, after.matrix, strict=True)) if not np.array_equal(a, b)]
    assert [after.ids[i] for i in changed] == ["disc-red.png"]


# ---- bad photos ------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(own_photos):
    """Two of the 24 photos cannot be read."""
    cut = own_photos / "bar-blue.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (own_photos / "ring-red.png").write_bytes(b"")
    return own_photos


def test_unreadable_photos_are_recorded(values, spoilt, tiny_encoder):
    values["data"]["max_bad"] = 0.1
    vectors, bad = run(values, tiny_encoder)
    reasons = dict(zip(bad["id"], bad["reason"], strict=True))
    assert set(reasons) == {"bar-blue.png", "ring-red.png"}
    assert reasons["ring-red.png"] == "empty file"
    assert reasons["bar-blue.png"].startswith("unreadable image")
    assert list(bad["path"]) == [str(spoilt.resolve() / name) for name in bad["id"]]
    assert len(vectors.ids) == 22
    assert not set(vectors.ids) & set(reasons)
    assert vectors.matrix == pytest.approx(tiny_encoder.encode_images(vectors.paths), abs=1e-5)
    assert run(values, tiny_encoder)[1].equals(bad)  # read again


def test_too_many_unreadable_photos_fail(values, spoilt, tiny_encoder):
    with pytest.raises(PcclipError, match=r"2 of 24 images cannot be read \(e\.g\. .*more than data\.max_bad = 0\.05"):
        run(values, tiny_encoder)
    assert not stage(params.check(values)).done()


def test_nothing_readable_fails_whatever_is_allowed(values, own_photos, tiny_encoder):
    values["data"]["max_bad"] = 1.0
    for photo in own_photos.glob("*.png"):
        photo.write_bytes(b"")
    with pytest.raises(PcclipError, match="24 of 24 images cannot be read"):
        run(values, tiny_encoder)


# ---- stored vectors --------------------------------------------------------------------------------------------------


def test_vectors_of_another_image_tower_are_refused(config, tiny_encoder, fresh_encoder):
    embed(config, load_images(config), tiny_encoder)
    with torch.no_grad():
        next(fresh_encoder.image_tower.parameters()).add_(0.1)
    with pytest.raises(PcclipError, match=f"vectors of another model .*not {fresh_encoder.image_fingerprint()}"):
        load_vectors(config.folder / "02_embed", fresh_encoder)


def test_shards_of_another_image_tower_are_left_alone(config, tiny_encoder, fresh_encoder, encoded):
    """Two machines may give one name to other weights, and share a storage."""
    with torch.no_grad():
        next(fresh_encoder.image_tower.parameters()).add_(0.1)
    encoded.limit = 12
    with pytest.raises(Crash):
        embed(config, load_images(config), fresh_encoder)
    encoded.limit = float("inf")
    own = stage(config).shards
    assert all(path.name.split("-")[1] == fresh_encoder.image_fingerprint() for path in own.glob("vectors-*"))
    vectors, _ = embed(config, load_images(config), tiny_encoder)
    assert vectors.matrix == pytest.approx(tiny_encoder.encode_images(vectors.paths), abs=1e-5)


def test_vectors_serve_another_text_tower(config, tiny_encoder, fresh_encoder):
    vectors, _ = embed(config, load_images(config), tiny_encoder)
    with torch.no_grad():
        next(fresh_encoder.transformer().parameters()).add_(0.1)
    assert np.array_equal(load_vectors(config.folder / "02_embed", fresh_encoder).matrix, vectors.matrix)


def test_half_written_vectors(config, tiny_encoder, encoded):
    vectors, _ = embed(config, load_images(config), tiny_encoder)
    table = config.folder / "02_embed" / TABLE
    table.write_bytes(table.read_bytes()[:1000])
    with pytest.raises(PcclipError, match=r"vectors\.parquet: missing or changed since 02_embed wrote it"):
        load_vectors(config.folder / "02_embed", tiny_encoder)
    again, _ = embed(config, load_images(config), tiny_encoder)  # and embedding again mends it
    assert encoded.total == 48
    assert np.array_equal(again.matrix, vectors.matrix)


def test_vectors_before_02_has_run(config, tiny_encoder):
    with pytest.raises(PcclipError, match=r"02_embed: this stage has not finished; run its notebook"):
        load_vectors(config.folder / "02_embed", tiny_encoder)


def test_vectors_out_of_step_are_refused():
    with pytest.raises(PcclipError, match="out of step"):
        Vectors(["a"], ["a.png", "b.png"], np.zeros((2, 3)))


def test_rows_and_has():
    vectors = Vectors(["a", "b", "c"], ["1", "2", "3"], np.eye(3, dtype=np.float32))
    assert vectors.rows(["c", "a", "c"]).tolist() == [2, 0, 2]
    assert vectors.has(["a", "b", "x"], ["b", "x", "a"]).tolist() == [True, False, False]
    with pytest.raises(PcclipError, match=r"1 images have no vector, e\.g\. 'x'"):
        vectors.rows(["a", "x"])


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_resume_encodes_only_what_is_missing_and_gives_the_same_bits(values, tiny_encoder, encoded):
    encoded.limit = 2 * SHARD + 4  # in the middle of the third shard
    with pytest.raises(Crash):
        run(values, tiny_encoder)
    encoded.total, encoded.limit = 0, float("inf")
    resumed, _ = run(values, tiny_encoder)
    assert encoded.total == 24 - 2 * SHARD

    straight, _ = run({**values, "run": "straight"}, tiny_encoder)
    assert (resumed.ids, resumed.paths) == (straight.ids, straight.paths)
    assert np.array_equal(resumed.matrix, straight.matrix)
    tables = [
        read_parquet(params.check({**values, "run": name}).folder / "02_embed" / TABLE) for name in ("tiny", "straight")
    ]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("shard", [2 * SHARD, 3])
def test_resume_with_another_shard_size(values, tiny_encoder, encoded, shard):
    encoded.limit = 2 * SHARD
    with pytest.raises(Crash):
        run(values, tiny_encoder)
    encoded.limit = float("inf")
    resumed, _ = run(values, tiny_encoder, shard=shard)
    assert resumed.ids == list(load_images(params.check(values)).table.id)


def test_a_full_disk_ends_the_run_while_the_next_shard_is_encoded(values, tiny_encoder, encoded, monkeypatch):
    from pcclip.embedding import stage as module

    def full(path, table):
        raise PcclipError(f"{path}: no room on disk")

    monkeypatch.setattr(module, "write_parquet", full)
    with pytest.raises(PcclipError, match="no room on disk"):
        run(values, tiny_encoder)
    assert encoded.total == 2 * SHARD


# ---- several models, and drafts --------------------------------------------------------------------------------------


@pytest.fixture
def other_tower(fresh_encoder):
    """A model with another image tower."""
    with torch.no_grad():
        for parameter in fresh_encoder.image_tower.parameters():
            parameter.add_(0.05)
    return fresh_encoder


def test_several_models_in_one_pass_open_every_photo_once(own_photos, tiny_encoder, other_tower, monkeypatch):
    from pcclip import images

    paths = [str(path) for path in sorted(own_photos.glob("*.png"))]
    (own_photos / "bar-red.png").write_bytes(b"")
    opened, open_image = [], images.open_image
    monkeypatch.setattr(images, "open_image", lambda source, *rest: opened.append(source) or open_image(source, *rest))
    (one, other), good, bad = encode_by_all(paths, [tiny_encoder, other_tower], Meter(24, "photos"), SETTINGS)
    assert sorted(opened) == paths
    assert [paths[row].rpartition("/")[2] for row, _ in bad] == ["bar-red.png"]
    assert good == [row for row in range(24) if row != bad[0][0]]
    readable = [paths[row] for row in good]
    assert one == pytest.approx(tiny_encoder.encode_images(readable), abs=1e-5)
    assert other == pytest.approx(other_tower.encode_images(readable), abs=1e-5)
    assert not np.allclose(one, other, atol=1e-2)


def test_nothing_readable_by_several_models(own_photos, tiny_encoder):
    (own_photos / "bar-red.png").write_bytes(b"")
    (one, two), good, bad = encode_by_all(
        [str(own_photos / "bar-red.png")], [tiny_encoder, tiny_encoder], Meter(1, "photos"), SETTINGS
    )
    assert one.shape == two.shape == (0, 32)
    assert (good, bad) == ([], [(0, "empty file")])


@pytest.fixture
def large_jpegs(own_photos, values):
    """The photos as JPEG files many times as large as the tower's 32 pixels; `values` finds them."""
    for path in own_photos.glob("*.png"):
        with Image.open(path) as image:
            image.resize((600, 600), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    table = own_photos / "captions.csv"
    table.write_text(table.read_text().replace(".png", ".jpg"))


def test_drafts_are_a_stage_of_their_own_with_nearly_the_same_vectors(values, large_jpegs, tiny_encoder):
    whole, _ = run(values, tiny_encoder)
    drafted = {**values, "embed": {**values["embed"], "draft": True}}
    assert not stage(params.check(drafted)).done()
    draft, _ = run(drafted, tiny_encoder)
    cosines = (whole.matrix * draft.matrix).sum(axis=1)
    assert not np.array_equal(whole.matrix, draft.matrix)
    assert cosines.min() > 0.999
    assert DRAFT >= 2, "fewer pixels than twice what the tower sees would show"


def test_a_run_without_drafts_has_the_key_it_always_had(config):
    assert "draft" not in stage(config).inputs


def test_batches_side_by_side_give_the_same_in_order(own_photos, tiny_encoder):
    paths = sorted(map(str, own_photos.glob("*.png")))
    (own_photos / "broken.png").write_bytes(b"no picture")
    paths.insert(7, str(own_photos / "broken.png"))
    found = {}
    for cores in (1, 3):
        torch.set_num_threads(cores)
        try:
            found[cores] = encode_by_all(paths, [tiny_encoder], Meter(len(paths), "photos"), SETTINGS)
            assert torch.get_num_threads() == cores
        finally:
            torch.set_num_threads(1)
    [alone], good, bad = found[1]
    [together], *others = found[3]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert others == [good, bad]
    assert good == [row for row in range(len(paths)) if row != 7]
    assert [row for row, _ in bad] == [7]
