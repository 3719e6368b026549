"""GroupMatch is the agreement of two difference vectors.

For two images with unit vectors u0, u1 and their texts t0, t1, s_ij = <u_i, t_j>:

    s00 + s11 - s01 - s10 = <u0, t0> + <u1, t1> - <u0, t1> - <u1, t0> = <u0 - u1, t0 - t1>.

Test-Time Matching (2510.07632) calls a pair right where s00 + s11 > s01 + s10. That is where the text difference lies
on the image difference's side: what PC-CLIP asks, with t0 - t1 in place of f(text of the difference).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pcclip.arithmetic.texts import Remembered
from pcclip.benchmarks.compositionality import measures as matching
from pcclip.comparisons import stage as generate
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.stats.vectors import beats, cosines


def of_run(config: Config, images: ImageSet, vectors: Vectors, known: Mapping[str, Remembered]) -> pd.DataFrame:
    """Both sides of the identity on the run's held-out pairs, by model, and PC-CLIP's own question beside them.

    Returns:
        Columns model, group_match and difference_vectors (the share of pairs that each side calls right), largest_gap
        (between the two numbers of a pair), f_d (the share that f(text of the difference) calls right) and n.
    """
    pairs = generate.template_pairs(vectors.of(images.held_out), config.arithmetic.pairs, config.seed)
    rows = []
    for which, model in known.items():
        own = vectors.seen_by(which)
        shown = np.stack([own.rows(pairs["first"]), own.rows(pairs["second"])], axis=1)
        texts = np.concatenate([model.encode_texts(list(pairs[f"{side}_caption"])) for side in ("first", "second")])
        told = np.arange(2 * len(pairs)).reshape(2, -1).T
        scores = matching.of_groups(matching.similarities(own.matrix, shown, texts, told))["_group_match"]
        apart = own.matrix[shown[:, 0]] - own.matrix[shown[:, 1]]
        agreement = cosines(apart, texts[told[:, 0]] - texts[told[:, 1]])
        said = cosines(apart, model.encode_texts(list(pairs.difference)))
        rows.append(
            {
                "model": which,
                "group_match": beats(scores, 0).mean(),
                "difference_vectors": beats(agreement, 0).mean(),
                "largest_gap": np.abs(scores - agreement).max(),
                "f_d": beats(said, 0).mean(),
                "n": len(pairs),
            }
        )
    return pd.DataFrame(rows)
