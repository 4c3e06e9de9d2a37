"""What people read of results: tables, the page of a run, comparisons of runs."""
