// A bot of discordeno; run in a process of its own.  See discordpy_family.py.

import { createRequire } from 'node:module';

const [apiUrl] = process.argv.slice(2);
// The packages stand in a directory of their own, which imports do not search.
const require = createRequire(`${process.env.NODE_PATH}/`);
const { createBot } = require('@discordeno/bot');

const tell = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));
const token = process.env.DISCORD_TOKEN;
let waiting = new Set();
let guilds = {};
let user;

const bot = createBot({
  token,
  intents: 53608447,
  desiredProperties: { message: { content: true } },
  rest: { token, proxy: { baseUrl: apiUrl.replace(/\/v10$/, ''), authorization: `Bot ${token}` } },
  events: {
    raw({ t, d }) {
      if (t === 'READY') {
        user = d.user.id;
        guilds = {};
        waiting = new Set(d.guilds.map((guild) => guild.id));
      } else if (t === 'GUILD_CREATE') {
        guilds[d.id] = d.members.length;
        if (waiting.delete(d.id) && waiting.size === 0) tell('ready', { guilds, user });
      } else if (t === 'RESUMED') {
        tell('resumed');
      }
    },
    messageCreate: (message) => tell('message', { content: message.content }),
  },
});
await bot.start();
