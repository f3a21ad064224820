"""The report as a table, a page, and JSON."""
