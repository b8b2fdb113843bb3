"""Run the whole product from one command.

Starts what is missing (an embedded Redis, a secret key, a demo model), applies the migrations,
runs the Procfile's web and worker, restarts what dies, and ends all of it together.
"""

import os
import sys
import tempfile
from pathlib import Path

from chattable.serve.demo_model import DEMO_MODEL, demo_model, demo_settings
from chattable.serve.dotenv_file import load_file
from chattable.serve.home import check_files
from chattable.serve.instance import instance_folder, open_folder
from chattable.serve.listener import address_of, open_listener
from chattable.serve.processes import list_workers, migration, web_process
from chattable.serve.redis_server import embedded_redis, redis_check, redis_settings
from chattable.serve.running import RunningFile
from chattable.serve.sentences import CannotStart, say
from chattable.serve.settings import key_settings, prepare_environment, tidy_environment
from chattable.serve.stack import Stack, Stopped


def launch():
    """Run Chattable until Ctrl-C or SIGTERM; exit with 1 and one sentence if it cannot start."""
    try:
        load_file(Path.cwd() / ".env")
        tidy_environment()
        with Stack() as stack:
            run(stack)
    except CannotStart as sentence:
        sys.exit(f"chattable: {sentence}")
    except Stopped:
        say("Chattable stopped.")


def run(stack):
    """Start everything, say where it is, and keep it running."""
    check_files()
    instance = open_folder(instance_folder(os.environ.get("INSTANCE_PATH")))
    running = stack.enter(RunningFile(instance / "running.env"))
    listener = stack.enter(open_listener())
    workers = list_workers()
    settings = {"CHATTABLE_URL": address_of(listener)}
    settings |= key_settings(instance) | redis_settings(stack, instance) | demo_settings()
    running.write(settings)
    prepare_environment(settings | {"INSTANCE_PATH": str(instance)})
    bring_up(stack, listener, embedded_redis(settings, instance))
    demo = demo_model(settings)
    welcome(settings)
    stack.start(*demo, *workers)
    stack.watch()


def bring_up(stack, listener, redis):
    """Start Redis and the web, and return once /up answers; the database is migrated meanwhile.

    The web process loads behind a gate, a pipe that is closed when database and Redis are ready.
    So it neither serves too early nor waits before it loads.
    """
    gate, end = os.pipe()
    with open(end, "wb") as opener, tempfile.TemporaryFile() as boot_log:
        web = web_process(listener, gate, boot_log)
        stack.start(*redis, web)
        try:
            stack.finish(migration(), *([] if redis else [redis_check()]))
            for server in redis:
                stack.wait_for_redis(server, os.environ["REDIS_URL"])
        except BaseException:
            web.kill()  # it has nothing to finish, and no ear for signals while it loads
            raise
        opener.close()
        stack.wait_for_web(web, listener, boot_log)
    web.options["stderr"] = None


def welcome(settings):
    """Say where it runs, how to stop it, and who answers."""
    say(f"Chattable runs at {settings['CHATTABLE_URL']}  (Ctrl-C stops it)")
    if "DEMO_MODEL" in settings:
        say(f"Replies come from {DEMO_MODEL}, a small local model; set OPENAI_API_KEY for more.")
