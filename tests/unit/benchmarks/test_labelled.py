"""Labelled sets as they are published: layouts, official splits, names; drawing from them; their vectors."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.cifar import FILES, HUNDRED, TEN, records
from helpers.crash import Crash
from helpers.files import jpeg, put
from helpers.public_sets import PublicSets, flower_names
from PIL import Image
from scipy.io import savemat

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.classification import cifar, eurosat
from pcclip.config import Embed
from pcclip.embedding.stage import embed_benchmark
from pcclip.embedding.vectors import load_vectors
from pcclip.errors import PcclipError
from pcclip.images import open_image
from pcclip.runs.stage import finished

SETS = PublicSets("classification")
MANY = 10  # images per file of a tiny CIFAR


def labels_of(found: Benchmark, split: str) -> dict[str, str]:
    """id -> class name of one split."""
    rows = found.images[found.images.split == split]
    return {image: found.classes[label] for image, label in zip(rows["id"], rows.label, strict=True)}


def pixels(found: Benchmark) -> np.ndarray:
    return np.stack([np.asarray(image) for image in found.pictures])


# ---- CIFAR -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(rng) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File -> pixels (n, 32, 32, 3) and labels of a tiny CIFAR-10; every class is in each file once."""
    return {
        name: (rng.integers(256, size=(MANY, 32, 32, 3), dtype=np.uint8), rng.permutation(MANY))
        for names in FILES.values()
        for name in names
    }


@pytest.fixture
def binary(drawn, tmp_path, monkeypatch) -> Path:
    """The folder in which a tiny cifar-10-batches-bin lies."""
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    for name, (images, labels) in drawn.items():
        put(folder / f"{name}.bin", records(images, labels))
    put(folder / "batches.meta.txt", "\n".join(TEN) + "\n\n")
    monkeypatch.setitem(cifar.IMAGES, "batch", MANY)
    return folder.parent


@pytest.fixture
def package(drawn, tmp_path, monkeypatch) -> Path:
    """The folder in which the same lies as the npm package, unpacked."""
    folder = tmp_path / "npm" / "package"
    for name, (images, _) in drawn.items():
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder / f"{name}.png")
    for part, names in FILES.items():
        labels = np.concatenate([drawn[name][1] for name in names])
        put(folder / f"{part}_lables.json", json.dumps(labels.tolist()))
    monkeypatch.setitem(cifar.IMAGES, "batch", MANY)
    return folder.parent


@pytest.mark.parametrize("layout", ["binary", "package"])
def test_cifar10(layout, drawn, request):
    found = SETS.load("cifar10", request.getfixturevalue(layout))
    assert found.classes == TEN
    assert found.released is None
    assert found.images.split.value_counts().to_dict() == {"tune": 50, "test": 10}
    assert list(found.images["id"][[0, 49, 50, 59]]) == ["train/00000", "train/00049", "test/00000", "test/00009"]
    order = [name for names in FILES.values() for name in names]
    assert np.array_equal(found.images.label, np.concatenate([drawn[name][1] for name in order]))
    assert np.array_equal(pixels(found), np.concatenate([drawn[name][0] for name in order]))
    assert found.pictures[3].mode == "RGB"
    assert list(found.images.path) == list(found.images["id"])
    with pytest.raises(IndexError):
        found.pictures[60]


def test_both_layouts_are_the_same_set(binary, package):
    one, other = (SETS.load("cifar10", path, limit=5, seed=3) for path in (binary, package))
    assert one.images.equals(other.images)
    assert np.array_equal(pixels(one), pixels(other))
    assert one.identity() != other.identity()  # they are other files


def test_the_set_lies_in_the_cache_by_default(binary, monkeypatch):
    monkeypatch.setenv("PCCLIP_CACHE", str(binary.parent / "cache"))
    with pytest.raises(PcclipError, match="run `make cifar`"):
        SETS.load("cifar10")
    shutil.copytree(binary, binary.parent / "cache" / "cifar10")
    assert len(SETS.load("cifar10").images) == 60


