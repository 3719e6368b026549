"""GroupMatch is the agreement of two difference vectors.

For two images with unit vectors u0, u1 and their captions' vectors t0, t1, with s_ij = <u_i, t_j>:

    s00 + s11 - s01 - s10 = <u0, t0> + <u1, t1> - <u0, t1> - <u1, t0> = <u0 - u1, t0 - t1>.

Test-Time Matching (2510.07632) counts a pair as right where s00 + s11 > s01 + s10, that is, where the caption
difference and the image difference have a positive inner product. PC-CLIP asks the same with f(text of the difference)
in the place of t0 - t1.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.texts import TextMemory
from pcclip.benchmarks.compositionality import measures as matching
from pcclip.stats.vectors import beats, cosines


def identity_table(held_out: HeldOut, models: Mapping[str, TextMemory]) -> pd.DataFrame:
    """Both sides of the identity on the held-out pairs, and PC-CLIP's own question, by model.

    Returns:
        Columns model, group_match and difference_vectors (fraction of pairs that either side counts as right),
        largest_gap (between the two numbers of a pair), f_d (fraction that f(text of the difference) has right), n.
    """
    rows = []
    for name, model in models.items():
        own, images = held_out.vectors.seen_by(name), held_out.sides
        texts = np.concatenate(
            [model.encode_texts(list(held_out.pairs[f"{side}_caption"])) for side in ("first", "second")]
        )
        captions = np.arange(len(texts)).reshape(2, -1).T
        margins = matching.of_groups(matching.similarities(own.matrix, images, texts, captions))["_group_match"]
        image_difference = own.matrix[images[:, 0]] - own.matrix[images[:, 1]]
        agreement = cosines(image_difference, texts[captions[:, 0]] - texts[captions[:, 1]])
        text_agreement = cosines(image_difference, model.encode_texts(list(held_out.pairs.difference)))
        rows.append(
            {
                "model": name,
                "group_match": beats(margins, 0.0).mean(),
                "difference_vectors": beats(agreement, 0.0).mean(),
                "largest_gap": np.abs(margins - agreement).max(),
                "f_d": beats(text_agreement, 0.0).mean(),
                "n": len(images),
            }
        )
    return pd.DataFrame(rows)
