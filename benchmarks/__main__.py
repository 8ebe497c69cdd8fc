"""All measurements, one after the other: ``python -m benchmarks``, in three quarters of an hour."""

from __future__ import annotations

import subprocess
import sys
import time

# Each command, with the minutes that it takes on a machine with two processors.
_COMMANDS = {
    "instructions": 10,
    "bulk": 5,
    "single": 5,
    "latency": 5,
    "memory": 2,
    "large": 1,
    "startup": 1,
    "shards": 5,
    "manager": 3,
    "fleet": 6,
    "fleet_consumer": 2,
    "dispatch": 1,
}


def main() -> None:
    """Run the measurements; exit with an error that names the measurements that failed."""
    failed = []
    for name, minutes in _COMMANDS.items():
        print(f"\n== python -m benchmarks.{name}, about {minutes} min", flush=True)
        started = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
        print(f"\n{name} took {time.monotonic() - started:.0f} seconds", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
