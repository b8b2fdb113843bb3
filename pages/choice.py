"""The choice of models: who there is to answer, and who is offered first."""

from flask import current_app, session
from flask_login import current_user

from chattable import live, provider
from pages.words import choices

# Of OpenAI's, for as long as it has not said which it has.
DEFAULT_MODELS = ["gpt-5-mini", "gpt-5", "gpt-4o-mini"]
# Of a provider that says nothing: one that serves a single model takes any name.
UNLISTED = [provider.UNNAMED]
RECENT = 5  # models


def init_app(app):
    """Give every page the choice of models."""
    app.context_processor(around)


def around():
    names = available_models() if current_user.is_authenticated else []
    return {
        "models": choices(names, recent_models()) if names else [],
        "unlisted": names is UNLISTED,
        "demo": current_app.config["DEMO_MODEL"],
    }


def available_models():
    """Return the names to choose from: MODELS, else what the provider listed, else a default."""
    config = current_app.config
    unlisted = DEFAULT_MODELS if provider.is_openai(config["OPENAI_BASE_URL"]) else UNLISTED
    return config["MODELS"] or live.known_models() or unlisted


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