def test_cifar10_of_the_published_size(tmp_path):
    """Files of the true size, zeros but for two records."""
    for names in FILES.values():
        for name in names:
            with open(tmp_path / f"{name}.bin", "wb") as file:
                file.truncate(30_730_000)
    for name, row, label in (("data_batch_5", 9_999, 9), ("test_batch", 5, 3)):
        with open(tmp_path / f"{name}.bin", "r+b") as file:
            file.seek(3073 * row)
            file.write(bytes([label]) + bytes([10] * 1024) + bytes([20] * 1024) + bytes([30] * 1024))
    put(tmp_path / "batches.meta.txt", "\n".join(TEN))
    found = SETS.load("cifar10", tmp_path)
    assert found.images.split.value_counts().to_dict() == {"tune": 50_000, "test": 10_000}
    assert list(np.flatnonzero(found.images.label)) == [49_999, 50_005]
    assert labels_of(found, "test")["test/00005"] == "cat"
    assert [found.pictures[row].getpixel((31, 31)) for row in (50_004, 50_005, 49_999)] == [
        (0, 0, 0),
        (10, 20, 30),
        (10, 20, 30),
    ]


def test_cifar10_cut_short(tmp_path):
    for names in FILES.values():
        for name in names:
            put(tmp_path / f"{name}.bin", bytes(1000))
    put(tmp_path / "batches.meta.txt", "\n".join(TEN))
    with pytest.raises(PcclipError, match=r"data_batch_1\.bin: 1,000 bytes, not 30,730,000; download and unpack"):
        SETS.load("cifar10", tmp_path)


def test_cifar10_with_other_names(binary):
    put(binary / "cifar-10-batches-bin" / "batches.meta.txt", "\n".join([*TEN[:9], "van"]))
    with pytest.raises(PcclipError, match=r"batches\.meta\.txt: not the 10 class names from airplane to truck"):
        SETS.load("cifar10", binary)
    put(binary / "cifar-10-batches-bin" / "batches.meta.txt", "\n")
    with pytest.raises(PcclipError, match=r"batches\.meta\.txt: empty"):
        SETS.load("cifar10", binary)


def test_cifar10_with_a_label_that_is_no_class(binary):
    path = binary / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(bytes([10]) + path.read_bytes()[1:])
    with pytest.raises(PcclipError, match="labels or splits that do not exist"):
        SETS.load("cifar10", binary)


def test_cifar100(tmp_path, rng, monkeypatch):
    """Fine labels, not coarse ones."""
    monkeypatch.setattr(cifar, "IMAGES", {"train": 100, "test": 100})
    folder, fine = tmp_path / "cifar-100-binary", np.arange(100)
    images = rng.integers(256, size=(100, 32, 32, 3), dtype=np.uint8)
    put(folder / "train.bin", records(images, np.full(100, 19), fine))
    put(folder / "test.bin", records(images[::-1], np.full(100, 19), fine[::-1]))
    put(folder / "fine_label_names.txt", "\n".join(HUNDRED) + "\n")
    put(folder / "coarse_label_names.txt", "aquatic_mammals\n")
    found = SETS.load("cifar100", tmp_path)
    assert list(found.images.label) == [*range(100), *reversed(range(100))]
    assert found.classes == [name.replace("_", " ") for name in HUNDRED]
    assert found.released == [name if name != "crab" else "cra" for name in HUNDRED]
    assert (found.classes[26], found.released[26], found.released[1]) == ("crab", "cra", "aquarium_fish")
    # the released code's large and small animals, by label
    assert [found.classes[k] for k in (15, 42, 43, 97)] == ["camel", "leopard", "lion", "wolf"]
    assert [found.classes[k] for k in (36, 65, 74, 80)] == ["hamster", "rabbit", "shrew", "squirrel"]
    assert np.array_equal(pixels(found), np.concatenate([images, images[::-1]]))


def test_the_package_that_is_not_whole(package):
    (package / "package" / "train_lables.json").unlink()
    with pytest.raises(PcclipError, match=r"package: no train_lables\.json; delete that folder and run `make cifar`"):
        SETS.load("cifar10", package)
    put(package / "package" / "train_lables.json", "[3, 1")
    with pytest.raises(PcclipError, match=r"train_lables\.json: cannot be read as JSON"):
        SETS.load("cifar10", package)
    put(package / "package" / "train_lables.json", json.dumps([10] * 50))
    with pytest.raises(PcclipError, match=r"train_lables\.json: not a list of 50 labels from 0 to 9"):
        SETS.load("cifar10", package)


