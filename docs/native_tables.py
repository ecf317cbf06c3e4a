"""The tables of docs/scaling.md about histograms by name, from bench/results."""

from __future__ import annotations

from bench import results
from docs.marks import measured_on, table

_BODIES = ("OpenMetrics", "OpenMetrics, gzip", "protobuf", "protobuf, gzip")


def blocks() -> dict[str, str]:
    """Return the blocks of docs/scaling.md."""
    result = results.read("native")
    sizes, errors = result["sizes"], result["errors"]
    series = ("series", *(f"{each['series']:,}" for each in sizes.values()))
    bodies = ((f"bytes of a scrape: {body}", *(f"{each[body]:,}" for each in sizes.values())) for body in _BODIES)
    quantiles = (
        (title, *(f"{each['median']} %, at most {each['most']} %" for each in by_quantile.values()))
        for title, by_quantile in errors.items()
    )
    names = {each["names"] for each in sizes.values()}
    return {
        "histograms": table((f"one host, {max(names)} names with `other`", *sizes), (series, *bodies)),
        "quantiles": table((f"quantiles of {result['names']} names are off by", *next(iter(errors.values()))), quantiles)
        + f"\n{measured_on(result, 'native')}\n",
    }
