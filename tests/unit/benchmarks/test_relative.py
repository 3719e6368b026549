"""Sets of relative attributes, each in its true layout with a few tiny images, and their scores in stage 04."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.animals import ANIMALS, make_zoo, one_line
from helpers.files import picture, put
from helpers.knowing import Knowing, prepared
from helpers.public_sets import PublicSets, reasons
from scipy.io import savemat

from pcclip import config as params
from pcclip.benchmarks.registry import load_benchmarks
from pcclip.benchmarks.relative_attributes import FAMILY, lfw10, ordered_pairs, plain_name, shipped_texts
from pcclip.embedding.vectors import Vectors, load_vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import benchmarks, relative_attributes as relative, stage as report
from pcclip.evaluation.predictions import Predictions
from pcclip.ranking.axes import ESTIMATORS, attribute_axis
from pcclip.stats.vectors import unit


@pytest.fixture
def zoo(tmp_path):
    return make_zoo(tmp_path)


def cells(*values, down: bool = False) -> np.ndarray:
    """A cell array of one row, or of one column."""
    found = np.empty((1, len(values)), dtype=object)
    found[0] = [value if isinstance(value, str) else np.asarray(value) for value in values]
    return found.T if down else found


def mat(path: Path, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, fields)
    return path


SETS = PublicSets("relative_attributes")


def told(pairs: pd.DataFrame) -> list[tuple]:
    return list(pairs[["part", "attribute", "first", "second", "more", "split"]].itertuples(index=False, name=None))


# ---- UT-Zap50K -------------------------------------------------------------------------------------------------------

SHOES = [
    "Shoes/Oxfords/Bostonian/100627.72.jpg",
    "Shoes/Flats/W.A.G./1.2.jpg",
    "Sandals/Flat/Levi's Kids/3.4.jpg",
    "Boots/Ankle/UGG/5.6.jpg",
]
SPELLED = [SHOES[0], "Shoes/Flats/W.A.G%2E/1.2.jpg", "Sandals/Flat/Levi's&#174; Kids/3.4.jpg", SHOES[3]]  # on disk


def rows(attribute: int, *of: tuple[int, int, int]) -> np.ndarray:
    """Rows of a matrix of labels: images, attribute, relation, confidence, agreement."""
    return np.array([(a, b, attribute, more, 4.2, 0.9) for a, b, more in of], dtype=float).reshape(-1, 6)


def nested(*of: list[list[int]]) -> np.ndarray:
    """Splits: for each attribute a cell with one column of numbers for each split."""
    return cells(*(cells(*(np.array(split)[:, None] for split in splits)) for splits in of))


@pytest.fixture
def shoes(tmp_path):
    data = tmp_path / "ut-zap50k-data"
    mat(data / "image-path.mat", imagepath=cells(*SHOES, down=True))
    ordered = [rows(k, (1, 2, 1), (3, 4, 2), (4, 1, 1)) for k in (1, 2, 3, 4)]
    mat(
        data / "zappos-labels.mat",
        mturkOrder=cells(*ordered),
        mturkEqual=cells(*(rows(k, (2, 4, 3)) for k in (1, 2, 3, 4))),
    )
    mat(data / "zappos-labels-fg.mat", mturkHard=cells(*(rows(k, (2, 3, 2)) for k in (1, 2, 3, 4))))
    split = [[1, 3], [1, 2]]
    mat(data / "train-test-splits.mat", trainIndexAll=nested(*[split] * 4), testIndexAll=nested(*[[[2], [3]]] * 4))
    for name in SPELLED:
        picture(tmp_path / "ut-zap50k-images" / name)
    return tmp_path


def test_zap50k(shoes, capsys):
    assert SETS.missing("zap50k", shoes) == []
    found = SETS.read("zap50k", shoes)
    assert "image-path.mat: 4 images, of 50025 as published" in capsys.readouterr().out
    assert found.attributes == ["open", "pointy", "sporty", "comfort"]
    a, b, c, d = SPELLED
    assert told(found.items[found.items.attribute == "sporty"]) == [
        ("coarse", "sporty", a, b, "first", "tune"),
        ("coarse", "sporty", c, d, "second", "test"),
        ("coarse", "sporty", d, a, "first", "tune"),
        ("fine", "sporty", a, b, "first", "tune"),
        ("fine", "sporty", c, d, "second", "tune"),
        ("fine", "sporty", d, a, "first", "tune"),
        ("fine", "sporty", b, c, "second", "test"),
        ("coarse", "sporty", b, d, "equal", "tune"),
        ("fine", "sporty", b, d, "equal", "tune"),
    ]
    assert sorted(found.images["id"]) == sorted(SPELLED)
    assert all(Path(path).is_file() for path in found.images.path), "whichever way its folder is spelt"
    assert found.values is None
    assert found.bad == 0


def test_zap50k_rows_that_cannot_be_used(shoes):
    mat(
        shoes / "ut-zap50k-data" / "zappos-labels-fg.mat",
        mturkHard=cells(
            rows(1, (9, 1, 1), (0, 1, 1), (1, 2, 4), (2, 2, 1), (1, 2, 1)),
            rows(3, (1, 2, 1)),
            *[rows(k) for k in (3, 4)],
        ),
    )
    found = SETS.read("zap50k", shoes)
    assert list(found.left_out.itertuples(index=False, name=None)) == [
        ("fine pairs of open, row 1", "no such image"),
        ("fine pairs of open, row 2", "no such image"),
        ("fine pairs of open, row 3", "no such relation"),
        ("fine pairs of open, row 4", "one image twice"),
        ("fine pairs of pointy, row 1", "another attribute"),
    ]
    (shoes / "ut-zap50k-images" / SHOES[0]).unlink()
    assert SETS.read("zap50k", shoes).left_out.reason.value_counts()["missing file"] == 17, "its pairs in both parts"


def test_zap50k_that_is_not_there(tmp_path, shoes):
    labels, images = SETS.missing("zap50k", tmp_path / "nowhere")
    assert (
        "no ut-zap50k-data/image-path.mat, ut-zap50k-data/zappos-labels.mat, ut-zap50k-data/zappos-labels-fg.mat and 1 "
        "more; download ut-zap50k-data.zip from https://"
    ) in labels
    assert "no ut-zap50k-images/; download ut-zap50k-images.zip" in images
    (shoes / "ut-zap50k-data" / "zappos-labels.mat").unlink()
    assert "no ut-zap50k-data/zappos-labels.mat; download" in one_line(SETS.missing("zap50k", shoes))
    assert "\n" not in labels


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("zappos-labels.mat", {"mturkOrder": cells(rows(1, (1, 2, 1)))}, "no fields mturkOrder, mturkEqual"),
        ("zappos-labels-fg.mat", {"mturkHard": cells(rows(1, (1, 2, 1)))}, "fine pairs of open: 1 attributes, not 4"),
        (
            "train-test-splits.mat",
            {"trainIndexAll": nested(*[[[7]]] * 4), "testIndexAll": nested(*[[[1]]] * 4)},
            "no split of the 3 ordered pairs of open",
        ),
    ],
)
def test_a_broken_file_of_zap50k_is_named(shoes, name, fields, message):
    mat(shoes / "ut-zap50k-data" / name, **fields)
    with pytest.raises(PcclipError, match=message) as error:
        SETS.read("zap50k", shoes)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_matlab_file(shoes):
    put(shoes / "ut-zap50k-data" / "image-path.mat", b"MATLAB 7.3 MAT-file" + bytes(200))
    with pytest.raises(PcclipError, match="image-path.mat: no fields imagepath that can be read .*; download it again"):
        SETS.read("zap50k", shoes)


# ---- PubFig and OSR --------------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path):
    """PubFig with three people of two faces each, one of them for training."""
    names = [f"{person}_{k}.jpg" for person in ("Alex", "Clive", "Hugh") for k in (1, 2)]
    mat(
        tmp_path / "pubfig" / "data.mat",
        im_names=cells(*names),
        class_labels=np.array([[1, 1, 2, 2, 3, 3]]).T,
        used_for_training=np.array([[1, 0] * 3]).T,
        attribute_names=cells("Male", "VisibleForehead"),
        relative_ordering=np.array([[3, 1, 2], [1, 1, 8]]),
        feat=np.zeros((6, 5)),
    )
    for name in names:
        picture(tmp_path / "pubfig" / "images" / name)
    return tmp_path


def test_pubfig(faces):
    assert SETS.missing("pubfig", faces) == SETS.missing("pubfig", faces / "pubfig") == []
    found = SETS.read("pubfig", faces)
    assert found.attributes == ["male", "visible_forehead"]
    assert list(found.images["id"]) == [
        "Alex_1.jpg",
        "Alex_2.jpg",
        "Clive_1.jpg",
        "Clive_2.jpg",
        "Hugh_1.jpg",
        "Hugh_2.jpg",
    ]
    assert list(found.images["split"]) == ["tune", "test"] * 3
    assert found.values.to_numpy().T.tolist() == [[3, 3, 1, 1, 2, 2], [1, 1, 1, 1, 8, 8]]
    assert list(found.images.group) == ["class 1"] * 2 + ["class 2"] * 2 + ["class 3"] * 2
    assert len(found.items.columns) == 0


def test_osr(faces):
    (faces / "pubfig").rename(faces / "osr")
    (faces / "osr" / "images").rename(faces / "osr" / "spatial_envelope_256x256_static_8outdoorcategories")
    mat(
        faces / "osr" / "data.mat",
        im_names=cells("Alex_1.jpg", "gone.jpg", down=True),
        class_labels=[[1], [2]],
        used_for_training=[[0], [0]],
        attribute_names=cells("size-large"),
        relative_ordering=[[5, 6]],
    )
    found = SETS.read("osr", faces)
    assert (found.name, found.attributes, found.values.size_large.tolist()) == ("osr", ["size_large"], [5])
    assert reasons(found) == {"gone.jpg": "missing file"}


def test_pubfig_that_is_not_as_published(faces, tmp_path):
    assert "no data.mat, images/; download relative_attributes_v2.zip" in one_line(
        SETS.missing("pubfig", tmp_path / "x")
    )
    good = {
        "im_names": cells("a", "b"),
        "class_labels": [[1], [9]],
        "used_for_training": [[0], [1]],
        "attribute_names": cells("Male"),
        "relative_ordering": [[3, 1, 2]],
    }
    mat(faces / "pubfig" / "data.mat", **good)
    assert SETS.read("pubfig", faces).left_out.reason.tolist() == ["missing file", "no class"]
    mat(faces / "pubfig" / "data.mat", **{**good, "class_labels": [[1]]})
    with pytest.raises(PcclipError, match=r"data.mat: 2 images, 1 classes and 2 splits of them, 1 attributes and 1"):
        SETS.read("pubfig", faces)
    mat(faces / "pubfig" / "data.mat", **{**good, "relative_ordering": [[1, 2, 3], [1, 2, 3]]})
    with pytest.raises(PcclipError, match="1 attributes and 2 orders; download it again"):
        SETS.read("pubfig", faces)


# ---- LFW-10 ----------------------------------------------------------------------------------------------------------


def voted(path: Path, *of: tuple[str, str, tuple[int, int, int]]) -> None:
    """One file of LFW-10: the pairs and the votes for the first image, the second and neither."""
    compared = np.empty((len(of), 3), dtype=object)
    compared[:] = [(float(k), first, second) for k, (first, second, _) in enumerate(of)]
    mat(path, images_compare=compared, attribute_strengths=[(k, *votes) for k, (_, _, votes) in enumerate(of)])


@pytest.fixture
def lfw(tmp_path):
    """LFW-10 with four faces, from dark to light, and pairs by that."""
    root = tmp_path / "LFW10"
    for name in lfw10.ATTRIBUTES:
        voted(
            root / "annotations" / f"{name}train.mat",
            ("1.jpg", "2.jpg", (0, 5, 0)),
            ("3.jpg", "1.jpg", (3, 1, 1)),
            ("4.jpg", "2.jpg", (4, 0, 1)),
            ("2.jpg", "3.jpg", (2, 2, 1)),
        )
        voted(
            root / "annotations" / f"{name}test.mat",
            ("1.jpg", "4.jpg", (1, 4, 0)),
            ("4.jpg", "3.jpg", (3, 2, 0)),
            ("2.jpg", "4.jpg", (0, 1, 4)),
        )
    for k in range(1, 5):
        picture(root / "images" / f"{k}.jpg", 60 * k)
    return root


def test_lfw10(lfw):
    assert SETS.missing("lfw10", lfw.parent) == SETS.missing("lfw10", lfw) == []
    found = SETS.read("lfw10", lfw.parent)
    assert found.attributes == list(lfw10.ATTRIBUTES)
    assert told(found.items[found.items.attribute == "smile"]) == [
        ("", "smile", "1.jpg", "2.jpg", "second", "tune"),
        ("", "smile", "3.jpg", "1.jpg", "first", "tune"),
        ("", "smile", "4.jpg", "2.jpg", "first", "tune"),
        ("", "smile", "2.jpg", "3.jpg", "equal", "tune"),
        ("", "smile", "1.jpg", "4.jpg", "second", "test"),
        ("", "smile", "4.jpg", "3.jpg", "first", "test"),
        ("", "smile", "2.jpg", "4.jpg", "equal", "test"),
    ]
    assert list(found.images.path) == [str(lfw / "images" / f"{k}.jpg") for k in range(1, 5)]


def test_lfw10_that_is_not_as_published(lfw, tmp_path):
    line = one_line(SETS.missing("lfw10", tmp_path / "nowhere"))
    assert "no annotations/baldheadtrain.mat, annotations/baldheadtest.mat, annotations/darkhairtrain.mat and" in line
    voted(lfw / "annotations" / "smiletest.mat", ("1.jpg", "4.jpg", (0, 0, 0)), ("1.jpg", "9.jpg", (1, 0, 0)))
    assert list(SETS.read("lfw10", lfw).left_out.itertuples(index=False, name=None)) == [
        ("smiletest.mat, row 1", "no votes"),
        (str(lfw / "images" / "9.jpg"), "missing file"),
    ]
    mat(
        lfw / "annotations" / "youngtest.mat",
        images_compare=cells("1.jpg", "2.jpg", "3.jpg"),
        attribute_strengths=np.ones((2, 4)),
    )
    with pytest.raises(PcclipError, match=r"youngtest.mat: 1 pairs, 2 rows of votes; download it again"):
        SETS.read("lfw10", lfw)


# ---- AwA2, UTKFace, KonIQ-10k ----------------------------------------------------------------------------------------


def test_awa2(zoo):
    assert SETS.missing("awa2", zoo) == []
    found = SETS.read("awa2", zoo)
    assert len(found.attributes) == 85
    assert found.images.iloc[2].tolist() == [
        "grizzly+bear/grizzly+bear_10001",
        str(zoo / "JPEGImages" / "grizzly+bear" / "grizzly+bear_10001.jpg"),
        "tune",
        "grizzly bear",
    ]
    assert found.values.big.to_numpy() == pytest.approx(np.repeat([0, 60.64, 60.64, 0, 0, 60.64], 2))
    assert found.values.black[:2].isna().all(), "nobody judged"
    (zoo / "JPEGImages" / ANIMALS[0] / f"{ANIMALS[0]}_10001.jpg").rename(zoo / "JPEGImages" / ANIMALS[0] / "other.txt")
    assert len(SETS.read("awa2", zoo).images) == 11


FACES = {
    "26_1_3_20170117175041574.jpg.chip.jpg": 26,
    "1_0_2_20161219140530307.jpg.chip.jpg": 1,
    "116_1_0_20170120134921760.jpg.chip.jpg": 116,
    "24_0_1_20170116220224657 .jpg.chip.jpg": 24,
    "55_0_0_20170116232725357jpg.chip.jpg": 55,
}
UNSURE = ["61_1_20170109142408075.jpg.chip.jpg", "117_0_0_20170109142408075.jpg.chip.jpg", "face.jpg"]


@pytest.mark.parametrize("folder", ["UTKFace", "part2", ""])
def test_utkface(tmp_path, folder):
    for name in [*FACES, *UNSURE]:
        picture(tmp_path / folder / name)
    assert SETS.missing("utkface", tmp_path) == []
    found = SETS.read("utkface", tmp_path)
    assert dict(zip(found.images["id"], found.values.age, strict=True)) == FACES
    assert reasons(found) == dict.fromkeys(UNSURE, "no age in its name")
    assert SETS.read("utkface", tmp_path).images["split"].tolist() == found.images["split"].tolist()


def test_a_fifth_of_utkface_is_tested_whatever_else_is_there(tmp_path):
    names = [f"{k % 90}_0_0_2017010914{k:07d}.jpg.chip.jpg" for k in range(400)]
    for name in names:
        put(tmp_path / "UTKFace" / name, b"")
    found = SETS.read("utkface", tmp_path).images.set_index("id")["split"]
    assert 0.13 < (found == "test").mean() < 0.27
    for name in names[::2]:
        (tmp_path / "UTKFace" / name).unlink()
    assert SETS.read("utkface", tmp_path).images.set_index("id")["split"].equals(found[sorted(names[1::2])])
    assert "no UTKFace/*.jpg; download" in one_line(SETS.missing("utkface", tmp_path / "nowhere"))


KONIQ = (
    "image_name,c1,c2,c3,c4,c5,MOS,SD,set\n10004473376.jpg,0,0,25,73,7,76.12,0.5,training\n"
    "2.jpg,1,2,3,4,5,40.5,0.6,validation\n3.jpg,1,2,3,4,5,91,0.6,test\n4.jpg,1,2,3,4,5,12.25,0.6,test\n"
)


@pytest.mark.parametrize("folder", ["1024x768", "512x384"])
def test_koniq(tmp_path, folder):
    put(tmp_path / "koniq10k_distributions_sets.csv", f"{KONIQ}5.jpg,0,0,0,0,0,,0,test\n6.jpg,0,0,0,0,0,5,0,other\n")
    for name in ("10004473376.jpg", "2.jpg", "3.jpg"):
        picture(tmp_path / folder / name)
    assert SETS.missing("koniq10k", tmp_path) == []
    found = SETS.read("koniq10k", tmp_path)
    assert found.values.quality.tolist() == [76.12, 40.5, 91.0]
    assert found.images["split"].tolist() == ["tune", "tune", "test"]
    assert reasons(found) == {"4.jpg": "missing file", "5.jpg": "no opinion", "6.jpg": "no split"}


def test_koniq_that_is_not_as_published(tmp_path):
    assert [line.split("; ")[0] for line in SETS.missing("koniq10k", tmp_path)] == [
        f"{tmp_path}: no koniq10k_distributions_sets.csv",
        f"{tmp_path}: no 1024x768/",
    ]
    picture(tmp_path / "512x384" / "1.jpg")
    put(tmp_path / "koniq10k_distributions_sets.csv", "image_name,c1,MOS,SD,MOS_zscore\n1.jpg,1,3.5,0.5,70\n")
    with pytest.raises(PcclipError, match="has no column 'set'; download it from"):
        SETS.read("koniq10k", tmp_path)


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_as_many_test_pairs_of_each_attribute_as_asked(lfw):
    found = SETS.load("lfw10", lfw, limit=1, tune_limit=2, seed=1)
    counts = found.items.groupby(["attribute", "split"]).size()
    assert set(counts.xs("test", level=1)) == {1}
    assert set(counts.xs("tune", level=1)) == {2}
    assert {*found.images["id"]} == {*found.items["first"], *found.items["second"]}, "and no other image"
    again = SETS.load("lfw10", lfw, limit=1, tune_limit=2, seed=1)
    pd.testing.assert_frame_equal(found.items, again.items)


def test_as_many_test_images_as_asked(zoo, capsys):
    found = SETS.load("awa2", zoo, limit=3, tune_limit=0)
    assert found.images["split"].tolist() == ["test"] * 3
    assert len(found.values) == 3
    assert "awa2: 12 rows and 0 left out, of 37322 as published" in capsys.readouterr().out
    assert len(SETS.load("awa2", zoo).images) == 12


def test_too_many_bad_rows(lfw):
    for k in (1, 2):
        (lfw / "images" / f"{k}.jpg").unlink()
    with pytest.raises(
        PcclipError,
        match=r"evaluate.relative.lfw10: 60 of 70 rows are bad \(60 missing file, e.g. .*1.jpg\), more than 5%",
    ) as error:
        SETS.load("lfw10", lfw)
    assert "\n" not in str(error.value)
    assert len(SETS.load("lfw10", lfw, max_bad=0.9).items) == 10


def test_a_set_without_test_images(faces):
    content = {
        "im_names": cells("Alex_1.jpg", "Hugh_1.jpg"),
        "class_labels": [[1], [2]],
        "attribute_names": cells("Male"),
        "relative_ordering": [[3, 1]],
    }
    mat(faces / "pubfig" / "data.mat", **content, used_for_training=[[1], [1]])
    with pytest.raises(PcclipError, match="evaluate.relative.pubfig: nothing to test"):
        SETS.load("pubfig", faces)
    mat(
        faces / "pubfig" / "data.mat",
        **{**content, "im_names": cells("Hugh_1.jpg", "Hugh_1.jpg")},
        used_for_training=[[1], [0]],
    )
    with pytest.raises(PcclipError, match="duplicate ids, e.g. 'Hugh_1.jpg'"):
        SETS.load("pubfig", faces)


def test_every_set_has_texts_for_attributes_that_it_has(lfw, shoes, zoo):
    assert [*shipped_texts("zap50k")] == SETS.read("zap50k", shoes).attributes
    assert [*shipped_texts("lfw10")] == SETS.read("lfw10", lfw).attributes
    assert {*shipped_texts("awa2")} <= {*SETS.read("awa2", zoo).attributes}
    assert ([*shipped_texts("utkface")], [*shipped_texts("koniq10k")]) == (["age"], ["quality"])
    assert all(shipped_texts(name) for name in SETS.readers)
    opened = shipped_texts("zap50k")["open"]
    assert opened.comparison == (
        "The first image shows a shoe that is more open, while the second image shows a shoe that is less open."
    )
    assert opened.comparison_swapped.startswith("The first image shows a shoe that is less open, while the second")
    assert (opened.more, opened.less) == ("a photo of an open shoe", "a photo of a closed shoe")
    assert shipped_texts("nobody") == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("VisibleForehead", "visible_forehead"),
        ("size-large", "size_large"),
        ("v_teeth", "v_teeth"),
        (" Male ", "male"),
        ("diagonal plane", "diagonal_plane"),
    ],
)
def test_attributes_have_plain_names(given, name):
    assert plain_name(given) == name


# ---- scores in stage 04 ----------------------------------------------------------------------------------------------


def asking(values, **relative_sets) -> params.Config:
    return params.check({**values, "evaluate": {**values["evaluate"], "relative": relative_sets}})


@pytest.fixture
def scored(values, lfw, tiny_encoder):
    """Predictions on LFW-10 by the tiny model, of two attributes."""
    config = asking(values, lfw10={"path": str(lfw)})
    predictions, given = Predictions(), load_benchmarks(config, FAMILY)
    texts = {name: shipped_texts("lfw10")[name] for name in ("smile", "young")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative, "shipped_texts", lambda name: texts)
        relative.score(config, given, {"base": tiny_encoder, "other": tiny_encoder}, predictions)
    return SimpleNamespace(config=config, images=given["lfw10"], table=predictions.table())


def test_pairs_are_decided_by_every_estimator(scored, tiny_encoder):
    table = scored.table
    assert set(table.task) == {"relative_pairs"}
    assert set(zip(table.dataset, table.model, strict=True)) == {
        *(
            (f"lfw10/{name}/{estimator}", model)
            for name in ("smile", "young")
            for estimator in ESTIMATORS
            for model in ("base", "other")
        ),
        ("lfw10/smile/supervised", "supervised"),
        ("lfw10/young/supervised", "supervised"),
    }
    part = table[(table.dataset == "lfw10/smile/two_prompt") & (table.model == "base")]
    assert part[["first", "second", "reference"]].to_numpy().tolist() == [
        ["1.jpg", "4.jpg", -1.0],
        ["4.jpg", "3.jpg", 1.0],
    ], "and equal pairs are not asked"
    axis = attribute_axis(tiny_encoder, shipped_texts("lfw10")["smile"], "two_prompt")
    vectors = load_vectors(scored.config.home / "relative" / "lfw10", tiny_encoder)
    steps = [
        vectors.matrix[vectors.row[one]] - vectors.matrix[vectors.row[two]]
        for one, two in (("1.jpg", "4.jpg"), ("4.jpg", "3.jpg"))
    ]
    assert part.score.to_numpy() == pytest.approx([step @ axis for step in steps], abs=1e-6)
    assert part.correct.tolist() == [part.score.iloc[0] < 0, part.score.iloc[1] > 0]


def test_vectors_of_a_set_are_kept(scored, tiny_encoder, capsys):
    relative.score(scored.config, {"lfw10": scored.images}, {"base": tiny_encoder}, Predictions())
    assert "lfw10: done already" in capsys.readouterr().out
    assert (scored.config.home / "relative" / "lfw10" / "vectors.parquet").is_file()


def ask(found, vectors, encoder, predictions) -> None:
    relative.score_set(found, vectors, shipped_texts(found.name), {"base": encoder}, predictions)


@pytest.fixture
def planted(rng):
    """Give a set vectors of ours: an attribute along the first axis, with the images' rows."""

    def plant(found, strength, width: int = 8):
        noise = 0.2 * rng.standard_normal((len(found.images), width))
        noise[:, 0] += strength
        return Vectors(list(found.images["id"]), list(found.images.path), unit(noise).astype(np.float32))

    return plant


