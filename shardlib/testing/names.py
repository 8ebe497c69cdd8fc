"""Words for names and messages of a local gateway's world."""

from __future__ import annotations

import random

NAMES = (
    "Ada Alan Barbara Charles Donald Edsger Frances Grace Hedy Ida Jean Katherine "
    "Leslie Margaret Niklaus Olga Peter Radia Sophie Tim Ursula Vint Wanda Yukihiro Zoë"
).split()
COLOURS = "amber azure crimson emerald golden indigo ivory silver teal violet".split()
NOUNS = "badger beacon castle comet forest harbour lantern meadow orchard otter river tower".split()
GAMES = (
    "Chess",
    "Go",
    "Rocket Garden",
    "Deep Harbour",
    "Tower of Lanterns",
    "Night Train",
)
STATUSES = ("online", "online", "idle", "dnd", "offline")
EMOJIS = ("👍", "❤️", "😂", "🎉", "👀", "🔥")

_OPENINGS = (
    "has anyone seen",
    "I finally finished",
    "what about",
    "let's try",
    "remember",
    "ok,",
)
_MIDDLES = (
    "the new build",
    "that map",
    "the song from yesterday",
    "my little robot",
    "dinner",
)
_ENDINGS = (
    "?",
    "!",
    " tonight",
    " — it was worth it",
    " 😂",
    ", somehow",
    " before the update",
)


def sentence(rng: random.Random) -> str:
    """Return a random text such as people write; one text in ten is long.

    :param rng: decides the words.
    """
    return ". ".join(
        f"{rng.choice(_OPENINGS)} {rng.choice(_MIDDLES)}{rng.choice(_ENDINGS)}"
        for _ in range(1 if rng.random() < 0.9 else 12)
    )
