"""Not a test: pictures drawn for tests and for the README, hot-air balloons of any colour and size above hills."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def balloon(hue: float, size: float, seed: int, wide: int = 320, tall: int = 240) -> Image.Image:
    """A balloon of a hue and a size in 0..1; sky, hills and place are drawn from the seed."""
    rng, scale = np.random.default_rng(seed), 3
    w, h = wide * scale, tall * scale
    image = _sky(rng, w, h)
    pen = ImageDraw.Draw(image)
    _hills(pen, rng, w, h)
    radius = h * (0.07 + 0.24 * size)
    x, y = w * rng.uniform(0.3, 0.7), radius * 1.15 + (h - 3.4 * radius) * rng.uniform(0.1, 0.5)
    for k, half in enumerate((1.0, 0.78, 0.5, 0.18)):  # stripes are ellipses, one inside the other
        shade = _rgb(hue, 0.62 if k % 2 else 0.74, 0.98 if k % 2 else 0.86)
        pen.ellipse((x - radius * half, y - radius * 1.1, x + radius * half, y + radius), shade)
    low, basket = y + radius * 1.45, radius * 0.17
    for side in (-1, 1):
        pen.line((x + side * radius * 0.62, y + radius * 0.72, x + side * basket, low), _rgb(0.08, 0.5, 0.35), scale)
    pen.rounded_rectangle((x - basket, low, x + basket, low + basket * 1.6), basket * 0.3, _rgb(0.08, 0.6, 0.45))
    return image.resize((wide, tall), Image.Resampling.LANCZOS)


def write_balloons(folder: Path, count: int) -> Path:
    """`count` pictures with captions.csv: path, caption, size."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), ["path,caption,size"]
    names = [("red", 0.0), ("yellow", 0.14), ("green", 0.38), ("blue", 0.6), ("pink", 0.9)]
    for k in range(count):
        name, hue = names[k % len(names)]
        size = float(rng.uniform())
        balloon(hue, size, k).save(folder / f"{name}-{k:03d}.jpg", quality=92)
        rows.append(f"{name}-{k:03d}.jpg,A {'large' if size > 0.5 else 'small'} {name} balloon.,{size:.3f}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def _sky(rng, w: int, h: int) -> Image.Image:
    hue, down = rng.uniform(0.5, 0.64), np.linspace(0, 1, h)[:, None]
    top, bottom = np.array(_rgb(hue, 0.42, 0.9)), np.array(_rgb(hue - rng.uniform(0.3, 0.45), 0.16, 0.99))
    column = top * (1 - down) + bottom * down
    return Image.fromarray(np.repeat(column[:, None, :], w, axis=1).astype(np.uint8))


def _hills(pen: ImageDraw.ImageDraw, rng, w: int, h: int) -> None:
    x, hue = np.linspace(0, w, 90), rng.uniform(0.25, 0.45)
    for k in range(3):
        waves = sum(np.sin(x / w * np.pi * f + rng.uniform(0, 7)) / f for f in (1.5, 3, 7))
        y = h * (0.72 + 0.1 * k) + h * 0.06 * waves
        pen.polygon([(0, h), *zip(x, y, strict=True), (w, h)], _rgb(hue, 0.32 + 0.1 * k, 0.72 - 0.14 * k))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))