def knowing(name: str, attribute: str, width: int = 8) -> Knowing:
    """A model whose texts of an attribute lie along the first axis, and those of the others along the second."""
    told = {}
    for one, texts in shipped_texts(name).items():
        axis = np.eye(width)[0 if one == attribute else 1]
        told |= {texts.more: axis, texts.less: -axis, texts.comparison: axis, texts.comparison_swapped: -axis}
    return Knowing(told, width)


def test_the_supervised_axis_of_pairs_finds_what_was_planted(tmp_path, planted, rng):
    strength = np.linspace(-1, 1, 60)
    pairs = pd.DataFrame(rng.integers(0, 60, (300, 2)).astype(str), columns=["first", "second"])
    more = strength[pairs["first"].astype(int)] > strength[pairs["second"].astype(int)]
    pairs = pairs.assign(
        part="fine",
        attribute="open",
        more=np.where(more, "first", "second"),
        row="",
        reason="",
        split=np.where(np.arange(300) < 200, "tune", "test"),
    )
    for k in range(60):
        put(tmp_path / f"{k}.jpg", b"")
    pairs[["first", "second"]] = f"{tmp_path}/" + pairs[["first", "second"]] + ".jpg"
    found = ordered_pairs("zap50k", pairs, tmp_path)
    predictions = Predictions()
    ask(
        found,
        planted(found, strength[[int(Path(image).stem) for image in found.images["id"]]]),
        knowing("zap50k", "open"),
        predictions,
    )
    table = predictions.table()
    right = table.groupby("dataset").correct.mean()
    assert right["zap50k/fine/open/supervised"] > 0.8
    assert right["zap50k/fine/open/two_prompt"] > 0.8
    assert set(table.dataset.str.split("/").str[2]) == {"open"}, "the set has no other attribute"
    metrics, _ = report.summarise(table, 100, 0)
    own = metrics[metrics.dataset == "zap50k/fine/open/two_prompt"].set_index("metric")
    assert list(own.index) == ["accuracy", "accuracy_share"]
    assert own.value["accuracy"] == pytest.approx(right["zap50k/fine/open/two_prompt"])
    whole = right["zap50k/fine/open/supervised"]
    assert own.value["accuracy_share"] == pytest.approx((own.value["accuracy"] - 0.5) / (whole - 0.5))


