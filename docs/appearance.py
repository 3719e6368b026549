"""Can minilm-efficientnet learn colour, light and sharpness? .venv/bin/python docs/appearance.py [choose]

Its image vector is made of class names alone. Here it gets an appearance part: five measures of the photo (CIELAB L, a
and b, chroma, log variance of the Laplacian), in standard deviations of the training photos, along five orthogonal
directions of the text space. The text tower then learns from verdicts that are measured, not asked: on training photos
and on recoloured, darkened, paled, blurred and sharpened copies of them, with the attribute term of 03, beside the
difference objective and replay. A copy keeps the class-name vector of its photo.

Background is not measured: white that touches the edge for the model, transparent pixels for the truth. The truth is
measured at another size, of unaltered held-out photos, on pairs at least one standard deviation apart. Words are asked
for in frames that were not trained. Every choice was made on split seed 1 with the words CHOOSING (`choose` prints that
table); split seed 0 and the words FINAL are scored once. Writes docs/appearance.csv.
"""

import copy
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import XKCD_COLORS, to_rgb
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from pcclip.comparisons.pairs import both_images, choose_pairs  # noqa: E402
from pcclip.comparisons.sentences import from_captions  # noqa: E402
from pcclip.comparisons.stage import template_pairs  # noqa: E402
from pcclip.comparisons.structures import STRUCTURES, TRAINED as TRAINED_STRUCTURES, rewritten  # noqa: E402
from pcclip.config import Config, check, load_yaml  # noqa: E402
from pcclip.data.image_set import ImageSet, load_images  # noqa: E402
from pcclip.encoders import load_model  # noqa: E402
from pcclip.evaluation.differences import difference_items  # noqa: E402
from pcclip.finetuning.batches import plain_texts  # noqa: E402
from pcclip.finetuning.losses import attribute, direction_infonce, replay  # noqa: E402
from pcclip.images import open_image  # noqa: E402
from pcclip.stats.intervals import Estimate, bootstrap_means  # noqa: E402
from pcclip.stats.vectors import unit, zero_shot  # noqa: E402

