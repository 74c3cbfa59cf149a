"""The versions of installed Python packages, found without importing the packages."""

from __future__ import annotations

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
