"""Image sets: the sources, what they leave out, concepts and the split by concept."""

import csv
import json
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pcclip import config as params
from pcclip.data.concepts import concept_of, head_noun, singular
from pcclip.data.image_set import COLUMNS, limited, load_images, missing, split_by_concept
from pcclip.data.sources import folder as captioned, stamps
from pcclip.errors import PcclipError
from pcclip.images import open_image
from pcclip.runs.files import digest

DATA = Path(stamps.__file__).parent.parent / "facts"
ANIMALS = [("a.png", "A cat."), ("b.png", "A dog."), ("c.png", "A cow."), ("d.png", "A pig."), ("e.png", "A hen.")]


@pytest.fixture
def folder(tmp_path):
    """A folder with five pictures, still without captions."""
    for name, _ in ANIMALS:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def write_csv(folder, rows: list[dict]) -> None:
    pd.DataFrame(rows).to_csv(folder / "captions.csv", index=False)


def write_jsonl(folder, rows: list[dict]) -> None:
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(folder, source="folder", seed=0, **data):
    return load_images(params.check({"seed": seed, "data": {"source": source, "path": str(folder), **data}}))


def animals(**columns) -> list[dict]:
    """The five rows, with one value per row for every extra column."""
    return [
        {"path": path, "caption": caption, **{name: values[i] for name, values in columns.items()}}
        for i, (path, caption) in enumerate(ANIMALS)
    ]


# ---- folder ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_folder_reads_both_formats(folder, write):
    write(folder, animals(weight=[4, 20, 600, 90, 2], label=["pet", "pet", "farm", "farm", "farm"]))
    images = load(folder)
    assert list(images.table.columns) == [*COLUMNS, "weight"]
    assert images.attributes == ["weight"]
    assert list(images.table.id) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert list(images.table.path) == [str((folder / name).resolve()) for name, _ in ANIMALS]
    assert list(images.table.concept) == ["cat", "dog", "cow", "pig", "hen"]
    assert list(images.table.label) == ["pet", "pet", "farm", "farm", "farm"]
    assert list(images.table.weight) == [4.0, 20.0, 600.0, 90.0, 2.0]
    assert len(images.left_out) == 0


def test_file_may_stand_for_path(folder):
    write_csv(folder, [{"file": path, "caption": caption} for path, caption in ANIMALS])
    assert len(load(folder).table) == 5


def test_attributes_are_the_numeric_columns(folder):
    write_csv(folder, animals(size=[1, None, 3, 4, 5], remark=["x", "y", "z", "u", "v"]))
    images = load(folder)
    assert images.attributes == ["size"]
    assert np.isnan(images.table["size"].iloc[1])


def test_given_concepts_come_first(folder):
    write_csv(folder, animals(concept=["animal", "", "animal", None, "bird"]))
    assert list(load(folder).table.concept) == ["animal", "dog", "animal", "pig", "bird"]


def test_rows_are_ordered_by_id_whatever_the_file(folder):
    write_csv(folder, animals()[::-1])
    assert list(load(folder).table.id) == sorted(name for name, _ in ANIMALS)


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_no_captions_file(folder, where):
    with pytest.raises(PcclipError, match=r"no captions\.csv or .*captions\.jsonl"):
        load(folder / where)


TWO = "a.png{0}A cat\nb.png{0}A dog\n"


