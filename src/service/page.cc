#include "service/page.h"

namespace llmc {

absl::string_view PageHtml() {
  return R"page(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>llmc</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
</head>
<body>
<header>
<h1><a href="/">llmc</a></h1>
<p id="connection" role="status" aria-live="polite">connecting</p>
</header>
<main id="main" aria-busy="true"></main>
<noscript>This page needs JavaScript; <code>llmc list</code> shows the same.</noscript>
<script src="/page.js"></script>
</body>
</html>
)page";
}

absl::string_view PageStyle() {
  return R"page(:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#f2f4f7;--line:#d5dae1;
--dim:#59636e;--blue:#0b5cad;--green:#18794e;--red:#b3261e;--amber:#8a5a00;--violet:#6b3fa0}
@media (prefers-color-scheme:dark){:root{--fg:#e6e9ee;--bg:#14171b;--soft:#1e2329;--line:#39414b;
--dim:#a0a9b4;--blue:#79b8ff;--green:#5ccb94;--red:#ff8a80;--amber:#e3b341;--violet:#c5a3ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
header{display:flex;gap:1rem;align-items:baseline;justify-content:space-between;
padding:.6rem 1rem;border-bottom:1px solid var(--line)}
h1{font-size:1.2rem;margin:0}h1 a{color:inherit;text-decoration:none}
h2{font-size:1.05rem;margin:1.6rem 0 .5rem}
#connection{margin:0;color:var(--dim);font-size:.85rem}
main{max-width:72rem;margin:0 auto;padding:0 1rem 3rem}
a{color:var(--blue)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;font-size:.85rem}
td.path{word-break:break-all}
.state{font-weight:600;white-space:nowrap}
.state-SUCCEEDED{color:var(--green)}.state-FAILED{color:var(--red)}
.state-RUNNING,.state-LEASED{color:var(--blue)}
.state-PAUSED,.state-PAUSING,.state-CANCELLING{color:var(--amber)}
.dim{color:var(--dim)}.bad{color:var(--red)}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr))}
.card{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.card h3{margin:0 0 .3rem;font-size:1rem}
.ranks{display:flex;flex-wrap:wrap;gap:.3rem;list-style:none;margin:.4rem 0 0;padding:0}
.ranks li{border:1px solid var(--line);border-radius:6px;padding:.1rem .45rem;font-size:.85rem}
.layers{display:flex;flex-wrap:wrap;gap:3px;list-style:none;margin:.5rem 0;padding:0}
.layers li{width:1.5rem;height:1.5rem;border-radius:4px;border:1px solid var(--line);
font-size:.65rem;display:grid;place-items:center}
.layers .done{background:var(--green);color:var(--bg)}
.layers .now{background:var(--blue);color:var(--bg)}
progress{width:100%;height:.8rem;accent-color:var(--blue)}
svg{width:100%;height:auto;display:block;background:var(--soft);border-radius:8px}
svg.key{display:inline-block;width:.6rem;background:none;border-radius:2px}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.s-Load{fill:#8c959f}.s-Capture{fill:#2f81f7}.s-Reduce{fill:#a371f7}.s-Solve{fill:#e5534b}
.s-Propagate{fill:#2da44e}.s-Write{fill:#d4a72c}.s-Commit{fill:#db61a2}.s-Verify{fill:#1b7c83}
.s-Plan{fill:#6e7781}.s-Claim{fill:#57606a}
.bar{fill:var(--violet)}.mem{fill:none;stroke:var(--blue);stroke-width:1.5}
pre{background:var(--soft);border-radius:8px;padding:.7rem;overflow:auto;max-height:22rem;
font-size:.82rem;white-space:pre-wrap;word-break:break-word}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.5rem 0}
dt{color:var(--dim)}dd{margin:0;word-break:break-word}
@media (max-width:34rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
th,td{padding:.3rem .35rem}.opt{display:none}}
)page";
}

absl::string_view PageScript() {
  return R"page('use strict';
// Every text goes in as text, never as markup: names are other people's input.
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === 'class') node.className = v; else node.setAttribute(k, v);
  }
  for (const c of children.flat()) {
    if (c !== null && c !== undefined) node.append(c.nodeType ? c : document.createTextNode(c));
  }
  return node;
}
function svg(tag, props, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(props || {})) node.setAttribute(k, v);
  for (const c of children.flat()) node.append(c.nodeType ? c : document.createTextNode(c));
  return node;
}
const short = s => (s || '').replace('JOB_STATE_', '');
const jobId = name => name.replace('jobs/', '');
const gib = b => (Number(b) / 2 ** 30).toFixed(2) + ' GiB';
const when = t => t ? new Date(t).toLocaleString() : '';
function stateOf(job) {
  const s = short(job.state);
  return el('span', {class: 'state state-' + s}, s);
}
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
  const list = el('ul', {class: 'layers', 'aria-label': 'Layers'});
  for (let i = 0; i < n; ++i) {
    const done = i < Number(p.layersDone), now = !done && i === Number(p.layer);
    list.append(el('li', {class: done ? 'done' : now ? 'now' : '',
      title: 'layer ' + i + (done ? ' done' : now ? ' ' + p.step : '')}, String(i)));
  }
  return list;
}
function poolCard(pool, jobs) {
  const job = jobs.find(j => j.name === pool.job);
  return el('section', {class: 'card', 'aria-label': 'Pool ' + pool.name},
    el('h3', {}, pool.name),
    el('div', {class: pool.connected ? 'dim' : 'bad'}, !pool.connected ? 'connection lost' :
      pool.draining ? 'draining' : pool.job ? 'working' : 'idle'),
    pool.job ? el('div', {}, el('a', {href: '/' + pool.job}, pool.job), ' ',
      job && job.progress ? job.progress.step : '') : null,
    job ? layersOf(job) : null,
    el('ul', {class: 'ranks', 'aria-label': 'Ranks'}, pool.ranks.map(r =>
      el('li', {class: r.silent ? 'bad' : '', title: r.host + ', process ' + r.pid},
        'rank ' + r.rank + ' ' + r.device + ' ' + gib(r.rssBytes) + ' of ' + gib(r.memoryBytes) +
        (r.silent ? ' silent' : '')))));
}
function overview(state) {
  document.title = 'llmc';
  const rows = state.jobs.map(j => el('tr', {},
    el('td', {}, el('a', {href: '/' + j.name}, jobId(j.name))),
    el('td', {}, stateOf(j)),
    el('td', {}, progressOf(j)),
    el('td', {class: 'path opt'}, j.spec.model),
    el('td', {class: 'opt'}, j.submitter),
    el('td', {class: 'opt'}, String(j.priority)),
    el('td', {class: 'opt'}, when(j.createTime))));
  const queued = state.jobs.filter(j => short(j.state) === 'QUEUED').length;
  return [
    el('h2', {}, 'Pools (' + state.pools.length + ')'),
    state.pools.length ? el('div', {class: 'cards'}, state.pools.map(p => poolCard(p, state.jobs)))
      : el('p', {class: 'dim'}, 'No pool is attached.'),
    el('h2', {}, 'Jobs (' + queued + ' queued)'),
    el('div', {class: 'wide'}, el('table', {id: 'jobs'},
      el('thead', {}, el('tr', {}, ['Job', 'State', 'Progress'].map(t => el('th', {}, t)),
        ['Model', 'Submitter', 'Priority', 'Submitted'].map(t => el('th', {class: 'opt'}, t)))),
      el('tbody', {}, rows)))];
}
function stepsOf(events) {
  const last = events.reduce((a, e) => Math.max(a, e.attempt), 0);
  return events.filter(e => e.steps && e.attempt === last).flatMap(e => e.steps.steps);
}
function gantt(steps) {
  const open = new Map(), spans = [];
  for (const s of steps) {
    const key = s.rank + ' ' + s.step + ' ' + s.layer;
    if (s.kind === 'KIND_BEGIN') open.set(key, s.timeSeconds);
    if (s.kind === 'KIND_END' && open.has(key)) {
      spans.push({rank: s.rank, step: s.step, layer: s.layer, from: open.get(key),
        to: s.timeSeconds});
    }
  }
  if (!spans.length) return null;
  const end = Math.max(...spans.map(s => s.to), 1e-9);
  const ranks = [...new Set(spans.map(s => s.rank))].sort((a, b) => a - b);
  const height = ranks.length * 26 + 24;
  const chart = svg('svg', {viewBox: '0 0 800 ' + height, role: 'img', id: 'gantt',
    'aria-label': 'Steps of every rank over time'});
  ranks.forEach((r, i) => chart.append(svg('text', {x: 4, y: i * 26 + 20}, 'rank ' + r)));
  for (const s of spans) {
    chart.append(svg('rect', {class: 's-' + s.step, x: 60 + 730 * s.from / end,
      y: ranks.indexOf(s.rank) * 26 + 6, height: 18,
      width: Math.max(.5, 730 * (s.to - s.from) / end)},
      svg('title', {}, s.step + ' layer ' + s.layer + ': ' + (s.to - s.from).toFixed(2) + ' s')));
  }
  chart.append(svg('text', {x: 60, y: height - 6}, '0 s'),
    svg('text', {x: 790, y: height - 6, 'text-anchor': 'end'}, end.toFixed(1) + ' s'));
  const legend = el('ul', {class: 'ranks', 'aria-label': 'Colours of the steps'},
    [...new Set(spans.map(s => s.step))].map(name => el('li', {}, svg('svg', {viewBox: '0 0 9 9',
      class: 'key', 'aria-label': 'colour'}, svg('rect', {class: 's-' + name, width: 9,
      height: 9})), ' ' + name)));
  return el('div', {}, chart, legend);
}
function errorPlot(steps) {
  const worst = new Map();
  for (const s of steps) {
    if (s.kind !== 'KIND_LINEAR' || s.outputError < 0) continue;
    worst.set(Number(s.layer), Math.max(worst.get(Number(s.layer)) || 0, s.outputError));
  }
  if (!worst.size) return null;
  const top = Math.max(...worst.values(), 1e-12), n = Math.max(...worst.keys()) + 1;
  const chart = svg('svg', {viewBox: '0 0 800 180', role: 'img', id: 'errors',
    'aria-label': 'Largest relative output error of every layer'});
  for (const [layer, error] of worst) {
    const h = 140 * error / top, w = 730 / n;
    chart.append(svg('rect', {class: 'bar', x: 60 + layer * w, y: 154 - h, height: h,
      width: Math.max(1, w - 2)}, svg('title', {}, 'layer ' + layer + ': ' +
      error.toExponential(3))));
  }
  chart.append(svg('text', {x: 4, y: 20}, top.toExponential(1)), svg('text', {x: 4, y: 156}, '0'),
    svg('text', {x: 60, y: 172}, 'layer 0'),
    svg('text', {x: 790, y: 172, 'text-anchor': 'end'}, 'layer ' + (n - 1)));
  return chart;
}
function memoryPlot(steps) {
  const ends = steps.filter(s => Number(s.rssBytes) > 0);
  if (ends.length < 2) return null;
  const top = Math.max(...ends.map(s => Number(s.rssBytes)));
  const end = Math.max(...ends.map(s => s.timeSeconds), 1e-9);
  const chart = svg('svg', {viewBox: '0 0 800 140', role: 'img', id: 'memory',
    'aria-label': 'Resident memory of every rank over time'});
  for (const r of new Set(ends.map(s => s.rank))) {
    const points = ends.filter(s => s.rank === r).map(s =>
      (60 + 730 * s.timeSeconds / end).toFixed(1) + ',' +
      (120 - 100 * Number(s.rssBytes) / top).toFixed(1));
    chart.append(svg('polyline', {class: 'mem', points: points.join(' ')}));
  }
  chart.append(svg('text', {x: 4, y: 24}, gib(top)), svg('text', {x: 4, y: 122}, '0'));
  return chart;
}
function logLine(e) {
  if (e.stateChange) {
    return [when(e.time) + '  ' + short(e.stateChange.from) + ' \u2192 ' +
      short(e.stateChange.to) + '  ' + e.stateChange.reason];
  }
  return e.steps.steps.filter(s => s.kind === 'KIND_WARNING').map(s =>
    when(e.time) + '  rank ' + s.rank + ' ' + s.step + ': ' + s.message);
}
function facts(job) {
  const list = el('dl', {});
  const add = (name, value) => {
    if (value) list.append(el('dt', {}, name), el('dd', {}, value));
  };
  add('State', stateOf(job));
  add('Error', job.error && job.error.message ? job.error.code + ': ' + job.error.message : '');
  add('Model', job.spec.model);
  add('Recipe', job.spec.preset || 'a recipe of ' + (job.spec.recipeText || '').length + ' bytes');
  add('Output', job.spec.output);
  add('Calibration', job.spec.datasets.join(', '));
  add('Pool', job.pool);
  add('Attempt', String(job.attempt));
  add('Submitted', when(job.createTime) + ' by ' + job.submitter);
  add('Started', when(job.startTime));
  add('Ended', when(job.endTime));
  for (const [k, v] of Object.entries(job.labels)) add('Label ' + k, v);
  return list;
}
function partition(job) {
  if (!job.partition) return null;
  return el('div', {class: 'wide'}, el('table', {id: 'partition'},
    el('thead', {}, el('tr', {}, ['Rank', 'Calibration chunks', 'Rows of a layer'].map(t =>
      el('th', {}, t)))),
    el('tbody', {}, job.partition.ranks.map(r => el('tr', {}, el('td', {}, String(r.rank)),
      el('td', {}, r.firstChunk + ', ' + (Number(r.firstChunk) + job.partition.worldSize) +
        ', \u2026'), el('td', {}, String(r.rowsPerLayer)))))));
}
function jobPage(data) {
  const job = data.job, steps = stepsOf(data.events);
  document.title = jobId(job.name) + ' - llmc';
  const part = (title, node) => node ? [el('h2', {}, title), node] : [];
  const log = data.events.flatMap(logLine).slice(-200).join('\n');
  return [el('h2', {}, jobId(job.name)), facts(job),
    data.hasReport ? el('p', {}, el('a', {href: '/' + job.name + '/report'}, 'Report')) : null,
    ...part('Layers', layersOf(job)), ...part('Error by layer', errorPlot(steps)),
    ...part('Steps', gantt(steps)), ...part('Memory', memoryPlot(steps)),
    ...part('Who does what', partition(job)),
    ...part('History', el('pre', {id: 'log', tabindex: '0', 'aria-label': 'History'}, log))
  ].filter(n => n);
}
const main = document.getElementById('main');
const connection = document.getElementById('connection');
let busy = false, again = false;
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const isJob = location.pathname.startsWith('/jobs/');
    const answer = await fetch(isJob ? '/api' + location.pathname : '/api/state');
    if (!answer.ok) throw new Error(await answer.text());
    const data = await answer.json();
    main.replaceChildren(...(isJob ? jobPage(data) : overview(data)));
    connection.textContent = 'live';
  } catch (error) {
    connection.textContent = String(error.message || error);
  }
  main.setAttribute('aria-busy', 'false');
  busy = false;
  if (again) { again = false; refresh(); }
}
const events = new EventSource('/events');
events.onmessage = refresh;
events.onerror = () => { connection.textContent = 'connection lost, trying again'; };
refresh();
)page";
}

}  // namespace llmc
