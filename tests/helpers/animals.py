"""Animals with Attributes 2 in its published layout, made up."""

import numpy as np

from helpers.files import picture, put


def one_line(lines: list[str]) -> str:
    (line,) = lines
    assert "\n" not in line
    return line


# ---- AwA2 ------------------------------------------------------------------------------------------------------------

PREDICATES = (
    "black white blue brown gray orange red yellow patches spots stripes furry hairless toughskin big small bulbous "
    "lean flippers hands hooves pads paws longleg longneck tail chewteeth meatteeth buckteeth strainteeth horns claws "
    "tusks smelly flys hops swims tunnels walks fast slow strong weak muscle bipedal quadrapedal active inactive "
    "nocturnal hibernate agility fish meat plankton vegetation insects forager grazer hunter scavenger skimmer stalker "
    "newworld oldworld arctic coastal desert bush plains forest fields jungle mountains ocean ground water tree cave "
    "fierce timid smart group solitary nestspot domestic"
).split()
ANIMALS = ["antelope", "grizzly+bear", "killer+whale", "beaver", "dalmatian", "blue+whale"]
UNSEEN = ["dalmatian", "blue+whale"]
HAS = {
    "antelope": "furry horns fast",
    "grizzly+bear": "big claws furry meat",
    "killer+whale": "big flippers swims fish",
    "beaver": "small furry buckteeth",
    "dalmatian": "small spots furry tail smelly",
    "blue+whale": "big blue swims",
}


def row(*names: str) -> np.ndarray:
    return np.isin(PREDICATES, names).astype(int)


def make_zoo(tmp_path):
    """Animals_with_Attributes2 with six animals, two images of each, and their 85 attributes."""
    root = tmp_path / "Animals_with_Attributes2"
    put(root / "classes.txt", "".join(f"{k:6d}\t{name}\n" for k, name in enumerate(ANIMALS, 1)))
    put(root / "predicates.txt", "".join(f"{k:6d}\t{name}\n" for k, name in enumerate(PREDICATES, 1)))
    put(root / "trainclasses.txt", "".join(f"{name}\n" for name in ANIMALS if name not in UNSEEN))
    put(root / "testclasses.txt", "\n".join(UNSEEN) + "\n\n")
    matrix = np.stack([row(*HAS[name].split()) for name in ANIMALS])
    strength = matrix * (60.5 + np.arange(85) / 100)
    strength[0, 0] = -1
    for name, values in {"predicate-matrix-binary.txt": matrix, "predicate-matrix-continuous.txt": strength}.items():
        put(root / name, "".join("  ".join(f"{value:g}" for value in line) + "\n" for line in values))
    for name in ANIMALS:
        for k in (10002, 10001):
            picture(root / "JPEGImages" / name / f"{name}_{k}.jpg")
    return root
