"""Terminal output as an SVG picture that loads nothing from other servers."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console

# rich's own format loads a font from another server, which a page in a browser must not do.
_FORMAT: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg_console(*, width: int) -> Console:
    """
    Return a console that records what is printed, for :func:`to_svg`, and shows nothing.

    :param width: characters per line
    """
    return Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor"
    )


def to_svg(console: Console, *, title: str) -> str:
    """
    Return everything that was printed to a :func:`svg_console` as an SVG document.

    :param title: title of the terminal window that is drawn around the text
    """
    return console.export_svg(title=title, code_format=_FORMAT, unique_id="terminal")
