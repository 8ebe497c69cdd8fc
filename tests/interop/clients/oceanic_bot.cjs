// A bot of oceanic.js; run in a process of its own.  See discordpy_family.py.

const { Client } = require('oceanic.js');

const [apiUrl] = process.argv.slice(2);
const tell = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));
const bot = new Client({
  auth: `Bot ${process.env.DISCORD_TOKEN}`,
  gateway: { intents: ['ALL'] },
  rest: { baseURL: apiUrl },
});

// Its own 'ready' comes once in a life, not once a session; so count the guilds of each READY.
let waiting = new Set();
bot.on('packet', ({ t, d }) => {
  if (t === 'READY') waiting = new Set(d.guilds.map((guild) => guild.id));
  if (t !== 'GUILD_CREATE' || !waiting.delete(d.id) || waiting.size > 0) return;
  // Let oceanic.js take in this last one first.
  setImmediate(() => {
    const guilds = Object.fromEntries(bot.guilds.map((guild) => [guild.id, guild.members.size]));
    tell('ready', { guilds, user: bot.user.id });
  });
});
bot.on('shardResume', () => tell('resumed'));
bot.on('messageCreate', (message) => tell('message', { content: message.content }));
bot.on('error', (error) => console.error(error));
bot.connect();
