"""Install what the interop tests run against, each library into a directory of its own.

usage: python tests/interop/install.py [python] [npm] [autobahn] [disco]

Without a word all four. npm packages are left out if there is no npm, and the Autobahn test suite
and disco if there is no Python 2.7, or they cannot be compiled for it. The directory is
``.interop`` beside setup.cfg, or what ``SHARDLIB_INTEROP`` says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(os.environ.get("SHARDLIB_INTEROP", Path(__file__).parents[2] / ".interop"))
PYTHON = {
    "discord.py": ["discord.py"],
    "hikari": ["hikari"],
    "disnake": ["disnake"],
    # nextcord imports pkg_resources without asking for it, and setuptools has dropped it.
    "nextcord": ["nextcord", "setuptools<81"],
    "py-cord": ["py-cord"],
    # interactions.py imports pkg_resources, too.
    "interactions.py": ["discord-py-interactions", "setuptools<81"],
}
# For Python 2.7, each with the version that was looked at.
PYTHON27 = {"autobahn": "autobahntestsuite==25.10.1", "disco": "disco-py==0.0.12"}
AUTOBAHN = DIRECTORY / "autobahn"
NPM = ("@discordjs/ws", "@discordjs/rest", "discord.js", "@discordeno/bot", "eris", "oceanic.js")


def python27() -> str | None:
    """A Python 2.7 that runs and has pip. Of those on the PATH pyenv's may run nothing."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which("python2.7"), *map(str, pyenv.glob("versions/2.7*/bin/python2.7"))]
    for candidate in filter(None, candidates):
        command = [candidate, "-c", "import pip"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return candidate
    return None


def main(kinds: list[str]) -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / ".gitignore").write_text("*\n")
    if "python" in kinds:
        # Apart, since libraries of the same family do not get along with each other.
        for name, requirements in PYTHON.items():
            target = DIRECTORY / name
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
            subprocess.run([*pip, "--target", str(target), *requirements], check=True)
    npm = shutil.which("npm")
    if "npm" in kinds and npm is not None:
        target = DIRECTORY / "npm"
        target.mkdir(exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(target)]
        subprocess.run([npm, "install", *quiet, *NPM], check=True)
    interpreter = python27()
    for name, requirement in PYTHON27.items():
        if name in kinds and interpreter is not None:
            pip = [interpreter, "-m", "pip", "install", "--quiet", "--upgrade"]
            # Elsewhere than here, where pip would find shardlib, and what that requires.
            command = [*pip, "--target", str(DIRECTORY / name), requirement]
            if subprocess.run(command, cwd=DIRECTORY).returncode:
                # Parts of both are compiled here, for which a machine may lack what is needed.
                print(f"{name} cannot be installed for {interpreter}: its tests skip themselves")


if __name__ == "__main__":
    main(sys.argv[1:] or ["python", "npm", *PYTHON27])
