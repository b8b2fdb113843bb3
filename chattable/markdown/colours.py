"""The colours of code that is still being written, line by line. Only growth comes in.

Pygments colours whole texts, and what comes later may change what came before: `/*` is two
operators until there is a `*/`. So a line is shown in colour once it looks the same whatever a few
tries put after it. Where they tell too little, and in languages whose lexers cannot go on from the
middle of a text, the end tells: the whole block is coloured when it is closed.
"""

import re
from copy import copy
from inspect import signature

import pygments
from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer
from pygments.lexers.data import JsonLexer, YamlLexer, YamlLexerContext

from chattable.markdown.bounds import in_time
from chattable.markdown.code_blocks import COLOURED, GROUP, SPANS, WIDE, grouped, lexer_of, patience

# A string that ends on its line; what else may begin something that goes on for lines; its ends.
STRING = re.compile(r"\"(?:[^\"\n\\]|\\.)*+\"|'(?:[^'\n\\]|\\.)*+'|`[^`\n]*+`")
OPENING = re.compile(
    r"[\"'`\\]|/\*|<[!?]|<s[ct]|<<|\{[-#%|{]|\(\*|\[=*\[|^=\w|#[|=<]|\b(?:[msy]|q[qwxr]?|tr)[^\w\s,;.=)]",
    re.M,
)
CLOSING = (
    '""" \'\'\' ` */ --> </script> </style> ?> -} %} #} }} *) ]] ]=] =# |# #> "#\n=cut\n=end\n'
)
HEREDOC = re.compile(r"<<[-~<]?\s*[\"']?(\w+)")
ENDS = re.compile(r"[\"'`>})\]/#;|]|\bend\b|^\w+$", re.M)
# The head of a function may want its body, in languages where statements end with a semicolon.
STATEMENT, HEAD, BODY = re.compile(r";[ \t]*\n"), re.compile(r"[\w),][ \t]*\n\Z"), "x) {\n}\n"
# Characters that are tried for each that came, and some more: what begins may never end.
TRIES, SPARE = 4, 2_000


def colours_of(language):
    """Return the `Colours` of a language; None if its lexer cannot go on in the middle."""
    lexer = lexer_of(language)
    return Colours(lexer) if isinstance(lexer, RegexLexer | JsonLexer) else None


class Colours:
    """Code as it comes: `feed` takes more and returns the HTML of lines whose colours are known.

    `rest` is the text after those.
    """

    def __init__(self, lexer):
        self._lexer = lexer
        context = YamlLexerContext if isinstance(lexer, YamlLexer) else LexerContext
        self._context = context("", 0)  # where to go on: before the end of the last line
        self._text = ""  # from the beginning of that line
        self._line = 0  # how many lines are shown
        self._shown = 0  # how far in the text lines are shown
        self._kept = []  # the tokens after those, and before where to go on
        self._tried = 0  # how far in the text the last try went
        self._hopeful = True  # whether what hindered that may have ended
        self._statements = False  # whether statements end with a semicolon
        self._came = self._work = 0  # characters that came, and that were tried

    @property
    def grouped(self):
        return self._line > GROUP

    @property
    def rest(self):
        return self._text[self._shown :]

    def feed(self, text):
        self._text += text
        self._came += len(text)
        self._hopeful = self._hopeful or bool(ENDS.search(text))
        end = self._text.rfind("\n") + 1
        if not self._lexer or end <= self._tried or not self._hopeful:
            return ""
        if self._work > TRIES * self._came + SPARE:
            return ""
        self._tried, self._hopeful = end, False
        try:
            return self._in_groups(pygments.format(self._lines(end), SPANS))
        except (ValueError, TypeError, LookupError, TimeoutError):
            self._lexer = None
            return ""

    def _in_groups(self, html):
        lines = grouped(html, self._line)
        self._line += html.count("\n")
        return lines.removesuffix("</span>") if self.grouped else lines

    def _lines(self, end):
        """Return the tokens of the lines before an end whose colours are known, as shown."""
        if self._came > COLOURED or max(map(len, self.rest.split("\n"))) > WIDE:
            raise ValueError
        tokens, context = self._lex(end)
        if not context or any(self._differs(tokens, end, more) for more in self._doubts(end)):
            return []
        index, _, value = next(token for token in reversed(tokens) if "\n" in token[2])
        if value[end - index :].strip():  # it goes on
            end = max(self._text.rfind("\n", 0, index) + 1, self._shown)
        lines = list(cut(tokens, self._shown, end))
        self._go_on(tokens, context, end)
        return lines

    def _doubts(self, end):
        """Return what might follow and change the colours of what is not shown yet."""
        new = self._text[self._shown : end]
        doubts = []
        if OPENING.search(STRING.sub("", new)):
            doubts.append(CLOSING + "".join(f"{word}\n" for word in HEREDOC.findall(new)))
        self._statements = self._statements or bool(STATEMENT.search(new))
        if self._statements and HEAD.search(new):
            doubts.append(BODY)
        return doubts

    def _differs(self, tokens, end, more):
        other, _ = self._lex(end, more)
        return list(cut(other, self._shown, end)) != list(cut(tokens, self._shown, end))

    def _lex(self, end, more=""):
        """Return the tokens before an end, and the context at the last that ends a line."""
        context, last = copied(self._context), None
        context.text = self._text + more
        context.end = len(context.text)
        tokens = list(self._kept)
        self._work += end - context.pos
        for token in in_time(lexed(self._lexer, context), patience(context.end)):
            if token[0] >= end:
                break
            if "\n" in token[2]:
                last = copied(context)
            tokens.append(token)
        return tokens, last

    def _go_on(self, tokens, context, end):
        """Go on, the next time, with a context; lines are shown to an end."""
        start = self._text.rfind("\n", 0, max(min(context.pos, end) - 1, 0)) + 1
        self._kept = [
            (index - start, kind, value)
            for index, kind, value in tokens
            if index < context.pos and index + len(value) > end
        ]
        self._text = self._text[start:]
        context.pos -= start
        self._context = context
        self._shown = self._tried = end - start
        self._hopeful = True


def lexed(lexer, context):
    """Lex from a context on, which goes along."""
    if isinstance(lexer, JsonLexer):
        return lexed_json(lexer, context)
    if isinstance(lexer, ExtendedRegexLexer):
        return lexer.get_tokens_unprocessed(context=context)
    tokens = ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=context)
    own = type(lexer).get_tokens_unprocessed
    if own is RegexLexer.get_tokens_unprocessed or "stack" not in signature(own).parameters:
        return tokens
    return retagged(tokens, lexer, context)


def lexed_json(lexer, context):
    start = context.pos
    for index, kind, value in lexer.get_tokens_unprocessed(context.text[start:]):
        context.pos = start + index
        yield context.pos, kind, value


def retagged(tokens, lexer, context):
    """Give tokens the kinds that a lexer's own method gives them."""
    start = context.pos
    own = lexer.get_tokens_unprocessed(context.text[start:], tuple(context.stack))
    kinds = {(start + index, value): kind for index, kind, value in own}
    for index, kind, value in tokens:
        yield index, kinds.get((index, value), kind), value


def copied(context):
    context = copy(context)
    for name, value in vars(context).items():
        if isinstance(value, list):
            setattr(context, name, value[:])
    return context


def cut(tokens, start, end):
    """Give what tokens have of a stretch of text: (kind, value)."""
    for index, kind, value in tokens:
        if value := value[max(start - index, 0) : max(end - index, 0)]:
            yield kind, value
