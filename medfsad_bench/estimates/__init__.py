"""From scores to estimates: the value of every metric of a run with its 95 % interval."""
