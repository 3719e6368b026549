"""A model that knows what the tiny shapes are, and a run prepared for evaluation."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import yaml
from torch import nn

from helpers.judge import BANK, Judge
from helpers.runs import up_to_03
from pcclip import config as params
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import own_images
from pcclip.evaluation.predictions import Predictions


def prepared(values, model, tmp_path, **evaluate) -> SimpleNamespace:
    """Stages 01 to 03 of a run with an attribute bank, on photos without labels: any two of them are compared."""
    photos = Path(values["data"]["path"])
    table = pd.read_csv(photos / "captions.csv").drop(columns="label")
    (tmp_path / "unlabelled").mkdir(exist_ok=True)
    table.assign(path=[str(photos / name) for name in table.path]).to_csv(
        tmp_path / "unlabelled" / "captions.csv", index=False
    )
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(BANK))
    config = params.check(
        {
            **values,
            "data": {**values["data"], "path": str(tmp_path / "unlabelled"), "absolute_paths": True},
            "evaluate": {**values["evaluate"], **evaluate},
            "finetune": {**values["finetune"], "epochs": 1, "keep_epochs": []},
            "generate": {
                **values["generate"],
                "attributes": str(tmp_path / "bank.yaml"),
                "attribute_pairs": 20,
                "held_out_attribute_pairs": 25,
            },
        }
    )
    return up_to_03(config, model, Judge())


class Knowing(Encoder):
    """A model whose texts are the vectors it was given, 0 for the others."""

    def __init__(self, texts, width):
        nn.Module.__init__(self)  # it has no towers
        self.texts, self.width = texts, width

    def encode_texts(self, texts):
        return np.stack([self.texts.get(text, np.zeros(self.width)) for text in texts]).astype(np.float32)


def predicted(config, images, vectors, comparisons, encoders) -> pd.DataFrame:
    """The scored items of the run's own held-out images, without the stage's files."""
    predictions = Predictions()
    own_images.score(own_images.HeldOut(config, images, vectors, comparisons), encoders, predictions)
    return predictions.table()
