"""Tables: how they are written, their rows and cells. Parser and growing table come in."""

import re

from chattable.markdown.characters import CARET

# A table with more columns is text, and a short row gets no more empty cells, or a few characters
# could make a page of any size.
COLUMNS, EMPTY_CELLS = 100, 20
TABLE = (
    r"^ {0,3}(?P<table_head>(?=[^\n]*\|)[^\n]*)\n"
    r" {0,3}(?P<table_aligns>\|?[ \t]*:?-[-:| \t]*)(?:\n|$)"
)
ALIGN = re.compile(r":?-+:?")
CELL_CODE = re.compile(r"(?<!`)(`{1,3}+)(?!`).{1,1000}?(?<!`)\1(?!`)")


def parse_table(block, match, state):
    head, aligns = match.group("table_head"), aligns_of(match.group("table_aligns"))
    if aligns is None or len(aligns) != len(cells_of(head)) or len(aligns) > COLUMNS:
        return None
    rows, end = [], match.end()
    while in_table(line := state.get_line(end), head):
        rows.append(row_token(line, aligns, "table_row"))
        end += len(line)
    children = [row_token(head, aligns, "table_head"), {"type": "table_body", "children": rows}]
    state.append_token({"type": "table", "children": children})
    return end


def row_token(line, aligns, kind):
    """Return a row's token with the table's number of cells, or fewer while it is written."""
    cells = cells_of(line)
    if CARET not in line:
        cells += [""] * min(len(aligns) - len(cells), EMPTY_CELLS)
    children = [
        {
            "type": "table_cell",
            "text": cell,
            "attrs": {"align": align, "head": kind == "table_head"},
        }
        for cell, align in zip(cells, aligns, strict=False)
    ]
    return {"type": kind, "children": children}


def cells_of(line):
    """Split a table's row into the sources of its cells."""
    line = line.strip().removeprefix("|")
    cells = [""]
    for part in re.findall(r"\\.|\||[^|\\]+|\\", line):
        if part == "|":
            cells.append("")
        else:
            cells[-1] += part
    if not cells[-1].strip() and len(cells) > 1:
        cells.pop()
    return [CELL_CODE.sub(lambda code: code[0].replace(r"\|", "|"), cell.strip()) for cell in cells]


def aligns_of(line):
    """Return the alignments that a delimiter row gives, or None if it is not one."""
    cells = cells_of(line)
    if not all(ALIGN.fullmatch(cell) for cell in cells):
        return None
    names = {
        (True, True): "center",
        (True, False): "left",
        (False, True): "right",
        (False, False): None,
    }
    return [names[cell[0] == ":", cell[-1] == ":"] for cell in cells]


def in_table(line, head):
    """Tell whether a line goes on with the table that the head begins."""
    return line.lstrip().startswith("|") if head.lstrip().startswith("|") else "|" in line
