"""Programs of one file that PyInstaller has made, run where there is no checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardlib.testing import LocalGateway
from tests.examples import PATIENCE, ROOT
from tests.windows import needs_display

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def build(program: Path, folder: Path) -> str:
    """Make a program of one file, with no option that a user would not need."""
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    paths = [f"--{each}path={folder / each}" for each in ("dist", "work", "spec")]
    # A checkout that is installed with -e is found by Python, and not by PyInstaller.
    command = [sys.executable, "-m", "PyInstaller", "--onefile", f"--paths={ROOT}", *paths]
    built = subprocess.run([*command, str(program)], capture_output=True, text=True)
    if "Python shared library" in built.stderr:
        pytest.skip("PyInstaller needs a Python that is a shared library, which this one is not")
    assert built.returncode == 0, built.stderr
    return str(folder / "dist" / program.stem)


def start(program: str, gateway: LocalGateway, **environment: str) -> subprocess.Popen[str]:
    variables = {"DISCORD_TOKEN": gateway.token, "DISCORD_GATEWAY": gateway.url, **environment}
    return subprocess.Popen(
        [program],
        cwd=Path(program).parent,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_bot_finds_all_of_its_modules_and_the_authorities(tmp_path: Path) -> None:
    program = build(ROOT / "examples" / "bot.py", tmp_path)
    authority = tmp_path / "authority.pem"
    with LocalGateway(identify_interval=0, tls=True) as gateway:
        authority.write_bytes(gateway.ca_certificate)
        with start(program, gateway, SSL_CERT_FILE=str(authority)) as bot:
            assert bot.stdout is not None
            assert bot.stdout.readline() == "logged in as local-bot\n"
            bot.send_signal(signal.SIGINT)
            assert "Traceback" not in bot.stdout.read()
        assert bot.returncode == 0


def test_the_window_of_tkinter_finds_its_dispatcher(tmp_path: Path, display: str | None) -> None:
    environment = {"DISPLAY": needs_display(display)}
    program = build(ROOT / "examples" / "tkinter_app.py", tmp_path)
    with LocalGateway(identify_interval=0) as gateway:
        with start(program, gateway, **environment) as app:
            gateway.wait_for_connection(lambda connection: connection.session, PATIENCE)
            app.send_signal(signal.SIGINT)
            assert app.stdout is not None
            assert app.stdout.read() == ""
        assert app.returncode == 0
        assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000
