"""bench.py: runs the measures that test/bench/run prepared everything for,
and shows what came out.

The exit status is 0 only if all that was measured met its target.
"""

import argparse
import ast
import glob
import importlib
import json
import os
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))


def listed():
    """(order, name, what) of each measure, read from the sources alone: --list
    is for a machine on which nothing is installed yet."""
    found = []
    for path in sorted(glob.glob(os.path.join(HERE, 'measures', '*.py'))):
        with open(path, encoding='utf-8') as file:
            tree = ast.parse(file.read())
        for function in tree.body:
            for call in getattr(function, 'decorator_list', ()):
                if isinstance(call, ast.Call) and getattr(call.func, 'id', None) == 'measure':
                    name, what = (ast.literal_eval(arg) for arg in call.args)
                    order = [ast.literal_eval(word.value) for word in call.keywords
                             if word.arg == 'order']
                    found.append((order[0] if order else 100, name, what))
    return sorted(found)


def arguments():
    names = [name for _, name, _ in listed()]
    parser = argparse.ArgumentParser()
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--pairs', type=int)
    parser.add_argument('--check', action='store_true', help='the arguments, and no more')
    for name in ('url', 'bindir', 'data', 'socket-dir', 'tools', 'scratch', 'out', 'commit'):
        parser.add_argument('--' + name)
    parser.add_argument('measure', nargs='*')
    args = parser.parse_args()
    for name in args.measure:
        if name not in names:
            parser.error(f'there is no measure {name}; there are {", ".join(names)}')
    if args.pairs is None:
        args.pairs = 3 if args.quick else 5
    if args.pairs < 1:
        parser.error('--pairs must be at least 1')
    return args


def run(bench, chosen):
    """Run the measures one after another, each whatever became of the others."""
    for measure in chosen:
        print(f'\n{measure.name}: {measure.what}', flush=True)
        bench.measure = measure.name
        begun = time.monotonic()
        shown = len(bench.results)
        try:
            bench.clean()
            measure.run(bench)
            bench.clean()
        except Exception as error:      # whatever it was, the others go on
            traceback.print_exc(file=sys.stdout)
            bench.failed(f'{type(error).__name__}: {error}')
        for result in bench.results[shown:]:
            print('   ' + table.one_line(result), flush=True)
        print(f'   ({time.monotonic() - begun:.0f} s)', flush=True)
    try:
        bench.clean()
    except Exception:                   # the results are there all the same
        traceback.print_exc(file=sys.stdout)


def main():
    args = arguments()
    if args.list:
        for _, name, what in listed():
            print(f'  {name:<16} {what}')
        return 0
    if args.check:
        return 0

    for path in sorted(glob.glob(os.path.join(HERE, 'measures', '*.py'))):
        importlib.import_module('measures.' + os.path.basename(path)[:-3])
    chosen = [measure for measure in sorted(harness.MEASURES, key=lambda m: (m.order, m.name))
              if not args.measure or measure.name in args.measure]
    bench = harness.Bench(args.url, args.bindir, args.data, args.socket_dir, args.tools,
                          args.scratch, args.pairs, args.quick)
    environment = machine.describe(bench, args)
    run(bench, chosen)

    text = table.as_text(environment, bench.results)
    print('\n' + text, flush=True)
    os.mkdir(args.out)
    with open(os.path.join(args.out, 'results.json'), 'w', encoding='utf-8') as file:
        json.dump({'environment': environment, 'results': bench.results}, file, indent=1)
    with open(os.path.join(args.out, 'results.md'), 'w', encoding='utf-8') as file:
        file.write(table.as_markdown(environment, bench.results))
    return 0 if all(result['passed'] is not False for result in bench.results) else 1


if __name__ == '__main__':
    if not {'--list', '--check'} & set(sys.argv):
        import harness
        import machine
        import table
    sys.exit(main())
