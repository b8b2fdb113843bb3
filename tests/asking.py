"""Ask a provider in an app that has nothing else, and keep what came of it."""

from flask import Flask

from chattable import provider as engine

MODEL = "gpt-4o-mini"
KEY = "sk-proj-zx81-very-secret"


class Answer:
    """What one completion came to: `text`, `steps`, `error` (the sentence shown, or None)."""

    def __init__(self, completion):
        self.completion, self.steps, self.error = completion, [], None

    def read(self):
        try:
            for more in self.completion:
                if self.completion.takes_back():
                    self.steps.clear()
                self.steps.append(more)
        except engine.ProviderError as error:
            self.error = str(error)
        return self

    @property
    def text(self):
        return "".join(self.steps)

    @property
    def usage(self):
        return self.completion.settle_usage(self.text)

    @property
    def tokens(self):
        usage = self.usage
        return usage.prompt, usage.completion, usage.estimated


class Asker:
    """An app of its own that asks the provider at `url`, and what it remembers meanwhile."""

    def __init__(self, url, **config):
        self.app = Flask("chattable")
        self.app.config.update(
            {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, "READ_TIMEOUT": 5} | config
        )
        engine.init_app(self.app)

    def ask(self, *messages, model=MODEL):
        """Return the `Answer` to messages: words of the user's, or (role, words)."""
        told = [("user", said) if isinstance(said, str) else said for said in messages or ["Hello"]]
        messages = [{"role": role, "content": words} for role, words in told]
        with self.app.app_context(), engine.Completion(model, messages) as completion:
            return Answer(completion).read()

    def models(self):
        """Return the models that the provider lists, or the sentence that says why none."""
        with self.app.app_context():
            try:
                return engine.list_models()
            except engine.ProviderError as error:
                return str(error)
