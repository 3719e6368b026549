"""Every public set: found by name, missing with advice, known by its content; and a new set in one reader."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.compositional_sets import write
from helpers.files import picture, put
from helpers.public_sets import PublicSets

from pcclip.benchmarks.benchmark import Benchmark, Reader, benchmark_of_images, json_rows
from pcclip.benchmarks.registry import FAMILIES
from pcclip.errors import PcclipError

EVERY_SET = [(family, name) for family in FAMILIES for name in FAMILIES[family].readers]


@pytest.mark.parametrize(("family", "name"), EVERY_SET)
def test_missing_files_are_named_with_where_to_get_them(family, name, tmp_path):
    sets, nowhere = PublicSets(family), tmp_path / "nowhere"
    lines = sets.missing(name, nowhere)
    assert lines
    assert all(str(nowhere) in line and "\n" not in line for line in lines)
    assert "http" in " ".join(lines)
    with pytest.raises(PcclipError, match=f"^{FAMILIES[family].block}.{name}: .*nowhere") as error:
        sets.load(name, nowhere)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_sets_are_refused_with_the_known_names(family):
    names = ", ".join(FAMILIES[family].readers)
    with pytest.raises(PcclipError, match=f"{FAMILIES[family].block}.valse: no such set; there are: {names}"):
        PublicSets(family).load("valse", "x")


def test_the_identity_notices_items_and_files(tmp_path):
    sets = PublicSets("compositionality")
    write("naturalbench", tmp_path, 3)
    identities = [sets.load("naturalbench", tmp_path).identity() for _ in range(2)]
    identities.append(sets.load("naturalbench", tmp_path, limit=2).identity())
    picture(tmp_path / "images" / "0a.jpg", size=(7, 7))
    identities.append(sets.load("naturalbench", tmp_path).identity())
    put(tmp_path / "metadata.json", (tmp_path / "metadata.json").read_text().replace("a dog in a park 0", "a cow"))
    identities.append(sets.load("naturalbench", tmp_path).identity())
    assert identities[0] == identities[1]
    assert len(set(identities)) == 4


def test_a_new_set_is_one_reader(tmp_path, monkeypatch):
    """The whole code of a labelled set: where its files are, how a row is read, and its class names."""

    def read(place: Path) -> Benchmark:
        rows = [
            {"id": name, "path": f"{place}/{entry['file']}", "label": entry["label"], "split": "test"}
            for name, entry in json_rows(place / "labels.json", "https://example.org")
        ]
        return benchmark_of_images(Benchmark("shades", "classification", pd.DataFrame(rows), classes=["dark", "light"]))

    shades = Reader("shades", read, {"get it from https://example.org": ["labels.json"]})
    sets = PublicSets("classification")
    monkeypatch.setitem(sets.readers, "shades", shades)
    put(tmp_path / "labels.json", [{"file": picture(tmp_path / f"{k}.png"), "label": k % 2} for k in range(4)])
    benchmark = sets.load("shades", tmp_path, limit=2)
    assert sorted(benchmark.images.label) == [0, 1]
    assert len(benchmark.only_images(0.0).pictures) == 2
