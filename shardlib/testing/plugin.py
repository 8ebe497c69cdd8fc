"""The pytest plugin: the fixture ``local_gateway``.

pytest loads this module whenever shardlib is installed, so it imports nothing that only the
extra ``local`` installs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shardlib.testing.gateway import LocalGateway

_MARKER = (
    "local_gateway(**options): options of shardlib.testing.LocalGateway "
    "for the fixture local_gateway"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def local_gateway(request: pytest.FixtureRequest) -> Iterator[LocalGateway]:
    """A :class:`shardlib.testing.LocalGateway`, started for this test and stopped after it.

    ``@pytest.mark.local_gateway(guilds=1, tls=True)`` sets its options.
    """
    from shardlib.testing import LocalGateway

    options: dict[str, object] = {}
    # The marker nearest to the test has the last word.
    for marker in reversed(list(request.node.iter_markers("local_gateway"))):
        options.update(marker.kwargs)
    with LocalGateway(**options) as gateway:  # type: ignore[arg-type]
        yield gateway
