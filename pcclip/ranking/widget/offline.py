"""A ranking as one file that needs no Python: look, vote, rank anew and export in any browser, offline."""

import base64
import json
import secrets

import numpy as np

from pcclip.images import BadImage
from pcclip.ranking.widget.export import file_name
from pcclip.ranking.widget.ranker import Ranker
from pcclip.ranking.widget.surface import POLICY, Conversation, page_html
from pcclip.ranking.widget.thumbnails import thumbnails

_FIRST = 24  # photos that are seen before the page has read its data
_IMAGE = '<img src="data:image/jpeg;base64,{jpeg}" alt="">'


def offline_page(ranker: Ranker, most: int) -> str:
    """HTML of the order as one model sees it: thumbnails, int8 vectors, scores, the page's code and style.

    Votes in the page come on top of what words, examples and votes have taught, which the scores have. Of more than
    `most` photos both ends are there.
    """
    model = ranker.shown[-1]
    learnt, order, photos = ranker.learnt(model), ranker.standing(model).order, ranker.photos
    rows = order if len(order) <= most else np.concatenate([order[: -(-most // 2)], order[-(most // 2) :]])
    vectors = photos.matrix(model)[rows]
    scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12) / 127
    shown = [
        {
            "path": photos.vectors.ids[row],
            "caption": photos.captions[row],
            "content": photos.index.content(row),
            "jpeg": "" if isinstance(jpeg, BadImage) else base64.b64encode(jpeg).decode(),
            "problem": str(jpeg) if isinstance(jpeg, BadImage) else "",
        }
        for row, jpeg in zip(rows.tolist(), thumbnails([photos.vectors.paths[row] for row in rows]), strict=True)
    ]
    states: list[dict] = []
    Conversation(ranker, lambda state, buffers=(): states.append(state)).receive({"do": "hello"})
    data = {
        "state": {
            **states[0],
            "photos": len(rows),
            "panels": [model],
            "models": [model],
            "examples": [],
            "saved": {"votes": states[0]["votes"], "examples": len(states[0]["examples"])},
            "elsewhere": 0,
            "rankings": [],
            "kinds": ["csv", "jsonl", "votes"],
            "offline": True,
            "learn": True,
            "expected": None,
        },
        "name": file_name(ranker),
        "attribute": ranker.query.label,
        "photos": shown,
        "vectors": base64.b64encode(np.rint(vectors / scales).astype(np.int8).tobytes()).decode(),
        "scales": scales.ravel().tolist(),
        "logits": learnt.logits[rows].tolist(),
        "length": learnt.length,
        "width": learnt.width,
        "own": learnt.own,
    }
    nonce = secrets.token_urlsafe(16)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(nonce=nonce)}">'
    text = json.dumps(data).replace("<", "\\u003c")  # so that a caption cannot end the script
    first = "".join(_IMAGE.format(**photo) for photo in shown[:_FIRST] if photo["jpeg"])
    body = f'<main><div id="first">{first}</div></main><script type="application/json" id="data">{text}</script>'
    return page_html("offline.js", nonce, meta, body)