def test_few_pairs_have_no_supervised_axis(lfw, planted):
    for name in lfw10.ATTRIBUTES:
        voted(lfw / "annotations" / f"{name}train.mat", ("1.jpg", "2.jpg", (0, 5, 0)), ("2.jpg", "3.jpg", (2, 2, 1)))
    found, predictions = SETS.load("lfw10", lfw), Predictions()
    ask(found, planted(found, np.linspace(-1, 1, len(found.images))), knowing("lfw10", "smile"), predictions)
    assert set(predictions.table().model) == {"base"}


def test_images_with_values_are_ranked_and_unseen_classes_are_left_out_whole(zoo, planted, monkeypatch):
    found = SETS.load("awa2", zoo)
    vectors = planted(found, found.values.big / 60)
    fitted, ridge = [], relative.ridge_axis
    monkeypatch.setattr(relative, "ridge_axis", lambda *given: fitted.append(given) or ridge(*given))
    predictions = Predictions()
    ask(found, vectors, knowing("awa2", "big"), predictions)
    table = predictions.table()
    assert set(table.task) == {"relative_values"}
    part = table[table.dataset == "awa2/big/two_prompt"]
    assert part["first"].tolist() == part.second.tolist() == ["dalmatian", "dalmatian", "blue whale", "blue whale"], (
        "animals are drawn, not their images"
    )
    assert part.reference.to_numpy() == pytest.approx([0, 0, 60.64, 60.64])
    assert part.score[part.reference > 0].min() > part.score[part.reference == 0].max()
    assert not table.dataset.str.contains("stripes").any(), "no two test images differ in it"
    assert not fitted, "two different values are too few for an axis"
    found.values.loc[:, "big"] = np.repeat([10.0, 50, 90, 30, 20, 80], 2)
    ask(found, vectors, knowing("awa2", "big"), predictions)
    [(_, rows_, own, groups)] = [given for given in fitted if set(given[2]) == {10, 50, 90, 30}]
    assert groups == list(np.repeat(["antelope", "grizzly bear", "killer whale", "beaver"], 2))
    assert len(rows_) == len(own) == 8
    assert "awa2/big/supervised" in set(predictions.table().dataset)


