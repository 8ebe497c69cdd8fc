"""The HTTP API of the gateway of a test, and a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import Channel, LocalGateway
from tests.testing.recorded import messages, write
from tests.testing.rest import Rest, rest_of, text_channel


@pytest.fixture
def rest(local_gateway: LocalGateway) -> Iterator[Rest]:
    """The API of the test's gateway."""
    with rest_of(local_gateway) as rest:
        yield rest


@pytest.fixture
def channel(local_gateway: LocalGateway) -> Channel:
    """The first text channel of the test's gateway."""
    return text_channel(local_gateway)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of ten messages."""
    return write(tmp_path / "events.gz", messages(10))
