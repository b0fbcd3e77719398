// What has been seen in the last minute, and what follows from it. Counters only rise; a fall means a new start.

const KEPT_S = 61;
const TIMES = ["request", "queue", "compute", "compute_input", "compute_infer", "compute_output"];
export const RECENT_S = 10;

export class Series {
  documents = [];

  add(document) {
    const last = this.now;
    // The bounds of all histograms are told once.
    for (const model of document.models) {
      for (const name of TIMES) model[name].bounds = document.bounds.seconds;
      model.batch_rows.bounds = document.bounds.rows;
    }
    if (last && document.server.uptime_s < last.server.uptime_s) this.documents = [];
    if (last && document.server.now_s === last.server.now_s) return;
    this.documents.push(document);
    while (document.server.uptime_s - this.documents[0].server.uptime_s > KEPT_S) this.documents.shift();
  }

  get now() {
    return this.documents.at(-1);
  }

  models() {
    return this.now.models;
  }

  // What one model, or all together where `key` is null, did in the last seconds.
  recent(key, seconds = RECENT_S) {
    const end = this.now.server.uptime_s;
    const start = this.documents.find((one) => end - one.server.uptime_s <= seconds + 0.5) ?? this.now;
    return between(start, this.now, key);
  }

  // Requests per second, one figure for each step of the last minute.
  rates(key, read = (span) => span.rate) {
    return this.documents.slice(1).map((document, index) => read(between(this.documents[index], document, key)));
  }
}

export function keyOf(model) {
  return `${model.name}/${model.version}`;
}

function between(start, end, key) {
  const seconds = end.server.uptime_s - start.server.uptime_s;
  const before = new Map(start.models.map((model) => [keyOf(model), model]));
  const span = { seconds, codes: {}, rows: 0, batches: 0, queueRows: 0 };
  for (const model of end.models) {
    if (key !== null && keyOf(model) !== key) continue;
    let then = before.get(keyOf(model));
    if (then && then.rows > model.rows) then = undefined;
    for (const [code, count] of Object.entries(model.codes)) {
      span.codes[code] = (span.codes[code] ?? 0) + count - (then?.codes[code] ?? 0);
    }
    span.rows += model.rows - (then?.rows ?? 0);
    span.batches += model.batches - (then?.batches ?? 0);
    span.queueRows += model.queue_rows;
    for (const name of [...TIMES, "batch_rows"]) {
      span[name] = added(span[name], less(model[name], then?.[name]));
    }
  }
  const { OK: good = 0, ...bad } = span.codes;
  span.failed = Object.values(bad).reduce((sum, count) => sum + count, 0);
  span.requests = good + span.failed;
  span.rate = seconds > 0 ? span.requests / seconds : 0;
  span.failing = seconds > 0 ? span.failed / seconds : 0;
  return span;
}

function less(now, then) {
  if (!then) return now;
  return { bounds: now.bounds, counts: now.counts.map((count, index) => count - then.counts[index]), total: now.total - then.total };
}

function added(one, other) {
  if (!one) return other;
  return { bounds: one.bounds, counts: one.counts.map((count, index) => count + other.counts[index]), total: one.total + other.total };
}

export function observations(histogram) {
  return histogram ? histogram.counts.reduce((sum, count) => sum + count, 0) : 0;
}

export function mean(histogram) {
  const count = observations(histogram);
  return count ? histogram.total / count : null;
}

// Between the bounds of its bucket, in proportion; above the last bound, that bound. null where nothing was seen.
export function quantile(histogram, share) {
  const count = observations(histogram);
  if (!count) return null;
  let rank = share * count;
  for (const [index, here] of histogram.counts.entries()) {
    if (rank <= here && here) {
      const low = index ? histogram.bounds[index - 1] : 0;
      const high = histogram.bounds[index] ?? low;
      return low + (high - low) * (rank / here);
    }
    rank -= here;
  }
  return histogram.bounds.at(-1);
}

// --- figures for people: a number and its unit ---

export function duration(seconds) {
  if (seconds === null) return ["–", ""];
  if (seconds < 0.001) return [rounded(seconds * 1e6), "µs"];
  if (seconds < 1) return [rounded(seconds * 1e3), "ms"];
  return [rounded(seconds), "s"];
}

export function rounded(number) {
  if (number === null) return "–";
  if (number >= 100 || number === 0) return Math.round(number).toLocaleString("en");
  return number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

export function since(seconds) {
  if (seconds < 90) return `${Math.max(Math.round(seconds), 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1048576 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1048576).toFixed(1)} MiB`;
}
