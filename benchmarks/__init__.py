"""Benchmarks: what a step, a method and a run cost, beside others, and the section
of docs/cost.md on speed written from it.
"""
