"""The concept of a caption: the head noun of its first noun phrase, by rule.

'A pair of red cherries on a plate.' -> 'cherry'. tests/unit/data/coco_heads.csv has 200 COCO captions with head nouns
chosen by hand; the rule finds the share of them that its test states. A source that knows better gives its own `concept`.
"""

import re

from pcclip.data.parts_of_speech import parts_of_speech

_PARTITIVES = frozenset(
    """
    pair bunch head string glass cup bowl plate quarter half cluster slice piece couple group herd flock baby plant
    number lot kind type set row stack pile basket box bottle close-up closeup photo picture image view shot photograph
    drawing painting
    bunch variety collection assortment amount dozen line crowd team pack stack""".split()
)
_STOPS = frozenset(
    """
    of with in on at by near under over from to for into onto inside behind beside between through across around
    against along above below off out up down and or but while that which who whose where when as is are was were
    has have had does do means resembles lets stands carries covered made seen shown called than before after next
    used worn hatched here there outside atop among amongst within without beneath underneath beyond next""".split()
)
_PREDICATIVES = frozenset("full available ready open alone asleep awake visible able alive empty".split())
_DETERMINERS = frozenset(
    """
    a an the this that these those some two three four five six several many his her its their our my your another
    one""".split()
)
_OPENINGS = frozenset("there there's here is are was were".split())  # before a subject that follows its verb
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
    return noun[:-2] if noun.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")) else noun.removesuffix("s")


def concept_of(caption: str) -> str:
    """The head noun of `caption`, lower case and singular; '' when there is no word at all."""
    return head_noun(caption)[0]


def head_noun(caption: str) -> tuple[str, bool]:
    """The head noun as `concept_of` gives it, and whether it is sure to be a noun."""
    first = re.split(r"[.,;:!?—–]\s|[.,;:!?]$", _without_parentheses(caption.strip()) + " ", maxsplit=1)[0]
    words = words_of(re.sub(r"\b([Cc]lose) up\b", r"\1-up", first)) or words_of(caption)
    start = next((k for k, word in enumerate(words) if word not in _DETERMINERS | _OPENINGS), len(words) - 1)
    named, words = start > 0 and words[start - 1] in _DETERMINERS, words[max(start, 0) :]
    if not words:
        return "", False
    if words[0] == "of" and len(words) > 1:
        return head_noun(" ".join(words[1:]))
    kinds = parts_of_speech(words)
    end = next((k for k in range(1, len(words)) if _ends(words[:k], words[k:], kinds)), len(words))
    if words[end : end + 1] == ["of"] and singular(words[end - 1]) in _PARTITIVES and len(words) > end + 1:
        return head_noun(" ".join(words[end + 1 :]))
    return singular(words[end - 1]), kinds[end - 1] == "noun" or (named and _STOPS.issuperset(words[end : end + 1]))


def _ends(phrase: list[str], rest: list[str], kinds: list[str]) -> bool:
    """Whether a noun phrase ends before `rest`; `kinds` are the parts of speech of both."""
    word, following, last = rest[0], rest[1] if len(rest) > 1 else "", phrase[-1]
    if (
        word in ("and", "or")
        and kinds[len(phrase) - 1] == "adjective"
        and kinds[len(phrase) + 1 :][:1] == ["adjective"]
    ):
        return False  # 'a black and white photo'
    if word in _STOPS or word in _DETERMINERS:
        return last not in ("and", "or")
    kind, noun_before = kinds[len(phrase)], kinds[len(phrase) - 1] == "noun"
    if word.endswith("ing") and kind == "other" and (following in _DETERMINERS or following in _STOPS):
        return True
    plural = singular(last) != last or last in ("people", "men", "women", "children", "sheep")
    if noun_before and (following in _DETERMINERS or word in _PREDICATIVES):
        return (
            word in _PREDICATIVES or plural or word.endswith("s")
        )  # 'a batter misses a ball', 'people cross the street'
    if kind != "other" or not noun_before or (word.endswith("ed") and kinds[len(phrase) + 1 :][:1] == ["noun"]):
        return False  # 'a wood carved bear'
    return plural or word.endswith(("s", "ing", "ed"))
