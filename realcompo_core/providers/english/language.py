"""Whether a prompt is English: by its script and its function words."""

from __future__ import annotations

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Only words that are rare in English prompts: "die", "an", "son" and "on" are not here.
FUNCTION_WORDS = {
    "French": _words(
        "un une le la les des du et est sont sur sous dans avec sans devant derrière qui près côté deux trois"
    ),
    "Spanish": _words(
        "el la los las un una unos unas y es está están sobre bajo con sin delante detrás junto que lado dos tres"
    ),
    "Portuguese": _words(
        "o os um uma uns umas e é está são sobre com sem na no nas nos ao lado do da em cima frente dois duas"
    ),
    "Italian": _words(
        "il lo gli un una e è sono su sotto con senza davanti dietro che accanto della del nel nella due tre sul sulla"
    ),
    "German": _words(
        "ein eine einen einem einer der das den dem und ist sind auf unter mit ohne vor hinter neben im zwei drei im"
    ),
    "Dutch": _words("een het de en op onder met zonder voor achter naast naar van twee drie met bij"),
    "Swedish": _words("en ett och är på med utan framför bakom bredvid som två av vid"),
    "Polish": _words("mała mały małe trzyma czerwony czerwona i na pod z bez przed za obok jest są dwa dwie trzy w ze"),
    "Turkish": _words("bir ve üzerinde altında yanında önünde arkasında ile iki üç"),
    "Indonesian": _words("sebuah seekor dan di atas bawah dengan tanpa depan belakang samping yang dua tiga"),
    "Vietnamese": _words("một và trên dưới với không trước sau bên cạnh hai ba con"),
}
ARTICLES = _words("un une ein eine una uno um uma een bir sebuah seekor một")
ENGLISH = _words(
    "a an the and of in on at to with without is are was were by under above behind beside near next left right front "
    "top bottom no not two three four five it its his her their there that which who while between over from for"
)


def other_language(text: str) -> str | None:
    """The language or script of `text` if it is not English, None if it is, or if nothing tells."""
    letters = [c for c in text if c.isalpha()]
    scripts = [unicodedata.name(c, "").split(" ")[0] for c in letters if not c.isascii()]
    foreign = [script for script in scripts if script != "LATIN"]
    if foreign and 2 * len(foreign) > len(letters):
        script = max(set(foreign), key=foreign.count)
        return {"CJK": "Chinese or Japanese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}.get(
            script, f"{script.capitalize()} script"
        )
    words = re.findall(r"[^\W\d_]+", text.lower())
    english = sum(word in ENGLISH for word in words)
    scores = {
        language: sum(word in known and word not in ENGLISH for word in words)
        for language, known in FUNCTION_WORDS.items()
    }
    best = max(scores, key=scores.__getitem__)
    enough = scores[best] >= 2 or (words and words[0] in ARTICLES and len(words) > 1)  # a single "la" is a name
    return best if scores[best] > english and enough else None
