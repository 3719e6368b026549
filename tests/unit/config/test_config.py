"""Parameters: what is accepted, what is refused and how, and that notebooks and parameter files say the same."""

import ast
import contextlib
import re
import tomllib
from itertools import pairwise
from typing import get_args

import nbformat
import pytest
import yaml
from helpers.runs import ROOT
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError

from pcclip import config as params
from pcclip.errors import PcclipError
from pcclip.ranking.axes import ESTIMATORS
from pcclip.workbook.first_cell import from_notebook
from pcclip.workbook.sweep import read_sweep

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FILES = sorted((ROOT / "params").glob("*.yaml"))
RUN_NOTEBOOKS = [path for path in NOTEBOOKS if not path.name.startswith("07")]  # 07 reads a sweep's table


def name_of(path) -> str:
    return path.name


def written(tmp_path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("text", "number"), [("1e-8", 1e-8), ("5e-5", 5e-5), ("2.5E+3", 2500.0), ("1", 1.0)])
def test_numbers_of_yaml_become_floats(tmp_path, text, number):
    lr = params.read(written(tmp_path, f"finetune: {{lr: {text}}}")).finetune.lr
    assert lr == number
    assert isinstance(lr, float)


def test_defaults_are_the_papers():
    finetune = params.check({}).finetune
    assert (finetune.lr, finetune.gamma, finetune.epochs, finetune.batch_size) == (1e-8, 0.9, 20, 512)
    assert (finetune.temperature, finetune.optimizer, finetune.tune) == (1.0, "adam", "transformer")
    assert (finetune.objective, finetune.schedule, finetune.swap) == ("infonce", "exponential", False)
    assert params.check({}).model == "ViT-L-14:datacomp_xl_s13b_b90k"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nrun: x\nseed: 2\n", "the key 'seed' is in line 1 and again in line 3"),
        ("seed: 1\r\n'seed': 2\r\n", "the key 'seed' is in line 1 and again in line 2"),
        ("finetune: {lr: 0.1,\n  lr: 0.2}\n", "the key 'lr' is in line 1 and again in line 2"),
        ("finetune:\n  <<: {lr: 0.1}\n  <<: {lr: 0.2}\n", "the key '<<' is in line 2 and again in line 3"),
        ("sweep:\n  grid: {seed: [1]}\n  grid: {seed: [2]}\n", "the key 'grid' is in line 2 and again in line 3"),
        ("finetune: &a\n  lr: *a\n", "stand for more than 20,000 values"),
        (
            "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqr")),
            "more than 20,000",
        ),
        ("a: " + "[" * 20_000, "more than 100 brackets are open at once"),
        ("a: " + "{a: " * 9_000, "more than 100 brackets are open at once"),
        ("run: 2001-99-99\n", "line 1: 2001-99-99 is no timestamp; correct or quote it"),
        ("seed: 1\nrun: 2001-12-14t21:59:43-99:00\n", "line 2: 2001-12-14t21:59:43-99:00 is no timestamp"),
        ("seed: " + "9" * 5000, "is no int; correct or quote it"),
        ('run: "a\\0b"\n', "line 1 has a NUL character; remove it"),
        ("run: x\0\n", "not valid YAML"),
        ("run: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("#" * 60_000, "over 50 kB"),
        ("", "found NoneType"),
        ("on: 1\n", "Keys should be strings"),
        ("se[ed: 1\n", "se[ed: unknown key; did you mean seed?"),
        ("finetune: {'[lr]': 1}\n", "finetune.[lr]: unknown key; did you mean lr?"),
    ],
)
def test_a_file_that_cannot_mean_a_run_is_one_line(tmp_path, text, message):
    """Also one whose reading would take seconds or gigabytes."""
    path = tmp_path / "p.yaml"
    path.write_text(text, newline="")
    with pytest.raises(PcclipError, match=re.escape(message)) as error:
        read_sweep(path)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 700


def test_paths_that_the_system_cannot_look_up():
    with pytest.raises(PcclipError, match=r"cannot be looked up \(File name too long\)"):
        params.resolve("a" * 300)
    assert params.resolve("~nosuchuser/x").name == "x"


def test_unknown_key_names_file_key_allowed_names_and_a_guess(tmp_path):
    path = written(tmp_path, "finetune: {epoch: 3}")
    with pytest.raises(PcclipError) as error:
        params.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: finetune.epoch: unknown key")
    assert "did you mean epochs?" in message
    assert ", ".join(sorted(params.Finetune.model_fields)) in message


