"""Draw docs/figure.png and docs/arithmetic.png from the tables of outputs/demo: .venv/bin/python docs/figures.py"""

from pathlib import Path

import pandas as pd

from pcclip import plots
from pcclip.arithmetic import figures

DOCS = Path(__file__).parent
TABLES = DOCS.parent / "outputs" / "demo" / "05_arithmetic"
SHOWN = ["alignment, image difference", "f(d) with one caption", "additivity, texts"]

if __name__ == "__main__":
    plots.style()
    items, geometry = (pd.read_parquet(TABLES / f"{name}.parquet") for name in ("items", "geometry"))
    drawn = {
        "figure.png": plots.distributions(items, ["image difference", "image difference, reversed text"]),
        "arithmetic.png": figures.controls(geometry, SHOWN, "cosine", 0.0),
    }
    for name, figure in drawn.items():
        figure.savefig(DOCS / name, dpi=110)