def test_a_sheet_that_is_not_whole(package):
    sheet = package / "package" / "test_batch.png"
    whole = sheet.read_bytes()
    sheet.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PcclipError, match=r"test_batch\.png: not a whole PNG"):
        pixels(SETS.load("cifar10", package))
    Image.new("RGB", (1024, 7)).save(sheet)
    with pytest.raises(PcclipError, match=r"test_batch\.png: 1024 x 7 pixels, not 1024 x 10"):
        SETS.load("cifar10", package)
    sheet.write_bytes(b"")
    with pytest.raises(PcclipError, match=r"test_batch\.png: cannot be read"):
        SETS.load("cifar10", package)


# ---- sets of files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def land(tmp_path) -> Path:
    for kind in eurosat.CLASSES:
        for k in range(1, 13):
            put(tmp_path / "2750" / kind / f"{kind}_{k}.jpg", jpeg(k))
    return tmp_path


def test_eurosat(land):
    found = SETS.load("eurosat", land)
    assert found.released == [
        "AnnualCrop",
        "Forest",
        "HerbaceousVegetation",
        "Highway",
        "Industrial",
        "Pasture",
        "PermanentCrop",
        "Residential",
        "River",
        "SeaLake",
    ]
    assert found.classes[:4] == ["annual crop land", "forest", "brushland or shrubland", "highway or road"]
    assert list(found.images["id"][:3]) == [f"AnnualCrop/AnnualCrop_{k}.jpg" for k in (1, 10, 11)]
    assert found.pictures[0] == str(land / "2750" / "AnnualCrop" / "AnnualCrop_1.jpg")
    assert all(
        name.split("/")[0] == found.released[label]
        for name, label in zip(found.images["id"], found.images.label, strict=True)
    )
    assert open_image(found.pictures[0]).size == (8, 8)
    assert list(found.images.path) == found.pictures


def test_eurosats_test_images_are_the_released_codes(land):
    """torch.manual_seed(0), a permutation of ImageFolder's order, the last tenth."""
    found = SETS.load("eurosat", land)
    torch.manual_seed(0)
    expected = torch.randperm(120)[108:]
    assert sorted(expected.tolist()) == list(np.flatnonzero(found.images.split == "test"))


def test_eurosat_as_its_own_archive_unpacks(land):
    (land / "2750").rename(land / "EuroSAT_RGB")
    assert len(SETS.load("eurosat", land).images) == 120
    assert len(SETS.load("eurosat", land / "EuroSAT_RGB").images) == 120
    shutil.rmtree(land / "EuroSAT_RGB" / "River")
    with pytest.raises(PcclipError, match="River"):
        SETS.load("eurosat", land)


FLOWER_LABELS = [77, 102, 1, 15, 42, 54, 15, 42, 54, 60, 12, 3]  # of image 1, 2, ...; the first class is 1


@pytest.fixture
def garden(tmp_path) -> Path:
    flower_names()
    folder = tmp_path / "flowers-102"
    for k in range(1, len(FLOWER_LABELS) + 1):
        put(folder / "jpg" / f"image_{k:05d}.jpg", jpeg(k))
    savemat(folder / "imagelabels.mat", {"labels": np.array([FLOWER_LABELS], dtype=np.uint8)})
    savemat(
        folder / "setid.mat",
        {
            "trnid": np.array([[4, 5]], dtype=np.uint16),
            "valid": np.array([[6, 2]]),
            "tstid": np.array([[12, 11, 10, 9, 8, 7, 3, 1]], dtype=np.uint16),
        },
    )
    return tmp_path


def test_flowers(garden):
    found = SETS.load("flowers", garden)
    assert labels_of(found, "tune") == {
        "image_00004": "yellow iris",
        "image_00005": "daffodil",
        "image_00006": "sunflower",
        "image_00002": "blackberry lily",
    }
    assert labels_of(found, "test") == {
        "image_00012": "canterbury bells",
        "image_00011": "colt's foot",
        "image_00010": "pink-yellow dahlia",
        "image_00009": "sunflower",
        "image_00008": "daffodil",
        "image_00007": "yellow iris",
        "image_00003": "pink primrose",
        "image_00001": "passion flower",
    }
    assert found.pictures[0] == str(garden / "flowers-102" / "jpg" / "image_00004.jpg")
    assert len(SETS.load("flowers", garden / "flowers-102").images) == 12