def test_unknown_key_inside_a_named_attribute_lists_that_blocks_keys():
    texts = dict.fromkeys(("more", "less", "comparison", "comparison_swapped"), "x")
    says = r"evaluate\.attributes\.size\.mor: .* allowed: column, comparison, .* less, more$"
    with pytest.raises(PcclipError, match=says):
        params.check({"evaluate": {"attributes": {"size": {**texts, "mor": "y"}}}})


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"seed": True}, "seed = True"),
        ({"seed": "3"}, "seed = '3'"),
        ({"seed": 1.0}, "seed = 1.0"),
        ({"model": 3}, "model = 3"),
        ({"finetune": {"lr": "fast"}}, "finetune.lr = 'fast'"),
        ({"finetune": {"lr": True}}, "finetune.lr = True"),
        ({"finetune": {"swap": 1}}, "finetune.swap = 1"),
        ({"finetune": {"keep_epochs": 10}}, "finetune.keep_epochs = 10"),
        ({"data": None}, "data = None"),
        ({"generate": {"filters": "two_sides"}}, "generate.filters = 'two_sides'"),
    ],
)
def test_wrong_type(values, key):
    with pytest.raises(PcclipError, match=f"^here: {re.escape(key)}: Input should be"):
        params.check(values, where="here")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"finetune": {"lr": -1e-8}}, "finetune.lr"),
        ({"finetune": {"lr": ".inf"}}, "finetune.lr"),
        ({"finetune": {"lr": float("nan")}}, "finetune.lr"),
        ({"finetune": {"gamma": 1.1}}, "finetune.gamma"),
        ({"finetune": {"batch_size": 1}}, "finetune.batch_size"),
        ({"finetune": {"optimizer": "sgd"}}, "finetune.optimizer"),
        ({"finetune": {"keep_epochs": [0]}}, "finetune.keep_epochs.0"),
        ({"data": {"held_out": 1.5}}, "data.held_out"),
        ({"data": {"held_out": 0}}, "data.held_out"),
        ({"data": {"source": "imagenet"}}, "data.source"),
        ({"data": {"source": "folder"}}, "data.path"),
        ({"evaluate": {"alpha": 2}}, "evaluate.alpha"),
        ({"evaluate": {"zero_shot_prompt": "a photo"}}, "zero_shot_prompt must contain {}"),
        ({"evaluate": {"zero_shot_prompt": "{:>999999999}"}}, "zero_shot_prompt must contain {}"),
        ({"evaluate": {"zero_shot_prompt": "a {} of a {}"}}, "zero_shot_prompt must contain {} once"),
        ({"run": "a" * 300}, "String should match pattern"),
        ({"seed": -1}, "seed"),
        ({"evaluate": {"peers": {"base": "x"}}}, "peers: 'base' is the name of another row"),
        (
            {"evaluate": {"peers": {"mine": "x", "other": "y", "finetuned": "z"}}},
            "'finetuned' is the name of another row",
        ),
        ({"evaluate": {"labelled": {"cifar10": {"tasks": ["retrieval"]}}}}, "evaluate.labelled.cifar10.tasks.0"),
        ({"evaluate": {"labelled": {"cifar10": {"limit": 0}}}}, "evaluate.labelled.cifar10.limit"),
        ({"evaluate": {"labelled": {"cifar10": {"texts": "gpt"}}}}, "evaluate.labelled.cifar10.texts"),
        ({"evaluate": {"changes": {"clevr": {"path": "x"}}}}, "evaluate.changes.clevr"),
        ({"evaluate": {"changes": {"compbench": {}}}}, "evaluate.changes.compbench.path: missing"),
        ({"evaluate": {"changes": {"compbench": {"path": "x", "limit": 0}}}}, "compbench.limit"),
        ({"evaluate": {"relative": {"osr": {"max_bad": 1.5}}}}, "evaluate.relative.osr.max_bad"),
        ({"tuned": "../x"}, "tuned"),
        ({"run": "../x"}, "run"),
        ({"run": "a//b"}, "run"),
        ({"run": "a/../b"}, "run"),
        ({"reuse": "/a"}, "reuse"),
        ({"run": ".hidden"}, "run"),
        ({"run": ""}, "run"),
    ],
)
def test_impossible_value(values, key):
    with pytest.raises(PcclipError, match="^here: ") as error:
        params.check(values, where="here")
    assert key in str(error.value)


