"""A little Markdown to HTML, in the shape that the CoMSES site renders descriptions."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_LINK = re.compile(r"\[([^\[\]]+)\]\((\S+?)\)")
_BOLD = re.compile(r"\*\*(.+?)\*\*")


def render(blocks: Sequence[str]) -> str:
    """HTML of paragraphs, lists (lines that begin with `- `) and code (fenced by three backticks)."""
    return "\n".join(_block(block) for block in blocks)


def _block(block: str) -> str:
    if block.startswith("```"):
        code = html.escape(block.strip("`"), quote=False)
        return f'<div class="codehilite"><pre><span></span><code>{code}\n</code></pre></div>'
    if block.startswith("- "):
        lines = "\n".join(f"<li>{_inline(line.removeprefix('- '))}</li>" for line in block.split("\n"))
        return f"<ul>\n{lines}\n</ul>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    pieces = []
    end = 0
    for link in _LINK.finditer(text):
        pieces.append(_plain(text[end : link.start()]))
        pieces.append(f'<a href="{html.escape(link.group(2))}">{_plain(link.group(1))}</a>')
        end = link.end()
    pieces.append(_plain(text[end:]))
    return "".join(pieces)


def _plain(text: str) -> str:
    """Escaped, with straight quotes as the entities that the site makes of them."""
    text = html.escape(text, quote=False).replace("'", "&rsquo;")
    halves = text.split('"')
    quoted = "".join(half + ("&ldquo;", "&rdquo;")[at % 2] for at, half in enumerate(halves[:-1])) + halves[-1]
    return _BOLD.sub(r"<strong>\1</strong>", quoted)