def test_names_of_the_flowers(garden):
    names = SETS.read("flowers", garden).classes
    assert len(names) == 102
    assert {k: names[k] for k in (2, 4, 6, 7, 10, 14, 19, 41, 53)} == {
        2: "canterbury bells",
        4: "english marigold",
        6: "moon orchid",
        7: "bird of paradise",
        10: "snapdragon",
        14: "yellow iris",
        19: "giant white arum lily",
        41: "daffodil",
        53: "sunflower",
    }


def test_flowers_as_released(garden):
    found = SETS.load("flowers", garden)
    changed = {new: old for new, old in zip(found.classes, found.released, strict=True) if new != old}
    assert changed == {"colt's foot": "colts foot", "pink-yellow dahlia": "pink-yellow dahlia?"}


@pytest.mark.parametrize("content", [b"", b"not MATLAB" * 20, b"MATLAB 5.0 MAT-file" + bytes(400)])
def test_flowers_labels_that_cannot_be_read(garden, content):
    put(garden / "flowers-102" / "imagelabels.mat", content)
    with pytest.raises(PcclipError, match=r"imagelabels\.mat: no fields labels that can be read") as error:
        SETS.load("flowers", garden)
    assert "\n" not in str(error.value)


def test_flowers_whose_names_torchvision_does_not_have(garden, monkeypatch):
    monkeypatch.delattr("torchvision.datasets.Flowers102.classes")
    with pytest.raises(PcclipError, match="upgrade torchvision"):
        SETS.load("flowers", garden)


def test_flowers_without_a_class_or_a_file(garden):
    (garden / "flowers-102" / "jpg" / "image_00004.jpg").unlink()
    whole = SETS.read("flowers", garden)
    assert dict(zip(whole.left_out.path.map(lambda path: Path(path).name), whole.left_out.reason, strict=True)) == {
        "image_00004.jpg": "missing file"
    }
    with pytest.raises(PcclipError, match=r"1 of 12 rows are bad \(1 missing file, e.g. .*4.jpg\), more than 5%"):
        SETS.load("flowers", garden)
    savemat(garden / "flowers-102" / "imagelabels.mat", {"labels": np.array([[*FLOWER_LABELS[:10], 103, 0]])})
    assert sorted(SETS.read("flowers", garden).left_out.reason) == ["missing file", "no class", "no class"]


SCENES = {
    "a/abbey": "abbey",
    "a/apartment_building/outdoor": "outdoor apartment building",
    "b/bakery/shop": "bakery shop",
    "t/theater/indoor_procenium": "indoor procenium theater",
}


@pytest.fixture
def scenes(tmp_path) -> Path:
    parts = {"Training_01.txt": [], "Testing_01.txt": []}
    for folder in SCENES:
        for k, lines in enumerate([*parts.values(), []]):  # the third image is in no list
            name = f"{folder}/sun_{'abcdefghijklmno'}{k}.jpg"
            put(tmp_path / "SUN397" / name, jpeg(k))
            lines.append(f"/{name}")
    for name, lines in parts.items():
        put(tmp_path / "Partitions" / name, "\n".join(lines) + "\n")
    put(tmp_path / "SUN397" / "ClassName.txt", "".join(f"/{folder}\n" for folder in SCENES))
    return tmp_path


def test_sun397(scenes):
    found = SETS.load("sun397", scenes)
    assert found.classes == list(SCENES.values())
    assert found.released == ["abbey", "apartment_building/outdoor", "bakery/shop", "theater/indoor_procenium"]
    assert list(labels_of(found, "tune").values()) == found.classes
    assert list(labels_of(found, "test").values()) == found.classes
    assert found.images["id"][5] == "a/apartment_building/outdoor/sun_abcdefghijklmno1.jpg"
    assert found.pictures[5] == str(scenes / "SUN397" / found.images["id"][5])


def test_sun397_without_its_list_of_classes(scenes):
    with_list = SETS.load("sun397", scenes / "SUN397")
    (scenes / "SUN397" / "ClassName.txt").unlink()
    assert SETS.load("sun397", scenes).images.equals(with_list.images)


def test_sun397_without_a_partition(scenes):
    (scenes / "Partitions" / "Testing_01.txt").unlink()
    with pytest.raises(PcclipError, match=r"no Testing_01\.txt; download .*/Partitions\.zip"):
        SETS.load("sun397", scenes)


def test_sun397_class_that_is_not_in_the_list(scenes):
    put(scenes / "SUN397" / "ClassName.txt", "/a/abbey\n")
    assert list(SETS.read("sun397", scenes).left_out.reason) == ["no class"] * 6


