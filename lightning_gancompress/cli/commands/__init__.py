"""The commands beside Lightning's, one a file: export, profile, compare, report, push, data, predict and demo."""
