"""The parameter files of the paper's scale, run whole: only paths, models and numbers of questions are swapped for tiny ones.

Their notebooks run in this process.
"""

import pandas as pd
import pytest
import yaml
from helpers.animals import make_zoo
from helpers.coco import coco_side
from helpers.in_process import execute
from helpers.llm_server import serving
from helpers.runs import ROOT
from helpers.tiny_llm import save_llm

from pcclip.runs.stage import read_manifest
from pcclip.workbook import notebooks as workbook

NOUNS = {"train2017": "cat dog cow pig horse sheep".split(), "val2017": "hen fox duck goat bear".split()}
PLACES = "on a mat|near the house|under a tree|by the sea|in a green field|behind the old fence".split("|")
WORDS = (
    "The first image shows while second large small brown white green house tree water photo picture person bird "
    "standing sitting running bright dark many wooden round heavy light table chair window garden street yellow "
    "orange purple little young quiet indoor outdoor mountain river summer winter morning evening"
).split()
DIFFERENCES = {"difference_classification", "difference_order", "difference_centred"}
RECALL = {"recall_at_1", "recall_at_5", "recall_at_10"}
MODELS = ["base", "finetuned", "alpha=0.25", "alpha=0.5", "alpha=0.75"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_model) -> dict:
    """What takes the place of the paper's data and models."""
    folder = tmp_path_factory.mktemp("paper")
    for side, nouns in NOUNS.items():
        coco_side(
            folder / "coco",
            side,
            {
                40 * k + 7 * len(side): [f"A {noun} {PLACES[k]}.", f"One {noun} stands {PLACES[k - 1]}."]
                for k, noun in enumerate(nouns)
            },
        )
    llm = save_llm(folder / "llm", WORDS, spread=0.02)  # near even chances: an end after about fifty words
    return {
        "outputs": str(folder / "outputs"),
        "model": tiny_model,
        "data": {"path": str(folder / "coco")},
        "generate": {"llm": str(llm)},
    }


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """run(name, **swaps) runs params/NAME.yaml. Returns the run's folder and the notebooks that were run."""

    def call(name, **swaps):
        values = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
        for key, change in (tiny | swaps).items():
            values[key] = values[key] | change if isinstance(change, dict) else change
        path = tmp_path_factory.mktemp("params") / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workbook, "execute", execute)
            folder = workbook.run(path)
        return folder, [notebook.name[:2] for notebook in sorted(folder.glob("*.ipynb"))]

    return call


@pytest.fixture(scope="module")
def paper(run):
    return run("paper_coco")[0]


def metrics(folder) -> pd.DataFrame:
    table = pd.read_csv(folder / "metrics.csv")
    assert list(dict.fromkeys(table.model)) == MODELS
    assert table.value.between(0, 1).all()
    return table


def counts(folder, stage) -> dict:
    return read_manifest(folder / stage)["counts"]


def test_the_papers_file_runs_through_all_five_notebooks(paper):
    assert [path.stem for path in sorted(paper.glob("*.ipynb"))] == list(workbook.NOTEBOOKS)
    assert set(metrics(paper).dataset) == {"coco/template", "coco/captions", "coco/images"}
    made = counts(paper, "01_generate")
    assert made["asked"] == 15 + 10  # every pair of the training images, and of the held-out ones
    assert made["rewrites"] == 12
    assert counts(paper, "03_finetune")["train"] == made["kept_train"] > 0.2 * 15
    assert (paper / "03_finetune" / "epoch-010" / "model.json").is_file()
    table = pd.read_parquet(paper / "01_generate" / "comparisons.parquet")
    kept = table[table.verdict == "kept"]
    assert (kept.difference.str.len() >= 60).all()
    assert set(table.verdict) <= {"kept", "sixty", "answered"}


@pytest.mark.parametrize(("name", "texts"), [("paper_coco_mse", "kept_train"), ("paper_coco_rewrites", "rewrites")])
def test_a_file_that_reuses_it_runs_the_last_three(paper, run, name, texts):
    def manifests():
        return [(paper / stage / "manifest.json").read_bytes() for stage in ("01_generate", "02_embed")]

    before = manifests()
    folder, notebooks = run(name)
    assert folder.parent == paper
    assert notebooks == ["03", "04", "05"]
    assert manifests() == before
    assert not list(folder.glob("0[12]_*"))
    assert set(metrics(folder).task) == DIFFERENCES | RECALL
    trained, made = counts(folder, "03_finetune")["train"], counts(paper, "01_generate")[texts]
    assert trained == made if texts == "kept_train" else 0.2 * made < trained <= made


def test_the_caption_baseline_trains_on_every_caption(run):
    folder, notebooks = run("paper_coco_captions", generate={})
    assert notebooks == ["01", "02", "03", "04", "05"]
    assert counts(folder, "03_finetune")["train"] == 12
    assert set(metrics(folder).task) == DIFFERENCES | RECALL


def test_the_papers_tables_have_every_model_as_released_and_corrected_beside_the_papers_figures(paper, run, tmp_path):
    """Sets and models are tiny; everything else is the file's."""
    names = {"COCO captions": "paper_coco_captions", "rewrites": "paper_coco_rewrites"}
    peers = {
        name: str(run(file, **({"generate": {}} if "captions" in file else {}))[0]) for name, file in names.items()
    }
    values = yaml.safe_load((ROOT / "params" / "paper_tables.yaml").read_text())["evaluate"]
    zoo = {"path": str(make_zoo(tmp_path)), "texts": "template", "tasks": ["zero_shot", "differences", "distances"]}
    own = {"labelled": {"awa2": zoo}, "peers": peers, "pairs": 20, "structures": 4, "bootstrap": 100}
    folder, notebooks = run("paper_tables", evaluate=values | own)
    assert notebooks == ["04"]
    table = pd.read_csv(folder / "metrics.csv")
    assert {"base", "finetuned", "COCO captions", "rewrites"} == set(table.model)
    assert set(table[table.dataset == "awa2/attributes"].protocol) == {"as_released", "corrected"}
    structures = table[table.dataset.str.contains("/structures/held_out/")]
    assert set(structures.dataset.str.split("/").str[0]) == {"coco", "awa2"}
    beside = pd.read_csv(folder / "04_evaluate" / "published.csv")
    animals = beside[beside.dataset == "awa2/attributes"]
    assert len(animals) == 4
    assert animals.ours.notna().all()
    assert beside[beside.dataset != "awa2/attributes"].ours.isna().all()


def test_ours_runs_with_a_server(run):
    few = {"attribute_pairs": 40, "thing_pairs": 20, "held_out_attribute_pairs": 10}
    with serving() as server:
        folder, notebooks = run("ours_coco", generate={"llm": "tiny", "base_url": server.url, **few})
    assert notebooks == ["01", "02", "03", "04", "05"]
    made = counts(folder, "01_generate")
    assert made["kept"] == made["asked"] == 25
    assert counts(folder, "03_finetune")["verdicts"] > 0
    assert {"coco/template", "coco/llm"} <= set(metrics(folder).dataset)
