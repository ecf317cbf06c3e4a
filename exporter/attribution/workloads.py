"""The workload of a pod, from its name as Kubernetes makes it.

- A controller adds a dash and 5 random characters (apiserver, `names/generate.go`; apimachinery, `util/rand`). The part before is cut at 58
  characters, which may take the dash and the end of a hash.
- Deployment: the hash of the template is a 32-bit number in decimal, its digits written as `456789bcdf` (`SafeEncodeString`). Hashes of
  less than 8 characters, one in 430, are not cut: they look like parts of a name (`-db`).
- CronJob: the minutes since 1970, 8 digits; before Kubernetes 1.21 the seconds, 10 digits.
- Indexed Job: the index. StatefulSet: the ordinal. Both are cut, so pods that differ by a number of up to 5 digits are one workload.
"""

from __future__ import annotations

import re

_RANDOM = r"[bcdfghjklmnpqrstvwxz2456789]{5}"
_GENERATED = re.compile(rf"-{_RANDOM}$")
_GENERATED_CUT = re.compile(rf"{_RANDOM}$")
_HASH = re.compile(r"-(?:[456789bcdf]{8,10}|[0-9]{8,10})$")
_HASH_CUT = re.compile(r"-[456789bcdf]{0,10}$")
_NUMBER = re.compile(r"-[0-9]{1,5}$")
_MAX_NAME = 63


def workload(pod: str) -> str:
    """Return the name of the workload; of a pod without one, its own name."""
    if _GENERATED.search(pod):
        base = pod[:-6]
    elif len(pod) == _MAX_NAME and _GENERATED_CUT.search(pod):
        return _HASH_CUT.sub("", pod[:-5]) or pod
    else:
        return _NUMBER.sub("", pod) or pod
    without = _HASH.sub("", base)
    if without == base:
        without = _HASH.sub("", _NUMBER.sub("", base))
    return without or pod
