"""Not a test: a small server that speaks OpenAI's protocol and misbehaves on purpose."""

import gzip
import json
import math
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pcclip.comparisons.sentences import from_captions

STATUS = {"busy": 429, "broken": 500, "no_key": 401, "forbidden": 403, "no_model": 404, "refused": 400}
JSON = {"Content-Type": "application/json"}
BODIES = {  # bodies of status 200 that are no answer
    "half": (b'{"choices": [{"mess', {"Content-Length": "2000", "Connection": "close"}),
    "garbage": (b"<html>Bad gateway", {"Content-Type": "text/html"}),
    "cut": (b'{"choices": [{"mess', JSON),
    "nested": (b"[" * 100_000, JSON),
    "empty": (b'{"choices": []}', JSON),
    "error": (b'{"error": {"message": "out of memory"}}', JSON),
    "huge": (b" " * 2_100_000, JSON),
    "bomb": (gzip.compress(b" " * 100_000_000), JSON | {"Content-Encoding": "gzip"}),
    "brotli": (b"\x0b\x02\x80", JSON | {"Content-Encoding": "br"}),
}


class LLMServer(ThreadingHTTPServer):
    """`behave(text, n)` says what the n-th request about `text`, from 1, meets.

    That is 'ok', a key of STATUS or BODIES, 'slow', 'dribble' (a byte at a time), 'length', 'text: ...', which is then
    what the model says, or a dict, which is the choice. Fields in `refuses` are refused by their names.
    """

    daemon_threads, request_queue_size = True, 1024

    def __init__(self, behave, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.behave, self.retry_after, self.slow, self.refuses = behave, None, 5.0, ()
        self.grants_schema, self.keeps_alive = True, True
        self.probabilities = "vllm"  # or "llama.cpp", or None
        self.top = {" larger": math.log(0.5), " smaller": math.log(0.25), " the": math.log(0.2)}
        self.asked, self.answered, self.requests, self.keys = Counter(), Counter(), [], []  # the first two by text
        self.times, self.stopped, self.lock = [], threading.Event(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def bodies(self) -> list[dict]:
        """The requests without what every one has."""
        return [{name: value for name, value in r.items() if name not in ("model", "messages")} for r in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Keep quiet."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not body:  # the client went away
            return
        request, server = json.loads(body), self.server
        text = request["prompt"] if "prompt" in request else request["messages"][-1]["content"]
        with server.lock:
            server.asked[text] += 1
            n = server.asked[text]
            server.requests.append(request)
            server.keys.append(self.headers["Authorization"])
            server.times.append(time.monotonic())
        what = server.behave(text, n)
        refused = next((name for name in server.refuses if name in request), None)
        if refused:
            self.reply(400, error(f"Unsupported parameter: '{refused}' is not supported, use max_completion_tokens."))
        elif "response_format" in request and not server.grants_schema:
            self.reply(400, error("no structured output"))
        elif "prompt" in request and not server.probabilities:
            self.reply(404, error("no completions here"))
        elif isinstance(what, dict):
            self.reply(200, json.dumps({"choices": [what]}).encode())
        elif what in STATUS:
            waits = {"Retry-After": server.retry_after} if server.retry_after else {}
            self.reply(STATUS[what], error(f"{what}, you came with {self.headers['Authorization']}"), **waits)
        elif what in BODIES:
            self.reply(200, BODIES[what][0], **BODIES[what][1])
        elif what == "slow":
            server.stopped.wait(server.slow)
            self.close_connection = True
        elif what == "dribble":
            self.reply(200, b"", **{"Content-Length": "2000", "Connection": "close"})
            with suppress(OSError):  # the client goes away
                while not server.stopped.wait(0.1):
                    self.wfile.write(b" ")
        else:
            self.answer(request, text, what)

    def answer(self, request: dict, text: str, what: str) -> None:
        with self.server.lock:
            self.server.answered[text] += 1
        if "prompt" in request:
            choice = {"text": " larger", "finish_reason": "length", "logprobs": self.logprobs()}
        else:
            said = what.removeprefix("text: ") if what.startswith("text: ") else sentence(text)
            if "response_format" in request and not what.startswith("text: "):
                said = json.dumps({"difference": said})
            finish = "length" if what == "length" else "stop"
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": finish}
        self.reply(200, json.dumps({"choices": [choice]}).encode())

    def logprobs(self) -> dict:
        top = self.server.top
        if self.server.probabilities == "vllm":
            return {"tokens": [" larger"], "top_logprobs": [top]}
        return {"content": [{"top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}]}

    def reply(self, status: int, body: bytes, **headers) -> None:
        self.send_response(status)
        if not self.server.keeps_alive:
            self.send_header("Connection", "close")
        for name, value in (JSON | {"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message}}).encode()


def sentence(text: str) -> str:
    """An answer to a question of the shipped prompt 'differences'."""
    lines = text.splitlines()
    return from_captions(lines[0].removeprefix("First image: "), lines[-1].removeprefix("Second image: "))


@contextmanager
def serving(behave=lambda text, n: "ok", port=0):
    server = LLMServer(behave, port)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