@pytest.mark.parametrize(
    ("name", "content", "captions"),
    [
        ("captions.csv", "path;caption\n" + TWO.format(";"), ["A cat", "A dog"]),
        ("captions.csv", "sep=;\r\npath;caption\r\n" + TWO.format(";"), ["A cat", "A dog"]),
        ("captions.tsv", "path\tcaption\n" + TWO.format("\t"), ["A cat", "A dog"]),
        ("captions.csv", "\ufeffPath,Caption\n" + TWO.format(","), ["A cat", "A dog"]),
        ("captions.csv", "File Name,Text\n" + TWO.format(","), ["A cat", "A dog"]),
        ("captions.csv", "filepath,title\n" + TWO.format(","), ["A cat", "A dog"]),
        ("captions.txt", "image,caption\na.png,A cat\nb.png,A dog\na.png,The cat\n", ["A cat", "The cat", "A dog"]),
        ("captions.csv", "path,caption\na.png,A cat, asleep\nb.png,A dog\n", ["A cat, asleep", "A dog"]),
        ("captions.csv", 'path,caption\na.png,"A cat,\nasleep"\nb.png,A dog\n', ["A cat,\nasleep", "A dog"]),
        ("captions.csv", "path,caption\na.png,None\nb.png,NA\n", ["None", "NA"]),
        ("captions.csv", "path,caption\na.png,A café “x”\nb.png,A dog\n".encode("cp1252"), ["A café “x”", "A dog"]),
        (
            "captions.csv",
            "path,caption\na.png,Ein “süßer” Kater\n".encode() + "b.png,Ein großer Hund\n".encode("cp1252"),
            ["Ein “süßer” Kater", "Ein großer Hund"],
        ),
        ("captions.csv", "path,caption\na.png,A café\nb.png,A dog\n".encode("utf-16"), ["A café", "A dog"]),
        ("captions.csv", "\rpath,caption\ra.png,A cat\rb.png,A dog\r", ["A cat", "A dog"]),
        ("captions.csv", 'path, caption\na.png, "A cat, asleep"\nb.png, "A dog"\n', ["A cat, asleep", "A dog"]),
        ("captions.csv", ",Image ID,captions\n0,a.png,A cat\n1,b.png,A dog\n", ["A cat", "A dog"]),
        ("metadata.csv", "file_name,text\n" + TWO.format(","), ["A cat", "A dog"]),
        ("captions.csv", "path,caption\n.\\a.png,A cat\n./b.png,A dog\n", ["A cat", "A dog"]),
        (
            "captions.jsonl",
            '{"path": "a.png", "captions": ["A cat", "Cat"]}\n{"path": "b.png", "caption": "A dog"}\n',
            None,
        ),
        ("captions.jsonl", '{"path": "a.png", "caption": ["A cat", "Cat"]}\n', ["A cat", "Cat"]),
        ("captions.jsonl", '{"path": "a.png", "caption": "A \\ud83d cat\u2028."}\n', ["A \ufffd cat\u2028."]),
    ],
)
def test_dialects_of_captions(folder, name, content, captions):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = params.check({"data": {"source": "folder", "path": str(folder)}}).data
    if captions is None:
        with pytest.raises(PcclipError, match="columns captions and caption could be the caption"):
            captioned.read(data)
        return
    table, left_out, bad = captioned.read(data)
    assert list(table.path) == [str(folder / name) for name in ("a.png", "b.png")[: len(table)]]
    assert [caption for captions in table.captions for caption in captions] == captions
    assert (len(left_out), bad) == (0, 0)
    assert set(table) <= {"id", "path", "captions"}, "the number of a row is no attribute"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", "", "has no 'path' column"),
        (
            "captions.csv",
            "path,label\na.png,A\n",
            "has no 'caption' column; name one of its columns caption: path, label",
        ),
        ("captions.csv", "path,text,title\na.png,A,B\n", "columns text and title could be the caption"),
        ("captions.csv", 'path,caption\na.png,"A cat\nb.png,A dog\nc.png,A cow"\n', "line 2: a quote opens"),
        ("captions.csv", 'caption,path\n"A cat,a.png\nA dog,b.png\n', "line 2: a quote opens"),
        ("captions.csv", 'path,caption\na.png,"A cat\nb,A "dog"\n', "line 2: a quote opens"),
        ("captions.csv", "PK\x03\x04\rab,\rc", "has no 'path' column"),
        ("captions.csv", "path,caption\n", "no rows below its header"),
        ("captions.csv", f"path,caption\na.png,{'x' * 200_000}\n", "line 2: cannot be read as a table"),
        ("captions.jsonl", "{", "has no 'path' column"),
    ],
)
def test_captions_that_cannot_be_read_are_one_line(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(PcclipError, match=f"{name}.*{message}") as refused:
        load(folder)
    assert "\n" not in str(refused.value)


def test_rows_that_cannot_be_used_are_counted(folder):
    lines = [
        '{"path": "a.png", "caption": {"en": "A cat"}}',
        '{"path": "b.png", "caption": 7}',
        "[" * 99_999,
        '{"path": ',
    ]
    lines += ['{"path": "c.png", "caption": "A cow."}', '{"path": "d.png", "caption": ["A pig.", ["x"]]}']
    (folder / "captions.jsonl").write_text("\n".join([*lines, '{"path": "e.png", "caption": "A hen."}']))
    images = load(folder, max_bad=0.8)
    assert list(images.table.id) == ["c.png", "e.png"]
    assert images.left_out.reason.value_counts().to_dict() == {"caption is no text": 3, "broken JSON": 2}
    with pytest.raises(PcclipError, match="5 of 7 rows are bad"):
        load(folder)


def test_names_in_other_spellings(tmp_path):
    names = ["\u00dcber.png", "Cafe\u0301.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "captions.csv").write_bytes(
        "path,caption\nU\u0308ber.png,A cat\nCaf\u00e9.png,A dog\ncaf\u00e9.png,A cow\n".encode()
    )
    images = load(tmp_path)
    assert sorted(images.table.caption) == ["A cat", "A cow", "A dog"]
    assert all(open_image(path).size == (8, 8) for path in images.table.path)
    assert images.table.to_csv().encode()
    assert images.identity()


def test_captions_name_no_file_outside_their_folder(folder, tmp_path):
    (folder / "in").mkdir()
    rows = [{"path": "../a.png", "caption": "A cat."}, {"path": str(folder / "b.png"), "caption": "A dog."}]
    write_csv(folder / "in", rows)
    with pytest.raises(PcclipError, match=r"2 outside its folder \(data.absolute_paths\)"):
        load(folder / "in")
    assert len(load(folder / "in", absolute_paths=True).table) == 2


def test_photos_in_the_folder_of_kaggle_and_numbers_of_german_excel(folder):
    (folder / "Images").mkdir()
    for name in ("c.png", "d.png"):
        (folder / name).rename(folder / "Images" / name)
    (folder / "captions.csv").write_text("image;caption;size\na.png;A cat;0,5\nc.png;A cow;12,25\nd.png;A pig;7\n")
    table = load(folder).table
    assert list(table.path) == [str(folder / name) for name in ("a.png", "Images/c.png", "Images/d.png")]
    assert list(table["size"]) == [0.5, 12.25, 7]


def test_duplicate_ids(folder):
    write_csv(folder, animals(id=[1, 1, 2, 3, 4]))
    with pytest.raises(PcclipError, match=r"duplicate ids, e\.g\. '1'"):
        load(folder)


def test_bad_rows_are_left_out_with_reasons(folder):
    bad = [{"path": "gone.png", "caption": "A fox."}, {"path": "a2.png", "caption": "  "}, {"path": "", "caption": "x"}]
    Image.new("RGB", (8, 8)).save(folder / "a2.png")
    write_csv(folder, animals() + bad)
    images = load(folder, max_bad=0.5)
    assert len(images.table) == 5
    assert dict(zip(images.left_out.path, images.left_out.reason, strict=True)) == {
        "gone.png": "missing file",
        "a2.png": "empty caption",
        "": "no path",
    }


def test_too_many_bad_rows_fail_with_counts(folder):
    write_csv(folder, [*animals(), {"path": "gone.png", "caption": "A fox."}, {"path": "a.png", "caption": ""}])
    with pytest.raises(PcclipError, match=r"2 of 7 rows are bad \(1 missing file, 1 empty caption\), .* = 0\.05"):
        load(folder)
    assert len(load(folder, max_bad=0.3).table) == 5


def test_nothing_usable(folder):
    write_csv(folder, [{"path": "gone.png", "caption": "A fox."}])
    with pytest.raises(PcclipError, match="no usable image; left out: 1 missing file"):
        load(folder, max_bad=1.0)


def test_limit_draws_training_images_with_the_seed(folder):
    write_csv(folder, animals())
    sides = load(folder)
    drawn = [load(folder, limit=2, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert list(drawn[0].table.id) == list(drawn[1].table.id)
    assert len({tuple(images.train.id) for images in drawn}) > 1
    assert {len(images.train) for images in drawn} == {2}
    assert list(drawn[0].held_out.id) == list(sides.held_out.id)
    assert set(drawn[0].train.id) < set(sides.train.id)


def test_held_out_limit_leaves_the_training_images(folder):
    write_csv(folder, animals())
    sides, drawn = load(folder), load(folder, held_out_limit=1)
    assert len(sides.held_out) == 2
    assert len(drawn.held_out) == 1
    assert drawn.train.equals(sides.train)
    assert list(drawn.captions.id) == list(drawn.table.id)


def test_each_side_is_limited_by_the_seed():
    table = pd.DataFrame({"split": ["train", "held_out"] * 20})
    drawn = [limited(table, {"train": 5, "held_out": 3}, seed) for seed in (0, 0, 1)]
    assert list(drawn[0].split.value_counts()[["train", "held_out"]]) == [5, 3]
    assert list(drawn[0].index) == sorted(drawn[0].index) == list(drawn[1].index)
    for side in ("train", "held_out"):
        assert list(drawn[0].index[drawn[0].split == side]) != list(drawn[2].index[drawn[2].split == side])


def test_a_limit_beyond_the_set_keeps_it(folder):
    write_csv(folder, animals())
    assert load(folder, limit=100, held_out_limit=100).table.equals(load(folder).table)


def test_identity_notices_a_changed_file_and_a_changed_caption(folder):
    write_csv(folder, animals())
    first = load(folder).identity()
    assert load(folder).identity() == first
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    second = load(folder).identity()
    write_csv(folder, [{**row, "caption": "A fox."} if row["path"] == "a.png" else row for row in animals()])
    assert len({first, second, load(folder).identity()}) == 3


def test_the_set_is_read_once_for_its_identity_and_its_files_each_time(folder, monkeypatch):
    """A million rows take seconds to write out, and every stage of a run asks."""
    write_csv(folder, animals())
    images = load(folder)
    stats = [(path, found.st_size, found.st_mtime_ns) for path in images.table.path for found in [os.stat(path)]]
    plain = digest([images.table.to_csv(index=False), images.captions.to_csv(index=False), stats])
    assert images.identity() == plain
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *a, **k: pytest.fail("the table was written out again"))
    assert images.identity() == plain
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    assert images.identity() != plain


def test_a_set_whose_identity_is_known_can_be_sent_elsewhere(folder):
    write_csv(folder, animals())
    images = load(folder)
    known = images.identity()
    assert pickle.loads(pickle.dumps(images)).identity() == known


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_ids_stay_as_written(folder, write):
    write(folder, animals(id=["001", "01", "02", "04", "03"]))
    assert list(load(folder).table.id) == ["001", "01", "02", "03", "04"]


def test_file_and_path_together(folder):
    write_csv(folder, [{**row, "file": row["path"]} for row in animals()])
    assert len(load(folder).table) == 5


def test_a_json_array_instead_of_lines(folder):
    (folder / "captions.jsonl").write_text(json.dumps(animals()))
    with pytest.raises(PcclipError, match=r"captions"):
        load(folder)


# ---- split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_concept_is_on_one_side_only(held_out, seed):
    concepts = pd.Series([f"c{i % 7}" for i in range(50)])
    split = split_by_concept(concepts, held_out, seed)
    sides = [set(concepts[split == side]) for side in ("train", "held_out")]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(concepts)
    assert len(sides[1]) == min(6, max(1, round(held_out * 7)))


def test_split_follows_the_seed_and_not_the_rows():
    concepts = pd.Series([f"c{i % 20}" for i in range(100)])
    split = split_by_concept(concepts, 0.5, seed=3)
    assert (split == split_by_concept(concepts, 0.5, seed=3)).all()
    assert (split != split_by_concept(concepts, 0.5, seed=4)).any()
    assert (split[::-1] == split_by_concept(concepts[::-1], 0.5, seed=3)).all()


def test_one_concept_cannot_be_split():
    with pytest.raises(PcclipError, match="at least two concepts"):
        split_by_concept(pd.Series(["cat", "cat"]), 0.5, 0)


def test_a_folder_has_no_official_split(folder):
    write_csv(folder, animals())
    with pytest.raises(PcclipError, match="data source folder: has no official split; set data.split: concept"):
        load(folder, split="official")


def test_the_sets_sides_are_the_split(config):
    images = load_images(config)
    assert len(images.train) + len(images.held_out) == 24
    assert len(set(images.held_out.concept)) == round(0.4 * 8)
    assert not set(images.train.concept) & set(images.held_out.concept)


# ---- concepts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "concept"),
    [
        ("A pair of red cherries on a plate.", "cherry"),
        ("A man riding a wave.", "man"),
        ("A group of people standing around a table", "person"),
        ("Two cats sleeping on a sofa.", "cat"),
        ("A red apple (Malus domestica).", "apple"),
        ("(Close-up) Three geese in a row", "goose"),
        ("Broccoli", "broccoli"),
        ("Strawberries!", "strawberry"),
        ("A wolf, howling at the moon", "wolf"),
        ("A cat and a dog", "cat"),
        ("The cow that jumped over the moon.", "cow"),
        ("A man is riding a horse", "man"),
        ("A horse-drawn carriage", "carriage"),
        ("A close-up of a dragonfly's wing", "wing"),
        ("A photo of a box of ripe tomatoes", "tomato"),
        ("A running shoe", "shoe"),
        ("a baby elephant", "elephant"),
        ("Leaves of grass", "leaf"),
        ("Head of lettuce", "lettuce"),
        ("A red rose. It smells of a garden.", "rose"),
        ("A herd of sheep", "sheep"),
        ("A bus", "bus"),
        ("  the GIRAFFE  ", "giraffe"),
        ("", ""),
        ("...", ""),
        ("A jalapeño on a plate", "jalapeño"),
        ("Éclair on a plate", "éclair"),
        ("猫", "猫"),
        ("One of the cats", "cat"),
        ("People walking", "person"),
    ],
)
def test_concept_of(caption, concept):
    assert concept_of(caption) == concept


@pytest.mark.parametrize(
    ("caption", "concept"),
    [
        ("There is a dog on a bed.", "dog"),
        ("There's two dogs on a bed.", "dog"),
        ("A street filled with cars.", "street"),
        ("A pizza sits on a table.", "pizza"),
        ("A plate topped with cake.", "plate"),
        ("A close up of a boat.", "boat"),
        ("A sign outside of a shop.", "sign"),
        ("Two men play around.", "man"),
        ("Bears climb up a tree.", "bear"),
        ("An old black and white photo of a boat.", "boat"),
        ("A big building with a clock.", "building"),
        ("A microwave available to use.", "microwave"),
        ("A bowl full of soup.", "bowl"),
        ("A traffic light at night.", "light"),
        ("A batter misses a ball.", "batter"),
        ("A group of people cross the street.", "person"),
        ("A wood carved bear is on a table.", "bear"),
        ("A dog here.", "dog"),
    ],
)
def test_concept_of_a_sentence(caption, concept):
    assert concept_of(caption) == concept


def test_head_nouns_of_coco():
    """200 captions of COCO (CC BY 4.0), as SugarCrepe quotes them, with head nouns chosen by hand."""
    table = pd.read_csv(Path(__file__).parent / "coco_heads.csv", sep="|", quoting=csv.QUOTE_NONE)
    guesses = pd.DataFrame(list(map(head_noun, table.caption)), columns=["noun", "sure"])
    right = guesses.noun == table["head"]
    assert len(table) == 200
    assert right.mean() >= 0.97
    assert right[guesses.sure].mean() > right.mean()
    assert guesses.sure.mean() > 0.9


def test_images_without_a_sure_head_noun_are_held_out_one_by_one(folder, capsys):
    rows = animals()
    for k in range(5):
        Image.new("RGB", (8, 8)).save(folder / f"{k}.png")
        rows.append({"path": f"{k}.png", "caption": "standing still."})
    write_csv(folder, rows)
    images = load(folder, held_out=0.5)
    assert "split: 50.0% of the captions name no sure subject" in capsys.readouterr().out
    assert len(images.held_out) == 5


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("cat", "cats"),
        ("bus", "buses"),
        ("box", "boxes"),
        ("glass", "glasses"),
        ("cherry", "cherries"),
        ("man", "men"),
        ("child", "children"),
        ("sheep", "sheep"),
        ("cookie", "cookies"),
        ("pie", "pies"),
        ("shoe", "shoes"),
        ("canoe", "canoes"),
        ("lens", "lenses"),
        ("wolf", "wolves"),
        ("tomato", "tomatoes"),
        ("bush", "bushes"),
        ("watch", "watches"),
        ("octopus", "octopus"),
    ],
)
def test_one_and_many_meet(one, many):
    assert singular(many) == singular(one) == one


