"""The clients that are compared, one module each.

Each has ``receive(job, meter)``, which connects to ``job.url``, calls ``meter.on_event`` for every
event as early as the library lets a user have it, and ``meter.finish`` at LAST. Some have ``idle``,
too, for :mod:`benchmarks.memory`.
"""
