"""The cache of vectors: each photo is encoded once wherever it lies, its size is bounded, damage costs only time."""

import os
import sqlite3

import numpy as np
import pytest
from PIL import Image

from pcclip.ranking import cache as cache_module
from pcclip.ranking.cache import VectorCache, embed_parts, embed_photos

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def album(tmp_path) -> list[str]:
    """Five plain pictures, written a minute ago."""
    (tmp_path / "album").mkdir()
    paths = [str(tmp_path / "album" / f"{k}.png") for k in range(5)]
    for k, path in enumerate(paths):
        Image.new("RGB", (40, 40), (50 * k, 0, 90)).save(path)
        os.utime(path, ns=(10**18, 10**18))
    return paths


def test_each_photo_is_encoded_once(album, tiny_encoder, encoded):
    first, _ = embed_photos(album[:4], tiny_encoder)
    assert encoded.total == 4
    os.rename(album[1], moved := album[1].replace("1.png", "moved.png"))
    again, _ = embed_photos([album[0], moved, *album[2:]], tiny_encoder)
    assert encoded.total == 5, "the photo that was added"
    np.testing.assert_array_equal(again.matrix[:4], first.matrix)
    assert again.paths[1] == moved


def test_another_image_tower_has_its_own_vectors(album, tiny_encoder, encoded, monkeypatch):
    embed_photos(album, tiny_encoder)
    monkeypatch.setattr(type(tiny_encoder), "image_fingerprint", lambda model: "another")
    embed_photos(album, tiny_encoder)
    assert encoded.total == 10
    assert sorted(VectorCache().towers().values()) == [5, 5]


def test_a_changed_photo_is_encoded_again(album, tiny_encoder, encoded):
    before, _ = embed_photos(album, tiny_encoder)
    Image.new("RGB", (40, 40), "yellow").save(album[2])
    after, _ = embed_photos(album, tiny_encoder)
    assert encoded.total == 6
    assert (before.matrix != after.matrix).any(axis=1).tolist() == [False, False, True, False, False]


def test_an_unchanged_file_is_read_once(album, monkeypatch):
    contents = VectorCache().contents(album)
    monkeypatch.setattr(cache_module, "_sha256", None)
    assert VectorCache().contents(album) == contents


@pytest.mark.parametrize("damage", [b"", b"no vector", b"\0" * 128])
def test_a_damaged_entry_is_made_again(album, tiny_encoder, encoded, damage):
    before, _ = embed_photos(album, tiny_encoder)
    with sqlite3.connect(VectorCache().path) as db:
        db.execute("UPDATE vectors SET vector = ? WHERE rowid = 2", (damage,))
    after, _ = embed_photos(album, tiny_encoder)
    assert encoded.total == 6
    np.testing.assert_allclose(after.matrix, before.matrix, atol=1e-6)


def test_a_damaged_file_is_begun_anew(album, tiny_encoder, encoded, capsys):
    embed_photos(album, tiny_encoder)
    VectorCache().path.write_bytes(b"no database" * 500)
    embed_photos(album, tiny_encoder)
    assert "is damaged and begun anew" in capsys.readouterr().out
    embed_photos(album, tiny_encoder)
    assert encoded.total == 10


def test_without_room_for_a_cache_photos_are_ranked_all_the_same(album, tiny_encoder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "file"))
    vectors, _ = embed_photos(album, tiny_encoder)
    assert len(vectors.matrix) == 5
    assert "vectors are not kept" in capsys.readouterr().out


def test_its_size_is_bounded_and_the_oldest_go(monkeypatch):
    cache, vector = VectorCache(), np.ones(256, np.float32)
    monkeypatch.setattr(cache_module, "_LIMIT", 200_000)
    for day in range(5):
        monkeypatch.setattr(cache_module.time, "time", lambda day=day: 86_400.0 * day)
        cache.store({f"{day}-{k}": vector for k in range(40)}, "tower")
        cache.read([f"0-{k}" for k in range(10)], "tower")
        assert cache.path.stat().st_size <= 200_000
    assert len(cache.read([f"4-{k}" for k in range(40)], "tower")) == 40
    assert len(cache.read([f"0-{k}" for k in range(40)], "tower")) == 10, "those that were used since"
    cache.trim(0)
    assert cache.towers() == {}


def test_what_was_encoded_before_an_interruption_is_kept(album, tiny_encoder, encoded, monkeypatch):
    monkeypatch.setattr(cache_module, "_FIRST", 2)
    monkeypatch.setattr(cache_module, "_PART", 2)
    parts = embed_parts(album, tiny_encoder)
    assert [next(parts).rows for _ in range(3)] == [[], [0, 1], [2, 3]]
    parts.close()
    embed_photos(album, tiny_encoder)
    assert encoded.total == 5
