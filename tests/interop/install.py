"""Install the client libraries that the interop tests run, each into a directory of its own.

usage: python tests/interop/install.py [python] [npm]

Without a word both kinds; npm packages are left out where npm is not found.  The directory is
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
}
NPM = ("@discordjs/ws", "@discordjs/rest", "eris")


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


if __name__ == "__main__":
    main(sys.argv[1:] or ["python", "npm"])
