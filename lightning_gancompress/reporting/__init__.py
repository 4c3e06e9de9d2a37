"""Reports for people: image grids, the HTML page of a run, comparisons of runs."""
