"""Whatever a platform asks of the training: devices, precision, processes, signals, and ways around
their errors.
"""
