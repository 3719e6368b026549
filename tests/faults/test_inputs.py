"""Files that people and programs spoil: whatever is in them, a user reads one line, and what is whole is still read.

`make test` tries a few mutations of each kind, `make test-faults` 1,000 (PCCLIP_FAULTS); each has a seed of its own.
"""

import json
import tarfile
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from helpers.faults import FAULTS, mutated, told
from helpers.files import jpeg, put
from PIL import Image

from pcclip import config as params
from pcclip.comparisons.llm import Question, Reply
from pcclip.comparisons.llm.openai_server import OpenAIServer
from pcclip.comparisons.prompts import load_prompt
from pcclip.data.image_set import load_images
from pcclip.images import decoded_batches, thumbnail
from pcclip.ranking.topk import ranked_shards
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.runs.files import write_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import Stage, finished, read_manifest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def try_all(content: bytes, check: Callable[[bytes], None], others: bytes = b"", count: int = FAULTS) -> None:
    """Run `check` on mutations of the content; fails with the seed and the end of the traceback of each kind of fault."""
    faults: dict[str, str] = {}
    for seed in range(count):
        damaged = mutated(content, np.random.default_rng(seed), others)
        try:
            check(damaged)
        except Exception as error:  # whatever reaches a user
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            faults.setdefault(kind, f"seed {seed}: {kind}: {str(error)[:200]}")
    assert not faults, "\n".join(faults.values())


def test_parameter_files(values, tmp_path):
    path = tmp_path / "p.yaml"

    def check(content: bytes) -> None:
        message, config = told(params.read, put(path, content), lines=99)
        assert message or isinstance(config, params.Config)

    try_all(yaml.safe_dump(values).encode(), check, b"a: &x [1, 2]\nb: {c: *x}\n")


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    file, noise = BytesIO(), np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x011A: 72.0, 0x9003: "2026:01:01 00:00:00"})
    return exif


