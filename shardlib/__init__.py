"""A synchronous, thread-based client for Discord's Gateway."""

__version__ = "0.1.0"
