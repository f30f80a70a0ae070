"""plot.py: the results that have a target, drawn as one picture."""


def draw(results, path):
    """Horizontal bars on a log axis: how many times better than its target
    each measure is."""
