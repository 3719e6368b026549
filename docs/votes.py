"""Print what votes add, as the tables of LOG.md and docs/results.md have it: .venv/bin/python docs/votes.py outputs/demo

Twenty voters who know the true values and err in one answer of ten, on photos of a finished demo run. The words are a
person's, not the run's own. An interval is over voters: the mean and 1.96 standard errors.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from pcclip.config import check, load_yaml  # noqa: E402
from pcclip.ranking.axes import Query, query_axis  # noqa: E402
from pcclip.ranking.learning_curve import learning_curve  # noqa: E402
from pcclip.ranking.widget.photos import load_photos  # noqa: E402

WORDS = {
    "body_mass": ("a large, heavy animal", "a small, light animal"),
    "top_speed": ("a fast animal or vehicle", "a slow animal or vehicle"),
    "lifespan": ("an animal that lives long", "an animal that dies young"),
    "gestation": ("an animal with a long pregnancy", "an animal with a short pregnancy"),
    "litter_size": ("an animal that has many young at once", "an animal that has one young"),
}


def main(run: str) -> None:
    folder = Path(run).resolve()
    photos = load_photos(check({**load_yaml(folder / "parameters.yaml"), "outputs": str(folder.parent)}, where=run))
    table = photos.images.table.set_index("id").loc[photos.vectors.ids]
    curves = []
    for model, encoder in photos.models.items():
        for attribute, words in WORDS.items():
            known = table[attribute].notna().to_numpy()
            matrix, values = photos.matrix(model)[known], table[attribute][known].to_numpy(float)
            text = query_axis(encoder, Query(*words), "two_prompt")
            curve = learning_curve(matrix, values, table.concept[known].to_numpy(), text, range(20))
            curves.append(curve.assign(model=model, attribute=attribute, n=known.sum()))
    table = pd.concat(curves)
    table = table[table.prior == "text"]
    for photos_judged, part in table.groupby("photos", sort=False):
        print(f"\n{photos_judged} photos\n")
        counts = sorted(part.votes.unique())
        print("| attribute | words | asked | " + " | ".join(map(str, counts)) + " |")
        print("|" + "---|" * (3 + len(counts)))
        for (attribute, model, asked), lines in part.groupby(["attribute", "model", "asked"], sort=False):
            wide = lines.pivot(index="seed", columns="votes", values="accuracy")
            errors = 1.96 * wide.std(ddof=1) / np.sqrt(len(wide))
            gains = wide.sub(wide[0], axis=0)
            gain_errors = 1.96 * gains.std(ddof=1) / np.sqrt(len(wide))
            cells = [f"{wide[0].mean():.3f} ± {errors[0]:.3f}"]
            cells += [f"{gains[count].mean():+.3f} ± {gain_errors[count]:.3f}" for count in counts[1:]]
            print(f"| {attribute} | {model} | {asked} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
