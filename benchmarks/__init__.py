"""Benchmarks: what a step, a method and a run cost, beside others, and the README's section on
speed written from it.
"""