def test_an_unknown_key_of_a_labelled_set_lists_the_keys_it_may_have():
    says = r"evaluate\.labelled\.cifar10\.limits: unknown key; did you mean limit\? allowed: .* tune_limit$"
    with pytest.raises(PcclipError, match=says):
        params.check({"evaluate": {"labelled": {"cifar10": {"limits": 3}}}})


def test_what_is_left_out_of_a_labelled_set():
    evaluate = params.check({"evaluate": {"labelled": {"cifar10": {"tune_limit": 0}}}}).evaluate
    found = evaluate.labelled["cifar10"]
    assert (found.path, found.limit, found.tune_limit, found.texts) == (None, None, 0, "template")
    assert "extended" not in found.tasks, "it needs someone who writes"


def test_long_values_and_many_mistakes_are_cut():
    with pytest.raises(PcclipError) as error:
        params.check({"seed": ["x"] * 10_000, **{f"key{k}": k for k in range(1000)}})
    assert len(str(error.value)) < 10_000


@pytest.mark.parametrize("key", ["zzz", "sed", "finetune.zzz", "evaluate.teacher.zzz", "slurm.notebooks.embed.zzz"])
def test_an_unknown_key_is_answered_with_the_nearest(key):
    *blocks, name = key.split(".")
    values: dict = {name: 1}
    for block in reversed(blocks):
        values = {block: values}
    with pytest.raises(PcclipError, match=rf"{re.escape(key)}: unknown key; did you mean \w+\? allowed: "):
        params.check(values)


def test_blocks_are_frozen():
    config = params.check({})
    with pytest.raises(ValidationError, match="frozen"):
        config.run = "other"
    with pytest.raises(ValidationError, match="frozen"):
        config.finetune.lr = 1.0


def test_results_go_below_the_root_or_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    assert params.check({"run": "mine"}).folder == tmp_path / "outputs" / "mine"
    assert params.check({"run": "mine", "outputs": "/data"}).folder.as_posix() == "/data/mine"


@pytest.mark.parametrize(
    ("reuse", "tuned", "source", "finetuned"),
    [
        (None, None, "mine", "mine"),
        ("early", None, "early", "mine"),
        (None, "late", "late", "late"),
        ("early", "late", "early", "late"),
    ],
)
def test_where_the_stages_are(tmp_path, reuse, tuned, source, finetuned):
    config = params.check({"run": "mine", "outputs": str(tmp_path), "reuse": reuse, "tuned": tuned})
    assert (config.folder, config.home) == (tmp_path / "mine", tmp_path / "mine")
    assert (config.source_folder, config.tuned_folder) == (tmp_path / source, tmp_path / finetuned)


def test_the_estimators_are_those_of_the_package():
    assert get_args(params.Rank.model_fields["estimator"].annotation) == ESTIMATORS


