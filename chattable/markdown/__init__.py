"""Markdown becomes safe HTML: whole (`render`), or as it grows (`Growth`); or words, for titles."""

from chattable.markdown.dialect import render
from chattable.markdown.growth import Growth, Patch
from chattable.markdown.words import words

__all__ = ["Growth", "Patch", "render", "words"]
