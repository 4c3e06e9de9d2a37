"""The commands beside Lightning's, one a file: export, profile, compare, report, data and demo."""
