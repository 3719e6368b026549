"""The house: imports go one way, down the floors; names say something; functions and the package stay small."""

import ast
import io
import re
import subprocess
import tokenize
from functools import cache
from graphlib import TopologicalSorter
from typing import NamedTuple

import pytest
from helpers.runs import ROOT

FLOORS = [  # from the ground up; a file imports from its own floor and from those below
    {"errors", "config", "images", "plots", "torchvision_shim"},
    {"stats"},
    {"runs"},
    {"data"},
    {"encoders"},
    {"benchmarks"},
    {"comparisons"},
    {"embedding"},
    {"finetuning"},
    {"arithmetic"},
    {"ranking"},
    {"evaluation"},
    {"workbook"},
    {"cli"},
]


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class File(NamedTuple):
    path: str
    text: str
    nodes: list[ast.AST]


@cache
def files(folder: str) -> list[File]:
    """Every Python file of a folder, read and parsed once."""
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf8") for path in (ROOT / folder).rglob("*.py")}
    return [File(path, text, list(ast.walk(ast.parse(text)))) for path, text in sorted(texts.items())]


def nodes(folder: str, kinds) -> list[tuple[str, ast.AST]]:
    """(file:line, node) of every node of these kinds."""
    return [
        (f"{file.path}:{node.lineno}", node) for file in files(folder) for node in file.nodes if isinstance(node, kinds)
    ]


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of pcclip that it imports, wherever in the file; without the public surface."""
    modules = {
        file.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): file for file in files("pcclip")
    }
    targets = {
        name: {
            whole if (whole := f"{node.module}.{alias.name}") in modules else node.module
            for node in file.nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pcclip")
            for alias in node.names
        }
        for name, file in modules.items()
    }
    return {name: targets[name] - {"pcclip"} for name in targets if name != "pcclip"}


def floor(module: str) -> int:
    place = module.split(".")[1]
    return next(number for number, names in enumerate(FLOORS) if place in names)


def test_imports_go_down():
    up = [
        f"{name} -> {target}"
        for name, targets in imports().items()
        for target in targets
        if floor(target) > floor(name)
    ]
    assert not up


def test_no_circles():
    order = list(TopologicalSorter(imports()).static_order())  # raises CycleError
    assert order.index("pcclip.errors") < order.index("pcclip.cli")


def test_every_folder_has_one_floor():
    names = [name for names in FLOORS for name in names]
    there = {
        path.stem for path in (ROOT / "pcclip").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert len(names) == len(set(names))
    assert there - {"__init__"} == set(names)


VAGUE = {"found", "told", "asked", "said", "given", "which", "one", "this", "what", "whole", "there"}
FIVE = 5
PUBLIC = {"rank"}  # README's public functions may have more arguments
MOST_STATEMENTS = 14_249  # lower it with each cut; 13,000 is the aim


def arguments(function: ast.FunctionDef) -> list[str]:
    signature = function.args
    names = [argument.arg for argument in (*signature.posonlyargs, *signature.args, *signature.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_names_say_something():
    """A variable is a noun of the field: `metrics`, `predictions`, `class_texts`."""
    assigned = [
        f"{place}: {node.id}"
        for place, node in nodes("pcclip", ast.Name)
        if isinstance(node.ctx, ast.Store) and node.id in VAGUE
    ]
    parameters = [
        f"{place}: {name}"
        for place, function in nodes("pcclip", FUNCTION)
        for name in arguments(function)
        if name in VAGUE
    ]
    assert not assigned + parameters


def test_functions_have_at_most_five_arguments():
    many = [
        f"{place}: {function.name}"
        for place, function in nodes("pcclip", FUNCTION)
        if len(arguments(function)) > FIVE and function.name not in PUBLIC
    ]
    assert not many


def test_frozen_classes_stay_frozen():
    calls = nodes("pcclip", ast.Call)
    assert not [place for place, call in calls if ast.unparse(call.func) == "object.__setattr__"]


def test_no_test_imports_another():
    tests = (ROOT / "tests").rglob("*.py")
    pattern = re.compile(r"^ *from (\S*\.)?test_\w+ import", re.MULTILINE)
    assert not [str(path) for path in tests if pattern.search(path.read_text(encoding="utf8"))]


def statements(file: File) -> int:
    """Logical lines of code, without docstrings: neither formatting nor a docstring counts."""
    ends = sum(token.type == tokenize.NEWLINE for token in tokenize.generate_tokens(io.StringIO(file.text).readline))
    documented = [node for node in file.nodes if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION))]
    return ends - sum(ast.get_docstring(node, clean=False) is not None for node in documented)


def test_the_package_stays_small():
    assert sum(map(statements, files("pcclip"))) <= MOST_STATEMENTS


def test_no_link_is_in_the_repository():
    """A tracked .venv would take the place of the environment of whoever checks it out."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    files = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [line for line in files.splitlines() if line.startswith("120000")]
