"""The stage that computes: methods on episodes of prepared sets, scores and rows into run folders."""
