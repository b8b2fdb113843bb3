"""The choice of models: who there is to answer, and who is offered first."""

from flask import Blueprint, current_app, render_template, request, session
from flask_login import current_user

from chattable import live, provider
from pages.errors import problem
from pages.words import choices

# Of OpenAI's, for as long as it has not said which it has.
DEFAULT_MODELS = ["gpt-5-mini", "gpt-5", "gpt-4o-mini"]
# Of a provider that says nothing: one that serves a single model takes any name.
UNLISTED = [provider.UNNAMED]
RECENT = 5  # models
# What a page says where there are no names.
ASKING, NONE = "asking", "none"

routes = Blueprint("choice", __name__)


def init_app(app):
    """Give every page the choice of models."""
    app.context_processor(around)
    app.register_blueprint(routes)


def around():
    names, unlisted = offer() if current_user.is_authenticated else ([], None)
    return {
        "models": choices(names, recent_models()) if names else [],
        "unlisted": unlisted,
        "demo": current_app.config["DEMO_MODEL"],
    }


def available_models():
    """Return the names to choose from: MODELS, else what the provider listed, else a default."""
    return offer()[0]


def offer():
    """Return `available_models()`, and why there are no names of this provider's if there are none.

    That is `ASKING`, `NONE`, or a sentence.
    """
    config = current_app.config
    if config["MODELS"]:
        return config["MODELS"], None
    names, trouble = live.heard_models()
    if names:
        return names, None
    if provider.is_openai(config["OPENAI_BASE_URL"]):
        return DEFAULT_MODELS, None
    return UNLISTED, trouble or (ASKING if names is None else NONE)


def meant(model):
    """Return the model that a form means: a page without names means whoever there is by now.

    None if it is not there.
    """
    if model in available_models():
        return model
    return default_model() if model in (None, "", provider.UNNAMED) else None


def default_model():
    """Return the model to offer first: the one this person picked last that there still is."""
    models = available_models()
    return next((name for name in recent_models() if name in models), models[0])


def recent_models():
    """Return what this person has picked, the last first."""
    return session.get("models", [])


def remember_model(model):
    recent = [model, *(name for name in recent_models() if name != model)][:RECENT]
    if recent != recent_models():
        session["models"] = recent


@routes.get("/models")
def show_models():
    """Give a page that was opened before the provider had listed its models the choice of them."""
    return render_template("messages/_listed.html", selected_model=meant(None))


def refuse(sentence, status):
    """Answer with one sentence, and where the picked model is gone with the present choice."""
    answer, status = problem(sentence, status)
    if status == 422 and request.headers.get("HX-Request") and not meant(request.form.get("model")):
        answer += render_template("messages/_choice.html", selected_model=default_model())
    return answer, status
