"""The versions of installed Python packages, found without importing the packages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata


def installed_version(package: str) -> str:
    """The version of the package with the name `package`, such as "numpy"; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each of `packages` that is installed, by name."""
    return {package: version for package in packages if (version := installed_version(package))}


def version_numbers(version: str) -> tuple[int, ...]:
    """The first three numbers in `version`, for comparisons."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
