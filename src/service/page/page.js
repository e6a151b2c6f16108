'use strict';
// Every text goes in as text, never as markup: names are other people's input.
function fill(node, props, children) {
  for (const [k, v] of Object.entries(props || {})) node.setAttribute(k, v);
  for (const c of children.flat()) {
    if (c !== null && c !== undefined) node.append(c.nodeType ? c : document.createTextNode(c));
  }
  return node;
}
const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);

const short = s => (s || '').replace('JOB_STATE_', '');
const jobId = name => name.replace('jobs/', '');
const when = t => t ? new Date(t).toLocaleString() : '';
const clock = t => t ? new Date(t).toLocaleTimeString() : '';
function size(bytes) {
  let value = Number(bytes), unit = 'B';
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return value.toFixed(value < 10 && unit !== 'B' ? 1 : 0) + ' ' + unit;
}
function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return s + ' s';
  if (s < 7200) return Math.round(s / 60) + ' min';
  return s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' d';
}
const since = t => t ? span((Date.now() - Date.parse(t)) / 1000) + ' ago' : '';
function stateOf(job) {
  const s = short(job.state);
  return el('span', {class: 'state state-' + s}, s);
}
const recipeOf = job => job.spec.preset || 'recipe';

// --- The queue. ---
function progressOf(job) {
  const p = job.progress;
  if (!p || !Number(p.numLayers)) return '';
  const label = p.layersDone + ' of ' + p.numLayers + ' layers';
  return el('span', {}, el('progress', {max: p.numLayers, value: p.layersDone,
    'aria-label': label}), el('span', {class: 'dim'}, label));
}
function layersOf(job) {
  const p = job.progress, n = Number(p && p.numLayers);
  if (!n) return null;
  const works = ['RUNNING', 'PAUSING', 'CANCELLING'].includes(short(job.state));
  const list = el('ul', {class: 'layers', 'aria-label': 'Layers'});
  for (let i = 0; i < n; ++i) {
    const done = i < Number(p.layersDone), now = works && !done && i === Number(p.layer);
    const text = 'layer ' + i + (done ? ' done' : now ? ' ' + p.step : ' to do');
    list.append(el('li', {class: done ? 'done' : now ? 'now' : '', title: text,
      'aria-label': text}, String(i)));
  }
  return list;
}
function rankLine(r) {
  const used = Number(r.rssBytes), limit = Number(r.memoryBytes);
  const bar = el('i', {});
  bar.style.width = Math.min(100, limit ? 100 * used / limit : 0) + '%';
  return el('li', {class: r.silent ? 'bad' : ''}, el('div', {class: 'who'},
    el('span', {title: r.host + ', process ' + r.pid}, 'rank ' + r.rank + ' \u00b7 ' + r.device +
      ' \u00b7 ' + r.numThreads + (r.numThreads === 1 ? ' thread' : ' threads') +
      (r.silent ? ' \u00b7 silent' : '')),
    el('span', {}, size(used) + ' of ' + size(limit))), el('div', {class: 'bar-line'}, bar));
}
function poolCard(pool, jobs) {
  const job = jobs.find(j => j.name === pool.job);
  const doing = !pool.connected ? 'connection lost' : pool.draining ? 'draining' :
    pool.job ? 'works on ' : 'idle';
  return el('section', {class: 'card', 'aria-label': 'Pool ' + pool.name}, el('h3', {}, pool.name),
    el('p', {class: pool.connected ? 'dim' : 'bad'}, doing,
      pool.job ? el('a', {href: '/' + pool.job}, jobId(pool.job)) : null,
      job && job.progress && job.progress.step ? ', ' + job.progress.step +
        (Number(job.progress.layer) >= 0 ? ' of layer ' + job.progress.layer : '') : ''),
    job ? layersOf(job) : null,
    el('ul', {class: 'ranks', 'aria-label': 'Ranks'}, pool.ranks.map(rankLine)));
}
function why(job) {
  if (job.error && job.error.message) return job.error.message;
  return job.waitsFor ? 'waits for ' + job.waitsFor : '';
}
function jobRow(job) {
  const reason = why(job);
  return el('tr', {},
    el('td', {class: 'id'}, el('a', {href: '/' + job.name}, jobId(job.name))),
    el('td', {}, stateOf(job), reason ? el('span', {class: 'why'}, reason.slice(0, 160)) : null),
    el('td', {}, progressOf(job)), el('td', {class: 'opt'}, recipeOf(job)),
    el('td', {class: 'path opt', title: job.spec.model},
      job.spec.model.split('/').pop()), el('td', {class: 'opt'}, job.submitter),
    el('td', {class: 'opt num'}, String(job.priority)),
    el('td', {class: 'opt age', title: when(job.createTime)}, since(job.createTime)));
}
function tiles(counts) {
  const of = (...states) => states.reduce((sum, s) => sum + (counts[s] || 0), 0);
  const all = {running: of('LEASED', 'RUNNING', 'PAUSING', 'CANCELLING'), queued: of('QUEUED'),
    paused: of('PAUSED'), succeeded: of('SUCCEEDED'), failed: of('FAILED'),
    cancelled: of('CANCELLED')};
  return el('ul', {class: 'tiles', id: 'counts', 'aria-label': 'Jobs by state'},
    Object.entries(all).map(([name, n]) => el('li', {}, el('b', {}, String(n)),
      el('span', {}, name))));
}
function overview(state) {
  document.title = 'llmc';
  const pools = state.pools.length ?
    el('div', {class: 'cards'}, state.pools.map(p => poolCard(p, state.jobs))) :
    el('p', {class: 'dim'}, 'No pool is attached. Start one with ',
      el('code', {}, 'llmc-worker pool'), '.');
  const heads = [['Job'], ['State'], ['Progress'], ['Recipe', 'opt'], ['Model', 'opt'],
    ['Submitter', 'opt'], ['Priority', 'opt num'], ['Submitted', 'opt']];
  const total = Object.values(state.counts).reduce((a, b) => a + b, 0);
  const jobs = state.jobs.length ? el('div', {class: 'wide'}, el('table', {id: 'jobs'},
    el('thead', {}, el('tr', {}, heads.map(([t, c]) => el('th', {class: c || '', scope: 'col'},
      t)))), el('tbody', {}, state.jobs.map(jobRow)))) :
    el('p', {class: 'dim'}, 'No job yet. ', el('code', {}, 'llmc submit'), ' queues one.');
  return [section('counts', null, tiles(state.counts)),
    section('pools', 'Pools', pools), section('queue', 'Jobs', jobs,
      total > state.jobs.length ? el('p', {class: 'dim'}, state.jobs.length + ' of ' + total +
        ' jobs are shown; llmc list shows all.') : null)];
}
function section(id, title, ...nodes) {
  return el('div', {id: 'part-' + id}, title ? el('h2', {}, title) : null, nodes);
}

