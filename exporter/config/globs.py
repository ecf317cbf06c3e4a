"""Globs for names, the same in filters of the configuration, in flags of snoop and in queries of the API.

They are the shell's: `*` matches any text, `?` one character, `[abc]` or `[a-z]` one of a set, `[!abc]` one that is not in the set. Case
matters. There is no escape character, since names are shown with backslashes of their own: `[[]` matches `[`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

from exporter.config.checks import list_of, text

LONGEST, MOST = 256, 100

GLOB = text(f"a glob of 1 to {LONGEST} characters, such as make or python*", rf".{{1,{LONGEST}}}")
GLOBS = list_of(GLOB, MOST)


def matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that returns whether one of the globs matches a whole name.

    Attackers can choose names, and `re` blocks all other threads. A match takes at most (length of the glob) x (length of the name) steps,
    because `fnmatch` makes an atomic group of the part after each `*`: no match is tried twice.
    """
    matches = re.compile("|".join(map(translate, globs))).match
    return lambda name: matches(name) is not None
