"""Small runs: where the checkout is, a tiny picture set, its parameters, and stages 01 to 03 at once."""

from pathlib import Path
from types import SimpleNamespace

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent.parent
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}
BIRDS = [
    ("001.Black_footed_Albatross", "Black_Footed_Albatross_0046_18", 0),  # folder, bird, whether it is training
    ("001.Black_footed_Albatross", "Black_Footed_Albatross_0009_34", 1),
    ("002.Laysan_Albatross", "Laysan_Albatross_0002_1027", 1),
    ("010.Red_winged_Blackbird", "Red_Winged_Blackbird_0003_5098", 1),
    ("010.Red_winged_Blackbird", "Red_Winged_Blackbird_0006_5636", 0),
]
SHAPES = ["disc", "square", "bar", "ring", "cross", "frame", "wedge", "dot"]


def draw(shape: str, colour: str, path: Path) -> None:
    """One 48-pixel picture of a shape; what it looks like only has to differ by shape and colour."""
    image = Image.new("RGB", (48, 48), "white")
    pen, fill, k = ImageDraw.Draw(image), COLOURS[colour], SHAPES.index(shape)
    box = (4 + k, 4, 44, 44 - 2 * k)
    (pen.ellipse if k % 2 == 0 else pen.rectangle)(box, fill=fill if k < 4 else None, outline=fill, width=3 + k)
    image.save(path)


def run_values(photos, tiny_model, outputs) -> dict:
    """Parameters of a run that takes seconds: the tiny photos and model, template sentences."""
    return {
        "run": "tiny",
        "seed": 0,
        "model": tiny_model,
        "outputs": str(Path(outputs) / "outputs"),
        "data": {"source": "folder", "path": str(photos), "held_out": 0.4},
        "generate": {
            "backend": "template",
            "pairs": 40,
            "held_out_pairs": 20,
            "sampling": "balanced",
            "filters": ["two_sides", "in_context"],
        },
        "embed": {"batch_size": 4, "workers": 2, "shard": 5},
        "finetune": {
            "optimizer": "adamw",
            "lr": "1e-3",
            "temperature": 0.1,
            "batch_size": 8,
            "epochs": 4,
            "keep_epochs": [2],
            "checkpoint_every": 2,
            "evaluate_every": 5,
            "schedule": "cosine",
            "swap": True,
        },
        "evaluate": {
            "pairs": 60,
            "bootstrap": 100,
            "attributes": {
                "size": {
                    "more": "a big shape",
                    "less": "a small shape",
                    "comparison": "The first image shows a bigger shape, while the second image shows a smaller shape.",
                    "comparison_swapped": "The first image shows a smaller shape, while the second image shows a bigger shape.",
                }
            },
        },
        "arithmetic": {"pairs": 40, "neighbours": 2},
    }


def up_to_03(config, model, backend=None) -> SimpleNamespace:
    """Stages 01 to 03 of a run: its images, comparisons and vectors."""
    from pcclip.comparisons import stage as generate
    from pcclip.data.image_set import load_images
    from pcclip.embedding.stage import embed
    from pcclip.finetuning.stage import finetune

    images = load_images(config)
    comparisons = generate.generate(config, images, model, backend)
    vectors, _ = embed(config, images, model)
    finetune(config, images, vectors, comparisons, model)
    return SimpleNamespace(config=config, images=images, vectors=vectors, comparisons=comparisons)