def test_a_sweep_has_models_of_its_own(tmp_path):
    """Its members would else do 01 and 02 anew in the folder of the run whose model they evaluate."""
    path = written(tmp_path, "tuned: demo\nsweep: {grid: {seed: [0, 1]}}")
    with pytest.raises(PcclipError, match="tuned = 'demo': a sweep has models of its own; leave tuned or sweep out"):
        read_sweep(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_parameter_file_is_valid(path):
    assert all(member.config.run for member in read_sweep(path))


def test_files_that_reuse_a_run_say_what_it_says():
    """What 01 and 02 read is told again in them, for those who run one notebook by hand."""
    files = {member.config.run: member.config for path in FILES for member in read_sweep(path) if not member.swept}
    for key, blocks in (
        ("reuse", ("seed", "model", "data", "generate", "embed")),
        ("tuned", ("seed", "model", "data", "generate", "embed", "finetune")),
    ):
        reusing = [config for config in files.values() if getattr(config, key)]
        assert reusing
        for config in reusing:
            other = files[getattr(config, key)]
            for block in blocks:
                assert getattr(config, block) == getattr(other, block), f"{config.run}: {block}"


def test_the_splits_are_the_demos_recipe():
    demo = params.read(ROOT / "params" / "demo.yaml")
    for member in read_sweep(ROOT / "params" / "demo_splits.yaml"):
        assert member.config.seed not in range(6)  # the demo's, and those that its recipe was chosen on
        for block in ("model", "data", "embed", "finetune"):
            assert getattr(member.config, block) == getattr(demo, block), block
        assert member.config.generate == demo.generate.model_copy(update={"held_out_pairs": 20})
        assert member.config.evaluate == demo.evaluate.model_copy(
            update={"bootstrap": 500, "questions": {}, "fixed": None}
        )


# ---- notebooks -------------------------------------------------------------------------------------------------------


def code_cells(path, parameters: bool) -> list[str]:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return [c.source for c in cells if ("parameters" in c.metadata.get("tags", [])) == parameters]


def values_of(path) -> dict:
    """What a notebook's parameters cell assigns."""
    names = {}
    exec(code_cells(path, parameters=True)[0], names)
    names.pop("__builtins__")
    return names


def test_there_are_six_notebooks_of_a_run_and_one_that_compares():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


def test_the_comparing_notebook_is_told_which_sweep():
    assert set(values_of(NOTEBOOKS[-1])) == {"run", "outputs", "variant_of_reference"}


@pytest.mark.parametrize("path", RUN_NOTEBOOKS, ids=name_of)
def test_a_notebook_by_hand_is_the_demo(path):
    """The parameters cell names a file, and papermill knows what it assigns."""
    import papermill

    assert len(code_cells(path, parameters=True)) == 1
    assert set(papermill.inspect_notebook(path)) == set(values_of(path)) == {"parameters", "changes"}
    assert from_notebook(values_of(path)) == params.read(ROOT / "params" / "demo.yaml")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


TAUGHT = {"03": ["FunctionDef", "For"]}  # an objective of one's own


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_only_calls_and_shows_but_where_it_teaches(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While)
    sources = code_cells(path, parameters=False)
    assert max(len(source.splitlines()) for source in sources) <= 22
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    assert [type(node).__name__ for node in nodes if isinstance(node, kinds)] == TAUGHT.get(path.name[:2], [])
    untagged = [c for c in nbformat.read(path, as_version=4).cells if "teaches" not in c.metadata.get("tags", [])]
    trees = [ast.parse(cell.source) for cell in untagged if cell.cell_type == "code"]
    assert not any(isinstance(node, kinds) for tree in trees for node in ast.walk(tree))


# ---- environment.yml beside pyproject.toml ---------------------------------------------------------------------------

CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # conda's name -> PyPI's, where they differ


def conda_range(spec: str) -> tuple[str, SpecifierSet]:
    """'numpy>=2', 'python=3.12' or 'conda-forge::scipy 1.15' -> PyPI-style name and range ('=' takes a prefix)."""
    name, text = re.fullmatch(r"(?:[\w-]+::)?([\w.-]+)\s*(.*)", spec.strip()).groups()
    name = name.lower().replace("_", "-")
    ranges = []
    for part in filter(None, text.replace(" ", "").split(",")):
        operator, version = re.fullmatch(r"([<>=!~]*)(.+?)", part).groups()
        prefix = operator in ("", "=") and not version.endswith("*")
        ranges.append(f"{'==' if operator in ('', '=') else operator}{version}{'.*' if prefix else ''}")
    return CONDA_NAMES.get(name, name), SpecifierSet(",".join(ranges))


def test_environment_is_in_step_with_the_project():
    file = ROOT / "environment.yml"
    if not file.is_file():
        pytest.skip("no environment.yml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"python": SpecifierSet(project["requires-python"])}
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, project["dependencies"] + extras):
        needed[requirement.name.lower().replace("_", "-")] = requirement.specifier

    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    pip = [line for item in dependencies if isinstance(item, dict) for line in item["pip"]]
    assert any(re.match(r"(-e |--editable )?(\.($|\[|/)|pcclip)", line) for line in pip), "pip does not install pcclip"
    conda = dict(conda_range(item) for item in dependencies if isinstance(item, str))
    assert "python" in conda
    given = list(conda.items())
    for line in pip:
        with contextlib.suppress(InvalidRequirement):  # options and paths
            given.append((Requirement(line).name.lower().replace("_", "-"), Requirement(line).specifier))
    for name, permitted in given:
        for item in permitted if name in needed else ():
            if item.operator in (">=", "==", "~="):
                assert needed[name].contains(item.version.removesuffix(".*")), f"{name}{item}, needs {needed[name]}"
