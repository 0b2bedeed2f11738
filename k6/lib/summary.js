// One line for each metric, in the place of k6's summary library: enough to see what a run measured.

export function textSummary(data) {
  const lines = Object.keys(data.metrics)
    .sort()
    .map((name) => {
      const metric = data.metrics[name];
      const values = Object.entries(metric.values).sort().map(([key, value]) => `${key}=${Number.isInteger(value) ? value : value.toFixed(3)}`);
      const failed = Object.values(metric.thresholds || {}).some((threshold) => !threshold.ok);
      return `${failed ? "✗" : " "} ${name.padEnd(44, ".")} ${values.join(" ")}`;
    });
  return `${lines.join("\n")}\n`;
}