def test_people_who_were_tuned_on_are_drawn_whole_and_not_left_out(faces, planted, monkeypatch):
    found, texts = SETS.load("pubfig", faces), {"male": shipped_texts("awa2")["big"]}
    vectors = planted(found, found.values.male)
    fitted, ridge = [], relative.ridge_axis
    monkeypatch.setattr(relative, "ridge_axis", lambda *given: fitted.append(given[3]) or ridge(*given))
    predictions = Predictions()
    relative.score_set(found, vectors, texts, {"base": knowing("awa2", "big")}, predictions)
    assert fitted == [None], "an image may be judged by another of the same person"
    part = predictions.table()
    assert part[part.model == "supervised"]["first"].tolist() == ["class 1", "class 2", "class 3"]


def test_what_is_lacking_is_said_before_anything_runs(values, tmp_path):
    config = asking(values, osr={"path": str(tmp_path)}, adience={})
    lines = report.lacking(config)
    assert [line.split(": ")[0] for line in lines] == ["evaluate.relative.osr", "evaluate.relative.adience"]
    assert all("\n" not in line for line in lines)


def test_a_set_is_scored_by_stage_04(values, lfw, tmp_path, fresh_encoder, monkeypatch):
    texts = {"smile": shipped_texts("lfw10")["smile"]}
    for module in (relative, benchmarks):
        monkeypatch.setattr(module, "shipped_texts", lambda name: texts)
    given = prepared(values, fresh_encoder, tmp_path, relative={"lfw10": {"path": str(lfw)}})
    models = report.load_models(given.config)
    metrics, paired = report.evaluate(given.config, given.images, given.vectors, given.comparisons, models)
    own = metrics[metrics.dataset.str.startswith("lfw10/")]
    accuracy = own[own.metric == "accuracy"]
    assert set(zip(accuracy.dataset, accuracy.model, strict=True)) == {
        *((f"lfw10/smile/{estimator}", model) for estimator in ESTIMATORS for model in ("base", "finetuned")),
        ("lfw10/smile/supervised", "supervised"),
    }
    assert set(own.n) == {2}
    items = report.read(given.config, report.PREDICTIONS)
    items = items[(items.dataset == "lfw10/smile/two_prompt") & (items.model == "finetuned")]
    assert (
        accuracy.value[(accuracy.dataset == "lfw10/smile/two_prompt") & (accuracy.model == "finetuned")].item()
        == items.correct.mean()
    )
    assert {f"lfw10/smile/{estimator}" for estimator in ESTIMATORS} <= set(paired.dataset)
    assert report.stage(given.config, given.images).done()
    monkeypatch.setattr(
        benchmarks, "shipped_texts", lambda name: {"smile": texts["smile"].model_copy(update={"more": "a grin"})}
    )
    assert not report.stage(given.config, given.images).done()
    monkeypatch.setattr(benchmarks, "shipped_texts", lambda name: texts)
    assert report.stage(given.config, given.images).done()
    picture(lfw / "images" / "4.jpg", 3)
    assert not report.stage(given.config, given.images).done()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"limit": 0}, "evaluate.relative.osr.limit"),
        ({"tune_limit": -1}, "evaluate.relative.osr.tune_limit"),
        ({"texts": {}}, "evaluate.relative.osr.texts: unknown key"),
        ({"attributes": {}}, "evaluate.relative.osr.attributes: no longer a key; use pcclip/benchmarks/relative"),
    ],
)
def test_impossible_settings(values, settings, key):
    with pytest.raises(PcclipError) as error:
        asking(values, osr=settings)
    assert key in str(error.value)
