"""Cards: plain functions from stored values to a figure, one under each slider of the widgets."""
