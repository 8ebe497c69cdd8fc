"""Messages that drift through a window: a shard beside a game loop.

    pip install pygame-ce
    DISCORD_TOKEN=... python examples/pygame_app.py

The game calls the callbacks itself, once a frame and for a few milliseconds at most, so
they change the game as its other functions do. The content of messages needs the Message
Content Intent, which the Developer Portal switches on.
"""

import itertools
import os
import signal

import pygame

from shardlib import Intents, Shard
from shardlib.dispatch import Mailbox

WIDTH, HEIGHT = 640, 300
COLOURS = ["#7aa2f7", "#9ece6a", "#e0af68", "#f7768e", "#bb9af7", "#7dcfff"]

mailbox = Mailbox()
bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT,
    dispatcher=mailbox,
)
texts: list[tuple[pygame.Surface, pygame.Vector2]] = []  # each with its place


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    author = data["author"]
    colour = COLOURS[int(author["id"]) % len(COLOURS)]
    text = font.render(f"{author['username']}: {data['content']}", True, colour)
    texts.append((text, pygame.Vector2(WIDTH, next(lanes))))


# Ctrl-C ends the loop. Its KeyboardInterrupt would be lost in init() and set_mode(),
# which drop some exceptions.
signals: list[int] = []
signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))

pygame.init()
pygame.display.set_caption("Messages")
screen = pygame.display.set_mode((WIDTH, HEIGHT))
font = pygame.font.Font(None, 28)
lanes = itertools.cycle(range(20, HEIGHT - 20, 30))
clock = pygame.time.Clock()

with bot:
    bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    while not signals and not pygame.event.get(pygame.QUIT):
        mailbox.run_pending(max_seconds=0.005)
        elapsed = clock.tick(60) / 1000
        screen.fill("#1a1b26")
        for text, place in texts:
            place.x -= 120 * elapsed
            screen.blit(text, place)
        texts = [each for each in texts if each[1].x > -each[0].get_width()]
        pygame.display.flip()
        pygame.event.pump()
pygame.quit()
