"""Speed, as ratios within one run.

``python -m benchmarks.speed.NAME`` writes ``benchmarks/results/speed-NAME-<date>.json`` and, where there is something
to see, ``docs/assets/speed-NAME.png``.
"""
