"""plot.py: the results that have a target, drawn as one picture."""

import matplotlib

matplotlib.use('svg')
matplotlib.rcParams['svg.hashsalt'] = 'benchmark'       # the same results, the same file
import matplotlib.pyplot as plt                         # noqa: E402  after use()

import table                                            # noqa: E402

COLOUR = {True: '#2f7d4f', False: '#b3372f'}
# Bars beyond are cut: the text beside them says how far they would go.
LEAST, MOST = 0.1, 30


def margin(result):
    """How many times better than its target, or None where there is no such
    number: no target, or one of zero."""
    if result.get('target') is None:
        return None
    value = result['ratio'] if result['target_kind'] == 'ratio' else result['ours']
    if not value or value < 0 or result['target'] <= 0:
        return None
    more_is_better = result['target_kind'] == 'at least' or (
        result['target_kind'] == 'ratio' and result['better'] == 'higher')
    return value / result['target'] if more_is_better else result['target'] / value


def label(result):
    """The measured value, whatever it is a ratio to, and the target."""
    _, ours, _, ratio, wanted, _ = table.cells(result)
    if result['target_kind'] == 'ratio':
        return f"{ratio} {result['peer_name']} (target {wanted})"
    return f'{ours} (target {wanted})'


def draw(results, path):
    """Horizontal bars on a log axis: how many times better than its target
    each measure is. What misses its target goes to the left."""
    drawn = [(result, margin(result)) for result in results]
    drawn = [(result, value) for result, value in drawn if value is not None]
    if not drawn:
        return
    figure, axes = plt.subplots(figsize=(13, 0.9 + 0.36 * len(drawn)), layout='constrained')
    figure.patch.set_facecolor('white')         # it has to be read on a dark page, too
    axes.set_facecolor('white')
    for position, (result, value) in enumerate(drawn):
        end = min(max(value, LEAST), MOST)
        axes.barh(position, end - 1, left=1, height=0.62, color=COLOUR[result['passed']])
        axes.annotate(label(result), (max(end, 1), position), xytext=(5, 0),
                      textcoords='offset points', va='center', fontsize=8, color='#222222')
    axes.axvline(1, color='#222222', linewidth=1)
    axes.set_xscale('log')
    axes.set_xlim(LEAST if min(value for _, value in drawn) < 0.5 else 0.5, MOST * 40)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if tick >= axes.get_xlim()[0]]
    axes.set_xticks(ticks, [f'{tick:g} ×' for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(drawn)), [result['subject'] for result, _ in drawn], fontsize=8)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel('how many times better than the target', loc='left')
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)
