"""The app with one small page of its own and the library's partials: `flask --app tests.plain`."""

from flask import render_template
from flask_login import current_user
from jinja2 import FunctionLoader

from app import create_app

PAGE = """<!doctype html>
<html lang="en">
<head>
<title>A chat</title>
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{{ url_for('static', filename='favicon.svg') }}">
{% include "chattable/_head.html" %}
</head>
<body>
<h1>A chat</h1>
{% include "chattable/_chat.html" %}
</body>
</html>
"""


def source(name):
    """Return a template: the page, else the app's own, but no partial that overrides another."""
    if name == "plain.html":
        return PAGE
    return None if name.startswith("chattable/") else usual.get_source(app.jinja_env, name)[0]


app = create_app()
usual, app.jinja_loader = app.jinja_loader, FunctionLoader(source)


@app.get("/plain/<int:chat_id>")
def show_plainly(chat_id):
    updates = f"/chats/{chat_id}/updates"
    return render_template("plain.html", chat=current_user.chat_or_404(chat_id), updates=updates)
