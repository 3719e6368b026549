"""docs/final_split.py: photos out of Qt resource files, and its list."""

import hashlib
import importlib.util
import struct
import zlib

import pandas as pd
import pytest
from helpers.runs import ROOT

from pcclip.config import Data
from pcclip.data.sources import folder as folder_source

spec = importlib.util.spec_from_file_location("final_split", ROOT / "docs" / "final_split.py")
final_split = importlib.util.module_from_spec(spec)
spec.loader.exec_module(final_split)

LISTED = pd.read_csv(final_split.LIST)
CIFAR = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


def rcc(files: dict[str, bytes], compressed: str = "", flag: int = 1) -> bytes:
    """A resource file of version 1 with one folder, `zoo`, that holds the files."""
    names, contents, offsets = b"", b"", {}
    for name in ("zoo", *files):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    nodes = [struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", offsets["zoo"], 2, len(files), 2)]
    for name, content in files.items():
        if name == compressed:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        nodes.append(struct.pack(">IHHHI", offsets[name], flag if name == compressed else 0, 0, 0, len(contents)))
        contents += struct.pack(">I", len(content)) + content
    tree = b"".join(nodes)
    header = struct.pack(">4s4i", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(contents))
    return header + tree + contents + names


def test_files_come_out_of_a_resource_file_compressed_or_not():
    files = {"ox.webp": b"ox" * 50, "README": b"License: CC0"}
    assert dict(final_split.files_of(rcc(files, "ox.webp"))) == {f"zoo/{name}": files[name] for name in files}


@pytest.mark.parametrize("file", [b"PK\3\4" + bytes(30), rcc({"ox.webp": b"ox"}, "ox.webp", flag=4)])
def test_other_files_are_refused(file):
    with pytest.raises(ValueError, match="no Qt resource file|zoo/ox.webp is compressed with zstd"):
        list(final_split.files_of(file))


def test_unpacked_photos_have_their_licences_and_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(final_split, "PREFIX", "")
    (tmp_path / "zoo.rcc").write_bytes(rcc({"ox.webp": b"ox", "yak.webp": b"yak", "README": b"License: CC0"}))
    listed = pd.DataFrame({"path": ["zoo/ox.webp"], "caption": ["An ox."], "body_mass": [750.0]})
    final_split.unpack(tmp_path, tmp_path / "photos", listed, hashlib.sha256(b"ox").hexdigest())
    assert sorted(path.name for path in tmp_path.glob("photos/**/*.*")) == ["captions.csv", "ox.webp"]
    assert (tmp_path / "photos/zoo/README").read_bytes() == b"License: CC0"
    table, left_out, bad = folder_source.read(Data(source="folder", path=str(tmp_path / "photos")))
    assert (table.captions.tolist(), table.body_mass.tolist(), len(left_out), bad) == ([["An ox."]], [750.0], 0, 0)


@pytest.mark.parametrize("files", [{"ox.webp": b"another ox"}, {"yak.webp": b"yak"}])
def test_other_photos_than_those_that_were_scored_are_refused(files, tmp_path, monkeypatch):
    monkeypatch.setattr(final_split, "PREFIX", "")
    (tmp_path / "zoo.rcc").write_bytes(rcc(files))
    with pytest.raises(ValueError, match="other photos than those of gcompris-qt-data 3.1-2"):
        final_split.unpack(tmp_path, tmp_path / "photos", pd.DataFrame({"path": ["zoo/ox.webp"]}))
    assert not (tmp_path / "photos").exists()


def test_the_list_has_new_concepts_whose_masses_have_a_source():
    sources = set(pd.read_csv(ROOT / "pcclip/data/facts/sources.csv").source)
    known = LISTED[LISTED.body_mass.notna()]
    assert (len(LISTED), LISTED.path.nunique(), LISTED.concept.nunique()) == (85, 85, 67)
    assert not {concept.split()[-1] for concept in LISTED.concept} & CIFAR
    assert set(known.source) <= sources
    assert known.line.notna().all()
    anage = known[known.source == "anage"]
    grams = anage.line.str.extract(r"Adult weight \(g\) ([\d.]+)$")[0].astype(float)
    assert (grams / 1000).round(9).tolist() == anage.body_mass.round(9).tolist()
