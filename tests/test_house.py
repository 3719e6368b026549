"""The house: imports go one way, down the floors, and never in a circle."""

import ast
from graphlib import TopologicalSorter

from conftest import ROOT

FLOORS = {  # a module or package -> its floor; a file may import from its own floor and from below
    "errors": 0, "plain_pickle": 1, "params": 1, "progress": 1, "stage": 1, "images": 1, "imagenet": 1, "scores": 1,
    "bootstrap": 1, "rank_measures": 1, "statistics": 1, "plots": 1, "topk": 1, "votes": 2, "examples": 2, "engine": 2,
    "data": 2, "models": 2, "shapes": 2, "sweep": 2, "axes": 3, "comparisons": 3, "embed": 3, "finetune": 4, "sizes": 4,
    "activations": 2, "teacher_size": 4,
    "arithmetic": 5, "ranking": 5, "evaluate": 5, "study": 5, "released": 5, "estimate": 5, "check": 6,
    "widgets": 6, "workbook": 6, "plan": 6, "submit": 6, "cli": 7,
}


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
                        ROOT / whole.replace(".", "/")).is_dir()
                    found[name].add(whole if is_module else node.module)
    return {name: targets - {"pcclip"} for name, targets in found.items()}


def floor(module: str) -> int:
    return FLOORS[module.split(".")[1]]


def test_imports_go_down():
    up = [f"{name} -> {target}" for name, targets in imports().items() for target in targets
          if floor(target) > floor(name)]
    assert not up


def test_no_circles():
    order = list(TopologicalSorter(imports()).static_order())  # raises CycleError
    assert order.index("pcclip.errors") < order.index("pcclip.cli")
