"""Marks of emphasis, in every script: which open, close and pair. Who meets a mark comes in."""

import re

from mistune.core import token_depth
from mistune.plugins.formatting import parse_mark, render_mark

from chattable.markdown.bounds import DEEPEST, step
from chattable.markdown.characters import kind_of

MARKS = re.compile(r"\*+|_+")
VALUE_END, VALUE_START = re.compile(r"[A-Za-z0-9_)\]]"), re.compile(r"[A-Za-z0-9_(\[]")


def paired(tokens, levels):
    """Return tokens with what stands between marks of emphasis in tokens of so many levels."""
    done: list = []
    openers: list = []
    for token in tokens:
        if token["type"] == "mark_of_emphasis":
            token["type"] = "text"
            _close(token, done, openers, levels)
            openers += [len(done)] if token["opens"] and token["raw"] else []
            del openers[:-DEEPEST]
        done.append(token)
    return [token for token in done if token.get("raw") != ""]


def _close(closer, done, openers, levels):
    """Put what is between a mark and those it closes into tokens of emphasis."""
    while found := _opener(closer, done, openers):
        at = openers[found - 1]
        opener, children = done[at], done[at + 1 :]
        step(len(children))
        depth = 1 + max((_depth(child) for child in children), default=0)
        if depth > levels:
            del openers[:found]  # what is between these and any later mark is as deep
            return
        double = min(len(opener["raw"]), len(closer["raw"])) > 1
        kind = "strong" if double else "emphasis"
        done[at + 1 :] = [{"type": kind, "children": children, "depth": depth}]
        for run in (opener, closer):
            run["raw"] = run["raw"][1 + double :]
        del openers[found if opener["raw"] else found - 1 :]


def _depth(token):
    return token.get("depth") or token_depth([token])


def _opener(closer, done, openers):
    """Return how many openers there are up to the one that a mark closes; 0 if it closes none."""
    for number in range(len(openers) if closer["closes"] and closer["raw"] else 0, 0, -1):
        opener = done[openers[number - 1]]
        length = opener["length"] + closer["length"]
        # CommonMark's rule of three, for marks that could both open and close.
        apart = (opener["closes"] or closer["opens"]) and length % 3 == 0 and closer["length"] % 3
        if opener["raw"][0] == closer["raw"][0] and not apart:
            return number
    return 0


def flanks(run, before, after):
    """Tell whether a run of * or _ between two characters can (open, close) emphasis.

    As CommonMark has it, amended for scripts without spaces: beside those, marks always can.
    """
    kinds = kind_of(before), kind_of(after)
    if run[0] == "_" and {"word", "unspaced"}.issuperset(kinds):
        return False, False
    free = {"space", "punctuation", "unspaced"}
    opens = kinds[1] != "space" and (kinds[1] != "punctuation" or kinds[0] in free)
    closes = kinds[0] != "space" and (kinds[0] != "punctuation" or kinds[1] in free)
    return opens, closes


def marks(md):
    md.inline.register("mark", r"==(?=[^\s=])", _parse_mark, before="link")
    md.renderer.register("mark", render_mark)


def _parse_mark(inline, match, state):
    before, count = state.src[match.start() - 1 : match.start()], len(state.tokens)
    end = parse_mark(inline, match, state) if flanks_mark(before, "")[0] else None
    if end and not flanks_mark("", state.src[end : end + 1])[1]:
        del state.tokens[count:]
        return None
    return end


def flanks_mark(before, after):
    """Tell whether == between two characters can (open, close) a mark: x==1 compares."""
    return not VALUE_END.match(before), not VALUE_START.match(after)
