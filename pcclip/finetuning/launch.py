"""Stage 03 in this process, or in several of this machine: the same training function each time."""

import json
import os
import subprocess
import sys
from collections import deque
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from pcclip.comparisons import stage as generate
from pcclip.config import Config
from pcclip.data.image_set import ImageSet, load_images
from pcclip.embedding import stage as embed
from pcclip.embedding.vectors import Vectors, load_vectors
from pcclip.encoders import load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning import distributed, stage as finetuning
from pcclip.finetuning.loop import CURVES
from pcclip.runs.progress import say
from pcclip.runs.stage import once

_MODULE = "pcclip.finetuning"
_LINES = 60  # of the log, in the message about processes that failed; the launcher says 30 of its own
_REASON = "pcclip: "  # starts the line in which a process says what is wrong


@once
def finetune(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> pd.DataFrame:
    """Run stage 03 (stage.finetune) in as many processes as finetune.processes says. Returns its curves.

    Raises PcclipError as stage.finetune does, or when a process died; finished checkpoints are kept.
    """
    own_stage = finetuning.stage(config, images)
    if config.finetune.processes == 1 or own_stage.done_or_fetched():
        return finetuning.finetune(config, images, vectors, comparisons, model)
    _by_accelerate(config)
    if not own_stage.done_or_fetched():
        raise PcclipError(
            f"{finetuning.FOLDER}: its processes ended without finishing it here; where they do not see "
            "`outputs`, set storage to a folder or URL that all machines see"
        )
    return pd.read_csv(own_stage.folder / CURVES)


def train(config: Config) -> None:
    """The work of each process: read the inputs as the notebook does, and train. Only the first process prints."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if distributed.is_first() else nowhere):
        images, model = load_images(config), load_model(config.model)
        if config.storage is not None and os.environ.get("LOCAL_RANK", "0") == "0":  # one of each machine
            for stage in (generate.stage, embed.stage):
                stage(config, images).done_or_fetched()
        distributed.check_alike(None, "what has been read")  # all wait for all
        vectors = load_vectors(config.source_folder / embed.FOLDER, model)
        finetuning.finetune(config, images, vectors, generate.load(config), model)


def _by_accelerate(config: Config) -> None:
    """Raises PcclipError when accelerate or a GPU is missing, or when a process failed."""
    processes, gpus = config.finetune.processes, torch.cuda.device_count()
    if find_spec("accelerate") is None:
        raise PcclipError("finetune.processes: needs accelerate: pip install 'pcclip[paper]'")
    if gpus and processes > gpus:
        raise PcclipError(f"finetune.processes = {processes}: this machine has {gpus} GPUs, and each needs one")
    with TemporaryDirectory() as temporary:
        file = Path(temporary, "params.json")
        file.write_text(json.dumps(config.model_dump(), ensure_ascii=False), encoding="utf8")
        _run(
            [
                sys.executable,
                "-m",
                "accelerate.commands.launch",
                "--multi_gpu",
                "--num_processes",
                str(processes),
                "--num_machines",
                "1",
                "--gpu_ids",
                "all",
                "--main_process_port",
                "0",
                "--mixed_precision",
                "no",
                "--dynamo_backend",
                "no",
                "-m",
                _MODULE,
                str(file),
            ],
            {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes)), **os.environ},
        )


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command and print its lines. Raises PcclipError with its reason or last lines when it failed."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_LINES)
    reasons: dict[str, None] = {}  # in their order, each once
    try:
        for line in map(str.rstrip, process.stdout):
            say(line)
            last.append(line)
            if line.startswith(_REASON):
                reasons[line.removeprefix(_REASON)] = None
        process.wait()
    finally:
        process.terminate()  # an interrupted cell: the launcher takes its processes with it
        process.wait()
    if process.returncode:
        raise PcclipError(
            "\n".join(reasons)
            or "\n".join(
                [
                    f"{finetuning.FOLDER}: a process died (out of memory?); run again to continue. The last lines were:",
                    *last,
                ]
            )
        )