# ---- stamps ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """A stamps folder with the cases that matter; drake and crow are listed in stamps_exceptions.csv."""
    for stamp, caption in {
        "animals/birds/drake": "A male duck.\nen.utf8=A male duck.\n",
        "animals/cats/lion": "A lion.",
        "animals/birds/crow": "A crow.",
        "animals/cartoon/cow": "A cow.",
        "animals/cats/lion_mirror": "A lion.",
        "animals/cats/tiger": None,
        "animals/cats/puma": "",
        "vehicles/auto/sedan": "A sedan.",
        "misc/brick": "A brick.",
    }.items():
        png = tmp_path / "stamps" / f"{stamp}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (8, 8)).save(png)
        if caption is not None:
            png.with_suffix(".txt").write_text(caption)
    return tmp_path / "stamps"


def test_stamps_keep_photographs_only(tree):
    images = load(tree, source="stamps")
    assert dict(zip(images.table.id, images.table.concept, strict=True)) == {
        "animals/birds/drake": "duck",
        "animals/cats/lion": "lion",
        "vehicles/auto/sedan": "car",
        "misc/brick": "brick",
    }
    assert dict(zip(images.left_out.path, images.left_out.reason, strict=True)) == {
        "animals/birds/crow": "drawing",
        "animals/cartoon/cow": "drawing",
        "animals/cats/lion_mirror": "mirror image",
        "animals/cats/tiger": "no caption",
        "animals/cats/puma": "no caption",
    }


