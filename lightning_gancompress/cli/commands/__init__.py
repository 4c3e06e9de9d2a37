"""The commands beside those that Lightning has, one a file; and `predict` without a run."""
