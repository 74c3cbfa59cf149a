"""A hook of MkDocs: pages lie in the site as in the repository, so that a link works on GitHub and in the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# What the pages are, and what they link to.
PATTERNS = (
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "tests/faults/FAULTS.md",
    "LICENSE",
    "docs/*.md",
    "docs/*.svg",
    "docs/*.png",
    "docs/*.css",
    "bench/results/*",
    "configs/**/*.yaml",
)


def on_files(files: Files, config: Any) -> Files:
    """The README, the pages and what they show, in the folders that they have in the repository."""
    root = Path(config.config_file_path).parent
    names = sorted(str(path.relative_to(root)) for pattern in PATTERNS for path in root.glob(pattern))
    theme = [file for file in files if not str(file.abs_src_path).startswith(str(root / "docs"))]
    own = [File(name, str(root), config.site_dir, config.use_directory_urls) for name in names]
    return Files([*theme, *own])
