"""The words of a prompt that pixels alone can confirm: named colours, light and dark, motion.

What is left out, on purpose:
- words whose sense needs the noun ("light", "rose", "fair", "still sleeping", "running late");
- names ("White House", "Red Square") and anything denied ("no red", "without green", "not moving");
- whose colour it is: "a red apron" asks for red somewhere in the picture, not for an apron.

A colour keeps its modifier ("dark red" is red, "light blue" is blue); any other "dark" thing asks for dark pixels, and
only a dark room, sky, background, ... for a dark picture.
"""

from __future__ import annotations

import re

_COLOUR_WORDS = {
    "red": r"red(?:dish|der|dest)?|crimson|scarlet|ruby|maroon|burgundy",
    "orange": r"orange|amber|tangerine|terracotta",
    "golden": r"gold(?:en)?",
    "yellow": r"yellow(?:ish|ed|ing)?",
    "green": r"green(?:ish|er|est|ery)?|emerald|olive",
    "cyan": r"cyan|teal|turquoise|aqua(?:marine)?",
    "blue": r"blu(?:e|ish|er|est)|navy|azure|sapphire|indigo",
    "purple": r"purpl(?:e|ish)|violet|lavender|lilac",
    "pink": r"pink(?:ish)?|magenta|fuchsia",
    "brown": r"brown(?:ish|ed)?|golden[- ]brown|chestnut|bronze",
    "black": r"black(?:ened|ish)?|jet[- ]black",
    "white": r"whit(?:e|ened|ish|er|est)|snow[- ]white",
    "gray": r"gr[ae]y(?:ish)?|silver(?:y)?",
}
_ANY_COLOUR = "|".join(_COLOUR_WORDS.values())
_PLACES = (
    "background|backdrop|room|night|sky|street|alley|forest|woods|studio|scene|corridor|hallway|cave|stage|space|city|sea"
    "|ocean|water|evening|interior"
)
_SUN = "sun|sunlight|sunshine|day|daylight|midday|noon|sky|skies|room|studio|background|backdrop|light|lights|lighting"
_STAYING = r"(?:st(?:and|ay)|remain|keep|hold)(?:s|ing)?|sits?|sitting|lies?|lying"
_CAMERA = r"(?:camera|shot|view|lens)(?: \w+ly)?"  # pots and pans do not move

# In order of precedence where two begin at the same word; the first group is read over, it asks for nothing.
_PATTERNS = {
    "ignored": r"white house|black friday|red sea|black sea|(?:dark|light|bright|pale|deep|rich)[- ](?="
    rf"(?:{_ANY_COLOUR})\b)",
    "monochrome": r"monochrom(?:e|atic)|black[- ]and[- ]white (?:film|footage|photo\w*|movie|video|picture|style)",
    "vivid": r"colou?rful(?:ly)?|multi[- ]?colou?red|vividly colou?red|rainbow[- ]colou?red",
    "dark": rf"dark(?:ened|er)? (?:\w+ )?(?:{_PLACES})|in the dark(?:ness)?|dark(?:ness|ly lit)|dim(?:ly|med)?[- ]?lit"
    r"|dim light|nights?|night[- ]?time|midnight|moonlit|moonlight|starry|starlit|candle-?lit|gloomy",
    "shade": r"dark(?:ened|er)?|shadows?|shadowy|silhouett(?:e|es|ed)",
    "light": rf"sun[- ]?(?:lit|drenched|dappled|bathed|soaked)|sunny|bright(?:ly|er)?[- ](?:\w+ )?(?:lit|{_SUN})"
    r"|well[- ]lit|day-?light|mid-?day|high[- ]key|dazzling(?:ly)?|overexposed",
    "still": r"motionless(?:ly)?|stationary|immobile|still (?:life|camera|shot|frame)"
    rf"|(?:{_STAYING}) (?:\w+ly )?still|(?:static|fixed|locked) (?:camera|shot|frame|scene)"
    r"|frozen in (?:time|place|motion)",
    "slow": r"slow(?:ly|er|ed)?(?:[- ](?:motion|mo))?|slo-?mo|leisurely|gradual(?:ly)?|unhurried(?:ly)?"
    r"|drift(?:s|ed|ing)?",
    "fast": r"fast(?:er)?(?:[- ]paced|[- ]moving)?|quick(?:ly|er)?|swift(?:ly|er)?|rapid(?:ly)?|brisk(?:ly)?"
    r"|frantic(?:ally)?|gallop(?:s|ed|ing)?|sprint(?:s|ed|ing)?|dash(?:es|ed|ing)|rush(?:es|ed|ing)?|rac(?:es|ed|ing)"
    r"|hurtl(?:e|es|ed|ing)|speed(?:s|ing)|explod(?:e|es|ed|ing)|whirl(?:s|ed|ing)|spin(?:s|ning)|time[- ]?lapse",
    "pan_left": rf"{_CAMERA} pan(?:s|ned|ning)? (?:\w+ly )?(?:to the )?left(?:wards?)?",
    "pan_right": rf"{_CAMERA} pan(?:s|ned|ning)? (?:\w+ly )?(?:to the )?right(?:wards?)?",
    "pan": rf"{_CAMERA} pan(?:s|ned|ning)?|panning (?:shot|camera)",
    "tilt_up": rf"{_CAMERA} tilt(?:s|ed|ing)? up(?:wards?)?",
    "tilt_down": rf"{_CAMERA} tilt(?:s|ed|ing)? down(?:wards?)?",
    **_COLOUR_WORDS,
}
_CUES = re.compile(r"\b(?:" + "|".join(f"(?P<{cue}>{words})" for cue, words in _PATTERNS.items()) + r")\b")
_DENIED = re.compile(r"\b(?:no|not|non|never|without|\w*n't)\W+(?:\w+\W+)?$")

COLOURS = (*_COLOUR_WORDS, "shade", "vivid")
"""Cues that ask for pixels of a kind, in the order in which the features count them."""
MOTIONS = ("still", "slow", "fast", "pan_left", "pan_right", "pan", "tilt_up", "tilt_down")
"""Cues that a single frame cannot confirm."""


def cues(prompt: str) -> tuple[str, ...]:
    """The distinct cues of a prompt, in order of appearance; empty if it names nothing that pixels can confirm.

    >>> cues("A golden retriever gallops through dark blue water")
    ('golden', 'fast', 'blue')
    >>> cues("a dimly-lit room, a woman with dark hair, no green")
    ('dark', 'shade')
    >>> cues("A fantasy landscape")
    ()
    """
    text = prompt.replace("Red Square", "that square").lower().replace("’", "'")  # the one in Moscow is not red
    found = [m for m in _CUES.finditer(text) if not _DENIED.search(text, 0, m.start())]
    return tuple(dict.fromkeys(m.lastgroup for m in found if m.lastgroup and m.lastgroup != "ignored"))