def test_stamps_have_captions_classes_and_facts(tree):
    table = load(tree, source="stamps").table.set_index("id")
    assert table.caption["animals/birds/drake"] == "A male duck."
    assert dict(table.label) == {
        "animals/birds/drake": "animal",
        "animals/cats/lion": "animal",
        "vehicles/auto/sedan": "vehicle",
        "misc/brick": "misc",
    }
    assert table.body_mass["animals/birds/drake"] == pytest.approx(1.0481)
    assert np.isnan(table.body_mass["misc/brick"])
    assert np.isnan(table.body_mass["vehicles/auto/sedan"])
    assert table.litter_size["animals/birds/drake"] == 9


@pytest.mark.parametrize(("make", "message"), [(False, "no such folder"), (True, "no stamps in it")])
def test_stamps_folder_without_stamps(tmp_path, make, message):
    if make:
        (tmp_path / "stamps").mkdir()
    with pytest.raises(PcclipError, match=f"{message}; .*apt-get install tuxpaint-stamps-default"):
        load(tmp_path / "stamps", source="stamps")


def test_stamps_path_is_relative_to_the_root(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(load("stamps", source="stamps").table) == 4


def rows_of(name: str) -> list[dict]:
    with open(DATA / name, newline="", encoding="utf8") as file:
        return list(csv.DictReader(file, strict=True))


def test_each_exception_is_listed_once():
    listed = [row["stamp"] for row in rows_of("stamps_exceptions.csv")]
    assert len(listed) == len(set(listed)) > 100
    assert all(stamp == stamp.strip() and "/" in stamp and not stamp.endswith(".png") for stamp in listed)


def test_every_fact_has_a_line_in_a_named_source():
    facts, sources = rows_of("stamps_facts.csv"), {row["source"]: row["name"] for row in rows_of("sources.csv")}
    assert len({(row["stamp"], row["fact"]) for row in facts}) == len(facts) > 400
    assert {row["source"] for row in facts} == set(sources)
    assert all(sources.values())
    for row in facts:
        assert row["line"].strip(), row
        assert 0 <= float(row["value"]) < 1e5, row
        assert float(row["value"]) or row["fact"] == "legs", row


def test_exceptions_either_leave_out_or_name_the_concept():
    for row in rows_of("stamps_exceptions.csv"):
        assert row["leave_out"] in {"", "drawing", "toy", "symbol", "caption", "duplicate"}, row
        assert bool(row["leave_out"]) != bool(row["concept"]), row


# ---- fetching the stamps ---------------------------------------------------------------------------------------------

UNPACK = 'mkdir -p "$3/usr/share/tuxpaint/stamps/animals" && echo png > "$3/usr/share/tuxpaint/stamps/animals/cow.png"'


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts fake apt-get and dpkg-deb first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(download: str, unpack: str = UNPACK):
        state = tmp_path / "updated"
        apt = f'UPDATED="{state}"\ncase "$*" in *update) touch "$UPDATED";; *download*) {download};; esac'
        for name, body in {"apt-get": apt, "dpkg-deb": unpack}.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)

    return write


