"""Draw tail.svg: what ``shardlib tail --local`` prints."""

from pathlib import Path

from terminal import draw

if __name__ == "__main__":
    draw(Path(__file__), "shardlib tail --local --count 16")