ATTRIBUTES = ("light-dark", "red-green", "yellow-blue", "saturation", "sharpness")  # in the order of `measure`
TRAINED = {  # words for more / words for less
    "light-dark": "light, bright, brighter, lighter, well lit, luminous, white, whitish, very bright, glowing, brightly lit, "
    "shining, sunny, snowy, milky, ivory, light-coloured, pastel, overexposed, gleaming, daylit, blond, cream / "
    "dark, darker, very dark, dimly lit, shadowy, black, blackish, murky, badly lit, nocturnal, sooty, charcoal, pitch-black, "
    "underexposed, dark-coloured, dingy, dismal, dreary, ebony, night-time, obscure, mournful, deep brown",
    "red-green": "red, reddish, redder, pink, scarlet, ruby, magenta, rose, bright red, coloured red, raspberry, brick red, "
    "maroon, rusty red, wine red, strawberry / green, greenish, greener, lime, olive, mint, leaf green, bright green, "
    "coloured green, spinach, pea green, forest green, sage, teal, lettuce, green like grass",
    "yellow-blue": "yellow, yellowish, yellower, golden, amber, mustard, lemon, orange, bright yellow, coloured yellow, "
    "straw, corn, beige, banana, cream yellow, brass / blue, bluish, bluer, azure, indigo, cobalt, navy, sky blue, "
    "bright blue, coloured blue, blueberry, cyan, lavender, steel blue, ice blue, royal blue",
    "saturation": "colourful, vivid, saturated, intense, more colourful, strongly coloured, multicoloured, full of colour, "
    "brightly coloured, rich in colour, neon, rainbow-coloured, oversaturated, lush, fiery / colourless, dull, "
    "washed out, unsaturated, faded, less colourful, weakly coloured, grey, without colour, monochrome, poor in colour, "
    "greyscale, neutral, bleak, dusty",
    "sharpness": "sharp, sharper, in focus, detailed, clear, more detailed, full of detail, sharply focused, textured, grainy, "
    "clear-cut, high-resolution, spiky, intricate, rough / blurred, blurry, blurrier, out of focus, smooth, unclear, "
    "less detailed, without detail, badly focused, smudged, indistinctly drawn, low-resolution, cloudy, plain, silky",
}
CHOOSING = {
    "light-dark": "radiant/dusky, bleached/inky, beaming/dim",
    "red-green": "vermilion/jade, cherry/grassy, ruddy/verdant",
    "yellow-blue": "ochre/ultramarine, honey/denim, sunflower/cornflower",
    "saturation": "gaudy/drab, flashy/ashen, lurid/toneless",
    "sharpness": "well-defined/smeared, precise/misty, fine-grained/foggy",
}
FINAL = {
    "light-dark": "pale/gloomy, sunlit/shaded, brilliant/sombre, illuminated/unlit",
    "red-green": "crimson/emerald, burgundy/fern, blood-coloured/moss-coloured, carmine/viridian",
    "yellow-blue": "saffron/sapphire, canary/cerulean, sandy/oceanic, buttery/aquamarine",
    "saturation": "vibrant/muted, garish/pallid, flamboyant/subdued, kaleidoscopic/achromatic",
    "sharpness": "crisp/fuzzy, distinct/hazy, pin-sharp/unfocused, etched/diffuse",
}
PLAIN_FRAMES = ["a {} picture", "something {}", "a photo of something {}", "{}", "the photo is {}", "it looks {}"]
FRAMES = [  # trained
    "The first photo is {}, the second is {}.",
    "The second photo is {1}, while the first photo is {0}.",
    "The first image looks {} and the second image looks {}.",
    "Unlike the second, which is {1}, the first one is {0}.",
    *(structure.sentence("something {0}", "something {1}") for structure in TRAINED_STRUCTURES),
]
_NEW = ("depicts", "depicts_reversed", "image_two", "appears")
NEW_FRAMES = {
    "comparison": [s.sentence("something {0}", "something {1}") for s in STRUCTURES if s.name in _NEW],
    "plain prompts": ["a {} photo", "this image is {}"],
}
RUDE = frozenset("shit poop poo puke vomit barf booger snot piss diarrhea bile".split())
SIDE, TRUE_SIDE, COPIES, APART = 160, 260, 4, 0.5
BOOTSTRAP, LR = 1000, 5e-5


class Settings(NamedTuple):
    """What was chosen on split seed 1."""

    weight: float = 0.6  # of the appearance part, in lengths of the class-name vector
    steps: int = 120
    temperature: float = 0.1  # of the attribute term
    words: int = 5  # texts of each attribute in a step
    names: int = 20  # pairs of colour names in a step


class Photos(NamedTuple):
    """Unit class-name vectors and measures in standard deviations, row by row."""

    classes: np.ndarray
    values: np.ndarray


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB values in 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    x, y, z = np.moveaxis(np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 0.008856)), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def measure(image: Image.Image, mask: np.ndarray) -> np.ndarray:
    """L, a, b, chroma and log variance of the Laplacian (of L, away from the mask's rim) over the pixels of the mask."""
    colours = lab(np.asarray(image, dtype=np.float64) / 255)
    inside = ndimage.binary_erosion(mask, iterations=2)
    inside = inside if inside.sum() > 50 else mask
    laplacian = ndimage.laplace(colours[..., 0])[inside]
    own = colours[mask]
    return np.array([*own.mean(axis=0), np.hypot(own[:, 1], own[:, 2]).mean(), np.log(laplacian.var() + 1e-2)])


def subject(image: Image.Image) -> np.ndarray:
    """The pixels that are not white background: white that touches the edge is left out, if anything else is left."""
    white = np.pad(np.asarray(image).min(axis=-1) >= 250, 1, constant_values=True)
    regions, _ = ndimage.label(white)
    mask = (regions != regions[0, 0])[1:-1, 1:-1]
    return mask if mask.sum() > 100 else np.ones_like(mask)


