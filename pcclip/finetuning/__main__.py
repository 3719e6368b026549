"""One process of stage 03: `accelerate launch -m pcclip.finetuning PARAMS`, where PARAMS is JSON or a file of params/.

Notebook 03 starts them so where finetune.processes is more than one; torchrun, or accelerate on several machines, may
do it too. 01 and 02 must have finished, in a folder that all processes share.
"""

import os
import sys

import torch
from torch import distributed as dist

from pcclip import config as params
from pcclip.errors import PcclipError
from pcclip.finetuning.launch import train


def main(path: str) -> None:
    """Raises PcclipError as `finetune` does. The launcher ends the other processes when one ends with an error."""
    together = "RANK" in os.environ
    if together:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()  # nccl for what is on GPUs, gloo for what is not
    train(params.read(path))
    if together:
        dist.destroy_process_group()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PcclipError as error:
        sys.exit(f"pcclip: {error}")
