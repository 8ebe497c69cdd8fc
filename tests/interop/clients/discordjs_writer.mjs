// A bot of @discordjs/rest and @discordjs/ws that writes; run in a process of its own.  See
// discordpy_family.py.

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

async function write(message) {
  const messages = `/channels/${message.channel_id}/messages`;
  const create = (body, files) => rest.post(messages, { body, files });
  await rest.post(`/channels/${message.channel_id}/typing`);
  const sent = await create({ content: 'one', embeds: [{ description: 'd' }] });
  await rest.patch(`${messages}/${sent.id}`, { body: { content: 'two' } });
  await rest.put(`${messages}/${sent.id}/reactions/${encodeURIComponent('👍')}/@me`);
  await create({ content: 'reply', message_reference: { message_id: message.id } });
  const uploaded = await create({}, [{ name: 'a.txt', data: Buffer.from('bytes') }]);
  const burst = [];
  for (let number = 0; number < 7; number++) burst.push(await create({ content: `${number}` }));
  await rest.delete(`${messages}/${burst[0].id}`);
  const ids = burst.slice(1).map((each) => each.id);
  await rest.post(`${messages}/bulk-delete`, { body: { messages: ids } });
  let refused;
  try {
    await create({ content: 'x'.repeat(2001) });
  } catch (error) {
    refused = [error.status, error.code];
  }
  const content = await (await fetch(uploaded.attachments[0].url)).text();
  tell('written', { content, refused });
}

async function answer(interaction) {
  const total = interaction.data.options.reduce((sum, option) => sum + option.value, 0);
  const callback = `/interactions/${interaction.id}/${interaction.token}/callback`;
  const webhook = `/webhooks/${interaction.application_id}/${interaction.token}`;
  await rest.post(callback, { body: { type: 5 }, auth: false });
  await rest.post(webhook, { body: { content: `${total}` }, auth: false });
  const more = await rest.post(webhook, { body: { content: 'more' }, auth: false });
  const edit = (id, content) =>
    rest.patch(`${webhook}/messages/${id}`, { body: { content }, auth: false });
  await edit(more.id, 'even more');
  await edit('@original', `= ${total}`);
}

manager.on(WebSocketShardEvents.Error, (error) => console.error(error));
manager.on(WebSocketShardEvents.Dispatch, (payload) => {
  const { t, d } = payload.data ?? payload;
  if (t === 'MESSAGE_CREATE' && d.content === '!all') write(d);
  if (t === 'INTERACTION_CREATE') answer(d);
});

const application = await rest.get('/oauth2/applications/@me');
const option = (name) => ({ type: 4, name, description: 'A number.', required: true });
await rest.put(`/applications/${application.id}/commands`, {
  body: [{ name: 'add', description: 'Adds.', options: [option('a'), option('b')] }],
});
await manager.connect();
tell('ready');