def test_fetch_without_apt_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps.shutil, "which", lambda name: None)
    with pytest.raises(PcclipError, match="has no apt-get; .*sudo apt-get install tuxpaint-stamps-default") as error:
        stamps.fetch(tmp_path / "cache" / "stamps")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "download",
    [
        "touch tuxpaint_1_all.deb",
        'test -e "$UPDATED" && touch tuxpaint_1_all.deb',
    ],
    ids=["at once", "after an update"],
)
def test_fetch_unpacks_into_the_cache(tmp_path, tools, download):
    tools(download)
    stamps.fetch(tmp_path / "cache" / "stamps")
    assert (tmp_path / "cache" / "stamps" / "animals" / "cow.png").is_file()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["stamps"]


def test_fetch_that_cannot_download(tmp_path, tools):
    tools("exit 100")
    with pytest.raises(PcclipError, match="could not download tuxpaint-stamps-default"):
        stamps.fetch(tmp_path / "cache" / "stamps")
    assert not any((tmp_path / "cache").iterdir())


def test_a_failed_unpacking_leaves_nothing(tmp_path, tools):
    tools("touch tuxpaint_1_all.deb", f"{UNPACK}; exit 2")
    with pytest.raises((PcclipError, subprocess.CalledProcessError)):
        stamps.fetch(tmp_path / "cache" / "stamps")
    assert not any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("unpack", ["exit 2", 'mkdir -p "$3/usr/share/other"'], ids=["broken", "another package"])
