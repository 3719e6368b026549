"""The concept of a caption: the head noun of its first noun phrase, by rule.

'A pair of red cherries on a plate.' -> 'cherry'. Good enough to split by subject and to check a comparison; a source
that knows better gives its own `concept` column.
"""

import re

_PARTITIVES = frozenset(
    """
    pair bunch head string glass cup bowl plate quarter half cluster slice piece couple group herd flock baby plant
    number lot kind type set row stack pile basket box bottle close-up photo picture image view""".split()
)
_STOPS = frozenset(
    """
    of with in on at by near under over from to for into onto inside behind beside between through across around
    against along above below off out up down and or but while that which who whose where when as is are was were
    has have had does do means resembles lets stands carries covered made seen shown called than before after next
    used worn hatched""".split()
)
_DETERMINERS = frozenset(
    """
    a an the this that these those some two three four five six several many his her its their our my your another
    one""".split()
)
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "sheep": "sheep",
    "leaves": "leaf",
    "knives": "knife",
    "wolves": "wolf",
    "loaves": "loaf",
    "oxen": "ox",
    "cacti": "cactus",
    "buses": "bus",
    "gases": "gas",
    "lens": "lens",
    "lenses": "lens",
    "series": "series",
    "species": "species",
    "pies": "pie",
    "ties": "tie",
    "cookies": "cookie",
    "movies": "movie",
    "shoes": "shoe",
    "toes": "toe",
    "canoes": "canoe",
}
_WORD = re.compile(r"[^\W_](?:[^\W_]|['-])*")


def words_of(text: str) -> list[str]:
    """Lower-case words, hyphens and apostrophes kept, parentheses dropped."""
    text = _without_parentheses(text.lower()).replace("’", "'").replace("—", ", ").replace("–", ", ")
    return _WORD.findall(text)


def _without_parentheses(text: str) -> str:
    end = text.rfind(")") + 1  # behind it, each opening parenthesis would be searched for its end in vain
    return re.sub(r"\([^)]*\)", " ", text[:end]) + text[end:]


def singular(noun: str) -> str:
    """The singular of an English noun, by rule; words that only look plural stay."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if len(noun) < 4 or noun.endswith(("ss", "us", "is", "ous", "'s")):
        return noun.removesuffix("'s")
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return noun[:-2]
    return noun.removesuffix("s")


def concept_of(caption: str) -> str:
    """The head noun of `caption`, lower case and singular; '' when there is no word at all."""
    first = re.split(r"[.,;:!?—–]\s|[.,;:!?]$", _without_parentheses(caption.strip()) + " ", maxsplit=1)[0]
    words = words_of(first) or words_of(caption)
    while words and words[0] in _DETERMINERS and len(words) > 1:
        words = words[1:]
    if not words:
        return ""
    if words[0] == "of" and len(words) > 1:
        return concept_of(" ".join(words[1:]))
    phrase: list[str] = []
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word == "of" and phrase and singular(phrase[-1]) in _PARTITIVES:
            return concept_of(" ".join(words[i + 1 :])) or singular(phrase[-1])
        participle = word.endswith("ing") and (
            following in _DETERMINERS
            or following in _STOPS
            or (not following and bool(phrase) and singular(phrase[-1]) in _IRREGULAR.values())
        )
        if phrase and (word in _STOPS or word in _DETERMINERS or participle):
            break
        phrase.append(word)
    return singular(phrase[-1])
