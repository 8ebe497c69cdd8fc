// A bot of discord.js; run in a process of its own.  See discordpy_family.py.

import { createRequire } from 'node:module';

const [apiUrl] = process.argv.slice(2);
// The packages stand in a directory of their own, which imports do not search.
const require = createRequire(`${process.env.NODE_PATH}/`);
const { Client, Events } = require('discord.js');

const tell = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));
const bot = new Client({
  intents: 53608447,
  rest: { api: apiUrl.replace(/\/v10$/, '') },
});

bot.on(Events.ShardReady, () => {
  const guilds = Object.fromEntries(bot.guilds.cache.map((each) => [each.id, each.members.cache.size]));
  tell('ready', { guilds, user: bot.user.id });
});
bot.on(Events.ShardResume, () => tell('resumed'));
bot.on(Events.MessageCreate, (message) => tell('message', { content: message.content }));
bot.on(Events.Error, (error) => console.error(error));
await bot.login(process.env.DISCORD_TOKEN);