PICTURES = {
    "jpeg": encoded("JPEG"),
    "exif": encoded("JPEG", exif=exif()),
    "png": encoded("PNG", "P", transparency=3),
    "png16": encoded("PNG", "I;16"),
    "gif": encoded("GIF"),
    "webp": encoded("WEBP"),
    "tiff": encoded("TIFF", compression="tiff_lzw"),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(tmp_path, kind):
    """A picture is read, or its row is bad with a reason of one line; the next one is read whatever this one is."""
    path, good = tmp_path / f"p.{kind}", put(tmp_path / "good.jpg", jpeg(200))

    def shape(image: Image.Image):
        import torch

        return torch.tensor([*image.size, len(image.getbands())])

    def check(content: bytes) -> None:
        put(path, content)
        [(rows, pixels, bad)] = decoded_batches([str(path), str(good)], [shape], [[0, 1]], 1)
        assert pixels[0][-1].tolist() == [8, 8, 3]
        assert [*rows, *(row for row, _ in bad)] in ([0, 1], [1, 0])
        assert all(reason and len(reason.splitlines()) == 1 for _, reason in bad)
        if 0 in rows:
            thumbnail(path, 16)

    try_all(PICTURES[kind], check, PICTURES["jpeg"], -(-FAULTS // 8))


def captioned(tmp_path: Path, values: dict, data: dict) -> Callable[[], object]:
    config = params.check(values | {"data": {"held_out": 0.4, "max_bad": 1.0} | data})
    return lambda: load_images(config)


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions(values, tmp_path, name):
    photos = tmp_path / "photos"
    for k in range(4):
        put(photos / f"{k}.jpg", jpeg(k))
    rows = [{"path": f"{k}.jpg", "caption": f'A "big" cat, no. {k}.', "size": k + 0.5} for k in range(4)]
    lines = [",".join(rows[0]), *(f'{row["path"]},"A ""big"" cat, no. {k}.",{k}.5' for k, row in enumerate(rows))]
    content = "\n".join(lines if name.endswith("csv") else map(json.dumps, rows)) + "\n"
    load = captioned(tmp_path, values, {"source": "folder", "path": str(photos)})

    def check(damaged: bytes) -> None:
        put(photos / name, damaged)
        message, images = told(load)
        if not message:
            assert all(isinstance(caption, str) and caption.strip() for caption in images.captions.caption)
            assert all(Path(path).is_file() for path in images.table.path)

    try_all(content.encode(), check, b'x,"\n,y', -(-FAULTS // 2))


def test_tar_shards(values, tmp_path):
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for k in range(4):
            for kind, content in (("jpg", jpeg(k)), ("json", json.dumps({"caption": f"A cat, no. {k}."}).encode())):
                member = tarfile.TarInfo(f"{k:04d}.{kind}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    load = captioned(tmp_path, values, {"source": "webdataset", "path": str(tmp_path / "shards")})
    names = iter(range(10**6))

    def check(damaged: bytes) -> None:
        for old in (tmp_path / "shards").glob("*"):
            old.unlink()
        name = next(names)  # another one each time: the index of a shard is kept
        put(tmp_path / "shards" / f"{name}.tar", damaged)
        put(tmp_path / "shards" / f"{name}_stats.json", {"successes": 4})
        message, images = told(load)
        if not message:
            assert len(images.table) + len(images.left_out) >= 4, "a picture is neither there nor counted"
            assert all(isinstance(caption, str) and caption.strip() for caption in images.captions.caption)
            sources = list(images.table.path)
            for rows, _, bad in decoded_batches(sources, [], [range(len(sources))], 1):
                assert len(rows) + len(bad) == len(sources)

    try_all(file.getvalue(), check)


def test_vote_files(tmp_path, monkeypatch):
    monkeypatch.setattr("pcclip.runs.log.say", lambda text: None)
    votes = VoteFile(tmp_path / "votes.jsonl")
    for k in range(6):
        votes.append(Vote(f"{k}.jpg", "b.jpg", "first"), attribute="large")
    votes.undo(attribute="large")
    content, written = votes.path.read_bytes(), set(votes.read())

    def check(damaged: bytes) -> None:
        put(votes.path, damaged)
        before = VoteFile(votes.path).read()
        whole = {line for line in damaged.split(b"\n")[:-1] if line in content.split(b"\n")}
        assert len(whole) - 1 <= len(before) + damaged.count(b"undo") + 1
        votes.append(Vote("new.jpg", "b.jpg", "tie"), attribute="large")
        assert VoteFile(votes.path).read() == [*before, Vote("new.jpg", "b.jpg", "tie")]
        votes.undo(attribute="large")
        assert VoteFile(votes.path).read() == before
        VoteFile(votes.path).attributes()

    assert len(written) == 5
    try_all(content, check)


def test_manifests(tmp_path):
    stage = Stage(tmp_path / "01_x", {"lr": 0.1, "names": ["a", "b"]})
    with stage.work():
        put(stage.folder / "out.txt", "0123456789")
        stage.finish(["out.txt"], {"rows": 1}, "model")
    path = stage.folder / "manifest.json"
    content, manifest = path.read_bytes(), finished(stage.folder)

    def check(damaged: bytes) -> None:
        put(path, damaged)
        assert read_manifest(stage.folder) in (None, manifest)
        message, _ = told(finished, stage.folder)
        assert "run its notebook" in message or stage.done()

    try_all(content, check, b'{"key": 1}')


def test_tables_of_vectors(tmp_path):
    """A table that differs by any byte is refused, or read as it was."""
    path, matrix = tmp_path / "v.parquet", np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), 4)
    write_parquet(path, pa.table({"path": [f"{k}.jpg" for k in range(50)], "vector": vectors}))
    content, axis = path.read_bytes(), np.array([1, 0, 0, 0], np.float32)

    def check(damaged: bytes) -> None:
        put(path, damaged)
        message, ranking = told(ranked_shards, [path], axis)
        if not message:
            assert np.isfinite(ranking.score).all()

    try_all(content, check, content[:300])


# ---- a language model ------------------------------------------------------------------------------------------------


@contextmanager
def answering(bodies: dict[str, bytes]):
    """A server whose reply to a request is the body under 'next'."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            """Keep quiet."""

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(bodies["next"])))
            self.end_headers()
            self.wfile.write(bodies["next"])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_replies_of_language_models(values, tmp_path, quick):
    """Any body of a reply is one answer or one error of its row, and the log gives back what it was."""
    text = "The first image shows a red disc, while the second image shows a blue bar."
    message = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": []}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 17, "total_tokens": 26}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    bodies, question = {}, Question("key", "A red disc.", "A blue bar.")
    answers = AnswerLog(tmp_path / "a.jsonl", Reply, "answers")
    with answering(bodies) as url:
        generate = {**values["generate"], "backend": "openai", "base_url": url, "llm": "m", "retries": 0}
        settings = params.check(values | {"generate": generate}).generate

        def check(damaged: bytes) -> None:
            bodies["next"] = damaged
            backend = OpenAIServer(settings, load_prompt(settings.prompt))
            line, replies = told(lambda: list(backend.answers([question])))
            if line:
                return
            [(_, reply)] = replies
            assert isinstance(reply.text, str)
            assert isinstance(reply.finish_reason, str)
            assert reply.failed or reply.text.strip()
            answers.path.unlink(missing_ok=True)
            list(answers.store([(None, {"key": "key", "text": reply.text, "finish_reason": reply.finish_reason})]))
            assert answers.read() == [("key", reply)]

        try_all(json.dumps(body).encode(), check, b'{"error": {"message": ["x"]}}')
