"""Draw doctor.svg: what ``shardlib doctor --local`` prints."""

from pathlib import Path

from terminal import draw

if __name__ == "__main__":
    draw(Path(__file__), "shardlib doctor --local")
