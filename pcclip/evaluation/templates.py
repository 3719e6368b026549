"""Prompts of a class: the paper's one template, the two sets that were made for ImageNet, and described classes."""

from collections.abc import Sequence

from pcclip.errors import PcclipError
from pcclip.evaluation.class_texts import EXTENDED
from pcclip.torchvision_shim import declare_missing

SETS = ("single", "simple7", "official80")


def prompts(classes: Sequence[str], templates: str) -> list[list[str]]:
    """Every class in every template of a set, one list of texts a class.

    Args:
        classes: names as they go into the text.
        templates: 'single' (the paper's), 'official80' (of CLIP's authors, for ImageNet) or 'simple7' (seven that
            they selected from those); the latter two as open_clip ships them.

    Raises:
        PcclipError: no such set.
    """
    if templates not in SETS:
        raise PcclipError(f"no templates {templates!r}; known: {', '.join(SETS)}")
    if templates == "single":
        return [[f"This is a photo of a {name}"] for name in classes]
    declare_missing()
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    fillers = OPENAI_IMAGENET_TEMPLATES if templates == "official80" else SIMPLE_IMAGENET_TEMPLATES
    return [[fill(name) for fill in fillers] for name in classes]


def described(classes: Sequence[str], descriptions: Sequence[Sequence[str]]) -> list[list[str]]:
    """The paper's extended prompts: its template with a description behind it, one list of texts a class.

    Args:
        classes: names as they go into the text.
        descriptions: of each class, in the order of `classes`; one text or more a class.

    Raises:
        PcclipError: not one list of texts for each class, or a class without a description.
    """
    if len(descriptions) != len(classes):
        raise PcclipError(f"{len(descriptions)} lists of descriptions for {len(classes)} classes; give one a class")
    for name, texts in zip(classes, descriptions, strict=True):
        if isinstance(texts, str) or not texts or not all(text.strip() for text in texts):
            raise PcclipError(f"class {name!r}: needs a list of descriptions, none of them empty; write them first")
    return [[EXTENDED.format(name, text) for text in texts] for name, texts in zip(classes, descriptions, strict=True)]
