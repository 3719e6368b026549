"""Not a test: a small server that speaks OpenAI's protocol and misbehaves on purpose."""

import json
import math
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pcclip.comparisons.sentences import from_captions

STATUS = {"busy": 429, "broken": 500, "no_key": 401, "forbidden": 403, "no_model": 404, "refused": 400}


class LLMServer(ThreadingHTTPServer):
    """`behave(text, n)` says what the n-th request about `text`, from 1, meets.

    That is 'ok', a key of STATUS, 'half' a reply, 'garbage', 'cut' JSON, 'slow', 'empty' choices, a finish reason, or
    'text: ...', which is then what the model says.
    """

    daemon_threads, request_queue_size = True, 1024

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.retry_after, self.slow = behave, None, 5.0
        self.grants_schema, self.keeps_alive = True, True
        self.probabilities = "vllm"  # or "llama.cpp", or None
        self.top = {" larger": math.log(0.5), " smaller": math.log(0.25), " the": math.log(0.2)}
        self.asked, self.answered, self.requests, self.keys = Counter(), Counter(), [], []  # the first two by text
        self.times, self.stopped, self.lock = [], threading.Event(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Keep quiet."""

    def do_POST(self):
        request, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        text = request["prompt"] if "prompt" in request else request["messages"][-1]["content"]
        with server.lock:
            server.asked[text] += 1
            n = server.asked[text]
            server.requests.append(request)
            server.keys.append(self.headers["Authorization"])
            server.times.append(time.monotonic())
        what = server.behave(text, n)
        if "response_format" in request and not server.grants_schema:
            self.reply(400, error("response_format is not supported"))
        elif "prompt" in request and not server.probabilities:
            self.reply(404, error("no completions here"))
        elif what in STATUS:
            waits = {"Retry-After": server.retry_after} if server.retry_after else {}
            self.reply(STATUS[what], error(f"{what}, you came with {self.headers['Authorization']}"), **waits)
        elif what == "half":
            self.reply(200, b'{"choices": [{"mess', **{"Content-Length": "2000"})
            self.close_connection = True
        elif what == "garbage":
            self.reply(200, b"<html>Bad gateway", **{"Content-Type": "text/html"})
        elif what == "cut":
            self.reply(200, b'{"choices": [{"mess')
        elif what == "slow":
            server.stopped.wait(server.slow)
            self.close_connection = True
        elif what == "empty":
            self.reply(200, json.dumps({"choices": []}).encode())
        else:
            self.answer(request, text, what)

    def answer(self, request: dict, text: str, what: str) -> None:
        with self.server.lock:
            self.server.answered[text] += 1
        finish = what if what in ("length", "content_filter") else "stop"
        if "prompt" in request:
            choice = {"text": " larger", "finish_reason": "length", "logprobs": self.logprobs()}
        else:
            said = what.removeprefix("text: ") if what.startswith("text: ") else sentence(text)
            if "response_format" in request and not what.startswith("text: "):
                said = json.dumps({"difference": said})
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
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
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
def serving(behave=lambda text, n: "ok"):
    server = LLMServer(behave)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
