"""What is inside a block, parsed at a cost that is linear in its length. The dialect comes in."""

import mistune

from chattable.markdown.bounds import step
from chattable.markdown.emphasis import MARKS, flanks, paired
from chattable.markdown.tags import Summary


class Inline(mistune.InlineParser):
    """Parse what is inside a block, at a cost that is linear in its length."""

    def __call__(self, s, env):
        step()
        env = {**env, "in_summary": True} if isinstance(s, Summary) else env
        return super().__call__(s, env) if s else []

    def parse_method(self, m, state):
        step()
        return super().parse_method(m, state)

    def process_text(self, text, state, parse_emphasis=True):
        step()
        super().process_text(text, state, parse_emphasis)

    def parse_emphasis(self, m, state):
        for run in MARKS.finditer(state.src, *m.span()):
            start, end = run.span()
            before, after = state.src[start - 1 : start], state.src[end : end + 1]
            opens, closes = flanks(run.group(), before or "\n", after or "\n")
            token = {"raw": run.group(), "opens": opens, "closes": closes}
            state.append_token(token | {"type": "mark_of_emphasis", "length": len(run.group())})
        return m.end()

    def finalize_tokens(self, tokens, depth):
        """Pair the marks of emphasis (mistune knows spaced scripts only, and takes the square)."""
        step(len(tokens))
        return paired(super().finalize_tokens(tokens, depth), self.max_nested_level - depth)
