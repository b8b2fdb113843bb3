"""Deploying: what a platform installs, starts and ends, and what it says where that cannot be."""

import re
import tomllib

from packaging.requirements import Requirement

from tests.stack import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = (ROOT / "requirements.txt").read_text()
COMPILE = "`uv export` in CONTRIBUTING.md makes requirements.txt anew"


# What is installed.


def pins():
    """Return {name: [(version, who needs it)]} of requirements.txt."""
    found = {}
    for name, version, via in re.findall(
        r"^([\w.-]+)==(\S+).*\n((?: +#.*\n)+)", REQUIREMENTS, re.MULTILINE
    ):
        found.setdefault(name, []).append((version, set(re.findall(r"[\w.-]+", via)) - {"via"}))
    return found


def needed():
    """Return what pyproject.toml asks for at run time, in this app."""
    project = PROJECT["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["app"]
    return {each.name: each.specifier for each in map(Requirement, lines)}


def test_requirements_are_not_stale():
    pinned = pins()
    ours = {name for name, lines in pinned.items() if any("chattable" in via for _, via in lines)}
    assert ours == needed().keys(), COMPILE
    for name, specifier in needed().items():
        for version, _ in pinned[name]:
            assert specifier.contains(version), f"{name}: {COMPILE}"


def test_requirements_have_one_version_each_and_no_addresses():
    lines = [line for line in REQUIREMENTS.splitlines() if not line.lstrip().startswith("#")]
    # The app itself comes in by its folder: to install it brings htmx.
    assert lines.pop(0) == "."
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line)] == []
    assert "://" not in REQUIREMENTS


def test_what_a_browser_gets_of_htmx_is_one_version():
    built_with = {each.name: each for each in map(Requirement, PROJECT["build-system"]["requires"])}
    assert str(built_with["django-htmx"].specifier).startswith("==")
