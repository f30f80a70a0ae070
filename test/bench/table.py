"""table.py: the results as text and as Markdown."""

import math

COLUMNS = ('measure', 'ours', 'peer', 'ratio', 'target', 'verdict')


def number(value):
    """Three figures, and no more digits than that before the point hides."""
    if value is None:
        return ''
    if value == 0:
        return '0'
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    if digits > 6:
        return f'{value:.2g}'
    text = f'{value:,.{digits}f}'
    return text.rstrip('0').rstrip('.') if '.' in text else text


def cells(result):
    """What a line of the table says, by COLUMNS."""
    if 'failed' in result:
        return (result['name'], 'failed', '', '', '', 'failed')
    unit = ' ' + result['unit'] if result['unit'] else ''
    target = result['target']
    if target is None:
        wanted = ''
    elif result['target_kind'] == 'ratio':
        wanted = f"{'≥' if result['better'] == 'higher' else '≤'} {number(target)} ×"
    else:
        wanted = f"{'≤' if result['target_kind'] == 'at most' else '≥'} {number(target)}{unit}"
    peer = ''
    if result['peer'] is not None:
        peer = f"{number(result['peer'])}{unit} ({result['peer_name']})"
    ratio = '' if result['ratio'] is None else f"{number(result['ratio'])} ×"
    verdict = {True: 'pass', False: 'missed', None: ''}[result['passed']]
    return (result['subject'], number(result['ours']) + unit, peer, ratio, wanted, verdict)


def one_line(result):
    """For while it runs."""
    if 'failed' in result:
        return 'failed: ' + result['failed']
    subject, ours, peer, ratio, wanted, verdict = cells(result)
    return ', '.join(filter(None, (
        f'{subject}: {ours}', peer and f'against {peer}', ratio and f'ratio {ratio}',
        wanted and f'target {wanted}', verdict)))


def notes(results):
    """The results' notes, each once, and what a line's number is."""
    texts = []
    numbers = {}
    for index, result in enumerate(results):
        text = result.get('failed') or result.get('note')
        if text:
            if text not in texts:
                texts.append(text)
            numbers[index] = texts.index(text) + 1
    return texts, numbers


def rows(results):
    texts, numbers = notes(results)
    lines = []
    for index, result in enumerate(results):
        line = list(cells(result))
        if index in numbers:
            line[0] += f' [{numbers[index]}]'
        lines.append((result['measure'], line))
    return lines, texts


def summary(results):
    passed = sum(result['passed'] is True for result in results)
    missed = sum(result['passed'] is False and 'failed' not in result for result in results)
    failed = sum('failed' in result for result in results)
    return f'{passed} targets met, {missed} missed, {failed} measures failed'


def as_text(environment, results):
    lines, texts = rows(results)
    widths = [max([len(column)] + [len(line[i]) for _, line in lines])
              for i, column in enumerate(COLUMNS)]
    out = ['  '.join(column.ljust(width) for column, width in zip(COLUMNS, widths)).rstrip(),
           '  '.join('-' * width for width in widths)]
    before = None
    for group, line in lines:
        if before not in (None, group):
            out.append('')
        before = group
        out.append('  '.join(
            cell.ljust(width) if i in (0, 2, 5) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))).rstrip())
    out.append('')
    out += [f'[{i + 1}] {text}' for i, text in enumerate(texts)]
    out.append('')
    out += [f'{name}: {value}' for name, value in environment.items()]
    out += ['', summary(results)]
    return '\n'.join(out)


def as_markdown(environment, results):
    lines, texts = rows(results)

    def row(columns):
        return '| ' + ' | '.join(column.replace('|', '\\|') for column in columns) + ' |'

    out = ['# Benchmark', '', 'Written by `test/bench/run`. ' + summary(results) + '.', '',
           row(COLUMNS), '| --- | ---: | --- | ---: | ---: | --- |']
    before = None
    for group, line in lines:
        if group != before:
            out.append(row((f'**{group}**', '', '', '', '', '')))
        before = group
        out.append(row(line))
    out += ['', 'Medians of interleaved runs; the ratio, ours divided by the peer\'s, is the median of the pairs\'.', '']
    out += [f'- [{i + 1}] {text}' for i, text in enumerate(texts)]
    out += ['', '| | |', '| --- | --- |']
    out += [row((name, value)) for name, value in environment.items()]
    return '\n'.join(out) + '\n'
