"""Nothing that a person or a model writes runs, or becomes a part of the page that acts."""

import json
import re
from types import SimpleNamespace
from urllib.parse import quote

import html5lib
import pytest
from playwright.sync_api import expect

from chattable import markdown
from chattable.live.frames import growth_frame
from chattable.markdown import Growth
from chattable.markdown.latex import MATH_ATTRIBUTES
from models import Chat, User, db
from tests.growing import Page, pieces
from tests.payloads import AROUND, PAYLOADS
from tests.test_browser import Person, somewhere_else
from tests.test_looks import tell
from tests.test_markdown_safety import ATTRIBUTES, ELEMENTS

MESSAGE = SimpleNamespace(id=7)
ALLOWED = ATTRIBUTES | {"tabindex", "role", "aria-label"}
MATHML = set(
    "math semantics annotation mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded"
    " mphantom mfenced menclose msub msup msubsup munder mover munderover mmultiscripts"
    " mprescripts none mtable mtr mtd mlabeledtr merror mglyph".split()
)
LEADS = re.compile("https?://|mailto:|$")
# Colours have up to three letters.
CLASSES = re.compile(
    r"code|math|rest|code__(head|copy)|task|align-(left|center|right)|digits-\d+|callout|callout--[a-z]+"
    r"|language-\S*|[a-z]{1,2}\d?|pun"
)


def faults(element):
    """Return what of an element no message may have, nor any page take from one."""
    tag, names = element.tagName, set(element.attributes.keys())
    known = ALLOWED | MATH_ATTRIBUTES if tag in MATHML else ALLOWED
    classes = element.getAttribute("class").split()
    return [
        *([f"<{tag}>"] if tag not in ELEMENTS | MATHML else []),
        *sorted(names - known),
        *([element.getAttribute("href")] if not LEADS.match(element.getAttribute("href")) else []),
        *(name for name in classes if not CLASSES.fullmatch(name)),
    ]


def faults_in(node):
    """Return all faults of the elements below a node of a DOM."""
    return [
        fault
        for child in node.childNodes
        if child.nodeType == child.ELEMENT_NODE
        for fault in [*faults(child), *faults_in(child)]
    ]


class Guarded(Page):
    """A message's body that keeps what it was given and should not have been."""

    def __init__(self, html=""):
        self.faults = []
        super().__init__(html)

    def _insert(self, html, parent, before):
        fragment = html5lib.parseFragment(html, container=parent.tagName, treebuilder="dom")
        self.faults += faults_in(fragment)
        for node in list(fragment.childNodes):
            parent.insertBefore(node, before)
        parent.normalize()


def forged(patches):
    """Return whether a frame has more parts that htmx would act on than ours."""
    frame = json.loads(growth_frame(MESSAGE, patches))
    content = frame.pop("content")
    ours = len(patches) - 1
    found = [len(re.findall(mark, content, re.I)) for mark in ("<hx-", "</hx-", "<template")]
    return frame.keys() - {"target", "swap"} or found != [ours, ours, 0]


@pytest.mark.parametrize("size", [1, 7])
def test_nothing_gets_through_wherever_a_reply_is_cut(size):
    through = []
    for payload in PAYLOADS:
        growth, page = Growth(), Guarded()
        for start in range(0, len(payload), size):
            patches = growth.feed(payload[start : start + size])
            page.apply(patches)
            if patches and forged(patches):
                through.append((payload, "frame"))
        page.apply(growth.finish(markdown.render(payload)))
        through += [(payload, fault) for fault in page.faults]
    assert through == []


@pytest.mark.parametrize("around", AROUND)
def test_nothing_gets_through_wherever_it_stands(around):
    through = []
    for payload in PAYLOADS:
        text = around.replace("{}", payload)
        page = Guarded(markdown.render(text))
        through += [(text, fault) for fault in page.faults]
    assert through == []


# Pages.


