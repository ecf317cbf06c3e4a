"""Draws horizontal bars as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

_ROW, _NAMES, _PANEL, _BAR, _HEAD = 24, 230, 230, 130, 34
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f; } .title { font-weight: 600; }
rect { fill: #8c959f; } .first rect { fill: #bc4c00; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .first rect { fill: #f0883e; } }
</style>"""


def bars(panels: Mapping[str, Mapping[str, float]], highlighted: str = "this exporter") -> str:
    """Return a picture: a column of bars for each panel, a row for each name. Names that begin with `highlighted` have another colour."""
    names = list(next(iter(panels.values())))
    width, height = _NAMES + _PANEL * len(panels), _HEAD + _ROW * len(names) + 6
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">', _STYLE]
    parts += (_text(_NAMES - 12, row, name, "end") for row, name in enumerate(names))
    for number, (title, values) in enumerate(panels.items()):
        left = _NAMES + number * _PANEL
        parts.append(f'<text class="title" x="{left}" y="{_HEAD - 14}">{escape(title)}</text>')
        parts += _column(left, values, highlighted)
    return "\n".join((*parts, "</svg>", ""))


def _column(left: int, values: Mapping[str, float], highlighted: str) -> Iterator[str]:
    most = max(*values.values(), 1e-9)
    for row, (name, value) in enumerate(values.items()):
        length = max(1.0, _BAR * max(0.0, value) / most)
        y = _HEAD + row * _ROW
        kind = ' class="first"' if name.startswith(highlighted) else ""
        yield f'<g{kind}><rect x="{left}" y="{y}" width="{length:.1f}" height="{_ROW - 8}" rx="2"/></g>'
        yield _text(left + length + 6, row, f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}", "start")


def _text(x: float, row: int, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{_HEAD + row * _ROW + 13}" text-anchor="{anchor}">{escape(text)}</text>'
