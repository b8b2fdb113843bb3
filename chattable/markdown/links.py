"""Addresses that are links, bare ones too. Who reads, writes or holds back one comes in."""

import re

from mistune.util import escape_url

from chattable.markdown.characters import CARET, COMBINING, LETTER, UNSPACED

HALF_LINK = "about:half"  # the address of a link whose address is still arriving
HALF_ADDRESS = re.compile(f"{CARET}|{escape_url(CARET)}")  # in one that was not known for half
LINK = re.compile(r"(?:https?://|mailto:)[^\s]", re.I)
BRACKETED = re.compile(r"(https?://)%5B([\dA-F:.]+)%5D", re.I)  # as mistune writes IPv6 hosts
IN_URL = rf"(?:{LETTER}|[-.~:/?#\[\]@!$&'()*+,;=%])"
HOST_LETTER = rf"[\w{COMBINING}-]"
HOST = (
    rf"(?P<url_bracketed>\[[\dA-Fa-f:.]{{2,45}}+\])"
    rf"|(?:www\.)?(?=[{UNSPACED}]){HOST_LETTER}{{1,63}}+(?:\.{HOST_LETTER}{{1,63}}+(?=\.)){{0,9}}+"
    rf"\.(?:{LETTER}{{1,63}}+|{HOST_LETTER}{{1,63}}+)|{LETTER}"
)
URL = rf"(?<!{LETTER})(?<![/@.-])(?:(?i:https?)://|www\.)(?:{HOST}){IN_URL}{{0,2000}}+"
URL_END = "?!.,:;*_~'])"


def bare_links(md):
    md.inline.register("url_link", URL, _parse_url, start_chars=("h", "H", "w"))


def _parse_url(inline, match, state):
    url = match.group("url_link")
    bracketed = max(0, match.end("url_bracketed") - match.start())
    host, url = url[:bracketed], url[bracketed:]
    if state.brackets:
        url = url.partition("]")[0]
    url = host + _without_end_of_sentence(url)
    if state.in_link or state.depth >= inline.max_nested_level:
        return None
    href = "https://" + url if url.startswith("www.") else url
    text = {"type": "text", "raw": url}
    token = {
        "type": "link",
        "children": [text],
        "attrs": {"url": escape_url(href)},
        "_autolink": url,
    }
    state.append_token(token)
    return match.start() + len(url)


def _without_end_of_sentence(url):
    """Cut punctuation off an address's end, but for brackets that were opened in it."""
    end, unopened = len(url.rstrip(URL_END)), url.count(")") - url.count("(")
    while (bracket := url.rfind(")", end)) >= 0 and unopened > 0:
        url, unopened = url[:bracket], unopened - 1
    return url[: bracket + 1] if bracket >= 0 else url[:end]