# Out of an attribute, an element, JSON, a template; a name has no more room than for one.
BREAKING_OUT = (
    '"><img src=x onerror=alert(1)><hx-partial hx-target=body>x</hx-partial>',
    "'></title></textarea></select></template><script>alert(1)</script>",
    '" autofocus onfocus=alert(1) hx-get="/logout" hx-trigger="load',
    '"}\'><script>alert(1)</script>{"{{ 7 * 7 }}${7*7}{% raw %}',
    "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt; javascript:alert(1)",
)


def skeleton(text):
    """Return the elements of a page, but for what is found, each with its attributes' names."""
    page = html5lib.parse(text, treebuilder="dom")
    found = [(each.tagName, sorted(each.attributes.keys())) for each in walk(page)]
    return [each for each in found if each != ("mark", [])]


def walk(page):
    for each in page.getElementsByTagName("*"):
        for name in ("href", "src", "action", "formaction"):
            assert not re.match(r"\s*(javascript|data|vbscript):", each.getAttribute(name), re.I)
        yield each


def tell_all(app, text):
    """Have a text as whatever a person or a model says, in one chat."""
    with app.app_context():
        user = db.session.scalars(db.select(User)).one()
        for chat in list(user.chats):
            chat.delete()
        user.name, chat = text[:80], Chat(title=text[:200])
        user.chats.append(chat)
        db.session.commit()
        message = chat.say("user", text)
        reply = chat.say("assistant", "Fine.")
        told = {"model": text, "note": text, "error": text, "reasoning": text, "status": "failed"}
        for name, value in told.items():
            setattr(reply, name, value)
        db.session.commit()
        return {"chat": chat.id, "message": message.id, "reply": reply.id}


def all_pages(ada, text, chat, message, reply):
    """Return the answers of every page on which a text is shown, or sent back."""
    htmx = {"headers": {"HX-Request": "true"}}
    form = {"chat_id": chat, "content": text, "model": text, "client_id": text, "title": text * 50}
    paths = [
        *("/chats", "/chats?archived=1", "/chats/new", f"/chats/{chat}", f"/chats/{chat}/edit"),
        *(f"/chats/{chat}?thoughts={reply}", f"/chats/{chat}/next?model={quote(text)}"),
        *(f"/messages/{message}/edit", f"/search?q={quote(text)}", f"/{quote(text)}", "/models"),
        *(f"/sidebar?after={quote(text)}&open={quote(text)}", f"/login?next=/{quote(text)}"),
        f"/signup?invitation={quote(text)}",
    ]
    sent = [f"/chats/{chat}", "/messages", "/chats", f"/messages/{message}/edit", "/theme"]
    person = {"name": text * 50, "email": text, "password": text[:5], "next": text, text: text}
    yield from ((path, ada.get(path)) for path in paths)
    yield from ((path, ada.get(path, **htmx)) for path in paths)
    yield from ((path, ada.post(path, data=form)) for path in sent)
    yield from ((path, ada.post(path, data=form, **htmx)) for path in sent)
    yield from ((path, ada.post(path, data=person)) for path in ("/login", "/signup"))


def test_a_page_has_the_same_elements_whatever_is_written(make_app, let_in, app):
    app.config |= {"RATELIMIT_ENABLED": False, "MODELS": ["gpt-4o"]}
    ada, shown = let_in(), []
    for text in ("words", *BREAKING_OUT):
        app.config["MODELS"] = [text, "gpt-4o"]
        answers = all_pages(ada, text, **tell_all(app, text))
        shown.append([(path.partition("?")[0], skeleton(each.text)) for path, each in answers])
    benign, *others = shown
    for text, pages in zip(BREAKING_OUT, others, strict=True):
        for (path, elements), (_, usual) in zip(pages, benign, strict=True):
            assert elements == usual, (text, path)


# In a browser.