// --- One job. ---
// What its events say, gathered as they come.
const seen = {sequence: 0, attempt: 0, open: new Map(), spans: [], worst: new Map(), memory: [],
  history: [], log: []};
function forgetAttempt(attempt) {
  Object.assign(seen, {attempt, open: new Map(), spans: [], worst: new Map(), memory: []});
}
function takeStep(event, s) {
  const layer = Number(s.layer), key = s.rank + ' ' + s.step + ' ' + s.layer;
  const where = 'rank ' + s.rank + '  ' + s.step + (layer >= 0 ? ' of layer ' + layer : '');
  if (s.kind === 'KIND_BEGIN') seen.open.set(key, s.timeSeconds);
  if (s.kind === 'KIND_END' && seen.open.has(key)) {
    const from = seen.open.get(key);
    seen.open.delete(key);
    seen.spans.push({rank: s.rank, step: s.step, layer, from, to: s.timeSeconds});
    seen.log.push(clock(event.time) + '  ' + where + '  ' +
      (s.timeSeconds - from).toFixed(2) + ' s');
  }
  if (Number(s.rssBytes) > 0) {
    seen.memory.push({rank: s.rank, time: s.timeSeconds, bytes: Number(s.rssBytes)});
  }
  if (s.kind === 'KIND_LINEAR' && s.outputError >= 0) {
    seen.worst.set(layer, Math.max(seen.worst.get(layer) || 0, s.outputError));
  }
  if (s.kind === 'KIND_WARNING') {
    seen.log.push(clock(event.time) + '  ' + where + '  warning: ' + s.message);
  }
}
function take(event) {
  seen.sequence = Number(event.sequence);
  if (event.attempt !== seen.attempt) forgetAttempt(event.attempt);
  if (event.stateChange) seen.history.push(event);
  for (const s of event.steps ? event.steps.steps : []) takeStep(event, s);
  if (seen.log.length > 400) seen.log.splice(0, seen.log.length - 400);
}
const width = () => Math.max(280, Math.min(1120, document.getElementById('main').clientWidth - 24));
const LEFT = 64, RIGHT = 12;
function chart(id, label, height, draw) {
  const w = width();
  const node = svg('svg', {viewBox: '0 0 ' + w + ' ' + height, width: w, height, role: 'img', id,
    'aria-label': label});
  draw(node, w - LEFT - RIGHT);
  return el('figure', {class: 'chart'}, node);
}
function text(x, y, content, anchor) {
  return svg('text', {x, y, 'text-anchor': anchor || 'start'}, content);
}
function gantt() {
  const spans = seen.spans;
  if (!spans.length) return null;
  const end = Math.max(...spans.map(s => s.to), 1e-9);
  const ranks = [...new Set(spans.map(s => s.rank))].sort((a, b) => a - b);
  const height = ranks.length * 26 + 26;
  const figure = chart('gantt', 'Steps of every rank over time', height, (node, w) => {
    ranks.forEach((r, i) => node.append(text(6, i * 26 + 20, 'rank ' + r)));
    for (const s of spans) {
      node.append(svg('rect', {class: 's-' + s.step, x: LEFT + w * s.from / end,
        y: ranks.indexOf(s.rank) * 26 + 6, height: 18,
        width: Math.max(.75, w * (s.to - s.from) / end)}, svg('title', {}, s.step +
          (s.layer >= 0 ? ', layer ' + s.layer : '') + ': ' + (s.to - s.from).toFixed(2) + ' s')));
    }
    node.append(text(LEFT, height - 7, '0 s'), text(LEFT + w, height - 7, ticks(end),
      'end'));
  });
  figure.append(legend('Colours of the steps', [...new Set(spans.map(s => s.step))].map(
    name => ['s-' + name, name])));
  return figure;
}
function legend(label, entries) {
  return el('ul', {class: 'legend', 'aria-label': label}, entries.map(([style, name]) =>
    el('li', {}, svg('svg', {viewBox: '0 0 9 9', 'aria-hidden': 'true'},
      svg('rect', {class: style, width: 9, height: 9})), name)));
}
const ticks = s => s < 10 ? s.toFixed(2) + ' s' : s.toFixed(1) + ' s';
const percent = f => f >= .1 ? (100 * f).toFixed(0) + ' %' : f >= .0001 ? (100 * f).toFixed(f >= .001 ? 2 : 3) + ' %' :
  f.toExponential(1);
