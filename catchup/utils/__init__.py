"""Utilities: files, provenance, threads, text, progress bars, optional packages, and the sentence
for a misspelt name.

Nothing here knows a model, an image or a method.
"""
