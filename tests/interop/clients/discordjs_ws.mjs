// A bot of @discordjs/ws; run in a process of its own.  See discordpy_family.py.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [apiUrl] = process.argv.slice(2);
// The packages stand in a directory of their own, which imports do not search.
const require = createRequire(`${process.env.NODE_PATH}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { REST } = await load('@discordjs/rest');
const { WebSocketManager, WebSocketShardEvents } = await load('@discordjs/ws');

const tell = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));
const token = process.env.DISCORD_TOKEN;
const rest = new REST({ api: apiUrl.replace(/\/v10$/, ''), version: '10' }).setToken(token);
const manager = new WebSocketManager({
  token,
  intents: 53608447,
  rest,
  fetchGatewayInformation: () => rest.get('/gateway/bot'),
});
let user;
let waiting = new Set();
let guilds = {};

manager.on(WebSocketShardEvents.Resumed, () => tell('resumed'));
manager.on(WebSocketShardEvents.Error, (error) => console.error(error));
manager.on(WebSocketShardEvents.Dispatch, (payload) => {
  const { t, d } = payload.data ?? payload;
  if (t === 'READY') {
    user = d.user.id;
    guilds = {};
    waiting = new Set(d.guilds.map((guild) => guild.id));
  } else if (t === 'GUILD_CREATE') {
    guilds[d.id] = d.members.length;
    waiting.delete(d.id);
    if (waiting.size === 0) tell('ready', { guilds, user });
  } else if (t === 'MESSAGE_CREATE') {
    tell('message', { content: d.content });
  }
});
await manager.connect();
