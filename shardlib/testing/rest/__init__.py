"""The part of Discord's HTTP API that a local gateway answers.

:class:`~shardlib.testing.rest.api.Api` takes a request and returns a response. No module here uses
a socket: :class:`~shardlib.testing.rest.http11.HttpParser` takes and gives bytes.
"""
