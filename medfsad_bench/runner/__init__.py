"""Methods on episodes: training, scoring and what is measured beside it, written into run folders."""
