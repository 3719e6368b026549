"""Compositional benchmarks in their public layouts, made up: `write(name, folder, n)`."""

import csv
import json
from pathlib import Path

import numpy as np

from helpers.files import picture, put

SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
NOUNS = "cat dog horse boat kite pizza bench clock truck sheep".split()
ADJECTIVES = "red small wooden tall happy blue old white round empty".split()


def caption(k: int, words: str = "chases") -> str:
    """A sentence of its own for each k below 1000: five words to shuffle at least, none twice."""
    a, b, c = k % 10, k // 10 % 10, k // 100 % 10
    return (
        f"A {ADJECTIVES[a]} {NOUNS[b]} with {ADJECTIVES[(a + 1 + c) % 10]} paint {words} the {NOUNS[(b + 1 + c) % 10]}."
    )


def winoground(folder: Path, n: int) -> None:
    lines = []
    for k in range(n):
        names = [picture(folder / "data" / "images" / f"ex_{k}_img_{side}.png") for side in (0, 1)]
        lines.append(
            {
                "id": k,
                "image_0": names[0].removesuffix(".png"),
                "image_1": names[1].removesuffix(".png"),
                "caption_0": f"the mug {k} is in the grass",
                "caption_1": f"the grass is in the mug {k}",
                "tag": "Noun",
                "secondary_tag": "",
                "num_main_preds": 1,
                "collapsed_tag": ("Object", "Relation", "Both")[k % 3],
            }
        )
    put(folder / "data" / "examples.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    tags = ["Visually Difficult", "Unusual Text"]
    put(folder / "new_tag_assignments.json", {str(k): tags[: k % 3] for k in range(n)})


def naturalbench(folder: Path, n: int) -> None:
    put(
        folder / "metadata.json",
        [
            {
                "index": k,
                "image_0": picture(folder / "images" / f"{k}a.jpg"),
                "image_1": picture(folder / "images" / f"{k}b.jpg"),
                "caption_0": f"a dog in a park {k}",
                "caption_1": f"a park with a dog {k}",
            }
            for k in range(n)
        ],
    )


def mmvp_vlm(folder: Path, n: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "Questions.csv", "w", encoding="utf8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Question ID", "Type", "Statement"])
        for k in range(1, 2 * n + 1):
            kind = ("Orientation and Direction", "Texts")[(k - 1) // 2 % 2]
            picture(folder / "MLLM_VLM Images" / kind / f"{k}.jpg")
            table.writerow([k, kind, f"a rabbit, facing {k}"])


def eqben(folder: Path, n: int) -> None:
    pairs = []
    for k in range(n):
        part = ("eqbenag", "eqbenkubric_loc", "eqbenyoucook2")[k % 3]
        end = ".npy" if part == "eqbenyoucook2" else ".png"
        for side in (0, 1):
            path = folder / "image_subset" / part / f"{k}_{side}{end}"
            if end == ".npy":
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, np.full((4, 5, 3), (200, 100, k % 50), np.uint8))
            else:
                picture(path)
        pairs.append(
            {
                "image0": f"{part}/{k}_0{end}",
                "image1": f"{part}/{k}_1{end}",
                "caption0": f"the person opens door {k}",
                "caption1": f"the person closes door {k}",
            }
        )
    put(folder / "eqben_subset_10percent_final.json", pairs)


def vg_relation(folder: Path, n: int) -> None:
    put(
        folder / "visual_genome_relation.json",
        [
            _boxed(folder, k)
            | {
                "relation_name": ("on", "wearing", "near")[k % 3],
                "true_caption": f"the man is on the horse {k}",
                "false_caption": f"the horse {k} is on the man",
            }
            for k in range(n)
        ],
    )


def vg_attribution(folder: Path, n: int) -> None:
    pairs = [["white", "green"], ["open", "wooden"], ["round", "rare"]]
    put(
        folder / "visual_genome_attribution.json",
        [
            _boxed(folder, k)
            | {
                "attributes": pairs[2 if k < 5 else k % 2],
                "true_caption": f"the white car {k} and the green door",
                "false_caption": f"the green car {k} and the white door",
            }
            for k in range(n)
        ],
    )


def coco_order(folder: Path, n: int) -> None:
    put(folder / "coco_karpathy_test.json", _captions(folder, "val2014/COCO_val2014_{:012d}.jpg", n))


def flickr30k_order(folder: Path, n: int) -> None:
    put(folder / "flickr30k_test.json", _captions(folder, "flickr30k-images/{}.jpg", n))


def sugarcrepe(folder: Path, n: int) -> None:
    each = -(-n // 7)
    for part in SUGARCREPE:
        put(folder / "data" / f"{part}.json", {str(2 * k): _captioned(folder, part, k) for k in range(each)})


def sugarcrepe_pp(folder: Path, n: int) -> None:
    each = -(-n // 5)
    for part in SUGARCREPE[2:]:
        put(
            folder / "data" / f"{part}.json",
            [
                {"id": k, **_captioned(folder, part, k), "caption2": f"it is the dog that chases the {part} {k}"}
                for k in range(each)
            ],
        )


def vl_checklist(folder: Path, n: int) -> None:
    files = {
        "Attribute/vaw/action": "vg",
        "Object/Size/hake_size/hake_obj_small": "hake",
        "Object/Location/swig_location/swig_agent/swig_agent_mid": "swig",
        "Relation/vg/action": "vg",
        "Relation/swig_action": "swig",
    }
    each = -(-n // len(files))
    for part, images in files.items():
        put(
            folder / "data" / f"{part}.json",
            [
                [
                    picture(folder / images / f"{part.replace('/', '_')}_{k}.jpg"),
                    {"POS": [f"{part} child {k} brushing teeth"], "NEG": [f"{part} child {k} painting teeth"]},
                ]
                for k in range(each)
            ],
        )


def write(name: str, folder: Path, n: int) -> Path:
    """About n items of a set, in its folder."""
    globals()[name](folder, n)
    return folder


def _boxed(folder: Path, k: int) -> dict:
    """A box of its own in one of some photographs: two cases in each."""
    return {
        "image_id": k,
        "image_path": picture(folder / "images" / f"{k // 2}.jpg", size=(40, 300)),
        "bbox_x": 1,
        "bbox_y": k,
        "bbox_w": 20,
        "bbox_h": 30,
    }


def _captioned(folder: Path, part: str, k: int) -> dict:
    return {
        "filename": picture(folder / "val2017" / f"{SUGARCREPE.index(part)}{k:011d}.jpg"),
        "caption": f"the dog chases the {part} {k}",
        "negative_caption": f"the {part} {k} chases the dog",
    }


def _captions(folder: Path, place: str, n: int) -> list[dict]:
    """Two captions an image."""
    found = []
    for k in range(-(-n // 2)):
        picture(folder / place.format(k))
        found.append({"image": place.format(k), "caption": [caption(2 * k), caption(2 * k + 1)]})
    return found
