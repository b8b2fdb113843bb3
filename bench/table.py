"""The bench's table: figures of each part, and their layout."""

import statistics

from bench.measure import percentile

COLUMNS = [
    ("part", "name", "{}"),
    ("done", "done", "{}"),
    ("slowest s", "slowest", "{:.2f}"),
    ("first ms", "first", "{:.1f}"),
    ("lag p50 ms", "lag50", "{:.0f}"),
    ("p99 ms", "lag99", "{:.0f}"),
    ("CPU s/1k", "cpu", "{:.3f}"),
    ("web", "cpu_web", "{:.3f}"),
    ("worker", "cpu_worker", "{:.3f}"),
    ("redis", "cpu_redis", "{:.3f}"),
    ("postgres", "cpu_postgres", "{:.3f}"),
    ("web MB", "web", "{:.0f}"),
    ("worker MB", "worker", "{:.0f}"),
    ("redis MB", "redis", "{:.0f}"),
    ("payload/HTML", "ratio", "{:.2f}"),
    ("payload kB", "payload", "{:.1f}"),
    ("wire kB", "wire", "{:.1f}"),
    ("HTML kB", "html", "{:.1f}"),
    ("article kB", "article", "{:.1f}"),
    ("frames", "frames", "{:.0f}"),
    ("SQL/s", "sql", "{:.1f}"),
    ("strays", "strays", "{}"),
    ("note", "note", "{}"),
]
SERVERS = ("web", "worker", "redis")


def row(part, results, watches, html):
    """Return a part's figures: milliseconds, CPU seconds per 1,000 tokens, MB, kB per reply."""
    complete = [result for result in results if result["status"] == "complete"]
    return {
        "name": part.name,
        "done": f"{len(complete)}/{len(results)}",
        "slowest": slowest(complete),
        "strays": sum(result["strays"] for result in results),
        "note": note(results),
        **times(results),
        **costs(part, results, watches),
        "sql": watches[-1].sql,
        **sizes(complete, html),
    }


def slowest(complete):
    """Return the seconds from click to end of the reply that took longest; None of no replies."""
    spans = [result["ended_at"] - result["posted_at"] for result in complete]
    return max(spans, default=None)


def times(results):
    lags = [lag * 1000 for result in results for lag in result["lags"]]
    firsts = [result["first"] * 1000 for result in results if result["first"] is not None]
    first = statistics.median(firsts) if firsts else None
    return {"first": first, "lag50": percentile(lags, 0.5), "lag99": percentile(lags, 0.99)}


def costs(part, results, watches):
    """Return CPU by server per 1,000 tokens, their sum without the database, and peak memory."""
    thousands = sum(result["seen"] for result in results) / 1000 or 1
    names = watches[0].cpu
    cpu = {name: sum(watch.cpu[name] for watch in watches) / thousands for name in names}
    peak = {name: max(watch.peak[name] for watch in watches) for name in names}
    return {"cpu": sum(cpu[name] for name in SERVERS)} | peak | prefixed("cpu_", cpu)


def prefixed(prefix, figures):
    return {prefix + name: value for name, value in figures.items()}


def sizes(complete, html):
    """Return bytes by reply (medians, kB) and payload bytes per byte of the final HTML."""
    if not complete:
        return {}
    middle = {
        name: statistics.median(result[name] for result in complete)
        for name in ("payload", "wire", "frames")
    }
    return {
        "payload": middle["payload"] / 1000,
        "wire": middle["wire"] / 1000,
        "frames": middle["frames"],
        "html": html[0] / 1000,
        "article": html[1] / 1000,
        "ratio": middle["payload"] / (html[0] or 1),
    }


def note(results):
    """Say what went wrong, and whether the wire was compressed."""
    ends = [result["status"] for result in results]
    bad = {end: ends.count(end) for end in ends if end != "complete"}
    wrong = [f"{count} {end}" for end, count in bad.items()]
    plain = [] if all(result["deflated"] for result in results) else ["no deflate"]
    return ", ".join(wrong + plain)


def idle_row(part, before, watch, not_opened):
    """Return what idle sockets cost: memory, and the CPU of five seconds of silence."""
    opened = part.idle - not_opened
    each = (watch.peak["web"] - before["web"]) / (opened or 1) * 1000
    spent = sum(watch.cpu.values())
    said = f"web {each:.0f} kB a socket over {before['web']:.0f} MB, {spent / 5:.1%} CPU"
    return {"name": part.name, "done": f"{opened}/{part.idle}", "note": said} | watch.peak


def whole(rows, conditions):
    """Return the table as Markdown with the conditions under it; empty columns are left out."""
    columns = [column for column in COLUMNS if any(cell(row, column) for row in rows)]
    lines = [[title for title, _, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row, column) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{conditions}"


def cell(row, column):
    _, key, form = column
    value = row.get(key)
    return "" if value is None else form.format(value)


def line(row):
    """Return one row as words, for who watches the run."""
    return "  " + ", ".join(
        f"{column[0]} {cell(row, column)}" for column in COLUMNS[1:] if cell(row, column)
    )
