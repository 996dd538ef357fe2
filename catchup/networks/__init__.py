"""The networks of the papers, a family a file; `catchup.models.create` makes them by name."""
