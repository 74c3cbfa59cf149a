"""Reads Dockerfiles, and builds one without Docker: in a chroot, which leaves the machine as it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

# What a build takes over from the machine: how packages are fetched.
_FETCHING = re.compile(r"(PIP_|SSL_|REQUESTS_|CURL_|.*_proxy$|.*_PROXY$)")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = """
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$FOLDER/files,workdir=$FOLDER/work" "$FOLDER/root"
mount -t proc proc "$FOLDER/root/proc"
mount --rbind /dev "$FOLDER/root/dev"
exec chroot --userspec="$WHO" "$FOLDER/root" /usr/bin/env -i "$@"
"""


def instructions(path: Path) -> list[tuple[str, str]]:
    """(name, value) of each instruction of a Dockerfile, such as ("USER", "10001"); comments are left out."""
    with path.open("rb") as file:
        lines = DockerfileParser(fileobj=file).structure
    return [(line["instruction"], line["value"]) for line in lines if line["instruction"] != "COMMENT"]


def context(root: Path) -> list[str]:
    """The paths in the checkout `root` that .dockerignore lets through to a build, of those that git knows.

    Raises ValueError for a line of .dockerignore of another form than `*`, `!NAME` and `**/NAME`.
    """
    wanted, unwanted = set(), set()
    for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if named := re.fullmatch(r"!([\w.-]+)", line):
            wanted.add(named[1])
        elif named := re.fullmatch(r"\*\*/([\w.-]+)", line):
            unwanted.add(named[1])
        elif line and line != "*" and not line.startswith("#"):
            raise ValueError(f".dockerignore: {line}: expected *, !NAME or **/NAME")
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    paths = [path for path in done.stdout.split("\0") if path and (root / path).exists()]
    return [path for path in paths if path.split("/")[0] in wanted and not unwanted & set(path.split("/"))]


@dataclass
class Image:
    """An image that is built in `folder`; what the chroot writes is kept there.

    `lower` is the folder with the system that the image's own files are laid over: in place of the image that FROM
    names. Needs a superuser, who can mount.
    """

    folder: Path
    lower: Path = Path("/")
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    directory: str = "/"
    user: str = "0"
    entry: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("files", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def run(self, command: Sequence[str], user: str = "") -> subprocess.CompletedProcess[str]:
        """The finished process of a command in the image, started in its directory by its user."""
        user = user or self.user
        fetching = {name: value for name, value in os.environ.items() if _FETCHING.match(name)}
        inside = [f"{name}={value}" for name, value in {**fetching, **self.environment}.items()]
        inside += ["sh", "-c", f'cd {shlex.quote(self.directory)} && exec "$@"', "sh", *command]
        outside = {**os.environ, "LOWER": str(self.lower), "FOLDER": str(self.folder), "WHO": f"{user}:{user}"}
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh", *inside],
            env=outside, capture_output=True, text=True, check=False, timeout=900, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def give_python(self) -> None:
        """Put the Python of the tests into /usr/local, fresh: what an image with Python has there."""
        home = Path(sys.base_prefix)
        opened = " ".join(shlex.quote(str(folder)) for folder in home.parents if folder != Path("/"))
        program = shlex.quote(str(home / "bin" / f"python3.{sys.version_info.minor}"))
        done = self.run(["sh", "-ec", f"chmod o+x {opened or '/'}; {program} -m venv /usr/local"])
        assert done.returncode == 0, done.stderr

    def build(self, dockerfile: Path, checkout: Path) -> None:
        """Do what a Dockerfile of one stage says, but for FROM; raises AssertionError where a RUN line fails."""
        files = context(checkout)
        for name, value in instructions(dockerfile):
            words = shlex.split(value) if name in ("ENV", "COPY") else []
            if name == "RUN":
                done = self.run(["sh", "-c", value])
                assert done.returncode == 0, f"RUN {value}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            elif name == "ENV":
                self.environment |= dict(word.split("=", 1) for word in words)
            elif name == "COPY":
                self._copy(words, files, checkout)
            elif name == "WORKDIR":
                self.directory = value
                (self.folder / "files" / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif name == "USER":
                self.user = value
            elif name in ("ENTRYPOINT", "CMD"):
                self.entry = json.loads(value) if name == "ENTRYPOINT" else self.entry
            elif name != "FROM":
                raise ValueError(f"{dockerfile}: {name} {value}: cannot be built here")

    def _copy(self, words: list[str], files: list[str], checkout: Path) -> None:
        """Copy as COPY does: files into a folder that ends in a slash, or the content of a folder into a folder."""
        *sources, target = words
        for source in sources:
            copied = [path for path in files if path == source or path.startswith(f"{source}/")]
            assert copied, f"COPY {source}: no such file in the build's context"
            for path in copied:
                inside = path if target.endswith("/") else path.removeprefix(f"{source}/")
                place = self.folder / "files" / self.directory.lstrip("/") / target / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(checkout / path, place)
