"""The house: imports go one way, down the floors, and never in a circle."""

import ast
from graphlib import TopologicalSorter

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


def imports() -> dict[str, set[str]]:
    """Module -> modules of pcclip that it imports, wherever in the file."""
    found = {}
    for path in sorted((ROOT / "pcclip").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name == "pcclip":
            continue  # the public surface, which hands on what is below
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pcclip"):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    is_module = (ROOT / (whole.replace(".", "/") + ".py")).is_file() or (
                        ROOT / whole.replace(".", "/")
                    ).is_dir()
                    found[name].add(whole if is_module else node.module)
    return {name: targets - {"pcclip"} for name, targets in found.items()}


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
