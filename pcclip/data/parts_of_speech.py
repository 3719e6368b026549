"""Nouns and adjectives in a plain English caption, by a word list and a few rules.

It exists to shuffle captions (order.py) without a statistical tagger and its download. An unknown word is a noun. A
participle is no adjective ("a parked car"), as Penn Treebank's tags have it; a word that may be verb or noun is a noun
after a determiner, adjective, number or preposition.
"""

from collections.abc import Sequence

_OTHER = frozenset(
    """
a an the this that these those some any no every each either neither both all another half i you he she it we they me
him her us them his its our your their my mine yours theirs hers who whom whose which what himself herself itself
themselves yourself someone something somebody anyone anything everyone everything nobody nothing is are was were be
been being am has have had having do does did doing done can could will would shall should may might must 's 're 've
'll 'd 'm n't not 't and or but nor so yet if then than because while when where why how as though although until
unless since whether of in on at by for with from to into onto upon off out over under above below beneath behind
between among amongst through during before after near beside besides around about against along across toward towards
within without inside outside up down past atop underneath beyond via per despite except like amid alongside aboard
throughout opposite next one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
hundred thousand dozen there here very too just only even also still again away together apart ahead back forward
forwards backward backwards almost quite rather really well never always often sometimes now later soon already maybe
perhaps else instead upside downhill uphill downstairs upstairs overhead sideways nearby indoors outdoors please yes
ok oh etc twice once
""".split()
)
_ADJECTIVES = frozenset(
    """
red green blue yellow purple pink brown black white gray grey tan beige golden turquoise maroon blonde blond brunette
colorful colourful colored coloured dark light bright pale big large small little tiny huge giant long short tall wide
narrow thick thin fat skinny slim high low deep shallow heavy massive enormous great mini miniature young old new
elderly ancient vintage antique modern teenage middle-aged male female asian african american european british chinese
japanese indian english french italian mexican german good bad nice pretty beautiful cute lovely ugly fancy elegant
plain simple clean dirty messy neat tidy wet dry hot cold warm cool frozen fresh ripe raw delicious tasty sweet sour
spicy healthy empty full open closed broken old-fashioned round square rectangular circular oval flat curved straight
curly sharp pointy fuzzy furry fluffy hairy shaggy smooth rough soft hard shiny glossy wooden metallic woolen sunny
cloudy rainy snowy windy foggy stormy grassy sandy rocky muddy dusty icy hilly leafy mountainous crowded busy quiet
lonely alone happy sad angry sleepy tired hungry thirsty playful serious funny silly friendly excited proud brave wild
tame domestic stray live dead alive asleep awake ready different same similar various several many few more most less
other such own single double multiple numerous whole entire main first second third last rear upper lower central
inner outer far close distant public private local urban rural suburban residential commercial industrial electric
electronic digital mechanical military medical formal casual professional traditional typical special popular famous
historic natural artificial fake real stuffed green-eyed barefoot bare naked nude bald shirtless topless striped
spotted checkered plaid floral decorative ornate bearded strange weird odd unusual interesting dangerous safe fast
slow quick rapid strong weak steep smiling-faced lush dense sparse tropical overcast clear blurry transparent visible
available able free cheap expensive rich poor important large-scale outdoor indoor pregnant handicapped blind disabled
married upright vertical horizontal diagonal parallel extra additional overgrown shaded shady dim gloomy misty hazy
sheer tight loose baggy backward inflatable portable stainless yummy crispy crunchy gooey creamy juicy unique abstract
stylish trendy goofy cheerful enthusiastic athletic muscular chubby grumpy lazy cozy cosy comfortable rusty grimy
hand-held
""".split()
)
_COLOURED = frozenset("orange gold silver plastic leather denim brick".split())  # an adjective before a noun
_VERBS = frozenset(
    """
add appear approach arrange attach attempt bark bathe be beat become begin bend bite blow board boil bring browse
brush build buy call carry catch celebrate change chase chat check chew clean climb collect come compete consist
contain cook cool cover crawl cross crouch cut dance decorate dig display dive do drag draw dress drink drive drop dry
eat enjoy enter examine exit face fall feature feed feel fight fill finish fish fix float fly focus follow gather gaze
get give go grab graze greet grind grow hang have head hear help hide hike hit hold hug hurdle inspect jog join juggle
jump keep kick kiss kneel knit lay lead lean leap learn leave let lick lie lift light line listen live look lounge
lower made make march meet mix mount move observe open operate overlook paddle paint park pass pay peek peel peer
perch perform pet pick pile place plant play point pose pour practice prepare present pretend pull push put raise
reach read ready reflect relax remove rest ride roll row run sail say scratch see seem sell serve set shake share
shave shine shoot shop show sing sip sit skate ski skateboard slice slide sleep smell smile smoke snow snowboard spray
sprinkle squat stack stand stare start stay steer step stick stir stop strap stretch stroll study surf surround swat
swim swing take talk taste teach throw tie top toss touch travel trim try tuck turn type use view wade wait wake walk
wash watch water wave wear weave work wrap write yawn yell
""".split()
)
_IRREGULAR = frozenset(
    """
sat stood lay laid ran rode ridden held ate eaten drove driven flew flown wore worn took taken threw thrown fell
fallen went gone came made caught hung broke broken built bent bit bitten blew blown brought bought drew drawn drank
drunk fed felt found fought forgot gave given grew grown hid hidden hit kept knelt knew known led left lit lost met
paid put read rose said saw seen sold sent set shook shaken shone shot shown shut sang sung slept slid spoke spent
spun spread swam swung stuck struck swept taught told tore torn understood woke wound wrote written lain leapt leaned
""".split()
)
_NOUNS_THAT_LOOK_LIKE_VERBS = frozenset(
    """
building ceiling wedding painting clothing morning evening railing frosting icing lightning string ring king wing
spring dressing parking thing something awning topping toppings lighting drawing crossing landing duckling sibling
pudding bed shed sled seed weed reed red feed speed greed breed steed wicked naked hundred shred bobsled watershed
moped family fly belly jelly butterfly bully lily ally assembly dolly trolley fireflies families lilies butterflies
fish dish goldfish radish vegetable constable dress grass glass bus cross boss class mess pass fabric
""".split()
)
_SUFFIXES = ("ful", "ous", "less", "able", "ible", "ish")
_DETERMINERS = frozenset(
    "a an the this that these those some any no every each another his her its our your their my".split()
)
_SUBJECTS = frozenset(
    "and or but that who which while as he she it they we i you there to can could will would not n't".split()
)  # after these a verb is a verb


