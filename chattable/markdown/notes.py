"""Notes as GitHub writes them: quotes that are a [!WARNING], and footnotes. The dialect comes in.

A footnote is a number in both of its places: where it leads to may not have been written yet.
"""

import re

CALLOUT = re.compile(r"\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\][ \t]*(?:\n|$)", re.I)
LABEL = r"[A-Za-z][\w-]{0,30}"
# Of [^x] after a blank nobody can tell that it is no pattern of characters, unless it is a number.
FOOTNOTE = (
    rf"(?:(?<=\n)|(?<![\s\S]))\[\^(?P<defined>\d{{1,3}}|{LABEL})\]:"
    rf"|\[\^(?P<number>\d{{1,3}})\](?!\()|(?<=\S)\[\^(?P<label>{LABEL})\](?!\()"
)


def parse_footnote(inline, match, state):
    label = match["defined"] or match["number"] or match["label"]
    state.append_token({"type": "footnote", "raw": label})
    return match.end()


def name_callout(quote):
    """Note what a quote's first line says that it is, and take the line away."""
    first: dict = next(iter(quote["children"]), {})
    if first.get("type") == "paragraph" and (callout := CALLOUT.match(first["text"])):
        first["text"] = first["text"][callout.end() :]
        del quote["children"][: not first["text"]]
        quote["attrs"] = {"kind": callout[1].lower()}
