"""Open files: each socket is one, and many systems allow 256 or 1,024 at first."""

import resource


def allow_many_files():
    """Raise this process's limit of open files as far as it may; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 20_000 if hard == resource.RLIM_INFINITY else min(hard, 20_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
