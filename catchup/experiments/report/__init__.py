"""The report: our records beside the printed numbers, cell by cell, with a verdict in words."""