@pytest.fixture
def kitchen(tmp_path) -> Path:
    folder, dishes = tmp_path / "food-101", ["apple_pie", "baby_back_ribs"]
    for k, dish in enumerate(dishes):
        for name in ("1005649", "1014775"):
            put(folder / "images" / dish / f"{name}.jpg", jpeg(k))
    put(folder / "meta" / "classes.txt", "\n".join(dishes) + "\n")
    put(folder / "meta" / "labels.txt", "Apple pie\nBaby back ribs\n")
    put(folder / "meta" / "train.txt", "".join(f"{dish}/1005649\n" for dish in dishes))
    put(folder / "meta" / "test.txt", "".join(f"{dish}/1014775\n" for dish in dishes))
    return tmp_path


def test_food101(kitchen):
    found = SETS.load("food101", kitchen)
    assert labels_of(found, "tune") == {"apple_pie/1005649": "apple pie", "baby_back_ribs/1005649": "baby back ribs"}
    assert labels_of(found, "test") == {"apple_pie/1014775": "apple pie", "baby_back_ribs/1014775": "baby back ribs"}
    assert found.pictures[1] == str(kitchen / "food-101" / "images" / "baby_back_ribs" / "1005649.jpg")
    assert found.released is None


# ---- loading ---------------------------------------------------------------------------------------------------------


def serve(monkeypatch, sizes: dict[str, list[int]], **changed) -> pd.DataFrame:
    """A set 'made' with so many images of each class in each split, in an order of its own; returns its table."""
    rows = [(split, label) for split, counts in sizes.items() for label, n in enumerate(counts) for _ in range(n)]
    order = np.random.default_rng(7).permutation(len(rows))
    table = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(len(rows))],
            "label": [rows[k][1] for k in order],
            "split": [rows[k][0] for k in order],
        }
    )
    table["path"] = [f"/{image}.jpg" for image in table["id"]]
    classes = [f"class {k}" for k in range(len(sizes["test"]))]
    made = replace(Benchmark("made", "classification", table, classes=classes), **changed)
    monkeypatch.setitem(SETS.readers, "made", Reader("made", lambda root: made))
    return made.images


def counts(found: Benchmark, split: str) -> list[int]:
    return np.bincount(found.images.label[found.images.split == split], minlength=len(found.classes)).tolist()


def test_the_whole_set_in_order(monkeypatch):
    table = serve(monkeypatch, {"tune": [5, 5], "test": [7, 3]})
    for limit in (None, 10, 1000):
        assert SETS.load("made", "x", limit=limit).images.equals(table)


def test_a_limit_has_the_classes_in_proportion(monkeypatch):
    table = serve(monkeypatch, {"tune": [400, 300, 200, 100], "test": [100] * 4})
    found = SETS.load("made", "x", limit=40, tune_limit=100, seed=0)
    assert counts(found, "test") == [10] * 4
    assert all(abs(n - m) <= 1 for n, m in zip(counts(found, "tune"), [40, 30, 20, 10], strict=True))
    assert sum(counts(found, "tune")) == 100
    assert counts(SETS.load("made", "x", tune_limit=4), "tune") == [1] * 4
    assert found.images["id"].map({image: k for k, image in enumerate(table["id"])}).is_monotonic_increasing
    assert found.pictures == [f"/{image}.jpg" for image in found.images["id"]]


def test_one_limit_leaves_the_other_split_alone(monkeypatch):
    serve(monkeypatch, {"tune": [9, 9], "test": [50, 50]})
    found = SETS.load("made", "x", limit=20, seed=1)
    assert (counts(found, "tune"), counts(found, "test")) == ([9, 9], [10, 10])
    assert counts(SETS.load("made", "x", tune_limit=0), "tune") == [0, 0]
    larger = SETS.load("made", "x", limit=60, seed=1)
    assert set(found.images["id"]) < set(larger.images["id"])  # more of the same draw


def test_a_limit_below_the_number_of_classes_takes_one_each(monkeypatch):
    serve(monkeypatch, {"tune": [1], "test": [30] * 20})
    found = [counts(SETS.load("made", "x", limit=8, seed=seed), "test") for seed in range(6)]
    assert all(sorted(each) == [0] * 12 + [1] * 8 for each in found)
    assert (np.sum(found, axis=0) > 0).sum() > 8  # not always the same classes