def parts_of_speech(tokens: Sequence[str]) -> list[str]:
    """'noun', 'adjective' or 'other' for each word of a caption."""
    words, kinds = ["", *(token.lower() for token in tokens), ""], [""]
    for before, word, after in zip(words, words[1:], words[2:], strict=False):
        kinds.append(_kind(word, before, kinds[-1], after))
    return kinds[1:]


def _kind(word: str, before: str, kind_before: str, after: str) -> str:
    if word in _OTHER or not word[0].isalpha():
        return "other"
    if word in _COLOURED and _kind(after or ".", word, "adjective", "") == "noun":
        return "adjective"
    if word in _ADJECTIVES or _compared(word) or ("-" in word and word.endswith("ed")):
        return "adjective"
    if word in _NOUNS_THAT_LOOK_LIKE_VERBS:
        return "noun"
    if _verb(word):
        plain = word in _VERBS or word.endswith("s")
        nominal = (
            kind_before == "adjective"
            or before in _DETERMINERS
            or before.isdecimal()
            or (before in _OTHER and not before.startswith("'") and before not in _SUBJECTS)
        )
        return "noun" if plain and nominal else "other"
    if word.endswith("ly") or (len(word) > 4 and word.endswith(("ing", "ed"))):
        return "other"
    return "adjective" if len(word) > 5 and word.endswith(_SUFFIXES) else "noun"


def _verb(word: str) -> bool:
    """Whether it is, or may be, a form of a verb of the list."""
    if word in _VERBS or word in _IRREGULAR:
        return True
    stems = [word[: -len(end)] for end in ("s", "es", "ing", "ed", "d") if word.endswith(end)]
    doubled = [stem[:-1] for stem in stems if len(stem) > 2 and stem[-1] == stem[-2]]
    return any(form in _VERBS for stem in stems + doubled for form in (stem, stem + "e")) or (
        word.endswith(("ies", "ied")) and word[:-3] + "y" in _VERBS
    )


def _compared(word: str) -> bool:
    """A comparative or superlative of an adjective of the list."""
    stems = [word[: -len(end)] for end in ("er", "est") if word.endswith(end)]
    forms = [
        form
        for stem in stems
        if len(stem) > 2
        for form in (stem, stem + "e", stem[:-1] + "y", stem[:-1] if stem[-1] == stem[-2] else stem)
    ]
    return any(form in _ADJECTIVES for form in forms)
