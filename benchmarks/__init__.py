"""Measurements and long runs: ``python -m benchmarks.<name>``. Each says what it does."""