function errorPlot() {
  if (!seen.worst.size) return null;
  const top = Math.max(...seen.worst.values(), 1e-12), n = Math.max(...seen.worst.keys()) + 1;
  return chart('errors', 'Largest relative output error of every layer', 180, (node, w) => {
    for (const part of [.5, 1]) {
      const y = 154 - 140 * part;
      node.append(svg('line', {class: 'grid', x1: LEFT, x2: LEFT + w, y1: y, y2: y}),
        text(6, y + 4, percent(top * part)));
    }
    node.append(text(6, 158, '0'));
    const step = w / n;
    for (const [layer, error] of seen.worst) {
      const h = 140 * error / top;
      node.append(svg('rect', {class: 'error', x: LEFT + layer * step + 1, y: 154 - h, height: h,
        width: Math.max(1, Math.min(60, step - 2))}, svg('title', {}, 'layer ' + layer + ': ' +
          percent(error))));
      if (n <= 40 || layer % 10 === 0) node.append(text(LEFT + layer * step + 2, 172, String(layer)));
    }
  });
}
function memoryPlot() {
  const times = new Set(seen.memory.map(m => m.rank + ' ' + m.time));
  if (times.size <= new Set(seen.memory.map(m => m.rank)).size) return null;
  const top = 1.1 * Math.max(...seen.memory.map(m => m.bytes));
  const end = Math.max(...seen.memory.map(m => m.time), 1e-9);
  const ranks = [...new Set(seen.memory.map(m => m.rank))].sort((a, b) => a - b);
  const figure = chart('memory', 'Resident memory of every rank over time', 140, (node, w) => {
    for (const part of [.5, 1]) {
      const y = 118 - 104 * part;
      node.append(svg('line', {class: 'grid', x1: LEFT, x2: LEFT + w, y1: y, y2: y}),
        text(6, y + 4, size(top * part)));
    }
    node.append(text(6, 122, '0'), text(LEFT, 135, '0 s'),
      text(LEFT + w, 135, ticks(end), 'end'));
    for (const r of ranks) {
      const points = seen.memory.filter(m => m.rank === r).map(m =>
        (LEFT + w * m.time / end).toFixed(1) + ',' + (118 - 104 * m.bytes / top).toFixed(1));
      node.append(svg('polyline', {class: 'line r-' + r % 8, points: points.join(' ')}));
    }
  });
  figure.append(legend('Colours of the ranks', ranks.map(r => ['r-' + r % 8, 'rank ' + r])));
  return figure;
}
function facts(job) {
  const list = el('dl', {}), plan = job.plan || {};
  const add = (name, value) => {
    if (value) list.append(el('dt', {}, name), el('dd', {}, value));
  };
  add('Waits for', job.waitsFor);
  add('Model', job.spec.model);
  add('Recipe', job.spec.preset || 'a recipe of ' + (job.spec.recipeText || '').length + ' bytes');
  add('Output', job.spec.output);
  add('Calibration', job.spec.datasets.join(', '));
  add('Plan', Number(plan.numUnits) ? plan.numLayers + ' layers, ' + plan.numQuantizedModules +
    ' linears' + (plan.calibrated ? ', ' + plan.numSamples + ' samples' : '') + ', output of ' +
    size(plan.outputBytes) : '');
  add('Pool', job.pool);
  add('Attempt', job.attempt ? String(job.attempt) : '');
  add('Submitted', when(job.createTime) + ' by ' + job.submitter);
  add('Priority', String(job.priority));
  add('Started', when(job.startTime));
  add('Ended', job.endTime ? when(job.endTime) + (job.startTime ? ', after ' +
    span((Date.parse(job.endTime) - Date.parse(job.startTime)) / 1000) : '') : '');
  for (const [k, v] of Object.entries(job.labels)) add('Label ' + k, v);
  return list;
}
function table(id, heads, rows) {
  return el('div', {class: 'wide'}, el('table', {id}, el('thead', {}, el('tr', {}, heads.map(t =>
    el('th', {scope: 'col'}, t)))), el('tbody', {}, rows.map(cells => el('tr', {}, cells.map(c =>
    el('td', {}, c)))))));
}
function partition(job) {
  const p = job.partition;
  if (!p) return null;
  const pieces = r => r.firstPiece + ', ' + (Number(r.firstPiece) + p.worldSize) + ', \u2026';
  if (p.sharesTensors) {
    return table('partition', ['Rank', 'Tensors of every unit, the largest first'],
      p.ranks.map(r => [String(r.rank), pieces(r)]));
  }
  const shapes = job.plan.layerWeights.map(s => s.count + ' \u00d7 [' + s.outFeatures + ', ' +
    s.inFeatures + ']');
  return table('partition', ['Rank', 'Batches of samples', ...shapes.map(s => 'Rows of ' + s),
    'Rows of a layer'], p.ranks.map(r => [String(r.rank), pieces(r),
    ...r.rows.map(x => x.begin + ' to ' + x.end), String(r.rowsPerLayer)]));
}
function history() {
  if (!seen.history.length) return null;
  return table('history', ['Time', 'State', 'Why', 'Pool'], seen.history.slice(-50).map(e => [
    when(e.time), stateOf({state: e.stateChange.to}), e.stateChange.reason, e.stateChange.pool]));
}
function jobPage(data) {
  const job = data.job;
  document.title = jobId(job.name) + ' \u00b7 ' + short(job.state) + ' \u00b7 llmc';
  const part = (id, title, node) => node ? section(id, title, node) : null;
  return [el('div', {id: 'part-title'}, el('h2', {}, jobId(job.name), stateOf(job)),
    data.hasReport ? el('p', {}, el('a', {href: '/' + job.name + '/report'}, 'Report')) : null,
    job.error && job.error.message ? el('p', {class: 'note'}, job.error.code + ': ' +
      job.error.message) : null, facts(job)),
    part('layers', 'Layers', layersOf(job)),
    part('errors', 'Largest output error of every layer', errorPlot()),
    part('gantt', 'Steps', gantt()), part('memory', 'Memory', memoryPlot()),
    part('partition', 'Who does what', partition(job)), part('history', 'History', history()),
    part('log', 'Log', seen.log.length ? el('pre', {id: 'log', tabindex: '0', 'aria-label':
      'Last lines of the log'}, seen.log.slice(-200).join('\n')) : null)].filter(n => n);
}
async function fetchJob() {
  for (;;) {
    const data = await ask('/api' + location.pathname + '?after=' + seen.sequence);
    // Events were dropped, or the store is another one: begin anew.
    if (data.events.length && Number(data.events[0].sequence) !== seen.sequence + 1) {
      forgetAttempt(0);
      Object.assign(seen, {history: [], log: []});
    }
    data.events.forEach(take);
    if (!data.more) return data;
  }
}

