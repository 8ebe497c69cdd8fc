"""Tests the bot of questions.py, without Discord. python -m pytest"""

from questions import make_bot
from shardlib.testing import LocalGateway


def test_a_question_is_answered(local_gateway: LocalGateway) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    channel = guild.text_channels[0]
    with make_bot(local_gateway.token, local_gateway.http_url) as bot:
        bot.connect(local_gateway.url)
        bot.wait_until_ready(timeout=5)
        local_gateway.send_message(channel["id"], guild.owner_id, "Who made the tea?")
        local_gateway.expect_request("POST", "/channels/{channel.id}/messages")
    question, answer = (each["content"] for each in channel.messages)
    assert question == "Who made the tea?"
    assert answer.startswith("I don't know, ")
