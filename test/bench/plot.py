#!/usr/bin/python3
"""plot.py: the picture of doc/performance.md, of what a user would compare.

    test/bench/plot.py [RESULTS.json [PICTURE.svg]]

Bars on scales that begin at zero, the numbers beside them. A bar that would
not fit is cut and says so by a gap. The picture has its own ground, so that it
can be read on a page of any colour.
"""

import json
import os
import sys
from html import escape

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = 'postmark_connector'

# measure, what the reader would pick
SPEED = [('drain_graphile_batches', 'graphile-worker, 500 a job, keeps nothing'),
         ('drain_graphile_records', 'graphile-worker, 500 a job, keeps a row each'),
         ('drain_graphile_jobs', 'graphile-worker, a job a mail'),
         ('drain_pg_boss', 'pg-boss, batches of 500'),
         ('drain_logto', 'Logto’s connector, 16 in flight'),
         ('drain_pg_net', 'pg_net')]
LATENCY = [('latency_graphile_worker', 'graphile-worker, woken by NOTIFY'),
           ('latency_pg_boss', 'pg-boss, looks every 2 s')]

WIDTH, MARGIN = 800, 24
LABELS = 352                # the bars begin right of them
NUMBERS = 84                # what the longest number needs behind its bar
ROW, BAR = 28, 18

STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de; }
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .how { fill: #59636e; }
  .ours { font-weight: 600; }
  .bar { fill: #9aa4af; }
  .bar.ours { fill: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d; }
    text { fill: #e6edf3; }
    .how { fill: #9198a1; }
    .bar { fill: #6e7681; }
    .bar.ours { fill: #3fb950; }
  }
"""


def bar(y, label, value, unit, length, cut, ours):
    """One row: label, bar of a length in pixels, number."""
    kind = ' ours' if ours else ''
    parts = [f'<text class="{kind.strip()}" x="{LABELS - 12}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
             f'<rect class="bar{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>']
    if cut:
        x = LABELS + length - 34
        parts.append(f'<path class="ground" style="stroke: none" d="M{x:.1f} {y + BAR + 1} l6 -{BAR + 2} h7 l-6 {BAR + 2} z"/>')
    number = f'{value:,.0f}' if value >= 100 else f'{value:.1f}'
    parts.append(f'<text class="{kind.strip()}" x="{LABELS + length + 8:.1f}" y="{y + 14}">{number}{unit}</text>')
    return parts


def panel(y, title, how, rows, unit, longest):
    """A title and its bars; longest is the value that fills the width."""
    room = WIDTH - LABELS - MARGIN - NUMBERS
    parts = [f'<text class="title" x="{MARGIN}" y="{y + 14}">{escape(title)}</text>',
             f'<text class="how" x="{WIDTH - MARGIN}" y="{y + 14}" text-anchor="end">{escape(how)}</text>']
    y += 34
    for label, value in rows:
        length = min(room, max(2, room * value / longest))
        parts += bar(y, label, value, unit, length, value > longest, label == OURS)
        y += ROW
    return parts, y


def picture(results):
    """The SVG's text, or None where something it shows was not measured."""
    by_name = {result['name']: result for result in results if result.get('ours') is not None}
    needed = [name for name, _ in SPEED + LATENCY] + ['latency_p50']
    if any(name not in by_name for name in needed):
        return None

    speed = [(OURS, by_name[SPEED[0][0]]['ours'])]
    speed += [(label, by_name[name]['peer']) for name, label in SPEED]
    latency = [(OURS, by_name['latency_p50']['ours'])]
    latency += [(label, by_name[name]['ours']) for name, label in LATENCY]

    upper, y = panel(MARGIN, 'Mails a second', 'longer is better', speed, '',
                     max(value for _, value in speed))
    lower, y = panel(y + 20, 'From COMMIT to the request, in ms', 'shorter is better', latency, ' ms',
                     2 * latency[1][1])
    height = y + MARGIN - (ROW - BAR)
    said = '; '.join(f'{label} {value:,.0f}' for label, value in speed)
    said += '. COMMIT to request: ' + '; '.join(f'{label} {value:.1f} ms' for label, value in latency)
    return '\n'.join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
         'role="img">', f'<title>Mails a second: {escape(said)}</title>', f'<style>{STYLE}</style>',
         f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>']
        + upper + lower + ['</svg>', ''])


def main():
    given = sys.argv[1:] + [os.path.join(HERE, 'results', 'results.json'),
                            os.path.join(HERE, '..', '..', 'doc', 'performance.svg')][len(sys.argv) - 1:]
    with open(given[0], encoding='utf-8') as file:
        drawn = picture(json.load(file)['results'])
    if drawn is None:
        sys.exit(f'{given[0]} has not all of what the picture shows')
    with open(given[1], 'w', encoding='utf-8') as file:
        file.write(drawn)


if __name__ == '__main__':
    main()
