"""Learning, judging and publishing: a corpus becomes a run, a run becomes figures and vectors in a store."""
