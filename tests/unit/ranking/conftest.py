"""The cache of vectors is a folder of these tests, not the developer's."""

import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_cache_of_the_developer(shared_cache, monkeypatch):
    """Tests share their vectors, so that each photo is encoded once."""
    monkeypatch.setenv("PCCLIP_CACHE", str(shared_cache))


@pytest.fixture
def own_cache(tmp_path, monkeypatch, no_cache_of_the_developer):
    """An empty cache of vectors."""
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "own cache"))
