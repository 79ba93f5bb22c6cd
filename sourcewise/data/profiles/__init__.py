"""What a training set looks like, kept beside a run, so that any later set can be held against it."""
