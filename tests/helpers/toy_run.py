"""A run of three small stages through the real log, stage and file layer, in milliseconds.

01 asks questions through an AnswerLog and writes a table; 02 makes vectors in shards; 03 trains from a checkpoint and
writes weights, a curve and metrics.csv beside the stage.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from pcclip.comparisons.llm import Question, Reply
from pcclip.runs.files import (
    atomic,
    names_in,
    read_checkpoint,
    read_parquet,
    write_checkpoint,
    write_parquet,
    write_tensors,
)
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import Stage, built_on

QUESTIONS = [Question(f"key {k}", f"first {k}", f"second {k}") for k in range(8)]
SHARDS, STEPS = 2, 4
OUTPUTS = [
    "01_ask/table.parquet",
    "02_embed/vectors.parquet",
    "03_train/weights.safetensors",
    "03_train/curve.csv",
    "metrics.csv",
]


@dataclass
class ToyRun:
    """The run in a folder; `asked` are the keys of the questions that it asked, in order."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    @property
    def log(self) -> AnswerLog:
        return AnswerLog(self.folder / "answers" / "answers.jsonl", Reply, "answers")

    def __call__(self) -> dict[str, bytes]:
        """Do what is not done. Returns the outputs' contents by name."""
        table = self._ask()
        self._train(self._embed(table))
        return {name: (self.folder / name).read_bytes() for name in OUTPUTS}

    def _answered(self, questions: list[Question]):
        for question in questions:
            self.asked.append(question.key)
            yield question, Reply(f"{question.first} is larger than {question.second}", "stop")

    def _ask(self) -> pd.DataFrame:
        stage = Stage(self.folder / "01_ask", {"questions": len(QUESTIONS)})
        if not stage.done():
            with stage.work():
                answers = self.log.answer_all(QUESTIONS, self._answered)
                rows = [{"key": question.key, "text": answers[question.key].text} for question in QUESTIONS]
                write_parquet(stage.folder / "table.parquet", pd.DataFrame(rows))
                stage.finish(["table.parquet"], {"answers": len(rows)})
        return read_parquet(stage.folder / "table.parquet").to_pandas()

    def _embed(self, table: pd.DataFrame) -> np.ndarray:
        stage = Stage(self.folder / "02_embed", built_on([self.folder / "01_ask"], {}))
        if not stage.done():
            with stage.work():
                written = names_in(stage.shards)
                for k, texts in enumerate(np.array_split(table.text, SHARDS)):
                    if f"{k}.parquet" not in written:
                        vectors = [[float(len(text)), float(sum(map(ord, text)))] for text in texts]
                        write_parquet(stage.shards / f"{k}.parquet", pa.table({"vector": vectors}))
                shards = [read_parquet(stage.shards / f"{k}.parquet") for k in range(SHARDS)]
                write_parquet(stage.folder / "vectors.parquet", pa.concat_tables(shards))
                stage.finish(["vectors.parquet"], {"vectors": len(table)})
        return np.array(read_parquet(stage.folder / "vectors.parquet")["vector"].to_pylist())

    def _train(self, vectors: np.ndarray) -> None:
        stage = Stage(self.folder / "03_train", built_on([self.folder / "02_embed"], {}))
        if stage.done():
            return
        with stage.work():
            checkpoint = stage.partial / "checkpoint.pt"
            state = {"step": 0, "weights": torch.zeros(2), "curve": []}
            if checkpoint.is_file():
                state = read_checkpoint(checkpoint)
            while state["step"] < STEPS:
                state["weights"] = state["weights"] / 2 + torch.from_numpy(vectors[state["step"]])
                state["curve"].append({"step": state["step"], "loss": float(state["weights"].sum())})
                state["step"] += 1
                if state["step"] % 2 == 0:
                    write_checkpoint(checkpoint, state)
            write_tensors(stage.folder / "weights.safetensors", {"weights": state["weights"]})
            for name in ("curve.csv", "../metrics.csv"):
                with atomic(stage.folder / name) as temporary:
                    pd.DataFrame(state["curve"]).to_csv(temporary, index=False)
            stage.finish(["weights.safetensors", "curve.csv", "../metrics.csv"], {"steps": STEPS})
