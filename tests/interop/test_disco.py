"""disco 0.0.12, for Python 2.7, runs the plugin that docs/moving-disco.rst rewrites."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardlib.testing import LocalGateway
from tests.examples import ROOT

from .bot import running
from .install import DIRECTORY, python27

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

CLIENT = Path(__file__).parent / "clients" / "disco_bot.py"


def test_the_plugin_of_disco_answers_a_command() -> None:
    interpreter = python27()
    if interpreter is None or not (DIRECTORY / "disco").is_dir():
        pytest.skip("disco is not installed: python tests/interop/install.py disco")
    # disco reads limits in whole seconds, as versions of the API before 8 told them.
    with LocalGateway(rate_limits=False) as gateway:
        path = [str(DIRECTORY / "disco"), str(ROOT / "examples" / "moving")]
        environment = {"PYTHONPATH": os.pathsep.join(path)}
        command = [interpreter, str(CLIENT), gateway.http_url]
        with running(gateway, command, environment):
            gateway.wait_for_connection(lambda connection: connection.session, timeout=40)
            guild = next(iter(gateway.world.guilds.values()))
            channel = guild.text_channels[0]
            content = f"<@{gateway.world.user['id']}> hello Ada"
            gateway.send_message(channel["id"], guild.owner_id, content)
            gateway.expect_request("POST", "/channels/{channel.id}/messages", timeout=20)
            assert channel.messages[-1]["content"] == "Hello, Ada!"
