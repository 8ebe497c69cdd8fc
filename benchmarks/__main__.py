"""All measurements, one after the other: ``python -m benchmarks``. This takes half an hour."""

from __future__ import annotations

import subprocess
import sys

_COMMANDS = ("instructions", "bulk", "single", "latency", "memory", "large", "startup", "shards")


def main() -> None:
    """Run the measurements; exit with an error that names the measurements that failed."""
    failed = []
    for name in _COMMANDS:
        print(f"\n== python -m benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
