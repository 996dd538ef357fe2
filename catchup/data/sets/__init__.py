"""The data sets by name, each with the reader of its official layout."""