def truth(path: str) -> np.ndarray:
    """The measures of a photo's opaque pixels, at the model's own size."""
    with Image.open(path) as file:
        alpha = ImageOps.contain(file.convert("RGBA").getchannel("A"), (TRUE_SIDE, TRUE_SIDE))
    image = ImageOps.contain(open_image(path), (TRUE_SIDE, TRUE_SIDE))
    mask = np.asarray(alpha) > 128
    return measure(image, mask if mask.sum() > 100 else np.ones_like(mask))


def edited(image: Image.Image, mask: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A copy with two to four of: other light, other saturation, a tint, blur or sharpening. Background stays white."""
    changes = rng.permutation(4)[: rng.integers(2, 5)]
    made = image
    if 0 in changes:
        made = ImageEnhance.Brightness(made).enhance(float(np.exp(rng.uniform(-1, 0.6))))
    if 1 in changes:
        made = ImageEnhance.Color(made).enhance(float(rng.uniform(0, 2.5)))
    if 2 in changes:
        red, green, blue = np.exp(rng.uniform(-0.5, 0.3, 3))
        made = Image.fromarray(np.clip(np.asarray(made) * [red, green, blue], 0, 255).astype(np.uint8))
    if 3 in changes:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.5, 3))
        made = made.filter(blur if rng.random() < 0.6 else ImageFilter.UnsharpMask(2, int(rng.uniform(80, 300)), 0))
    return Image.fromarray(np.where(mask[..., None], np.asarray(made), 255).astype(np.uint8))


def listed(words: str) -> list[tuple[str, str]]:
    """Pairs of a word for more and a word for less; with ' / ' two lists, whose k-th words are a pair."""
    if " / " in words:
        more, less = (side.split(", ") for side in words.split(" / "))
        return list(zip(more, less, strict=True))
    return [tuple(pair.split("/")) for pair in words.split(", ")]  # type: ignore[misc]


def asked(words: list[tuple[str, str]], frames: list[str]) -> tuple[list[str], list[str]]:
    """The texts for more, and those for less, of each pair of words in each frame."""
    both = [(f.format(more, less), f.format(less, more)) for more, less in words for f in frames]
    return [more for more, _ in both], [less for _, less in both]


def directions(bench: "Bench") -> np.ndarray:
    """Five orthonormal directions of the base's text space, one an attribute."""
    model = bench.base
    rows = []
    for name in ATTRIBUTES:
        more, less = map(model.encode_texts, asked(listed(TRAINED[name]), PLAIN_FRAMES))
        rows.append(unit((more - less).mean(axis=0)))
    left, _, right = np.linalg.svd(np.stack(rows), full_matrices=False)
    return (left @ right).astype(np.float32)


def vectors(photos: Photos, axes: np.ndarray, weight: float) -> np.ndarray:
    """Unit image vectors: class-name vector plus the appearance part, whose length is `weight` in the mean photo."""
    part = np.clip(photos.values, -2.5, 2.5) @ axes / np.sqrt(len(axes))
    return unit(photos.classes + weight * part).astype(np.float32)


class Bench:
    """One split: photos, copies, measures, the base model and everything that is asked."""

    def __init__(self, seed: int, unseen: dict[str, str]) -> None:
        self.seed, self.unseen = seed, unseen
        self.config: Config = check({**load_yaml(DOCS.parent / "params" / "demo.yaml"), "seed": seed})
        self.images: ImageSet = load_images(self.config)
        self.base = load_model(self.config.model)
        train, held_out = self.images.train, self.images.held_out
        begun = time.monotonic()
        self.opened = [ImageOps.contain(open_image(path), (SIDE, SIDE)) for path in train.path]
        self.masks = [subject(image) for image in self.opened]
        raw = np.stack([measure(*both) for both in zip(self.opened, self.masks, strict=True)])
        self.centre, self.spread = raw.mean(axis=0), raw.std(axis=0)
        self.measuring = time.monotonic() - begun
        self.train = Photos(self.base.encode_images(list(train.path)), self.scaled(raw))
        small = [ImageOps.contain(open_image(path), (SIDE, SIDE)) for path in held_out.path]
        own = self.scaled(np.stack([measure(image, subject(image)) for image in small]))
        self.held_out = Photos(self.base.encode_images(list(held_out.path)), own)
        spread = np.std([truth(path) for path in train.path], axis=0)
        self.truth = np.stack([truth(path) for path in held_out.path]) / spread
        begun, rng = time.monotonic(), np.random.default_rng(seed)
        self.of = np.tile(np.arange(len(train)), 1 + COPIES)  # the photo of each photo and copy
        copies = [edited(self.opened[k], self.masks[k], rng) for k in self.of[len(train) :]]
        changed = [measure(image, self.masks[k]) for image, k in zip(copies, self.of[len(train) :], strict=True)]
        self.pool = Photos(
            self.train.classes[self.of], np.concatenate([self.train.values, self.scaled(np.stack(changed))])
        )
        self.copying = time.monotonic() - begun
        self.names = self._colour_names()

    def scaled(self, raw: np.ndarray) -> np.ndarray:
        return (raw - self.centre) / self.spread

    def _colour_names(self) -> tuple[list[str], np.ndarray]:
        """The names of xkcd's survey without any word that is tested, and their L, a and b in standard deviations."""
        tested = {w for words in (*CHOOSING.values(), *FINAL.values()) for w in words.replace("/", ", ").split(", ")}
        parts = {part for word in tested for part in word.replace("-", " ").split()} - {"coloured", "sharp", "well"}
        trained = " ".join(TRAINED.values()).replace("/", " ").replace(",", " ").split()
        if overlap := parts & set(trained):
            raise ValueError(f"trained and tested: {overlap}")
        names = [name.removeprefix("xkcd:") for name in XKCD_COLORS]
        names = [
            n
            for n in names
            if not RUDE & set(n.split())
            and not any(w.startswith(p) and (w == p or len(p) > 3) for p in parts for w in n.split())
        ]
        colours = lab(np.array([to_rgb(f"xkcd:{name}") for name in names]))
        return names, (colours - self.centre[:3]) / self.spread[:3]

    def verdict_texts(self, rng: np.random.Generator, settings: Settings) -> tuple[list[str], list[str], np.ndarray]:
        """Texts for more and less of a step, and what each asks for as weights of the five measures."""
        more, less, weights = [], [], []

        def ask(of_more: str, of_less: str, wanted: np.ndarray) -> None:
            frames = PLAIN_FRAMES if rng.random() < 0.4 else FRAMES
            a, b = asked([(of_more, of_less)], [frames[rng.integers(len(frames))]])
            more.extend(a)
            less.extend(b)
            weights.append(wanted)

        for k, name in enumerate(ATTRIBUTES):
            sides = list(zip(*listed(TRAINED[name]), strict=True))
            for _ in range(settings.words):
                ask(*(side[rng.integers(len(side))] for side in sides), np.eye(len(ATTRIBUTES))[k])
        names, colours = self.names
        for i, j in rng.integers(len(names), size=(settings.names, 2)):
            apart = colours[i] - colours[j]
            ask(names[i], names[j], np.append(apart / max(np.linalg.norm(apart), 1e-6), [0, 0]))
        return more, less, np.stack(weights)

    def image_pairs(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A third each: a photo and its copy or two copies of it, two unaltered photos, any two of all."""
        photos, third = len(self.train.classes), size // 3
        own = rng.integers(photos, size=third)
        first, second = (own + photos * rng.integers(1 + COPIES, size=third) for _ in range(2))
        plain, others = rng.integers(photos, size=(2, third)), rng.integers(len(self.of), size=(2, third))
        return np.concatenate([first, plain[0], others[0]]), np.concatenate([second, plain[1], others[1]])

    def finetuned(self, settings: Settings, axes: np.ndarray | None):
        """A copy of the base whose text tower learned; without axes from differences and replay alone."""
        model, rng = copy.deepcopy(self.base), np.random.default_rng([self.seed, 1])
        weight = 0.0 if axes is None else settings.weight
        axes = np.zeros((len(ATTRIBUTES), model.width)) if axes is None else axes
        images = torch.from_numpy(vectors(self.pool, axes, weight))
        table = self.images.train
        rows = choose_pairs(table.caption, 450, "balanced", self.seed)
        pairs = both_images(table[["id", "caption"]], rows)
        both = list(zip(pairs.first_caption, pairs.second_caption, strict=True))
        forms = [
            list(zip(rewritten(from_captions(a, b)), rewritten(from_captions(b, a)), strict=True)) for a, b in both
        ]
        kinds = plain_texts(self.config, self.images)
        kept = [self.base.encode_texts(kind) for kind in kinds]
        parameters = list(model.tunable("transformer").values())
        optimizer = torch.optim.AdamW(parameters, lr=LR)
        schedule = [min(1, (k + 1) / 3) * (1 + np.cos(np.pi * k / settings.steps)) / 2 for k in range(settings.steps)]
        for scale in schedule:
            for group in optimizer.param_groups:
                group["lr"] = LR * scale
            batch = rng.permutation(len(pairs))[:16]
            texts = [forms[k][rng.integers(len(forms[k]))] for k in batch]
            target = images[rows[batch, 0]] - images[rows[batch, 1]]
            drawn = [(kind := rng.integers(len(kinds)), rng.integers(len(kinds[kind]))) for _ in range(16)]
            more, less, wanted = self.verdict_texts(rng, settings) if weight else ([], [], np.zeros((0, 5)))
            parts = [[a for a, _ in texts], [b for _, b in texts], [kinds[k][i] for k, i in drawn], more, less]
            encoded = torch.nn.functional.normalize(
                model.features(model.tokenised([text for part in parts for text in part])), dim=-1
            )
            w, twins, plain, up, down = encoded.split([len(part) for part in parts])
            loss, _ = direction_infonce(torch.cat([w, twins]), torch.cat([target, -target]), 0.1)
            loss = loss + 30 * replay(plain, torch.from_numpy(np.stack([kept[k][i] for k, i in drawn])))
            if weight:
                first, second = self.image_pairs(rng, 768)
                apart = (self.pool.values[first] - self.pool.values[second]).clip(-5, 5) @ wanted.T
                clear = torch.from_numpy(np.abs(apart) > APART)
                v = torch.nn.functional.normalize(images[first] - images[second], dim=-1)
                is_more = torch.from_numpy((apart > 0).astype(np.float32))[clear]
                sides = ((v @ side.T)[clear] for side in (up, down))
                loss = loss + 4 * attribute(*sides, is_more, settings.temperature, 3.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return model.eval()

    def score(self, model, images: np.ndarray) -> dict[tuple[str, str, str], Estimate]:
        """Every measure of one model on the held-out photos, by (measure, words, form)."""
        table, estimates = self.images.held_out, {}
        units = table.concept.to_numpy()
        seed = self.seed
        for k, name in enumerate(ATTRIBUTES):
            first, second = np.nonzero(self.truth[:, None, k] - self.truth[None, :, k] >= 1)
            values = {}
            for words, source in (("trained", TRAINED), ("untrained", self.unseen)):
                for form, frames in NEW_FRAMES.items():
                    more, less = map(model.encode_texts, asked(listed(source[name]), frames))
                    scores = images @ (more - less).T
                    values[name, words, form] = (scores[first] > scores[second]).mean(axis=1)
            estimates |= bootstrap_means(values, np.stack([units[first], units[second]], axis=1), BOOTSTRAP, seed)
        classes, own = self.images.classes, table.label.notna().to_numpy()
        texts = model.encode_texts([self.config.evaluate.zero_shot_prompt.format(name) for name in classes])
        right = np.array(classes)[zero_shot(images[own], texts)] == table.label[own].to_numpy()
        estimates |= bootstrap_means({("zero-shot, 15 kinds", "", ""): right}, units[own][:, None], BOOTSTRAP, seed)
        pairs = template_pairs(table[["id", "caption", "concept"]], 1000, seed)
        row = {image: number for number, image in enumerate(table["id"])}
        pairs = pairs.assign(**{side: pairs[side].map(row) for side in ("first", "second")})
        captions = pairs.assign(difference=pairs.first_caption, swapped=pairs.second_caption)
        values = {
            ("difference classification", "", ""): difference_items(model.encode_texts, images, pairs)[
                "difference_classification"
            ].correct,
            ("captions subtracted", "", ""): difference_items(model.encode_texts, images, captions)[
                "difference_order"
            ].correct,
        }
        members = np.stack([units[pairs["first"]], units[pairs["second"]]], axis=1)
        estimates |= bootstrap_means(values, members, BOOTSTRAP, seed)
        mass = table.body_mass.to_numpy(dtype=float)
        first, second = np.nonzero(mass[:, None] > mass[None, :])
        more, less = model.encode_texts(["a photo of a large, heavy animal", "a photo of a small, light animal"])
        scores = images @ (more - less)
        right = scores[first] > scores[second]
        members = np.stack([units[first], units[second]], axis=1)
        return estimates | bootstrap_means({("body mass, plain prompts", "", ""): right}, members, BOOTSTRAP, seed)


def rows_of(bench: Bench, settings: Settings, model, images: np.ndarray, name: str) -> list[dict]:
    """The figures of one model as lines of the table."""
    lines = []
    for (what, words, form), estimate in bench.score(model, images).items():
        low, high = estimate.interval
        line = {"split_seed": bench.seed, "model": name, **settings._asdict(), "measure": what, "words": words}
        lines.append({**line, "form": form, "value": estimate.value, "low": low, "high": high, "n": estimate.n})
    return lines


def tried(bench: Bench, settings: Settings, references: bool) -> list[dict]:
    """The model with the part and finetuned texts; with `references` also those it is compared with."""
    begun = time.monotonic()
    axes = directions(bench)
    finding = time.monotonic() - begun
    images, plain = vectors(bench.held_out, axes, settings.weight), bench.held_out.classes
    lines = rows_of(bench, settings, bench.base, images, "base with the part")
    if references:
        lines += rows_of(bench, settings, bench.base, plain, "base")
        lines += rows_of(bench, settings, bench.finetuned(settings, None), plain, "finetuned without the part")
    begun = time.monotonic()
    model = bench.finetuned(settings, axes)
    learning = time.monotonic() - begun
    lines += rows_of(bench, settings, model, images, "finetuned with the part")
    seconds = {"measures and directions": bench.measuring + finding, "copies": bench.copying, "finetuning": learning}
    print(f"seed {bench.seed} {settings}: " + ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items()), flush=True)
    return lines


GRID = [Settings(weight=0.8, words=4, names=40), Settings()]


def printed(lines: list[dict]) -> None:
    """A line a measure, a column a model."""
    table = pd.DataFrame(lines)
    table["shown"] = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in table.itertuples()]
    keys = ["measure", "words", "form"]
    wide = table.pivot(index=keys, columns="model", values="shown").reindex(
        pd.MultiIndex.from_frame(table[keys]).unique()
    )
    print(wide[list(dict.fromkeys(table.model))].to_string(), flush=True)


def main(what: str = "final") -> None:
    torch.manual_seed(0)
    begun, target = time.monotonic(), DOCS / "appearance.csv"
    lines = []
    if what == "choose":
        bench = Bench(1, CHOOSING)
        for number, settings in enumerate(GRID):
            lines += (new := tried(bench, settings, references=number == len(GRID) - 1))
            printed(new)
    else:
        lines = tried(Bench(0, FINAL), Settings(), references=True)
        printed(lines)
    table = pd.DataFrame(lines)
    if target.is_file():
        old = pd.read_csv(target, keep_default_na=False)
        table = pd.concat([old[~old.split_seed.isin(table.split_seed)], table])
    table.sort_values("split_seed", kind="stable", ascending=False).to_csv(target, index=False, float_format="%.4f")
    print(f"{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main(*sys.argv[1:])
