"""The pytest plugin: the fixture ``local_gateway``.

pytest loads this module whenever shardlib is installed, so the module imports no package that only
the extra ``local`` installs.
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
    """Register the marker ``local_gateway``.

    :param config: pytest's configuration.
    """
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def local_gateway(request: pytest.FixtureRequest) -> Iterator[LocalGateway]:
    """A :class:`shardlib.testing.LocalGateway`, started before the test and stopped after the test.

    ``@pytest.mark.local_gateway(guilds=1, tls=True)`` sets the gateway's options.
    """
    from shardlib.testing import LocalGateway

    options: dict[str, object] = {}
    # iter_markers() begins with the marker nearest to the test, which must override the others.
    for marker in reversed(list(request.node.iter_markers("local_gateway"))):
        if marker.args:
            raise pytest.UsageError(
                "the marker local_gateway takes options by name, such as local_gateway(guilds=1), "
                f"not {marker.args[0]!r} alone"
            )
        options.update(marker.kwargs)
    with LocalGateway(**options) as gateway:  # type: ignore[arg-type]
        yield gateway
