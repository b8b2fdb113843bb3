"""The text the bench's provider says: ordinary Markdown, the same every time, cut into tokens."""

import random
import re
from functools import cache
from itertools import accumulate

ENGLISH = """\
the of to and a in is it you that for on are with as be this have from or one by but not what all
when we there can an your which their if do will each how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now
people my made over did down only way find use may water long little very after words called just
where most know get through back much before go good new write our used me man too any day same
right look think also around another came come work three word must because does part even place
well such here take why things help put years different away again off went old number great tell
men say small every found still between name should home big give air line set own under read last
never us left end along while might next sound below saw something thought both few those always
looked show large often together asked house world going want school important until form food
keep children feet land side without boy once animals life enough took sometimes four head above
kind began almost live page got earth need far hand high year mother light parts country father
let night following picture being study second eyes soon times story boys since white days ever
paper hard near sentence better best across during today others however sure means knew try told
young miles ways thing whole hear example heard several change answer room sea against top turned
learn point city play toward five using himself usually question request server buffer message
stream memory latency measure process function returns average connection"""
PYTHON = "total count reply chunk offset window queue budget cursor weight prefix margin"
WORDS, NAMES = ENGLISH.split(), PYTHON.split()
TOKEN = re.compile(
    r"```\w*|\n+ *| ?\*\*| ?`| ?[A-Za-z]{1,4}| ?\d{1,3}| ?[^\sA-Za-z\d`*]{1,3}| +|\S"
)


@cache
def tokens(kind, count):
    """Return `count` tokens (str, about 3.1 characters each) of "prose" or of "code"."""
    chance = random.Random(f"{kind} of the bench")
    text = ""
    while len(cut := TOKEN.findall(text)) < count:
        text += prose(chance) if kind == "prose" else code(chance, 40, opened=bool(text))
    return cut[: count - 1] + ["\n```"] if kind == "code" else cut[:count]


@cache
def visible_letters(kind, count):
    """Return the letters and digits a page shows of that text, and how many by token.

    The second is a list of ints: how many are visible once token `i` is shown.
    """
    shown = ["" if "```" in token else letters(token) for token in tokens(kind, count)]
    return "".join(shown), list(accumulate(map(len, shown)))


def letters(text):
    """Return the letters and digits of a text, the part of Markdown that rendering keeps."""
    return "".join(filter(str.isalnum, text))


def prose(chance):
    """Write a section of about 1,200 characters: paragraphs, a list, a table, a fence."""
    parts = [paragraph(chance), paragraph(chance), bullets(chance), paragraph(chance)]
    parts += [table(chance), paragraph(chance), code(chance, 6) + "```", f"## {clause(chance, 4)}"]
    return "\n\n".join(parts) + "\n\n"


def paragraph(chance):
    return " ".join(sentence(chance) for _ in range(chance.randint(2, 3)))


def sentence(chance):
    words = clause(chance, chance.randint(7, 14)).split()
    if chance.random() < 0.3:
        words[3] = f"**{words[3]} {words[4]}**"
        del words[4]
    if chance.random() < 0.3:
        words[-1] = f"`{chance.choice(NAMES)}`"
    return " ".join(words) + chance.choice(".....?!")


def clause(chance, length):
    # The square favours the front of the list, as English favours its common words.
    picked = [WORDS[int(chance.random() ** 2 * len(WORDS))] for _ in range(length)]
    return " ".join(picked).capitalize()


def bullets(chance):
    return "\n".join(f"- {clause(chance, chance.randint(4, 8))}" for _ in range(3))


def table(chance):
    rows = [[clause(chance, 1), clause(chance, 2), str(chance.randint(10, 9999))] for _ in range(4)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| --- | --- | --- |", *lines[1:]])


def code(chance, lines, opened=False):
    """Write lines of Python, after the opening fence unless it is `opened` already."""
    body = "".join(f"{line(chance)}\n" for _ in range(lines))
    return body if opened else f"```python\n{body}"


def line(chance):
    left, right = chance.sample(NAMES, 2)
    word, number = chance.choice(WORDS), chance.randint(1, 999)
    shapes = [
        f"def {left}_{word}({right}, {word}={number}):",
        f"    {left} = {right}[{number}] + {word}_{right}",
        f"    if {left} < {number} and {right} is not None:",
        f'        return "{word} {clause(chance, 2)}" % {left}',
        f"    for {left} in range({number}):  # {clause(chance, 3).lower()}",
    ]
    return chance.choice(shapes)