def test_the_draw_is_seeded(monkeypatch):
    serve(monkeypatch, {"tune": [50, 50], "test": [50, 50]})
    one, again, other = (SETS.load("made", "x", limit=20, tune_limit=20, seed=seed) for seed in (1, 1, 2))
    assert one.images.equals(again.images)
    assert one.identity() == again.identity()
    assert not one.images.equals(other.images)
    assert one.identity() != other.identity()


def test_duplicate_ids_are_refused(monkeypatch):
    table = serve(monkeypatch, {"tune": [5], "test": [5]})
    serve(monkeypatch, {"tune": [5], "test": [5]}, images=table.assign(id=["i0"] * 2 + list(table["id"][2:])))
    with pytest.raises(PcclipError, match=r"labelled.made: duplicate ids, e\.g\. 'i0'"):
        SETS.load("made", "x")


@pytest.mark.parametrize(("column", "value"), [("label", 1), ("label", -1), ("split", "train")])
def test_labels_and_splits_that_do_not_exist_are_refused(monkeypatch, column, value):
    table = serve(monkeypatch, {"tune": [5], "test": [5]})
    serve(monkeypatch, {"tune": [5], "test": [5]}, images=table.assign(**{column: [value, *table[column][1:]]}))
    with pytest.raises(PcclipError, match="labels or splits that do not exist"):
        SETS.load("made", "x")


def test_bad_rows(monkeypatch):
    lost = pd.DataFrame({"path": list("abcdef"), "reason": ["missing file"] * 5 + ["val split"]})
    serve(monkeypatch, {"tune": [50], "test": [45]}, left_out=lost)  # 5 of 100: a val split is no fault
    assert len(SETS.load("made", "x").left_out) == 6
    serve(monkeypatch, {"tune": [50], "test": [44]}, left_out=lost)
    with pytest.raises(
        PcclipError, match=r"5 of 99 rows are bad \(5 missing file, 1 val split, e.g. a\), more than 5%"
    ):
        SETS.load("made", "x")
    serve(monkeypatch, {"tune": [0], "test": [0]})
    with pytest.raises(PcclipError, match="no usable row"):
        SETS.load("made", "x")


def test_identity_notices_names_and_files(land):
    before = SETS.load("eurosat", land)
    assert before.identity() == SETS.load("eurosat", land).identity()
    assert replace(before, classes=before.released).identity() != before.identity()
    put(Path(before.pictures[0]), jpeg(99) + b"more")
    changed = before.identity()
    assert changed != SETS.load("eurosat", land, limit=5).identity()
    Path(before.pictures[0]).unlink()
    assert before.identity() != changed


def test_identity_notices_the_file_of_many(binary):
    found = SETS.load("cifar10", binary, limit=5)
    before = found.identity()
    put(binary / "cifar-10-batches-bin" / "data_batch_2.bin", bytes(30_730))
    assert found.identity() != before


# ---- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["binary", "package"])
def test_vectors_of_images_in_one_file(layout, tiny_encoder, tmp_path, encoded, capsys, request):
    found = SETS.load("cifar10", request.getfixturevalue(layout), limit=5, tune_limit=30)
    folder = tmp_path / "outputs" / "cifar10"
    vectors, bad = embed_benchmark(folder, found, tiny_encoder, Embed(batch_size=4, workers=2, shard=16))
    assert vectors.ids == vectors.paths == list(found.images["id"])
    assert vectors.matrix == pytest.approx(tiny_encoder.encode_images(list(found.pictures)), abs=1e-5)
    assert len(bad) == 0
    manifest = finished(folder)
    assert manifest["counts"] == {"images": 35, "bad": 0, "width": 32, "left_out": {}}
    assert manifest["inputs"] == {"format": 1, "images": found.identity(), "model": tiny_encoder.image_fingerprint()}

    encoded.total = 0
    again, _ = embed_benchmark(folder, found, tiny_encoder, Embed(batch_size=4, workers=2, shard=16))
    assert encoded.total == 0
    assert np.array_equal(again.matrix, vectors.matrix)
    assert f"cifar10: done already, read from {folder}" in capsys.readouterr().out


