"""Markdown becomes safe HTML: a whole message (`render`), one that is growing (`Growth`)."""

from chattable.markdown.dialect import render
from chattable.markdown.growth import Growth, Patch

__all__ = ["Growth", "Patch", "render"]
