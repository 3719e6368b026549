"""Not a test: a parameter file's stages without notebooks, killed with -9 in the middle of 01, then of 02, then of 03.

python tests/helpers/killed.py PARAMS

Prints a JSON line after each death: the process's status and what the run's folder has.
"""

import json
import os
import signal
import sys

from pcclip import config as params, load_model
from pcclip.comparisons import stage as generate
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation.stage import evaluate
from pcclip.finetuning.stage import finetune
from pcclip.finetuning.text_tower import TextTower
from pcclip.runs.log import Log


def die_at_call(owner, name: str, count: int) -> None:
    """Make the `count`-th call of owner.name a kill -9 of this process."""
    original, calls = getattr(owner, name), [0]

    def counted(*arguments, **options):
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counted)


def main(path: str, dies_in: str) -> None:
    config = params.read(path)
    images, model = load_images(config), load_model(config.model)
    if dies_in == "01":
        die_at_call(Log, "write", 17)  # 16 answers are on disk, whatever is in flight
    table = generate.generate(config, images, model)
    if dies_in == "02":
        die_at_call(Encoder, "encode_pixels", 5)  # the shard of the first two batches is on disk by then
    vectors, _ = embed(config, images, model)
    if dies_in == "03":
        die_at_call(TextTower, "step", 7)
    finetune(config, images, vectors, table, model)
    models = {"base": load_model(config.model), "finetuned": load_model(str(config.folder))}
    evaluate(config, images, vectors, table, models)


if __name__ == "__main__":
    for stage in ("01", "02", "03"):
        child = os.fork()  # all import once
        if child == 0:
            main(sys.argv[1], stage)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        folder = params.read(sys.argv[1]).folder
        names = [str(file.relative_to(folder)) for file in folder.rglob("*")]
        print("\n" + json.dumps([os.waitstatus_to_exitcode(status), names]), flush=True)
