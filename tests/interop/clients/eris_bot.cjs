// A bot of eris; run in a process of its own.  See discordpy_family.py.

const https = require('node:https');

const apiUrl = new URL(process.argv[2]);
const Eris = require('eris');

const tell = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));
const bot = new Eris(`Bot ${process.env.DISCORD_TOKEN}`, {
  intents: ['all'],
  restMode: true,
  // It speaks HTTPS at port 443 only; the agent knows another port.
  rest: { domain: apiUrl.hostname, agent: new https.Agent({ port: Number(apiUrl.port) }) },
});

// Its own 'ready' comes once in a life, not once a session; so count the guilds of each READY.
let waiting = new Set();
bot.on('rawWS', ({ t, d }) => {
  if (t === 'READY') waiting = new Set(d.guilds.map((guild) => guild.id));
  if (t !== 'GUILD_CREATE' || !waiting.delete(d.id) || waiting.size > 0) return;
  // Let eris take in this last one first.
  setImmediate(() => {
    const guilds = Object.fromEntries(bot.guilds.map((guild) => [guild.id, guild.members.size]));
    tell('ready', { guilds, user: bot.user.id });
  });
});
bot.on('shardResume', () => tell('resumed'));
bot.on('messageCreate', (message) => tell('message', { content: message.content }));
bot.on('error', (error) => console.error(error));
bot.connect();