def test_a_failed_unpacking_is_one_line(tmp_path, tools, unpack):
    tools("touch tuxpaint_1_all.deb", unpack)
    with pytest.raises(PcclipError, match="tuxpaint-stamps-default"):
        stamps.fetch(tmp_path / "cache" / "stamps")


def test_find_uses_the_cache(tmp_path, tools, monkeypatch):
    tools("exit 100")
    monkeypatch.setattr(stamps, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    (tmp_path / "stamps").mkdir()
    assert stamps.find() == tmp_path / "stamps"


@pytest.mark.parametrize("there", [True, False])
def test_stamps_that_can_be_fetched_are_not_missing(tmp_path, monkeypatch, there):
    monkeypatch.setattr(stamps, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(stamps.shutil, "which", lambda name: "/usr/bin/it" if there else None)
    lines = missing(params.check({}).data)
    assert len(lines) == (0 if there else 1)
    assert there or "sudo apt-get install tuxpaint-stamps-default" in lines[0]


def test_one_photo_under_two_ids_is_refused(folder):
    """It could be trained on under one and held out under the other."""
    write_csv(folder, [{**row, "id": row["path"]} for row in animals()] + [{**animals()[0], "id": "again"}])
    with pytest.raises(PcclipError, match="is listed twice; keep one caption per image"):
        load(folder)


def test_kinds_of_one_thing_stay_on_one_side():
    from pcclip.data.image_set import split_by_concept

    heads = pd.Series(["soccer ball", "tennis ball", "lion", "sea lion", "cow", "bus"]).str.split().str[-1]
    for seed in range(20):
        sides = split_by_concept(heads, 0.4, seed)
        assert sides[0] == sides[1]
        assert sides[2] == sides[3]
