"""Globs for names. They mean the same in filters of the configuration, in flags of snoop and in queries of the API.

They are the shell's: `*` stands for any text, `?` for one character, `[abc]` or `[a-z]` for one of a set, `[!abc]` for one that is not in
it. Upper and lower case differ. No character escapes another, since a name as it is shown has backslashes of its own: `[[]` stands for `[`.
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
    """Return whether one of the globs matches a whole name.

    Names come from attackers, and `re` stops every other thread. A glob takes at most (its length) x (the name's) steps: `fnmatch` makes
    an atomic group of what follows each `*`, so that none is tried twice.
    """
    matches = re.compile("|".join(map(translate, globs))).match
    return lambda name: matches(name) is not None