# Notes what runs, what the page's policy stops, and what gets into a message and is not allowed.
WATCH = """([tags, names, leads]) => {
  const noted = window.noted = [];
  for (const name of ["alert", "confirm", "prompt"]) window[name] = () => noted.push(name);
  document.addEventListener("securitypolicyviolation", (event) =>
    noted.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  const look = (element) => {
    if (!element.closest(".message__body")?.contains(element.parentElement)) return;
    const attributes = [...element.attributes];
    if (!tags.includes(element.localName)) noted.push(`<${element.localName}>`);
    for (const { name, value } of attributes)
      if (!names.includes(name) || name === "href" && !new RegExp(`^(?:${leads})`).test(value))
        noted.push(`${element.localName} ${name}=${value}`);
  };
  new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) for (const node of [target, ...addedNodes])
      if (node.nodeType === 1) for (const each of [node, ...node.querySelectorAll("*")]) look(each);
  }).observe(document, { childList: true, subtree: true, attributes: true });
}"""
# The elements in what shows a person's words alone.
INSIDE = """() => [...document.querySelectorAll(
  ".sidebar__chat *, .listing__link *, .found__title *, .found__words *, .message__author *," +
  ".chat__title *, .sidebar__name *, .message__reasoning span *, option *, .message__error *," +
  ".message__note *, .message--user .message__body *")]
  .map((element) => element.outerHTML).filter((html) => !/^<mark>[^<]*<\\/mark>$/.test(html))"""


def watched(ada):
    allowed = [sorted(ELEMENTS | MATHML), sorted(ALLOWED | MATH_ATTRIBUTES), LEADS.pattern]
    ada.page.add_init_script(f"({WATCH})({json.dumps(allowed)})")
    ada.page.on("dialog", lambda dialog: ada.errors.append(dialog.message) or dialog.dismiss())
    return ada


def noted(page):
    """Return what has run or was stopped on a page, and what elements stand in mere words."""
    return page.evaluate("() => window.noted"), page.evaluate(INSIDE)


def has_heard_all(stack, session, chat_id):
    """Have each payload as a title, and all of them as what was said in a chat."""
    said = [PAYLOADS[start : start + 20] for start in range(0, len(PAYLOADS), 20)]
    with somewhere_else(stack):
        ada = db.session.scalars(db.select(User).filter_by(email=session.email)).one()
        ada.name = PAYLOADS[0]
        ada.chats.extend(Chat(title=payload.replace("\0", "")[:200]) for payload in PAYLOADS)
        db.session.commit()
    model = {"model": BREAKING_OUT[0], "error": BREAKING_OUT[1], "note": BREAKING_OUT[2]}
    turns = [("\n\n".join(group).replace("\0", ""), "\n\n".join(group)) for group in said]
    tell(stack, chat_id, *((ask, model | {"content": answer}) for ask, answer in turns))


def test_nothing_runs_in_a_browser(page, stack, provider):
    session = stack.signup()
    chat = session.new_chat()
    has_heard_all(stack, session, chat)
    ada = watched(Person(page).is_signed_up(session))
    name = next(iter(session.cookies))
    page.context.add_cookies([{"name": f"{name}_sidebar", "value": "300-0", "url": stack.url}])
    for path in ("/chats", "/search?q=alert", f"/chats/{chat}/edit", f"/chats/{chat}"):
        page.goto(path)
        assert noted(page) == ([], []), path
    expect(page.locator("#chats .sidebar__row")).to_have_count(len(PAYLOADS) + 1)
    provider.says(*pieces("\n\n".join(PAYLOADS), "xss"))
    there = ada.articles.count()
    ada.send("\n\n".join(PAYLOADS))
    expect(ada.articles).to_have_count(there + 2)
    ada.wait_for("complete")
    expect(page).to_have_url(re.compile(f"/chats/{chat}$"))
    assert noted(page) == ([], [])
    assert ada.shown() == ada.fresh()
    page.reload()
    assert noted(page) == ([], [])
    assert ada.errors == []
