"""One side of COCO captions in its published layout, made up."""

import json
from pathlib import Path

from helpers.files import jpeg, put

# ---- coco ------------------------------------------------------------------------------------------------------------


def coco_side(root: Path, name: str, captions: dict[int, list[str]]) -> None:
    """One side of COCO: the JSON's fields as published, annotations in an order of their own, and the images."""
    prefix = f"COCO_{name}_" if name.endswith("2014") else ""
    pictures = [
        {
            "license": 3,
            "file_name": f"{prefix}{image:012d}.jpg",
            "height": 8,
            "width": 8,
            "id": image,
            "coco_url": f"http://images.cocodataset.org/{name}/{image:012d}.jpg",
        }
        for image in captions
    ]
    notes = [
        {"image_id": image, "id": 10 * image + k, "caption": text}
        for k in range(max(map(len, captions.values())))
        for image, texts in captions.items()
        for text in texts[k : k + 1]
    ]
    values = {"info": {}, "licenses": [], "images": pictures, "annotations": notes}
    put(root / "annotations" / f"captions_{name}.json", json.dumps(values))
    for picture in pictures:
        put(root / name / picture["file_name"], jpeg(picture["id"] % 251))
