"""`pcclip app FOLDER`: the page of notebook 06 for any folder, served to this computer alone.

The page comes from this process with its code and style in it, and may load nothing else. Its address has a token, and
a request under another host name than this computer's is refused, so that no other page in the browser can reach it.
"""

import json
import os
import secrets
import struct
import threading
import traceback
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pcclip.config import Rank, check, load_yaml, resolve
from pcclip.encoders import load_model
from pcclip.errors import PcclipError
from pcclip.ranking.saved import data_folder, summary
from pcclip.ranking.widget.offline import offline_page
from pcclip.ranking.widget.photos import Photos, growing_photos, load_photos, votes_file
from pcclip.ranking.widget.ranker import Ranker
from pcclip.ranking.widget.surface import POLICY, Conversation, page_html
from pcclip.runs.files import atomic
from pcclip.runs.progress import say

_LONGEST = 2**20  # bytes of a message


class App(ThreadingHTTPServer):
    """The page of one ranker, at a free port of this computer unless another is named."""

    daemon_threads = True

    def __init__(self, ranker: Ranker, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.ranker, self.lock, self.token = ranker, threading.Lock(), secrets.token_urlsafe(16)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def answers(self, message: Mapping[str, Any]) -> bytes:
        """The answers to a message: the length of a JSON header, the header, and the buffers whose sizes it has."""
        answers: list[tuple[dict, Sequence[bytes]]] = []
        with self.lock:
            try:
                Conversation(self.ranker, lambda answer, buffers=(): answers.append((answer, buffers))).receive(message)
            except Exception:
                traceback.print_exc()  # the page has its first line
        header = json.dumps([[answer, [len(part) for part in buffers]] for answer, buffers in answers]).encode()
        return b"".join([struct.pack("<I", len(header)), header, *(part for _, buffers in answers for part in buffers)])


class _Handler(BaseHTTPRequestHandler):
    server: App

    def do_GET(self) -> None:
        if not self._is_allowed(parse_qs(urlsplit(self.path).query).get("token", [""])[0]):
            return
        nonce = secrets.token_urlsafe(16)
        policy = POLICY.format(nonce=nonce) + "; connect-src 'self'; frame-ancestors 'none'"
        self._reply(page_html("app.js", nonce).encode(), "text/html; charset=utf-8", policy)

    def do_POST(self) -> None:
        if not self._is_allowed(self.headers.get("X-Token", "")):
            return
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LONGEST:
            self.send_error(413)
        else:
            self._reply(self.server.answers(json.loads(self.rfile.read(length))), "application/octet-stream", "")

    def _is_allowed(self, token: str) -> bool:
        """Whether the request has the token and this computer's name; otherwise it is refused."""
        hosts = [f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")]
        origin = self.headers.get("Origin")
        local = self.headers.get("Host") in hosts and origin in (None, *(f"http://{host}" for host in hosts))
        allowed = local and secrets.compare_digest(token.encode(), self.server.token.encode())
        if not allowed:
            self.send_error(403, explain="Open the address that pcclip app printed.")
        return allowed

    def _reply(self, body: bytes, kind: str, policy: str) -> None:
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        safe = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in (headers | safe).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are no news: the terminal shows the progress of encoding."""


def open_app(
    place: str, settings: Rank, model: str = "minilm-efficientnet", port: int = 0, browse: bool = True
) -> None:
    """Serve the page until the process is interrupted; photos that are new are encoded meanwhile.

    Args:
        place: a folder, a glob, or a run's folder or parameter file, whose photos and models notebook 06 would show.
        settings: the words to begin with.
        model: the spec of the model that ranks a folder.
        port: of the address; 0 takes any that is free.
        browse: whether to open the browser.

    Raises:
        PcclipError: no photos, none readable, an unknown model.
    """
    growing, settings, answers = photos_at(place, settings, model)
    photos, coming = next(growing)
    app = App(Ranker(photos, settings, answers), port)
    app.ranker.coming = coming
    say(f"{app.address}\n(Ctrl-C ends it)")

    def grow() -> None:
        for more, rest in growing:
            with app.lock:
                app.ranker.grow(more, rest)

    threading.Thread(target=grow, daemon=True).start()
    if browse:
        webbrowser.open(app.address)
    app.serve_forever()


def export_page(name: str, to: Path, place: str = "", most: int = 500) -> int:
    """Write a saved ranking of photos as one HTML file that needs no Python. Return its size in bytes.

    Args:
        name: of the ranking.
        to: the file.
        place: the photos, as in `open_app`; by default those on which the ranking was saved.
        most: photos in the file; of more both ends.

    Raises:
        PcclipError: no such ranking, no place, no photos there.
    """
    ranking = summary(name)
    if not (place or ranking["photos"]):
        raise PcclipError(f"ranking {name!r} does not say where its photos are; give --photos FOLDER")
    growing, settings, answers = photos_at(
        place or ranking["photos"], Rank(), ranking["model"] or "minilm-efficientnet"
    )
    *_, (photos, _) = growing
    ranker = Ranker(photos, settings, answers)
    ranker.open(name)
    page = offline_page(ranker, most).encode()
    with atomic(to) as temporary:
        temporary.write_bytes(page)
    return len(page)


def photos_at(place: str, settings: Rank, model: str) -> tuple[Iterator[tuple[Photos, int]], Rank, Path]:
    """The growing photos of a place, the words to begin with, and the file of answers without a name."""
    here = Path(os.path.expanduser(place)).absolute()
    place = str(here if here.exists() else place)
    parameters = resolve(place) / "parameters.yaml"  # of a run's folder, whatever it is called now, and wherever
    if place.endswith((".yaml", ".yml")) or parameters.is_file():
        moved = {"outputs": str(parameters.parents[1]), "run": parameters.parent.name} if parameters.is_file() else {}
        config = check({**load_yaml(parameters if moved else place), **moved}, where=place)
        return iter([(load_photos(config), 0)]), config.rank, votes_file(config)
    return growing_photos(place, {Path(model).name: load_model(model)}), settings, data_folder() / "answers.jsonl"