def test_killed_in_the_middle_it_resumes_at_the_shard(binary, tiny_encoder, tmp_path, encoded, capsys):
    found, settings = SETS.load("cifar10", binary), {"batch_size": 4, "workers": 2, "shard": 16}
    encoded.limit = 16 + 8  # in the middle of the second shard
    with pytest.raises(Crash):
        embed_benchmark(tmp_path / "cifar10", found, tiny_encoder, Embed(**settings))
    encoded.total, encoded.limit = 0, float("inf")
    resumed, _ = embed_benchmark(tmp_path / "cifar10", found, tiny_encoder, Embed(**settings))
    assert encoded.total == 60 - 16
    assert "cifar10: 1 of 4 shards found" in capsys.readouterr().out
    straight, _ = embed_benchmark(tmp_path / "other" / "cifar10", found, tiny_encoder, Embed(**settings))
    assert resumed.ids == straight.ids
    assert np.array_equal(resumed.matrix, straight.matrix)


def test_another_draw_or_image_tower_is_embedded_anew(binary, tiny_encoder, fresh_encoder, tmp_path, encoded):
    def run(model, **limits):
        encoded.total = 0
        embed_benchmark(
            tmp_path / "cifar10",
            SETS.load("cifar10", binary, **limits),
            model,
            Embed(batch_size=8, workers=2, shard=64),
        )
        return encoded.total

    assert run(tiny_encoder) == 60
    assert run(tiny_encoder, limit=5) == 55
    assert run(fresh_encoder, limit=5) == 0  # the same weights
    with torch.no_grad():
        next(fresh_encoder.transformer().parameters()).add_(0.1)
    assert run(fresh_encoder, limit=5) == 0  # a text tower does not matter
    with torch.no_grad():
        next(fresh_encoder.image_tower.parameters()).add_(0.1)
    assert run(fresh_encoder, limit=5) == 55
    with pytest.raises(PcclipError, match="vectors of another model"):
        load_vectors(tmp_path / "cifar10", tiny_encoder)


def test_an_image_that_cannot_be_read_is_recorded(land, tiny_encoder, tmp_path):
    found = SETS.load("eurosat", land, limit=10, tune_limit=30)
    put(Path(found.pictures[7]), jpeg()[:150])
    vectors, bad = embed_benchmark(tmp_path / "eurosat", found, tiny_encoder, Embed(batch_size=8, workers=2, shard=16))
    assert bad.to_dict("records") == [
        {"id": found.images["id"][7], "path": found.pictures[7], "reason": "unreadable image (OSError)"}
    ]
    assert vectors.ids == [image for k, image in enumerate(found.images["id"]) if k != 7]
    assert vectors.paths == [image for k, image in enumerate(found.pictures) if k != 7]


def test_too_many_images_that_cannot_be_read_fail(land, tiny_encoder, tmp_path):
    found = SETS.load("eurosat", land, limit=10, tune_limit=30)
    for path in found.pictures[:3]:
        put(Path(path), b"")
    with pytest.raises(
        PcclipError,
        match=r"eurosat: 3 of 40 images cannot be read \(e\.g\. .*: empty file\), more "
        r"than 5%; unpack the set again",
    ):
        embed_benchmark(tmp_path / "eurosat", found, tiny_encoder, Embed(batch_size=8, workers=2, shard=16))
    with pytest.raises(PcclipError, match="has not finished"):
        finished(tmp_path / "eurosat")


@pytest.mark.parametrize("parts", [[], ["test", "train"], ["val", "train"], ["Validation", "Training_Set"]])
def test_a_folder_for_each_class(tmp_path, parts):
    for part in parts or [""]:
        for name in ("red_fox", "owl"):
            for number in (1, 2):
                place = tmp_path / part / name / "deep" / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4)).save(place)
        (tmp_path / part / "empty").mkdir()
        (tmp_path / part / "@eaDir" / "owl").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / part / "@eaDir" / "owl" / "1.png")
    found = SETS.load("folders", tmp_path)
    assert found.classes == ["empty", "owl", "red fox"]
    assert list(found.left_out.reason) == ["empty folder"] * max(1, len(parts))
    images = found.images
    assert images["split"].value_counts().to_dict() == ({"test": 4, "tune": 4} if parts else {"test": 4})
    assert [Path(path).parts[-3] for path in images.path] == [found.released[label] for label in images.label]


def test_a_class_whose_name_is_no_utf8(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        Image.new("RGB", (4, 4)).save(folder / "1.png")
    found = SETS.load("folders", tmp_path)
    assert len(found.left_out) == 0
    assert ",".join([*found.classes, *found.images["id"]]).encode()
    assert all(open_image(path).size == (4, 4) for path in found.images.path)
