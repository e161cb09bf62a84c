"""pyproject.toml, requirements.lock and environment.yml say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())


def locked() -> dict[str, list[Requirement]]:
    """Give the lock's lines by name; a package has several where its version depends on the platform."""
    pins: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, LOCK):
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def asked() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    found = [Requirement(text) for group in [PROJECT["dependencies"], *extras] for text in group]
    return [requirement for requirement in found if requirement.name != "ldm-kit"]  # `all` names the others


def conda_specs() -> list[str]:
    return [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]


def pip_entries() -> list[str]:
    return next(entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))


@pytest.mark.parametrize("requirement", asked(), ids=lambda requirement: requirement.name)
def test_the_lock_has_every_requirement_within_its_range(requirement: Requirement) -> None:
    pins = locked().get(canonicalize_name(requirement.name), [])
    assert pins, f"{requirement.name} is not in requirements.lock: run make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version), (
            f"the lock has {pin}, pyproject wants {requirement}"
        )


def test_the_lock_is_pinned_for_every_platform_and_names_no_cuda() -> None:
    for requirement in map(Requirement, LOCK):
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert "+" not in str(requirement.specifier), f"{requirement} is one platform's build"
        assert not re.match(r"nvidia-|triton|cuda-", requirement.name), (
            f"{requirement} is torch's own business"
        )


def test_conda_users_get_the_lock_and_a_python_it_was_made_for() -> None:
    assert set(pip_entries()) == {"-r requirements.lock", "-e ."}
    # no second list of packages to keep in step: everything else comes from the lock
    specs = dict(re.fullmatch(r"([a-z-]+)(?:>?=([\d.]+))?", text).groups() for text in conda_specs())  # type: ignore[union-attr]
    assert set(specs) == {"python", "pip", "make"}
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{specs['python']}.0")
    assert Version(specs["python"]) >= Version("3.11")  # what `make lock` resolves for
    assert ENVIRONMENT["channels"][0] == "conda-forge"


def test_every_import_of_the_package_is_asked_for_by_name() -> None:
    by_module = metadata.packages_distributions()
    wanted = {canonicalize_name(requirement.name) for requirement in asked()}
    # what a dependency always brings, and re-exports as its own: kaleido's browser, traitlets of ipywidgets
    brought = {"choreographer": "kaleido", "traitlets": "ipywidgets", "ipython": "ipykernel"}
    missing = set()
    for file in sorted((ROOT / "ldm_kit").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in (
                {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"ldm_kit"}
            ):
                names = {canonicalize_name(name) for name in by_module.get(module, [module])}
                names |= {brought[name] for name in names if name in brought}
                if not names & wanted:
                    missing.add(f"{file.relative_to(ROOT)} imports {module}")
    assert not missing


def test_the_package_and_pyproject_are_of_one_version() -> None:
    import ldm_kit

    assert ldm_kit.__version__ == PROJECT["version"]


@pytest.mark.skipif(
    Path(sys.prefix).resolve() != ROOT / ".venv", reason="only make's own environment follows the lock"
)
def test_what_is_installed_is_what_is_locked() -> None:
    for name, pins in locked().items():
        for pin in pins:
            if pin.marker is None or pin.marker.evaluate():
                assert pin.specifier.contains(metadata.version(name), prereleases=True), f"installed: {name}"
