"""A program that is shipped as compiled code only, as PyInstaller and others do."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shardlib.testing import LocalGateway
from tests.examples import PATIENCE, ROOT

# The log tells of the callback, and the handler lets it return.
STUCK = """
import logging, os, threading
from shardlib import Intents, Shard

told = threading.Event()

class Told(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        told.set()

logging.getLogger("shardlib").addHandler(Told(logging.WARNING))
bot = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS, slow_callback=0.2)

@bot.on("READY")
def wait_for_the_log(shard, data):
    told.wait()
    shard.disconnect()

bot.run_forever(os.environ["DISCORD_GATEWAY"])
"""


def test_the_report_of_a_slow_callback_begins_at_the_users_function(tmp_path: Path) -> None:
    copy = tmp_path / "shardlib"
    shutil.copytree(ROOT / "shardlib", copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(copy, ddir="shardlib", legacy=True, quiet=1)
    for source in copy.rglob("*.py"):
        source.unlink()
    (tmp_path / "stuck.py").write_text(STUCK)
    with LocalGateway(identify_interval=0) as gateway:
        variables = {"DISCORD_TOKEN": gateway.token, "DISCORD_GATEWAY": gateway.url}
        done = subprocess.run(
            [sys.executable, "stuck.py"],
            cwd=tmp_path,
            env=os.environ | variables | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    where = done.stdout.partition("It is here:\n")[2].splitlines()[0]
    assert where.endswith('stuck.py", line 17, in wait_for_the_log')
