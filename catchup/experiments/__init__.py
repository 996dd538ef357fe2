"""Experiments: many runs, trained, evaluated and compared on equal terms.

`evaluation` makes one evaluation object of a run, `compare` and `planning` fill a folder with
paired runs, `engines/` say where they are done, `background_bias` and `follow_filters` are the
causal test, `live` a run that can be watched, `demo` the first thing a newcomer sees, `report/` our
records beside the printed numbers.
"""
