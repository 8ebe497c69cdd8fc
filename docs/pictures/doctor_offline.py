"""Draw doctor_offline.svg: what ``shardlib doctor`` prints without a network. Needs Linux."""

from pathlib import Path

from terminal import draw

if __name__ == "__main__":
    draw(
        Path(__file__),
        "shardlib doctor",
        runner=("unshare", "--map-root-user", "--net"),
        DISCORD_TOKEN="MTIz.not.one",  # sent to no server
    )
