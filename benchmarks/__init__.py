"""Measurements and long runs: ``python -m benchmarks.<name>``; see README.rst."""
