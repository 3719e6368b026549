"""Composed image retrieval: three sets as they are published, and recall by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.files import picture, put
from helpers.planted import Fake
from helpers.public_sets import PublicSets

from pcclip import config as params
from pcclip.arithmetic import composed
from pcclip.arithmetic.texts import TextMemory
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError

COMPOSED = PublicSets("composed_retrieval")

# the sets in their public layouts


@pytest.fixture
def fashion_iq(tmp_path):
    for category in ("dress", "shirt", "toptee"):
        names = [f"B{category}{k}" for k in range(4)]
        for part in ("train", "val"):
            put(
                tmp_path / "captions" / f"cap.{category}.{part}.json",
                [{"candidate": names[0], "target": names[1], "captions": ["is red", "has longer sleeves."]}],
            )
        put(tmp_path / "image_splits" / f"split.{category}.val.json", names)
        for k, name in enumerate(names):
            picture(tmp_path / "images" / f"{name}.png", k)
    return tmp_path


def test_fashion_iq_searches_each_category_for_itself(fashion_iq):
    found = COMPOSED.load("fashion_iq", fashion_iq)
    assert len(found.items) == 3, "the training queries are not scored"
    assert list(found.images.groupby("gallery").size()) == [4, 4, 4]
    first = found.items.iloc[0]
    assert (first.start, first.right, first.text) == ("Bdress0", ("Bdress1",), "is red and has longer sleeves")
    assert found.start_is_candidate
    assert found.recalls == (10, 50)


def test_fashion_iq_without_lists_searches_what_is_asked_about(fashion_iq):
    for path in (fashion_iq / "image_splits").iterdir():
        path.unlink()
    assert list(COMPOSED.load("fashion_iq", fashion_iq).images.groupby("gallery").size()) == [2, 2, 2]


@pytest.fixture
def cirr(tmp_path):
    names = [f"dev-{k}-0-img0" for k in range(8)]
    put(tmp_path / "image_splits" / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in names})
    put(
        tmp_path / "captions" / "cap.rc2.val.json",
        [
            {
                "pairid": 1,
                "reference": names[0],
                "target_hard": names[3],
                "target_soft": {names[3]: 1.0},
                "caption": "remove  all but one dog.",
                "img_set": {"id": 1, "members": names[:6]},
            },
            {
                "pairid": 2,
                "reference": names[4],
                "target_hard": names[5],
                "caption": "add a person",
                "img_set": {"id": 1, "members": names[:6]},
            },
        ],
    )
    for k, name in enumerate(names):
        picture(tmp_path / "img_raw" / "dev" / f"{name}.png", k)
    return tmp_path


def test_cirr(cirr):
    found = COMPOSED.load("cirr", cirr)
    assert len(found.images) == 8
    assert not found.start_is_candidate
    assert found.recalls == (1, 5, 10, 50)
    first = found.items.iloc[0]
    assert (first.start, first.right, first.text) == ("dev-0-0-img0", ("dev-3-0-img0",), "remove all but one dog")
    assert len(first.members) == 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"reference": "dev-0-0-img0", "caption": "x"}], "no reference or no target"),
        ([{"reference": "dev-0-0-img0", "target_hard": "dev-1-0-img0", "caption": " . "}], "no text"),
        ([{"reference": "dev-0-0-img0", "target_hard": "elsewhere", "caption": "x"}], "missing file"),
        (["nothing"], "no reference or no target"),
    ],
)
def test_rows_of_cirr_that_cannot_be_used_are_named(cirr, content, reason):
    whole = json.loads((cirr / "captions" / "cap.rc2.val.json").read_text())
    put(cirr / "captions" / "cap.rc2.val.json", whole + content)
    with pytest.raises(PcclipError, match=rf"1 of 11 rows are bad \(1 {reason}, e.g. .*\), more than 5%"):
        COMPOSED.load("cirr", cirr)
    found = COMPOSED.load("cirr", cirr, max_bad=0.5)
    assert list(found.left_out.reason) == [reason]
    assert found.left_out.path[0] == "cap.rc2.val.json, entry 3"


@pytest.fixture
def simat(tmp_path):
    """Three triplets of two images each."""
    db = tmp_path / "simat_db"
    put(
        db / "triplets.csv",
        "region_id,subj,rel,obj,dataset_id\n"
        + "".join(
            f"{k},{subj},sitting on a,bed,{5 - row}\n"
            for row, (k, subj) in enumerate(((7, "dog"), (3, "dog"), (9, "cat"), (4, "cat"), (5, "man"), (6, "man")))
        ),
    )
    head = ",transfo_id,region_id,field,value,target,norm,query_ids,target_ids,dataset_id,norm2,is_test\n"
    put(
        db / "transfos.csv",
        head + "0,0,7,subj,dog,cat,1,0,1,0,4,True\n1,1,9,subj,cat,man,1,1,2,2,1,True\n"
        "2,2,9,subj,cat,dog,1,1,0,2,1,False\n",
    )
    for k, subj in ((7, "dog"), (3, "dog"), (9, "cat"), (4, "cat"), (5, "man"), (6, "man")):
        picture(db / "images" / f"A {subj} sitting on a bed" / f"{k}.jpg", 20 * k)
    return tmp_path


def test_simat(simat):
    found = COMPOSED.load("simat", simat)
    assert len(found.images) == 6
    rows = [tuple(row) for row in found.items[["start", "right", "text", "before", "weight"]].itertuples(index=False)]
    assert rows == [("7", ("9", "4"), "cat", "dog", 0.5), ("9", ("5", "6"), "man", "cat", 1.0)]


def test_empty_cells_of_simat_are_bad_rows(simat):
    file = simat / "simat_db" / "transfos.csv"
    file.write_text(
        file.read_text() + "3,3,4,subj,cat,dog,1,1,,2,1,True\n4,4,4,subj,cat,dog,1,1,0.5,2,1,True\n"
        "5,5,4,subj,cat,dog,1,1,0,2,,True\n"
    )
    with pytest.raises(PcclipError, match=r"3 of 11 rows are bad \(3 unknown image or triplet, e.g."):
        COMPOSED.load("simat", simat)
    assert list(COMPOSED.load("simat", simat, max_bad=0.6).items.right) == [("9", "4"), ("5", "6")]


def test_simat_with_its_oracle(simat):
    scores = torch.zeros(6, 3)
    scores[5 - 2, 1] = scores[5 - 0, 1] = 0.9  # OSCAR sees a cat in one of the cats and in a dog, by dataset_id
    scores[5 - 4, 2] = 0.6
    torch.save(scores, simat / "simat_db" / "oscar_similarity_matrix.pt")
    assert list(COMPOSED.load("simat", simat).items.right) == [("7", "9"), ("5",)]
    torch.save(torch.zeros(5, 3), simat / "simat_db" / "oscar_similarity_matrix.pt")
    with pytest.raises(PcclipError, match="should be a tensor of 6 images x 3 triplets"):
        COMPOSED.load("simat", simat)


def test_simat_as_its_repository_makes_it_now(simat):
    for photo in list((simat / "simat_db" / "images").glob("*/*.jpg")):
        picture(simat / "simat_db" / "images" / "images" / f"{photo.stem}.png", 9)
        photo.unlink()
    assert list(COMPOSED.load("simat", simat).items.right) == [("9", "4"), ("5", "6")]
    table = simat / "simat_db" / "triplets.csv"
    table.write_text(table.read_text().replace("dataset_id", "number"))
    torch.save(torch.zeros(6, 3), simat / "simat_db" / "oscar_similarity_matrix.pt")
    with pytest.raises(PcclipError, match="triplets.csv: has no dataset_id"):
        COMPOSED.load("simat", simat)


def test_an_oracle_that_would_run_code_is_refused(simat):
    torch.save({"run": Path}, simat / "simat_db" / "oscar_similarity_matrix.pt")
    with pytest.raises(PcclipError, match=r"oscar_similarity_matrix.pt: (cannot be read|should be)"):
        COMPOSED.load("simat", simat)


# recall

AXES = np.eye(6, dtype=np.float32)  # six photos at right angles, p0 to p5


def given(rows: list[dict], start_is_candidate: bool = False, recalls=(1, 2)) -> Benchmark:
    queries = pd.DataFrame([{"before": "", "gallery": "g", "members": (), "weight": 1.0, **row} for row in rows])
    images = pd.DataFrame({"id": [f"p{k}" for k in range(6)], "path": [f"/p{k}.png" for k in range(6)], "gallery": "g"})
    return Benchmark("made", "", images, queries, recalls=recalls, start_is_candidate=start_is_candidate)


def recalls(made: Benchmark, texts: dict, alphas=(0.0, 1.0, float("inf"))) -> dict:
    vectors = Vectors(list(made.images["id"]), list(made.images.path), AXES)
    found = composed.scored(made, vectors, TextMemory(Fake(texts)), list(alphas), (50, 0))
    return {key: round(one.value, 6) for key, one in found.items()}


def test_image_text_and_both():
    made = given([{"start": "p0", "right": ("p3",), "text": "to 3"}, {"start": "p1", "right": ("p4",), "text": "to 5"}])
    found = recalls(made, {"to 3": AXES[3], "to 5": AXES[5] + 0.5 * AXES[4]})
    assert found["f(text)", 0.0, "recall@1"] == 0, "the image alone finds itself, and that is no answer"
    assert found["f(text)", 1.0, "recall@1"] == 0.5
    assert found["f(text)", 1.0, "recall@2"] == 1
    assert found["f(text)", float("inf"), "recall@1"] == 0.5


def test_the_start_as_a_candidate_stands_in_the_way():
    made = given([{"start": "p0", "right": ("p3",), "text": "to 3"}], start_is_candidate=True)
    found = recalls(made, {"to 3": AXES[3]}, (0.5, 2.0))
    assert found["f(text)", 0.5, "recall@1"] == 0
    assert found["f(text)", 0.5, "recall@2"] == 1
    assert found["f(text)", 2.0, "recall@1"] == 1


def test_a_tie_is_not_found():
    made = given([{"start": "p0", "right": ("p3",), "text": "nothing"}], recalls=(1, 5))
    found = recalls(made, {"nothing": np.ones(6)}, (1.0,))
    assert found["f(text)", 1.0, "recall@1"] == 0
    assert found["f(text)", 1.0, "recall@5"] == 1, "all five others are tied"


def test_a_query_without_an_answer_is_not_found_in_a_small_gallery():
    made = given(
        [{"start": "p0", "right": ("p0",), "text": "to 3"}, {"start": "p1", "right": ("p3",), "text": "to 3"}],
        recalls=(1, 50),
    )
    assert recalls(made, {"to 3": AXES[3]}, (1.0,))["f(text)", 1.0, "recall@50"] == 0.5


def test_members_are_a_gallery_of_their_own():
    made = given([{"start": "p0", "right": ("p3",), "text": "to 5 or 3", "members": ("p0", "p2", "p3")}])
    found = recalls(made, {"to 5 or 3": AXES[5] + 0.5 * AXES[3]}, (1.0,))
    assert found["f(text)", 1.0, "recall@1"] == 0
    assert found["f(text)", 1.0, "subset recall@1"] == 1
    assert {name for _, _, name in found} == {"recall@1", "recall@2", *(f"subset recall@{k}" for k in (1, 2, 3))}


def test_any_right_image_will_do_and_queries_have_weights():
    made = given(
        [
            {"start": "p0", "right": ("p3", "p4"), "text": "to 4", "weight": 3.0},
            {"start": "p1", "right": ("p2",), "text": "to 4", "weight": 1.0},
        ]
    )
    assert recalls(made, {"to 4": AXES[4]}, (1.0,))["f(text)", 1.0, "recall@1"] == 0.75


def test_what_is_replaced_gives_two_more_forms():
    made = given([{"start": "p0", "right": ("p3",), "text": "a cat", "before": "a dog"}])
    texts = {
        "a cat": AXES[3] + 2 * AXES[5],
        "a dog": 2 * AXES[5],
        "The first image shows a cat, while the second image shows a dog.": AXES[3],
    }
    found = recalls(made, texts, (1.0,))
    assert found["f(text)", 1.0, "recall@1"] == 0, "what both words share leads astray"
    assert found["f(text) - f(before)", 1.0, "recall@1"] == 1
    assert found["f(difference)", 1.0, "recall@1"] == 1


def test_random_queries_are_right_as_often_as_chance(rng):
    rows = [{"start": "p0", "right": (f"p{1 + k % 5}",), "text": f"text {k}"} for k in range(1500)]
    texts = {f"text {k}": rng.normal(size=6) for k in range(1500)}
    found = recalls(given(rows), texts, (float("inf"),))
    assert found["f(text)", float("inf"), "recall@1"] == pytest.approx(1 / 5, abs=0.04)
    assert found["f(text)", float("inf"), "recall@2"] == pytest.approx(2 / 5, abs=0.04)


def test_a_model_scores_a_set_from_its_files(cirr, tiny_encoder, tmp_path):
    config = params.check(
        {
            "outputs": str(tmp_path / "out"),
            "evaluate": {"bootstrap": 100},
            "arithmetic": {"composed": {"cirr": {"path": str(cirr)}}},
        }
    )
    models = {"base": TextMemory(tiny_encoder)}
    table = composed.table(config, composed.load(config), models, [0.0, 1.0, float("inf")])
    columns = ["dataset", "model", "form", "alpha", "metric", "value", "ci_low", "ci_high", "n", "detectable"]
    assert list(table.columns) == columns
    assert set(table.dataset) == {"cirr"}
    assert len(table) == 3 * (4 + 3)
    assert (table.n == 2).all()
    whole = table[table.metric == "recall@10"]
    assert (whole.value == 1).all(), "there are only seven to choose from"
    nothing = params.check({"outputs": str(tmp_path)})
    assert composed.table(nothing, composed.load(nothing), models, [1.0]).empty