// --- Keeping up. ---
const main = document.getElementById('main');
const connection = document.getElementById('connection');
let busy = false, again = false;
function say(message, style) {
  connection.textContent = message;
  connection.className = style;
}
async function ask(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}
// Parts that are as they were stay, with what is selected, focused and scrolled in them.
function show(parts) {
  const old = [...main.children];
  parts.forEach((part, i) => {
    const before = old.find(n => n.id === part.id);
    if (before && before.isEqualNode(part)) part = before;
    const log = before && before.querySelector('pre');
    const top = log && log.scrollTop, follows = log &&
      log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    if (main.children[i] !== part) main.insertBefore(part, main.children[i] || null);
    if (before && before !== part) before.remove();
    const now = part.querySelector('pre');
    if (now && part !== before) now.scrollTop = log && !follows ? top : now.scrollHeight;
  });
  while (main.children.length > parts.length) main.lastElementChild.remove();
}
let latest = null;
function render() {
  if (latest) show(latest.job ? jobPage(latest) : overview(latest));
}
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    latest = await (location.pathname.startsWith('/jobs/') ? fetchJob() : ask('/api/state'));
    render();
    say('live', 'live');
  } catch (error) {
    say(String(error.message || error), 'lost');
  }
  main.setAttribute('aria-busy', 'false');
  busy = false;
  if (again) { again = false; refresh(); }
}
const events = new EventSource('/events');
events.onmessage = refresh;
events.onerror = () => say('connection lost, trying again', 'lost');
addEventListener('resize', render);
// Ages, memory and silent ranks change without an event.
setInterval(refresh, 4000);
refresh();
