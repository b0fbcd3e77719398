"""How a page looks: by day, by night, on a phone and on paper."""

# Blue and orange differ for every kind of colour blindness; the steps differ in lightness, so they also survive a
# black and white printer. On a dark page the order of lightness is reversed: more load always stands out more.
_LIGHT = """
  color-scheme: light; --paper: #ffffff; --raised: #f5f6f8; --ink: #1a1d23; --muted: #5b626e; --grid: #e4e7ec;
  --median: #0072b2; --tail: #d55e00; --bad: #b3202c; --bad-paper: #fdeeee; --note-paper: #eef5fb; --shade: #eceef2;
  --step0: #e89a3c; --step1: #dd6a52; --step2: #c23f7c; --step3: #8f2a95; --step4: #562590; --step5: #17125e;
"""
_DARK = """
  color-scheme: dark; --paper: #14171c; --raised: #1d2128; --ink: #e8eaed; --muted: #a0a8b4; --grid: #2d323b;
  --median: #56b4e9; --tail: #f0913d; --bad: #ff7b7b; --bad-paper: #3a1d20; --note-paper: #172a3a; --shade: #242932;
  --step0: #7a5cd6; --step1: #b055c4; --step2: #dd5f9d; --step3: #f28b6c; --step4: #f8bb5f; --step5: #f6efa4;
"""
_RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 24px 20px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 8px; }
p { margin: 0 0 8px; }
.muted, figcaption { color: var(--muted); }
.subtitle { color: var(--muted); overflow-wrap: anywhere; margin-bottom: 16px; }
.notice { border-left: 4px solid var(--median); background: var(--note-paper); padding: 8px 12px; margin: 8px 0;
  border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
.notice.bad { border-color: var(--bad); background: var(--bad-paper); }
.notice.bad strong, td.bad { color: var(--bad); font-weight: 700; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 8px 0 16px; }
.tile { background: var(--raised); border-radius: 8px; padding: 10px 12px;
  display: flex; flex-direction: column; justify-content: space-between; flex: 1 1 118px; max-width: 260px; }
.tile .name { color: var(--muted); font-size: 13px; line-height: 1.3; }
.tile .figure { font-size: 22px; font-weight: 600; line-height: 1.3; white-space: nowrap; }
.tile .figure.bad { color: var(--bad); }
figure { margin: 0; }
figcaption { font-size: 13px; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
svg text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.narrow { display: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; }
tbody th { color: var(--ink); position: sticky; left: 0; background: var(--paper); }
tr.knee th, tr.knee td { background: var(--note-paper); font-weight: 600; }
td.words { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 240px; }
th.words { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--raised); border-radius: 8px; padding: 10px 14px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, "Liberation Mono", monospace; margin: 8px 0 16px; }
@media (max-width: 700px) {
  body { padding: 16px 14px 32px; }
  .wide { display: none; } .narrow { display: block; }
  .tile { flex-basis: calc(50% - 5px); }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 12px; }
  .wide { display: block; } .narrow { display: none; }
  figure, tr, .notice, .tile { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 10px; } th, td { padding: 3px 5px; }
  .tile, .notice, pre { border: 1px solid var(--grid); }
}
"""

CSS = f""":root {{{_LIGHT}}}
@media screen and (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}
{_RULES}"""
