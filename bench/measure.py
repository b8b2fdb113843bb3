"""What the server processes cost: CPU seconds and resident memory, by kind of process."""

import threading
from contextlib import suppress

import psutil

MB = 1_000_000


class Servers:
    """The processes to watch: a dict from a name ("web") to a list of root process ids."""

    def __init__(self, roots):
        self.roots = roots

    def trees(self):
        """Return the living processes by name, children included."""
        return {name: [p for pid in pids for p in family(pid)] for name, pids in self.roots.items()}

    def cpu(self):
        """Return CPU seconds spent since the start, by name."""
        return {name: sum(map(cpu_seconds, tree)) for name, tree in self.trees().items()}

    def memory(self):
        """Return resident MB, by name: the sum over its processes."""
        return {name: sum(map(resident, tree)) / MB for name, tree in self.trees().items()}


def family(pid):
    """Return a process and all that descend from it."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(process):
    """Return user and system time, that of ended children included."""
    with suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:4])
    return 0


def resident(process):
    with suppress(psutil.NoSuchProcess):
        return process.memory_info().rss
    return 0


class Watch:
    """Measure a stretch of time: `cpu` (seconds by name) and `peak` (MB by name) at its end."""

    def __init__(self, servers):
        self.servers = servers
        self.over = threading.Event()

    def __enter__(self):
        self.before = self.servers.cpu()
        self.peak = self.servers.memory()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self):
        while not self.over.wait(0.5):
            memory = self.servers.memory()
            self.peak = {name: max(most, memory[name]) for name, most in self.peak.items()}

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()
        after = self.servers.cpu()
        self.cpu = {name: after[name] - spent for name, spent in self.before.items()}


def percentile(values, share):
    """Return what `share` (0 to 1) of the values do not exceed; None of no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
