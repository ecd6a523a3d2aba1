"""Equations as MathML, which browsers draw themselves, without a script or a network."""

import re
from typing import Any

from latex2mathml.converter import convert

BLOCK = re.compile(r"^\$\$(.+?)\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$`\w])\$([^$\n`]+?)\$(?![\w$])")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn `$$...$$` and `$...$` of the page about the model into MathML."""
    if page.file.src_uri != "model.md":
        return markdown
    markdown = BLOCK.sub(lambda found: convert(found[1].strip(), display="block"), markdown)
    return INLINE.sub(lambda found: convert(found[1]), markdown)
