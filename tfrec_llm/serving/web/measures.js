// Reads the measures of the server in Prometheus' form, and what happened between two readings.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// Looking at the measures is no request of the shop.
const ASKED = ["/v1/recommend", "/v1/score", "/v1/events"];

export function read(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!parts) continue;
    const labels = Object.fromEntries([...(parts[2] ?? "").matchAll(LABEL)].map((m) => [m[1], m[2]]));
    samples.push({ name: parts[1], labels, value: Number(parts[3]) });
  }
  const sum = (name, fits = () => true) =>
    samples
      .filter((one) => one.name === name && fits(one.labels))
      .reduce((total, one) => total + one.value, 0);
  const asked = (labels) => ASKED.includes(labels.route);
  const buckets = new Map();
  for (const { name, labels, value } of samples) {
    if (name !== "tfrec_request_duration_seconds_bucket" || !asked(labels)) continue;
    const end = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(end, (buckets.get(end) ?? 0) + value);
  }
  return {
    requests: sum("tfrec_request_duration_seconds_count", asked),
    buckets: [...buckets].sort((a, b) => a[0] - b[0]),
    lists: sum("tfrec_recommendations_total"),
    by_the_model: sum("tfrec_recommendations_total", (labels) => labels.source === "model"),
    events: sum("tfrec_events_total", (labels) => labels.outcome === "accepted"),
    calls: sum("tfrec_batch_size_count"),
    batched: sum("tfrec_batch_size_sum"),
  };
}

// The time within which a share of the requests were answered, in seconds: the end of the bucket.
export function within(share, { buckets, requests }) {
  return buckets.find(([, count]) => count >= share * requests)?.[0] ?? NaN;
}
